//! The whole service on free ports, and raw bytes to knock at its door with.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kitepush::app::{Application, Rooms};
use kitepush::config::Config;
use kitepush::health::Health;
use kitepush::metrics::own::Own;
use kitepush::webhook::signature::sign;
use tokio::sync::oneshot;

/// Longer than anything takes that works.
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) const SECRET: &str = "a webhook token for tests";

/// A body that is accepted.
pub(crate) const PING: &[u8] = include_bytes!("../../../webhook-fixtures/ping.json");

/// Plain HTTP on free loopback ports, one inline secret, nothing kept, nobody pushed to.
pub(crate) fn config() -> Config {
    let mut config = Config::default();
    config.server.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    config.server.workers = 1;
    config.admin.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    config.auth.secret_files = Vec::new();
    config.auth.secrets = vec![SECRET.into()];
    config
}

/// A service that runs until it is stopped.
pub(crate) struct Service {
    pub(crate) webhook: SocketAddr,
    pub(crate) admin: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    hurry: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Service {
    pub(crate) fn start(config: Config) -> Self {
        Self::try_start(config, |_| {}).unwrap()
    }

    /// `furnish` may change the rooms before the door opens.
    pub(crate) fn try_start(config: Config, furnish: impl FnOnce(&mut Rooms) + Send + 'static) -> anyhow::Result<Self> {
        // The first test installs it.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (stop, stopped) = oneshot::channel();
        let (hurry, hurried) = oneshot::channel();
        let (started, start) = channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let own = Arc::new(Own::new("test", "test"));
                let health = Arc::new(Health::default());
                let application = async {
                    let mut rooms = Rooms::open(&config, &own, &health)?;
                    furnish(&mut rooms);
                    Application::assemble(&config, own, health, rooms).await
                };
                match application.await {
                    Ok(application) => {
                        started.send(Ok((application.webhook_address(), application.admin_address()))).unwrap();
                        // A sender that is dropped says the same as one that sends.
                        let told = |told: oneshot::Receiver<()>| async { drop(told.await) };
                        application.run(told(stopped), told(hurried)).await
                    }
                    Err(error) => {
                        started.send(Err(error)).unwrap();
                        Ok(())
                    }
                }
            })
        });
        let (webhook, admin) = start.recv().unwrap()?;
        Ok(Self { webhook, admin, stop: Some(stop), hurry: Some(hurry), thread: Some(thread) })
    }

    /// Tells it to stop, as SIGTERM does.
    pub(crate) fn tell(&mut self) {
        self.stop.take();
    }

    /// Tells it again.
    pub(crate) fn tell_again(&mut self) {
        self.hurry.take();
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> anyhow::Result<()> {
        self.stop.take();
        self.thread.take().unwrap().join().unwrap()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// A delivery as Buildkite makes it.
    pub(crate) fn deliver(&self, body: &[u8]) -> Answer {
        exchange(self.webhook, &post(&[("X-Buildkite-Signature", &signed(body))], body))
    }

    /// From the admin listener.
    pub(crate) fn ask(&self, path: &str) -> Answer {
        exchange(self.admin, format!("GET {path} HTTP/1.1\r\nHost: admin\r\n\r\n").as_bytes())
    }

    /// The value of one series of `/metrics`.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let text = self.ask("/metrics").body;
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in {text}")).parse().unwrap()
    }

    pub(crate) fn rejections(&self, reason: &str) -> f64 {
        self.metric(&format!("kitepush_webhook_rejections_total{{reason=\"{reason}\"}}"))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.take();
        self.hurry.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The signature of now.
pub(crate) fn signed(body: &[u8]) -> String {
    sign(SECRET.as_bytes(), now(), body)
}

pub(crate) fn now() -> i64 {
    kitepush::event::Timestamp::now().as_millis() / 1000
}

/// A `POST /webhook` as bytes.
pub(crate) fn post(headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("POST /webhook HTTP/1.1\r\nHost: door\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

/// An answer as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The `error` of the JSON.
    pub(crate) fn code(&self) -> String {
        let json: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"));
        json["error"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (known, value) = line.split_once(": ")?;
            known.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket.set_nodelay(true).unwrap();
    socket
}

/// Sends and reads to the end of the connection.
pub(crate) fn exchange(address: SocketAddr, request: &[u8]) -> Answer {
    let mut socket = connect(address);
    // Who is refused while sending gets its answer all the same.
    let _ = socket.write_all(request);
    answer(&mut socket)
}

/// Reads to the end of the connection.
pub(crate) fn answer(socket: &mut impl Read) -> Answer {
    let mut bytes = Vec::new();
    let read = socket.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).unwrap();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { panic!("{read:?}, no answer: {text:?}") };
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// Whether the other side closes within `limit`; whatever it sends before is passed over.
pub(crate) fn closes_within(socket: &mut TcpStream, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    let mut buffer = [0; 4096];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        socket.set_read_timeout(Some(left)).unwrap();
        match socket.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return true,
            Err(_) => return false,
        }
    }
}

/// Says that nothing more comes.
pub(crate) fn finish(socket: &TcpStream) {
    socket.shutdown(Shutdown::Write).unwrap();
}
