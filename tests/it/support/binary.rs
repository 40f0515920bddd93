//! The program itself as a child of a test: its own configuration file, free ports, its log, its memory.

use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::service::{Answer, exchange, now, post};

/// Longer than any start or stop takes.
const LIMIT: Duration = Duration::from_secs(60);

/// A running kitepush.
pub(crate) struct Binary {
    child: Child,
    pub(crate) webhook: SocketAddr,
    pub(crate) admin: SocketAddr,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

/// A command of the program.
pub(crate) fn kitepush(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kitepush"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A directory with `kitepush.yaml` in it; `server.listen` and `admin.listen` should have port 0.
pub(crate) fn configured(yaml: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("kitepush.yaml"), yaml).unwrap();
    directory
}

impl Binary {
    /// `serve` with the `kitepush.yaml` of a directory; waits until it serves.
    pub(crate) fn serve(directory: &Path) -> Self {
        let file = directory.join("kitepush.yaml");
        let mut child = kitepush(&["serve", "--config", file.to_str().unwrap()]).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Mutex::new(String::new()));
        let mut addresses = Vec::new();
        while addresses.len() < 2 {
            let mut line = String::new();
            assert!(lines.read_line(&mut line).unwrap() > 0, "it ended: {}", log.lock().unwrap());
            if line.contains("serving") {
                let words = line.split(|c: char| !c.is_ascii_digit() && c != '.' && c != ':');
                addresses = words.filter_map(|word| word.parse().ok()).collect();
            }
            log.lock().unwrap().push_str(&line);
        }
        let written = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|read| read > 0) {
                written.lock().unwrap().push_str(&line);
                line.clear();
            }
        });
        Self { child, webhook: addresses[0], admin: addresses[1], log, reader: Some(reader) }
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// From the admin listener.
    pub(crate) fn ask(&self, path: &str) -> Answer {
        exchange(self.admin, format!("GET {path} HTTP/1.1\r\nHost: admin\r\n\r\n").as_bytes())
    }

    /// The sum of all series of `/metrics` whose line begins so.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let text = self.ask("/metrics").body;
        let values = text.lines().filter(|line| line.starts_with(series));
        values.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// A delivery signed with `secret` at this moment.
    pub(crate) fn deliver(&self, secret: &str, body: &[u8]) -> Answer {
        let signature = kitepush::webhook::signature::sign(secret.as_bytes(), now(), body);
        exchange(self.webhook, &post(&[("X-Buildkite-Signature", &signature)], body))
    }

    /// The most memory that it ever had, in KiB.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// SIGTERM; the whole log once it has ended well.
    pub(crate) fn stop(mut self) -> String {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let began = Instant::now();
        let ended = super::eventually("the program to end", LIMIT, || self.child.try_wait().unwrap());
        self.reader.take().unwrap().join().unwrap();
        assert!(ended.success(), "{ended} after {:?}: {}", began.elapsed(), self.log());
        self.log()
    }
}

impl Drop for Binary {
    /// `kill -9`, of this child only, when a test failed.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection from another address of this machine: all of 127.0.0.0/8 is.
pub(crate) fn connect_from(source: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(IpAddr::V4(source), 0))?;
        socket.connect(to).await?.into_std()
    })?;
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    Ok(stream)
}
