//! What `make bench` and `make soak` load a server with; never part of what ships.
//!
//! `floor` is the bare actix handler that kitepush is measured beside, `requests` signs deliveries for `wrk`, and
//! `history` fills a state file as the service would.

#![expect(clippy::expect_used, reason = "a bench that cannot go on stops")]

mod deliveries;

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::KeepAlive;
use actix_web::web::{BytesMut, Data, Payload, to};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use clap::Parser;
use futures_util::StreamExt as _;
use kitepush::config::{Environment, Loaded};
use kitepush::event::Timestamp;
use kitepush::health::Health;
use kitepush::ledger::writer;
use kitepush::metrics::catalogue::Catalogue;
use kitepush::metrics::labels::Labeler;
use kitepush::metrics::own::Own;
use kitepush::webhook::payload::{self, Extract};
use kitepush::webhook::signature::{Key, Signature, sign, verify};

use deliveries::{BUILD_FINISHED, JOB_FINISHED, STORY, Spread, Template, epoch};

const SECRET: &str = "the secret of the benches";
const TOLERANCE: Duration = Duration::from_secs(300);

#[derive(Parser)]
enum Command {
    /// Serves what cannot be left out: read the body, verify, parse.
    Floor {
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        #[arg(long)]
        keep_alive: bool,
    },
    /// Writes signed requests, each after its length in eight digits.
    Requests {
        #[arg(long)]
        out: PathBuf,
        #[arg(long)]
        host: String,
        #[arg(long)]
        count: u64,
        /// Number of the first one: no two requests of different numbers are about the same job.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// A whole build with its job instead of a finished job alone.
        #[arg(long)]
        story: bool,
        /// As many names of each kind as deliveries.
        #[arg(long)]
        distinct_names: bool,
        #[command(flatten)]
        spread: Spread,
    },
    /// Counts finished jobs, and a finished build after every ninth, into the state file of a configuration.
    History {
        #[arg(long)]
        config: PathBuf,
        #[arg(long)]
        ids: u64,
        #[command(flatten)]
        spread: Spread,
    },
    /// Prints the secret.
    Secret,
}

fn main() {
    // `cargo test --all-targets` and a bare `cargo bench` run every bench.
    if std::env::args().nth(1).is_none_or(|argument| argument == "--bench") {
        println!("run by benches/run.py");
        return;
    }
    match Command::parse() {
        Command::Floor { listen, keep_alive } => floor(listen, keep_alive),
        Command::Requests { out, host, count, from, story, distinct_names, spread } => {
            let spread = if distinct_names { Spread::ALL } else { spread };
            let fixtures = if story { &STORY[..] } else { &[JOB_FINISHED] };
            let mut file = BufWriter::with_capacity(1 << 20, File::create(out).expect("a writable file"));
            requests(fixtures, &host, from, count, &spread, &mut file);
            file.flush().expect("room for the requests");
        }
        Command::History { config, ids, spread } => history(config, ids, &spread),
        Command::Secret => println!("{SECRET}"),
    }
}

/// One worker, and the listener's settings that kitepush has too.
fn floor(listen: SocketAddr, keep_alive: bool) {
    let key = Data::new(Key::new(SECRET.as_bytes()));
    let socket = TcpListener::bind(listen).expect("a free port");
    println!("{}", socket.local_addr().expect("a bound socket"));
    let server = HttpServer::new(move || App::new().app_data(key.clone()).default_service(to(verify_and_parse)))
        .workers(1)
        .backlog(1024)
        .keep_alive(if keep_alive { KeepAlive::Timeout(Duration::from_secs(60)) } else { KeepAlive::Disabled })
        .listen(socket)
        .expect("a listening socket")
        .run();
    actix_web::rt::System::new().block_on(server).expect("a server");
}

async fn verify_and_parse(key: Data<Key>, request: HttpRequest, mut payload: Payload) -> HttpResponse {
    let mut body = BytesMut::new();
    while let Some(Ok(piece)) = payload.next().await {
        body.extend_from_slice(&piece);
    }
    let header = request.headers().get("x-buildkite-signature").map_or(&b""[..], |value| value.as_bytes());
    let now = Timestamp::now().as_millis() / 1000;
    let authentic = Signature::parse(header).and_then(|signature| {
        signature.within(TOLERANCE, now)?;
        verify([&**key], &signature, &body)
    });
    if authentic.is_err() {
        return HttpResponse::Unauthorized().finish();
    }
    match payload::parse(&body, &Extract::default()) {
        Ok(_) => HttpResponse::Ok().content_type("application/json").body("{\"outcome\": \"accepted\"}"),
        Err(_) => HttpResponse::BadRequest().finish(),
    }
}

fn templates(fixtures: &[&str]) -> Vec<Template> {
    let epoch = epoch(fixtures[0]);
    let now = jiff::Timestamp::now();
    fixtures.iter().map(|fixture| Template::new(fixture, epoch, now)).collect()
}

fn requests(fixtures: &[&str], host: &str, from: u64, count: u64, spread: &Spread, out: &mut impl std::io::Write) {
    let templates = templates(fixtures);
    let mut body = String::new();
    for at in 0..count {
        let number = from + at / templates.len() as u64;
        templates[(at % templates.len() as u64) as usize].render(number, spread, &mut body);
        let signature = sign(SECRET.as_bytes(), Timestamp::now().as_millis() / 1000, body.as_bytes());
        let head = format!(
            "POST /webhook HTTP/1.1\r\nHost: {host}\r\nUser-Agent: Buildkite-Request\r\nContent-Type: \
             application/json\r\nX-Buildkite-Signature: {signature}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        write!(out, "{:08}{head}{body}", head.len() + body.len()).expect("room for the requests");
    }
}

fn history(config: PathBuf, ids: u64, spread: &Spread) {
    let config = Loaded::read(Some(&config), &Environment::default()).finish().expect("a valid configuration");
    let catalogue = Arc::new(Catalogue::new(&config.families, &config.labels).expect("a valid catalogue"));
    let labeler = Labeler::new(&config.labels).expect("valid labels");
    let own = Arc::new(Own::new("bench", "bench"));
    let started = writer::start(&config, catalogue, labeler, own, Arc::new(Health::default())).expect("a state file");
    let templates = templates(&[JOB_FINISHED, BUILD_FINISHED]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut body = String::new();
        let mut waiting = tokio::task::JoinSet::new();
        for at in 0..ids {
            let is_build = at % 10 == 9;
            // Builds go through the pipelines at their own pace.
            let number = if is_build { at / 10 } else { at };
            templates[usize::from(is_build)].render(number, spread, &mut body);
            let event = payload::parse(body.as_bytes(), &Extract::default()).expect("fixtures are events");
            let ledger = started.ledger.clone();
            waiting.spawn(async move { ledger.record(event, Timestamp::now()).await });
            while waiting.len() >= 4096 {
                waiting.join_next().await.expect("one is waiting").expect("no panic").expect("a commit");
            }
        }
        while let Some(recorded) = waiting.join_next().await {
            recorded.expect("no panic").expect("a commit");
        }
        started.ledger.stop().await;
    });
}
