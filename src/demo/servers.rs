//! The processes of a demo: started on free loopback ports in a directory of their own, and stopped whatever happens.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::Client;
use tokio::time::{Instant, sleep};

use super::answers::quantile;

/// A server that has not answered by then does not start.
const START: Duration = Duration::from_secs(30);
/// A server that is still there by then is killed.
const STOP: Duration = Duration::from_secs(12);
/// Enough for a push and a scrape a second to show a new series at zero before its true value.
const ZERO_HOLD: Duration = Duration::from_secs(3);
/// Ends what a killed demo leaves behind: it reads a pipe that only closes when this process is gone.
const JANITOR: &str = r#"read -r _; directory=$1; shift; kill -TERM "$@" 2>/dev/null; sleep 2; kill -KILL "$@" 2>/dev/null; rm -rf "$directory""#;

/// The four processes and their addresses. Dropping it ends them and removes their directory.
pub(super) struct Servers {
    /// In the order in which they are stopped: kitepush first, its final push needs the gateway.
    processes: Vec<Process>,
    janitor: Option<Child>,
    directory: Directory,
    client: Client,
    gateway: SocketAddr,
    prometheus: SocketAddr,
    webhook: SocketAddr,
    admin: SocketAddr,
    secret: String,
}

struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Servers {
    /// Starts everything and waits until it is ready. `clusters` are names by cluster id.
    pub(super) async fn start(clusters: &BTreeMap<String, String>) -> anyhow::Result<Self> {
        let gateway_binary = find("prometheus-pushgateway")?;
        let prometheus_binary = find("prometheus")?;
        let own_binary = std::env::current_exe().context("cannot find kitepush's own binary")?;
        let [gateway, prometheus, webhook, admin] = free_addresses()?;
        let directory = Directory::new()?;
        let secret = format!("{:032x}", rand::random::<u128>());
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(5))
            .tls_certs_only([])
            .no_proxy()
            .build()?;
        let mut servers = Self {
            processes: Vec::new(),
            janitor: None,
            directory,
            client,
            gateway,
            prometheus,
            webhook,
            admin,
            secret,
        };
        servers.write_files(clusters)?;
        let path = |name: &str| servers.directory.0.join(name);
        let (prometheus_config, database) = (path("prometheus.yml"), path("prometheus"));
        let kitepush_config = path("kitepush.yaml");

        let mut command = Command::new(prometheus_binary);
        command.arg(argument("--config.file", &prometheus_config)).arg(argument("--storage.tsdb.path", &database));
        command.arg(format!("--web.listen-address={prometheus}"));
        servers.spawn("prometheus", command)?;

        let mut command = Command::new(gateway_binary);
        command.arg(format!("--web.listen-address={gateway}")).arg("--persistence.file=");
        servers.spawn("pushgateway", command)?;
        servers.ready("pushgateway", &format!("http://{gateway}/-/ready"), |_| true).await?;

        let mut command = Command::new(own_binary);
        command.arg("serve").arg("--config").arg(kitepush_config);
        // The day is to be the same whatever the shell has set for another kitepush.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KITEPUSH__")) {
            command.env_remove(name);
        }
        servers.spawn("kitepush", command)?;
        servers.hire_janitor()?;
        servers.ready("kitepush", &format!("http://{admin}/readyz"), |_| true).await?;
        // What is pushed before Prometheus scrapes would be there already when it looks for the first time.
        let up = format!("http://{prometheus}/api/v1/query?query=up%20==%201");
        servers.ready("prometheus", &up, |answer| answer.contains("pushgateway")).await?;
        Ok(servers)
    }

    fn write_files(&self, clusters: &BTreeMap<String, String>) -> anyhow::Result<()> {
        let Self { gateway, webhook, admin, .. } = self;
        let quoted = |path: PathBuf| format!("{:?}", path.display().to_string());
        let names: Vec<String> = clusters.iter().map(|(id, name)| format!("{id:?}: {name:?}")).collect();
        self.write("secret", &self.secret)?;
        self.write(
            "kitepush.yaml",
            &format!(
                "server: {{listen: \"{webhook}\"}}\n\
                 admin: {{listen: \"{admin}\"}}\n\
                 auth: {{secret_files: [{secret}]}}\n\
                 state: {{path: {state}}}\n\
                 labels: {{clusters: {{{names}}}}}\n\
                 push:\n  \
                   url: \"http://{gateway}\"\n  \
                   instance: demo\n  \
                   interval: 1s\n  \
                   scrape_interval: 1s\n  \
                   zero_hold: {hold}s\n",
                secret = quoted(self.directory.0.join("secret")),
                state = quoted(self.directory.0.join("state.db")),
                names = names.join(", "),
                hold = ZERO_HOLD.as_secs(),
            ),
        )?;
        self.write(
            "prometheus.yml",
            &format!(
                "global: {{scrape_interval: 1s}}\n\
                 scrape_configs:\n  \
                   - job_name: pushgateway\n    \
                     honor_labels: true\n    \
                     static_configs: [{{targets: [\"{gateway}\"]}}]\n"
            ),
        )
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.directory.0.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    fn spawn(&mut self, name: &'static str, mut command: Command) -> anyhow::Result<()> {
        let log = self.directory.0.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        // In a group of its own, so that Ctrl-C reaches only us and we stop the servers in order.
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        self.processes.insert(0, Process { name, child, log });
        Ok(())
    }

    fn hire_janitor(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new("sh");
        command.args(["-c", JANITOR, "janitor"]).arg(&self.directory.0);
        command.args(self.processes.iter().map(|process| process.child.id().to_string()));
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        self.janitor = Some(command.spawn().context("cannot start sh")?);
        Ok(())
    }

    /// Waits until a server answers as it should.
    async fn ready(&mut self, name: &str, url: &str, is_right: fn(&str) -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + START;
        loop {
            self.check_alive()?;
            if let Ok(response) = self.client.get(url).send().await
                && response.status().is_success()
                && is_right(&response.text().await.unwrap_or_default())
            {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{name} is not ready after {} s\n{}", START.as_secs(), self.last_words(name));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// An error when one of them has ended, with its last words.
    pub(super) fn check_alive(&mut self) -> anyhow::Result<()> {
        for process in &mut self.processes {
            if let Some(status) = process.child.try_wait()? {
                let name = process.name;
                bail!("{name} ended by itself: {status}\n{}", self.last_words(name));
            }
        }
        Ok(())
    }

    fn last_words(&self, name: &str) -> String {
        let log = self.processes.iter().find(|process| process.name == name).map(|process| &process.log);
        let text = log.and_then(|log| fs::read(log).ok()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(8)..].iter().map(|line| format!("  {line}\n")).collect()
    }

    /// Prints what there is to look at.
    pub(super) async fn introduce(&self) {
        let Self { gateway, prometheus, admin, .. } = self;
        // Debian's Prometheus has its pages elsewhere than upstream's.
        let home = self.client.get(format!("http://{prometheus}/")).send().await.ok();
        let home = home.and_then(|response| Some(response.headers().get("location")?.to_str().ok()?.to_owned()));
        let home = home.filter(|home| home.starts_with('/')).unwrap_or_else(|| "/graph".to_owned());
        let graph = |query: &str| {
            format!("http://{prometheus}{home}?g0.expr={}&g0.tab=0&g0.range_input=2m", percent_encode(query))
        };
        println!();
        println!("  Builds      {}", graph("sum by (state) (buildkite_builds_finished_total)"));
        println!("  Queue wait  {}", graph(&quantile(0.95, "job_wait", "queue")));
        println!("  Pushgateway http://{gateway}/");
        println!("  kitepush    http://{admin}/metrics  http://{admin}/readyz");
        println!("  Files       {}", self.directory.0.display());
        println!();
    }

    /// Where deliveries go.
    pub(super) fn webhook_url(&self) -> String {
        format!("http://{}/webhook", self.webhook)
    }

    /// Where PromQL is asked.
    pub(super) fn query_url(&self) -> String {
        format!("http://{}/api/v1/query", self.prometheus)
    }

    /// What the deliveries are signed with.
    pub(super) fn secret(&self) -> &str {
        &self.secret
    }

    /// For loopback, without proxy and redirects.
    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    /// `push.zero_hold`.
    pub(super) fn is_held_for(&self) -> Duration {
        ZERO_HOLD
    }

    /// Stops all in order, each with a chance to do it properly.
    pub(super) async fn stop(mut self) {
        for process in &mut self.processes {
            if matches!(process.child.try_wait(), Ok(None)) {
                terminate(&process.child);
            }
            let deadline = Instant::now() + STOP;
            while matches!(process.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        // The janitor goes first: its pipe closes with us, and it would end processes that have our servers' numbers.
        for child in self.janitor.iter_mut().chain(self.processes.iter_mut().map(|process| &mut process.child)) {
            // An error means that it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// SIGTERM; the standard library only knows SIGKILL.
fn terminate(child: &Child) {
    let kill = Command::new("sh").args(["-c", "kill -TERM \"$1\"", "sh", &child.id().to_string()]).status();
    if let Err(error) = kill {
        eprintln!("cannot run sh: {error}");
    }
}

/// A directory that only we can read, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("kitepush-demo-{:08x}", rand::random::<u32>()));
        DirBuilder::new().mode(0o700).create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            // Nobody else is left to tell.
            let _ = writeln!(std::io::stderr(), "cannot remove {}: {error}", self.0.display());
        }
    }
}

/// A program in `PATH`, or what to do about its absence.
fn find(program: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
        .with_context(|| {
            format!(
                "{program} is not installed; on Debian and Ubuntu:\n\
                 apt-get install --no-install-recommends prometheus prometheus-pushgateway"
            )
        })
}

/// Addresses on the loopback interface that nobody uses now: reserved together, so that they differ.
fn free_addresses<const N: usize>() -> anyhow::Result<[SocketAddr; N]> {
    let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); N];
    let mut reserved = Vec::with_capacity(N);
    for address in &mut addresses {
        let listener = TcpListener::bind(*address).context("no free port on 127.0.0.1")?;
        *address = listener.local_addr()?;
        reserved.push(listener);
    }
    Ok(addresses)
}

fn argument(name: &str, path: &Path) -> std::ffi::OsString {
    let mut argument = std::ffi::OsString::from(name);
    argument.push("=");
    argument.push(path);
    argument
}

/// For the query part of a URL.
pub(super) fn percent_encode(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}
