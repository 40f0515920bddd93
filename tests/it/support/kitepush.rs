//! The real binary as a child of a test: configured by a file of its own, told to stop or killed by its own pid.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use kitepush::webhook::signature::sign;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::http::{self, Response};
use super::service::{SECRET, now};
use super::{eventually, slow_disk};

/// Longer than anything takes that works, on a machine that is busy.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A configuration, and what else a process is started with.
#[derive(Clone)]
pub(crate) struct Setup {
    config: Value,
    environment: Vec<(&'static str, String)>,
    ignores_size_limit: bool,
}

impl Setup {
    /// Free loopback ports, one worker, one inline secret, a second between pushes; nothing kept, nobody pushed to.
    pub(crate) fn new() -> Self {
        let config = json!({
            "server": {"listen": "127.0.0.1:0", "workers": 1, "shutdown_timeout": "5s"},
            "admin": {"listen": "127.0.0.1:0"},
            "auth": {"secrets": [SECRET]},
            "state": {},
            "labels": {},
            "push": {"instance": "a", "interval": "1s", "timeout": "2s", "scrape_interval": "1s", "zero_hold": "0s"},
        });
        Self { config, environment: Vec::new(), ignores_size_limit: false }
    }

    /// The same that pushes to a gateway.
    pub(crate) fn pushing_to(gateway: SocketAddr) -> Self {
        Self::new().with("push.url", format!("http://{gateway}"))
    }

    /// The same with a state file.
    pub(crate) fn with_state(self, path: &Path) -> Self {
        self.with("state.path", path.to_str().unwrap())
    }

    /// With that value at that dotted path.
    pub(crate) fn with(mut self, path: &str, value: impl Into<Value>) -> Self {
        let mut at = &mut self.config;
        for key in path.split('.') {
            at = &mut at[key];
        }
        *at = value.into();
        self
    }

    /// Its disk stands still while the gate is shut.
    pub(crate) fn with_disk_behind(mut self, gate: &slow_disk::Gate) -> Self {
        self.environment.extend(gate.environment());
        self
    }

    /// Told by an error, not killed, when a file would grow over [`Kitepush::limit_files`].
    pub(crate) fn ignoring_size_limit(mut self) -> Self {
        self.ignores_size_limit = true;
        self
    }

    /// Starts it and waits until it serves.
    pub(crate) fn start(&self) -> Kitepush {
        self.try_start().unwrap_or_else(|ended| panic!("{:?}\n{}", ended.status, ended.log))
    }

    /// Starts it and waits until it serves or has ended.
    pub(crate) fn try_start(&self) -> Result<Kitepush, Ended> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("kitepush.yaml");
        std::fs::write(&file, serde_json::to_string_pretty(&self.config).unwrap()).unwrap();
        let binary = env!("CARGO_BIN_EXE_kitepush");
        let mut command = if self.ignores_size_limit {
            // What is ignored stays so across exec: SIGXFSZ is 25.
            let mut shell = Command::new("sh");
            shell.args(["-c", "trap '' 25; exec \"$0\" \"$@\"", binary]);
            shell
        } else {
            Command::new(binary)
        };
        let mut child = command
            .args(["serve", "--config"])
            .arg(&file)
            .envs(self.environment.iter().map(|(name, value)| (*name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (noted, stderr) = (lines.clone(), child.stderr.take().unwrap());
        // A pipe, because a file would fall under the size limit.
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                let Ok(line) = line else { return };
                noted.lock().unwrap().push(line);
            }
        });
        let unset = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut started =
            Kitepush { child, reader: Some(reader), lines, webhook: unset, admin: unset, _directory: directory };
        let status = eventually("kitepush to serve or to end", LIMIT, || {
            if let Some(status) = started.child.try_wait().unwrap() {
                return Some(Some(status));
            }
            let log = started.log();
            let line = log.lines().find(|line| line.contains("serving webhook="))?;
            let address = |key: &str| {
                let rest = line.split(key).nth(1).unwrap();
                rest.split_whitespace().next().unwrap().parse().unwrap()
            };
            (started.webhook, started.admin) = (address("webhook="), address("admin="));
            Some(None)
        });
        match status {
            None => Ok(started),
            Some(status) => Err(started.ended(status)),
        }
    }
}

