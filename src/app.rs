//! The whole service: its parts wired together, started, and stopped in order under one deadline.

mod rooms;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::App;
use actix_web::web::{Data, to};
use anyhow::{Context as _, anyhow};
use tokio::net::TcpSocket;
use tokio::time::sleep;

use crate::admin::{self, Access, Admin, Scrape};
use crate::config::Config;
use crate::health::{Health, Stage};
use crate::ledger::Ledger;
use crate::listener::{self, Bounds, Connections, Fault, Listening, Metrics, Settings};
use crate::metrics::own::{Own, Rejection};
use crate::reload::{Look, Reloader};
use crate::tls::{ServerCertificate, register_reloads};
use crate::webhook::body::Room;
use crate::webhook::door::Door;
use crate::webhook::door::meta::Follower;
use crate::webhook::door::sources::Sources;
use crate::webhook::handler::{self, Webhook};
use crate::webhook::payload::Extract;
use crate::webhook::reasons::ReasonLog;
use crate::webhook::secrets::Secrets;

/// Connections that the kernel holds ready to be accepted.
const BACKLOG: u32 = 1024;
/// From the whole body to the end of the connection: the ledger's four seconds, the answer, and a moment to read it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// For the head of an admin request, and for a large scrape to a slow reader.
const ADMIN_TIMEOUTS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// The admin listener is not for the public.
const ADMIN_CONNECTIONS: usize = 128;
/// Open files beside the connections: database, gateway, certificates, logs.
const OTHER_FILES: u64 = 256;

/// What happens after the last delivery was answered: commit, final push. Returns by the deadline, whatever hangs.
pub type Ending = Box<dyn FnOnce(Instant) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// The rooms behind the door: what counts and what pushes.
pub struct Rooms {
    /// Counts.
    pub ledger: Ledger,
    /// Whether its queue is full.
    pub queue_full: Box<dyn Fn() -> bool + Send + Sync>,
    /// What the configuration reads from bodies.
    pub extract: Extract,
    /// What `/metrics` of the admin listener serves.
    pub scrape: Arc<dyn Scrape>,
    /// Called last.
    pub ending: Ending,
    /// Where Buildkite publishes its addresses.
    pub meta_url: String,
}

/// The service, serving since it was built.
pub struct Application {
    webhook: Listening,
    admin: Listening,
    health: Arc<Health>,
    ending: Ending,
    shutdown_delay: Duration,
    shutdown_timeout: Duration,
    _reloader: Reloader,
}

impl Application {
    /// Reads the files that the configuration names, opens the rooms and both listeners. Call it within a Tokio runtime.
    ///
    /// # Errors
    ///
    /// When something that is needed cannot be had; says which key names it.
    pub async fn build(config: &Config) -> anyhow::Result<Self> {
        let own = Arc::new(Own::new(crate::VERSION, crate::REVISION));
        let health = Arc::new(Health::default());
        let rooms = Rooms::open(config, &own, &health)?;
        Self::assemble(config, own, health, rooms).await
    }

