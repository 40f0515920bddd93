//! Debian's Pushgateway and Prometheus as children of a test, each in a directory and on a port of its own.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::http;

const READY: Duration = Duration::from_secs(30);

/// A server that runs until it is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    directory: TempDir,
}

/// How to tell that a server has come up.
#[derive(Clone, Copy)]
pub(crate) enum Ready {
    /// It answers 200 to this path.
    Path(&'static str),
    /// It takes connections.
    Connects,
}

impl Server {
    /// Starts `binary` with the arguments that `arguments` makes of a free address and a fresh directory.
    ///
    /// Another process may take the port between our look and the server's bind: then the server ends at once, and the
    /// next port is tried.
    pub(crate) fn start(
        binary: &str,
        ready: Ready,
        mut arguments: impl FnMut(SocketAddr, &Path) -> Vec<String>,
    ) -> Self {
        for _ in 0..5 {
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            if let Some(server) = Self::start_at(binary, ready, address, &mut arguments) {
                return server;
            }
        }
        panic!("{binary} did not start on any of five ports");
    }

    /// Starts it on this address; `None` when it ended at once.
    pub(crate) fn start_at(
        binary: &str,
        ready: Ready,
        address: SocketAddr,
        arguments: &mut impl FnMut(SocketAddr, &Path) -> Vec<String>,
    ) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let log = File::create(directory.path().join("log")).unwrap();
        let child = Command::new(binary)
            .args(arguments(address, directory.path()))
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{binary}: {error}; apt-get install prometheus prometheus-pushgateway"));
        let mut server = Self { child, address, directory };
        let began = Instant::now();
        loop {
            if server.child.try_wait().unwrap().is_some() {
                eprintln!("{binary} ended:\n{}", server.log());
                return None;
            }
            let up = match ready {
                Ready::Connects => TcpStream::connect(address).is_ok(),
                Ready::Path(path) => http::get(&server.url(path)).is_ok_and(|response| response.status == 200),
            };
            // Asked again after the answer: it might have been another's, on the port that ours could not have.
            if up && server.child.try_wait().unwrap().is_none() {
                return Some(server);
            }
            assert!(began.elapsed() < READY, "{binary} is not ready:\n{}", server.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    /// `kill -9`, of this child only.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A Pushgateway that keeps everything in memory.
pub(crate) fn pushgateway() -> Server {
    pushgateway_with(&[])
}

/// The same with further options.
pub(crate) fn pushgateway_with(options: &[&str]) -> Server {
    Server::start(GATEWAY, Ready::Path("/-/ready"), |address, _| gateway_arguments(address, options))
}

/// The same with a `--web.config.file` of this content.
pub(crate) fn pushgateway_with_web_config(config: &str) -> Server {
    Server::start(GATEWAY, Ready::Connects, |address, directory| {
        let file = directory.join("web.yml");
        std::fs::write(&file, config).unwrap();
        gateway_arguments(address, &[&format!("--web.config.file={}", file.display())])
    })
}

/// A fresh and empty one on the address of one that was dropped.
pub(crate) fn pushgateway_again(address: SocketAddr) -> Server {
    Server::start_at(GATEWAY, Ready::Path("/-/ready"), address, &mut |address, _| gateway_arguments(address, &[]))
        .expect("the port of before is free")
}

const GATEWAY: &str = "prometheus-pushgateway";

fn gateway_arguments(address: SocketAddr, options: &[&str]) -> Vec<String> {
    let own = [format!("--web.listen-address={address}"), "--persistence.file=".to_owned()];
    own.into_iter().chain(options.iter().map(|option| (*option).to_owned())).collect()
}

/// A Prometheus that scrapes `targets` each second, with `honor_labels`.
pub(crate) fn prometheus(targets: &[SocketAddr]) -> Server {
    let targets: Vec<String> = targets.iter().map(|target| format!("\"{target}\"")).collect();
    let config = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n  - job_name: pushgateway\n    \
         honor_labels: true\n    static_configs: [{{targets: [{}]}}]\n",
        targets.join(", ")
    );
    Server::start("prometheus", Ready::Path("/-/ready"), |address, directory| {
        let file: PathBuf = directory.join("prometheus.yml");
        std::fs::write(&file, &config).unwrap();
        vec![
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", directory.join("data").display()),
            format!("--web.listen-address={address}"),
        ]
    })
}

/// What Prometheus answers to a query now: `data.result`.
pub(crate) fn query(prometheus: &Server, promql: &str) -> Vec<serde_json::Value> {
    let response = http::get(&prometheus.url(&format!("/api/v1/query?query={}", http::escaped(promql)))).unwrap();
    assert_eq!(response.status, 200, "{promql}: {}", response.text());
    response.json()["data"]["result"].as_array().unwrap().clone()
}

/// `promtool check metrics` on an exposition; panics with its words.
pub(crate) fn assert_promtool_is_content(exposition: &str) {
    use std::io::Write;
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(exposition.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{exposition}");
}