/// How a process ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) log: String,
}

/// A running kitepush. Dropped, it is killed.
pub(crate) struct Kitepush {
    child: Child,
    reader: Option<JoinHandle<()>>,
    lines: Arc<Mutex<Vec<String>>>,
    pub(crate) webhook: SocketAddr,
    pub(crate) admin: SocketAddr,
    _directory: TempDir,
}

impl Kitepush {
    /// A signed delivery.
    pub(crate) fn deliver(&self, body: impl AsRef<[u8]>) -> Response {
        deliver(self.webhook, body.as_ref()).unwrap_or_else(|error| panic!("{error}:\n{}", self.log()))
    }

    /// A signed delivery that is to be taken; returns its `outcome`.
    pub(crate) fn take(&self, body: impl AsRef<[u8]>) -> String {
        let answer = self.deliver(body);
        assert_eq!(answer.status, 200, "{}\n{}", answer.text(), self.log());
        answer.json()["outcome"].as_str().unwrap().to_owned()
    }

    /// From the admin listener.
    pub(crate) fn ask(&self, path: &str) -> Response {
        http::get(&format!("http://{}{path}", self.admin)).unwrap()
    }

    /// The status and the parts in trouble.
    pub(crate) fn readiness(&self) -> (String, Value) {
        let answer = self.ask("/readyz");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let json = answer.json();
        (json["status"].as_str().unwrap().to_owned(), json["parts"].clone())
    }

    /// What readiness says about a part once it is in trouble.
    pub(crate) fn trouble(&self, part: &str) -> String {
        eventually(part, LIMIT, || {
            let (status, parts) = self.readiness();
            let trouble = parts[part].as_str()?.to_owned();
            assert_eq!(status, "degraded");
            Some(trouble)
        })
    }

    /// Waits until nothing is in trouble.
    pub(crate) fn wait_until_ready(&self) {
        eventually("readiness without trouble", LIMIT, || (self.readiness().0 == "ready").then_some(()));
    }

    /// The value of one series of the admin listener's `/metrics`.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let text = self.ask("/metrics").text();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in {text}")).parse().unwrap()
    }

    /// Waits until that many more pushes than now were accepted.
    pub(crate) fn wait_for_pushes(&self, more: f64) {
        let pushes = || self.metric("kitepush_pushes_total{outcome=\"ok\"}");
        let before = pushes();
        eventually("accepted pushes", LIMIT, || (pushes() >= before + more).then_some(()));
    }

    /// Everything that it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// How many lines hold that text.
    pub(crate) fn logged(&self, text: &str) -> usize {
        self.lines.lock().unwrap().iter().filter(|line| line.contains(text)).count()
    }

    /// No file may be written beyond that many bytes; `None` lifts the limit.
    pub(crate) fn limit_files(&self, bytes: Option<u64>) {
        let limit = Rlimit { current: bytes, maximum: None };
        prlimit(Some(self.pid()), Resource::Fsize, limit).unwrap();
    }

    /// `kill -9`, and wait until it is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        kill_process(self.pid(), Signal::TERM).unwrap();
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> Ended {
        let status = eventually("the end of kitepush", LIMIT, || self.child.try_wait().unwrap());
        self.ended(status)
    }

    /// SIGTERM, and a clean end.
    pub(crate) fn stop(self) -> String {
        self.terminate();
        let ended = self.wait();
        assert_eq!(ended.status.code(), Some(0), "{}", ended.log);
        ended.log
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn ended(mut self, status: ExitStatus) -> Ended {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        Ended { status, log: self.log() }
    }
}

impl Drop for Kitepush {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A signed delivery to that address.
pub(crate) fn deliver(webhook: SocketAddr, body: &[u8]) -> io::Result<Response> {
    let signature = sign(SECRET.as_bytes(), now(), body);
    let headers = [("Content-Type", "application/json"), ("X-Buildkite-Signature", signature.as_str())];
    http::request("POST", &format!("http://{webhook}/webhook"), &headers, body)
}