    /// As [`Self::build`], with rooms that somebody else opened.
    ///
    /// # Errors
    ///
    /// See [`Self::build`].
    pub async fn assemble(config: &Config, own: Arc<Own>, health: Arc<Health>, rooms: Rooms) -> anyhow::Result<Self> {
        allow_open_files(config.server.max_connections);
        let server = &config.server;
        let reloads = register_reloads(&own)?;
        let certificate = |files: &Option<_>, listener| {
            let load = |files| ServerCertificate::load(files, listener, reloads.clone(), Arc::clone(&health));
            files.clone().map(load).transpose().with_context(|| format!("{listener}.tls")).map(|tls| tls.map(Arc::new))
        };
        let server_tls = certificate(&server.tls, "server")?;
        let admin_tls = certificate(&config.admin.tls, "admin")?;
        let secrets = Secrets::load(config.auth.clone(), Arc::clone(&own), Arc::clone(&health));
        let secrets = Arc::new(secrets.map_err(|problem| anyhow!("{problem}"))?);

        let sources = Arc::new(Sources::new(&server.allowed_sources));
        if sources.follow_buildkite() {
            let state = config.state.path.as_deref();
            let follower = Follower::new(Arc::clone(&sources), Arc::clone(&health), &rooms.meta_url, state)?;
            let pause = follower.start().await;
            // Ends with the runtime.
            tokio::spawn(follower.follow(pause));
        }

        let webhook = Data::new(Webhook {
            path: server.path.clone(),
            mode: config.auth.mode,
            tolerance: config.auth.tolerance,
            read_timeout: server.read_timeout,
            extract: rooms.extract,
            secrets: Arc::clone(&secrets),
            door: Door::new(server.trusted_proxies.clone(), sources),
            room: Room::new(server.max_body_bytes),
            ledger: rooms.ledger,
            own: Arc::clone(&own),
            reasons: ReasonLog::default(),
        });
        let admin = Data::new(Admin {
            access: Access::new(config.admin.auth.as_ref()).context("admin.auth.bearer_token_file")?,
            scrape: rooms.scrape,
            own: Arc::clone(&own),
            health: Arc::clone(&health),
            queue_full: rooms.queue_full,
        });

        let mut looks: Vec<Look> = Vec::new();
        looks.push(Box::new(move || secrets.look_again()));
        for certificate in [&server_tls, &admin_tls].into_iter().flatten() {
            let certificate = Arc::clone(certificate);
            looks.push(Box::new(move || certificate.look_again()));
        }
        let access = admin.clone();
        looks.push(Box::new(move || access.access.look_again()));
        let reloader = Reloader::start(looks).context("cannot start the thread that re-reads files")?;

        let webhook_socket = bind(server.listen).with_context(|| format!("server.listen: {}", server.listen))?;
        let admin_socket =
            bind(config.admin.listen).with_context(|| format!("admin.listen: {}", config.admin.listen))?;
        let bounds = Bounds {
            total: server.max_connections,
            per_sender: server.max_connections_per_address,
            trusted_proxies: server.trusted_proxies.clone(),
        };
        let faults = Arc::clone(&own);
        let webhook = listener::serve(
            webhook_socket,
            Settings {
                workers: server.workers,
                read_timeout: server.read_timeout,
                answer_timeout: ANSWER_TIMEOUT,
                tls: server_tls,
                on_fault: Arc::new(move |fault| {
                    faults.rejection(match fault {
                        Fault::SlowHead => Rejection::Timeout,
                        Fault::MalformedHead => Rejection::BodyMalformed,
                    });
                }),
            },
            Arc::new(Connections::new(bounds, Metrics::register(&own)?)),
            move || App::new().app_data(webhook.clone()).default_service(to(handler::answer)),
        )?;
        let (read_timeout, answer_timeout) = ADMIN_TIMEOUTS;
        let bounds = Bounds { total: ADMIN_CONNECTIONS, per_sender: ADMIN_CONNECTIONS, trusted_proxies: Vec::new() };
        let admin = listener::serve(
            admin_socket,
            Settings { workers: 1, read_timeout, answer_timeout, tls: admin_tls, on_fault: Arc::new(|_| {}) },
            Arc::new(Connections::new(bounds, Metrics::unregistered()?)),
            move || App::new().app_data(admin.clone()).default_service(to(admin::answer)),
        )?;
        health.enter(Stage::Serving);
        tracing::info!(webhook = %webhook.address(), admin = %admin.address(), "serving");
        Ok(Self {
            webhook,
            admin,
            health,
            ending: rooms.ending,
            shutdown_delay: server.shutdown_delay,
            shutdown_timeout: server.shutdown_timeout,
            _reloader: reloader,
        })
    }

    /// Where webhooks are taken; the port is a real one.
    pub const fn webhook_address(&self) -> SocketAddr {
        self.webhook.address()
    }

    /// Where `/metrics`, `/healthz` and `/readyz` are; the port is a real one.
    pub const fn admin_address(&self) -> SocketAddr {
        self.admin.address()
    }

    /// Serves until `stop`, then ends in order: readiness 503 for `shutdown_delay`, or until `hurry`; accept nothing
    /// more; drain; commit; final push; the admin listener last.
    ///
    /// # Errors
    ///
    /// When a listener failed. A final push that failed is no error: it is logged.
    pub async fn run(mut self, stop: impl Future<Output = ()>, hurry: impl Future<Output = ()>) -> anyhow::Result<()> {
        let failure = tokio::select! {
            () = stop => None,
            error = self.webhook.failed() => Some(error),
            error = self.admin.failed() => Some(error),
        };
        self.health.enter(Stage::Stopping);
        let [delay, timeout] = [self.shutdown_delay, self.shutdown_timeout].map(humantime::format_duration);
        tracing::info!(%delay, %timeout, "stopping");
        tokio::select! {
            () = sleep(self.shutdown_delay) => {}
            () = hurry => {}
        }
        let start = Instant::now();
        let end = start + self.shutdown_timeout;
        // A good delivery takes milliseconds. Who needs longer than half of the time must not cost us the final push.
        self.webhook.stop(start + self.shutdown_timeout / 2, start + self.shutdown_timeout * 3 / 4).await;
        (self.ending)(end).await;
        let now = Instant::now();
        self.admin.stop(now, now).await;
        tracing::info!(seconds = start.elapsed().as_secs_f64(), "stopped");
        failure.map_or(Ok(()), |error| Err(error).context("a listener failed"))
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

/// Many systems give a process 1024 open files and let it ask for more.
fn allow_open_files(connections: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let wanted = u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(OTHER_FILES);
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    let current = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(current), ..limit });
    if raised.is_err() || current < wanted {
        tracing::warn!(wanted, allowed = current, "fewer open files are allowed than server.max_connections needs");
    }
}
