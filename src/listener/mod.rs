//! Sockets in: accept, TLS, bounds and deadlines around every connection, for both listeners.
//!
//! Each connection carries one request. Keep-alive would save Buildkite nothing, and cost twice: the HTTP server does
//! not time out a partial head after the first request, and closing an idle connection races with a delivery that may
//! come only once. Around the HTTP server stands one deadline for the whole life of a connection, so that no state of it
//! can be held open.

mod connections;
mod stream;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_http::{HttpService, KeepAlive, Request, Response};
use actix_server::{Server, ServerHandle};
use actix_service::{
    IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt, fn_factory, fn_service, map_config,
};
use actix_web::Error;
use actix_web::body::MessageBody;
use actix_web::dev::AppConfig;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub use connections::{Bounds, Connections, Metrics, Sender, Slot};
use stream::{Stream, Transport};

use crate::tls::ServerCertificate;

/// The body of a 408, also of one for a head that never ended.
pub const TIMEOUT: &str = "{\"error\":\"timeout\",\"message\":\"Head and body took longer than server.read_timeout.\"}";
/// The body of a 400 for what breaks off or is not HTTP.
pub const BROKEN: &str = "{\"error\":\"body_malformed\",\"message\":\"The request broke off or is not HTTP/1.1.\"}";

/// What may go wrong before there is a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The head, or the TLS handshake, took too long.
    SlowHead,
    /// The head is not HTTP/1.1, or too long.
    MalformedHead,
}

/// Told about every [`Fault`].
pub type OnFault = Arc<dyn Fn(Fault) + Send + Sync>;

/// How a listener treats its connections.
#[derive(Clone)]
pub struct Settings {
    /// Threads; 0: one per core.
    pub workers: usize,
    /// For handshake, head and body together, from the accept.
    pub read_timeout: Duration,
    /// For everything after that: commit and answer.
    pub answer_timeout: Duration,
    /// The certificate; none: plain HTTP.
    pub tls: Option<Arc<ServerCertificate>>,
    /// Told about what never became a request.
    pub on_fault: OnFault,
}

/// A listener that serves.
pub struct Listening {
    address: SocketAddr,
    handle: ServerHandle,
    server: JoinHandle<io::Result<()>>,
    connections: Arc<Connections>,
}

/// Serves `app` on a socket until [`Listening::stop`]; call it within a Tokio runtime.
///
/// # Errors
///
/// When the socket cannot be used.
pub fn serve<F, I, S, B>(
    socket: TcpListener,
    settings: Settings,
    connections: Arc<Connections>,
    app: F,
) -> io::Result<Listening>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<Error> + 'static,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    <S::Service as Service<Request>>::Future: 'static,
    S::Service: 'static,
    B: MessageBody + 'static,
{
    let address = socket.local_addr()?;
    let mut builder = Server::build().disable_signals().shutdown_timeout(u64::from(u32::MAX));
    if settings.workers > 0 {
        builder = builder.workers(settings.workers);
    }
    let all = Arc::clone(&connections);
    let server = builder
        // The bounds are ours: this one would stop accepting and so let the slow keep the good out.
        .max_concurrent_connections(usize::MAX >> 1)
        .listen("kitepush", socket, move || {
            let settings = settings.clone();
            let connections = Arc::clone(&all);
            let http = HttpService::build()
                .keep_alive(KeepAlive::Disabled)
                .client_request_timeout(settings.read_timeout)
                .client_disconnect_timeout(connections::LINGER)
                .local_addr(address)
                .on_connect_ext(|stream: &Stream, data| {
                    data.insert(stream.slot());
                })
                .h1(map_config(app().into_factory().map_err(|error| error.into().error_response()), |()| {
                    AppConfig::default()
                }));
            fn_factory(move || {
                let http = http.new_service(());
                let settings = Rc::new(settings.clone());
                let connections = Arc::clone(&connections);
                async move {
                    let http = Rc::new(http.await?);
                    Ok::<_, ()>(fn_service(move |socket: TcpStream| {
                        let http = Rc::clone(&http);
                        let settings = Rc::clone(&settings);
                        let slot = socket.peer_addr().ok().and_then(|peer| Some((peer, connections.admit(peer.ip())?)));
                        async move {
                            if let Some((peer, slot)) = slot {
                                let lifetime = settings.read_timeout + settings.answer_timeout;
                                let view = slot.view();
                                // Boxed: each future around it would move it with its own.
                                let work = Box::pin(async move {
                                    if let Some(stream) = open(socket, view, &settings).await {
                                        // How a connection ends is the client's business; requests are counted.
                                        let _ = http.call((stream, Some(peer))).await;
                                    }
                                });
                                slot.serve(lifetime, work).await;
                            }
                            Ok::<(), Infallible>(())
                        }
                    }))
                }
            })
        })?
        .run();
    let handle = server.handle();
    Ok(Listening { address, handle, server: tokio::spawn(server), connections })
}

/// The handshake, when there is one.
async fn open(socket: TcpStream, slot: Slot, settings: &Settings) -> Option<Stream> {
    let transport = match &settings.tls {
        // One answer in one write: there is nothing that it could wait for.
        None => Transport::Plain(socket),
        Some(certificate) => {
            // The answer would wait until the end of the handshake is acknowledged.
            let _ = socket.set_nodelay(true);
            let handshake = Box::pin(certificate.acceptor().accept(socket));
            match timeout(settings.read_timeout, handshake).await {
                Ok(Ok(tls)) => Transport::Tls(Box::new(tls)),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "TLS handshake failed");
                    return None;
                }
                Err(_) => {
                    (settings.on_fault)(Fault::SlowHead);
                    return None;
                }
            }
        }
    };
    Some(Stream::new(transport, slot, &settings.on_fault))
}

impl Listening {
    /// Where it listens; the port is a real one.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts nothing more and waits for the connections: those that still send their body are cut at `cut_bodies`,
    /// all that are left at `end`.
    pub async fn stop(self, cut_bodies: Instant, end: Instant) {
        let stopped = tokio::spawn(self.handle.stop(true));
        self.connections.drain(cut_bodies, end).await;
        // The server looks only now and then whether its workers are done; ours know that they are.
        self.server.abort();
        stopped.abort();
        let _ = self.server.await;
    }

    /// Waits for the server to end by itself, which only a failure makes it do.
    pub async fn failed(&mut self) -> io::Error {
        match (&mut self.server).await {
            Ok(Ok(())) => io::Error::other("the listener ended"),
            Ok(Err(error)) => error,
            Err(error) => io::Error::other(error),
        }
    }
}
