//! The README, held against the program: its commands run, its queries answer, its tables are whole.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kitepush::config::{
    AdminAuth, Authorization, BasicAuth, Config, Environment, Family, Header, HttpConfig, Loaded, OAuth2, ServerTls,
};
use kitepush::metrics::own::{Outcome, PushOutcome, Rejection};
use regex::Regex;

use crate::support::eventually;
use crate::support::server::{self, Ready, Server};

const README: &str = include_str!("../../README.md");
const KITEPUSH: &str = env!("CARGO_BIN_EXE_kitepush");
const SOON: Duration = Duration::from_secs(60);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What stands below a heading, up to the next one of its level or a higher one.
fn section(heading: &str) -> &'static str {
    let level = heading.split(' ').next().unwrap().len();
    let start = README.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading}")) + heading.len() + 2;
    let is_end = |line: &str| {
        let hashes = line.len() - line.trim_start_matches('#').len();
        (1..=level).contains(&hashes) && line[hashes..].starts_with(' ')
    };
    let mut fenced = false;
    let mut end = start;
    for line in README[start..].split_inclusive('\n') {
        fenced ^= line.starts_with("```");
        if !fenced && is_end(line) {
            break;
        }
        end += line.len();
    }
    &README[start..end]
}

/// The fenced blocks of a language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// The cells of each table row, the head and its line apart.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let lines: Vec<&str> = text.lines().collect();
    let is_head = |at: usize| lines.get(at + 1).is_some_and(|next| next.starts_with("|---"));
    let is_row = |at: usize| lines[at].starts_with("| ") && !is_head(at);
    let cells = |at: usize| lines[at].trim_matches('|').split('|').map(str::trim).collect();
    (0..lines.len()).filter(|at| is_row(*at)).map(cells).collect()
}

/// The words in backticks.
fn ticked(text: &str) -> BTreeSet<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

fn run(command: &mut Command) -> (bool, String, String) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

fn succeeds(command: &mut Command) -> String {
    let (success, out, err) = run(command);
    assert!(success, "{command:?}:\n{out}{err}");
    out
}

/// Runs kitepush with this configuration; what it says of listeners and gateway is replaced by free ports.
fn serve(config: &str, gateway: &Server, secret: &str) -> Server {
    let (config, gateway, secret) = (config.to_owned(), gateway.address.to_string(), secret.to_owned());
    Server::start(KITEPUSH, Ready::Path("/healthz"), move |address, directory| {
        let config = config.replace("127.0.0.1:8080", &address.to_string()).replace("127.0.0.1:9091", &gateway);
        std::fs::write(directory.join("kitepush.yaml"), config + "\nadmin: {listen: \"127.0.0.1:0\"}\n").unwrap();
        std::fs::write(directory.join("webhook-token"), &secret).unwrap();
        ["serve", "--config", "kitepush.yaml"].map(str::to_owned).to_vec()
    })
}

/// The README's first configuration, in a hurry.
fn hasty(config: &str) -> String {
    config.replace("instance: kitepush", "instance: kitepush, interval: 1s, scrape_interval: 1s, zero_hold: 3s")
}

/// Runs a block of commands beside a service.
fn beside(service: &Server, gateway: &Server, commands: &str) -> String {
    let commands = commands
        .replace("127.0.0.1:8080", &service.address.to_string())
        .replace("127.0.0.1:9091", &gateway.address.to_string())
        .replace("webhook-fixtures", &root().join("webhook-fixtures").display().to_string());
    let path = format!("{}:{}", Path::new(KITEPUSH).parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut bash = Command::new("bash");
    succeeds(bash.args(["-euo", "pipefail", "-c", &commands]).env("PATH", path).current_dir(service.directory()))
}

#[test]
fn the_first_steps_work_as_written() {
    let by_hand = section("### By hand, without Buildkite");
    let config = blocks(by_hand, "yaml")[0];
    let [made, checked, sent, looked] = blocks(by_hand, "sh")[..] else { panic!("four blocks of commands") };
    let token = made.lines().find(|line| line.starts_with("openssl")).unwrap();
    let secret = succeeds(Command::new("bash").args(["-c", token.split('>').next().unwrap()]));
    let gateway = server::pushgateway();
    let service = serve(&hasty(config), &gateway, &secret);
    let check = checked.lines().find(|line| line.starts_with("kitepush check")).unwrap();
    assert!(checked.contains("\nkitepush serve --config kitepush.yaml 2>kitepush.log &\n"));
    assert!(beside(&service, &gateway, check).starts_with("policy: relaxed\n"));

    let said = beside(&service, &gateway, sent);
    assert_eq!(said.matches("200 accepted").count(), 3, "{said}");
    assert_eq!(said.matches("200 duplicate").count(), 1, "{said}");
    let line = |name: &str, rest: &str| {
        let found = said.lines().any(|line| line.starts_with(name) && line.contains("passed") && line.contains(rest));
        assert!(found, "{name} {rest} in {said}");
    };
    line("buildkite_builds_finished_total", "} 1  (in its zero-hold: shown as 0)");
    let pushed = |end: &str| {
        eventually(end, SOON, || {
            let seen = beside(&service, &gateway, &format!("{} || true", looked.trim_end()));
            let is_it = |line: &str| line.contains("builds_finished_total") && line.contains("state=\"passed\"");
            seen.lines().any(|line| is_it(line) && line.ends_with(end)).then_some(())
        });
    };
    pushed(" 0");
    pushed(" 1");
}

#[test]
fn a_stored_total_is_shown_by_every_way_that_is_named() {
    let by_hand = section("### By hand, without Buildkite");
    let missing = section("### Why is my pipeline missing");
    let gateway = server::pushgateway();
    let service = serve(&hasty(blocks(by_hand, "yaml")[0]), &gateway, "a-secret-for-this-test");
    beside(&service, &gateway, blocks(by_hand, "sh")[2].split("\nkitepush totals").next().unwrap());

    let query = blocks(missing, "sh")[0].replace("/var/lib/kitepush/state.db", "state.db");
    let table = beside(&service, &gateway, &query);
    let row = table.lines().find(|line| line.contains("buildkite_builds_finished_total") && line.contains("passed"));
    assert!(row.unwrap_or_else(|| panic!("{table}")).contains(" 1 "), "{table}");
    assert!(table.contains("buildkite_build_duration_seconds") && !table.contains("_info"), "{table}");

    let body = std::fs::read(root().join("webhook-fixtures/build-finished.json")).unwrap();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let explain = format!("kitepush explain --config kitepush.yaml {}", body["build"]["id"].as_str().unwrap());
    let explained = beside(&service, &gateway, &explain);
    // The README shows the same with other arrivals.
    let shown = blocks(missing, "text")[0];
    let without_arrival = |text: &str| text.lines().map(|line| line[24..].to_owned()).collect::<Vec<_>>();
    assert_eq!(without_arrival(&explained), without_arrival(shown));

    let backup = ticked(section("## Running it")).into_iter().find(|code| code.starts_with("sqlite3")).unwrap();
    beside(&service, &gateway, backup);
    let checked = beside(&service, &gateway, "sqlite3 state-backup.db 'PRAGMA integrity_check'");
    assert_eq!(checked, "ok\n");
}

#[test]
fn every_query_is_answered_by_a_prometheus_that_saw_all_fixtures() {
    let gateway = server::pushgateway();
    let prometheus = server::prometheus(&[gateway.address]);
    // It is ready seconds before it scrapes, and a hold does not wait for it.
    eventually("the first scrape", SOON, || (!server::query(&prometheus, "up == 1").is_empty()).then_some(()));
    let config = hasty(blocks(section("### By hand, without Buildkite"), "yaml")[0]);
    let service = serve(&config, &gateway, "a-secret-for-this-test");
    let good = "$(ls webhook-fixtures/*.json | grep -v /invalid-)";
    beside(
        &service,
        &gateway,
        &format!("kitepush send --url http://127.0.0.1:8080/webhook --secret-file webhook-token {good}"),
    );
    let queries = blocks(README, "promql");
    assert!(queries.len() > 5);
    for query in queries {
        eventually(query, SOON, || {
            let results = server::query(&prometheus, query);
            let number = |result: &serde_json::Value| result["value"][1].as_str().unwrap().parse::<f64>().unwrap();
            results.iter().any(|result| number(result) > 0.0).then_some(())
        });
    }
}

#[test]
fn the_configuration_files_are_valid() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file.yaml");
    std::fs::copy(root().join("deploy/prometheus/rules.yml"), directory.path().join("rules.yml")).unwrap();
    let mut checked = BTreeMap::new();
    for block in blocks(README, "yaml") {
        let name = block.trim_start_matches("# ").split(['\n', ':', ',']).next().unwrap();
        std::fs::write(&file, block).unwrap();
        let mut command = match name {
            "kitepush.yaml" => {
                let mut command = Command::new(KITEPUSH);
                command.args(["check", "--no-files", "--config"]);
                command
            }
            "prometheus.yml" => {
                let mut command = Command::new("promtool");
                command.args(["check", "config"]);
                command
            }
            example if example.starts_with("tests/it/examples/") => {
                let whole = std::fs::read_to_string(root().join(example)).unwrap();
                assert!(whole.contains(block.split_once('\n').unwrap().1), "{example} is another:\n{whole}");
                continue;
            }
            _ => panic!("the first line of a YAML block says which file it is: {block}"),
        };
        let (success, out, err) = run(command.arg(&file));
        assert!(success && !err.contains("warning"), "{block}\n{out}{err}");
        *checked.entry(name).or_insert(0) += 1;
    }
    assert!(checked["kitepush.yaml"] >= 2 && checked["prometheus.yml"] == 2, "{checked:?}");
}

#[test]
fn the_worked_examples_cost_what_the_table_says() {
    let rows = rows(section("### Worked examples"));
    assert!(rows.len() > 3);
    for cells in rows {
        let arguments: Vec<&str> = cells[1].trim_matches('`').split(' ').collect();
        let config = format!("tests/it/examples/{}", arguments[0]);
        let mut command = Command::new(KITEPUSH);
        command.args(["cardinality", "--config", &config]).args(&arguments[1..]).current_dir(root());
        let said = succeeds(&mut command);
        let line = |start: &str| said.lines().find(|line| line.starts_with(start)).unwrap().to_owned();
        let pair = |cell: &str| cell.split(" / ").map(str::to_owned).collect::<Vec<_>>();
        let [dense, sparse] = &pair(cells[2])[..] else { panic!("{}", cells[2]) };
        assert!(line("| **all**").ends_with(&format!("| **{dense}** | **{sparse}** |")), "{said}");
        for (cell, start) in [(cells[3], "Memory here for these series: "), (cells[4], "A push as protobuf + gzip: ")] {
            let [dense, sparse] = &pair(cell)[..] else { panic!("{cell}") };
            assert_eq!(line(start), format!("{start}{dense} dense, {sparse} sparse."));
        }
    }
}

#[test]
fn the_catalogue_is_what_the_command_prints() {
    let printed = succeeds(Command::new(KITEPUSH).arg("metrics"));
    let shown = section("### Metrics");
    let (_, shown) = shown.split_once("<!-- metrics: begin -->\n\n").unwrap();
    let (shown, _) = shown.split_once("\n<!-- metrics: end -->").unwrap();
    let printed = printed.split_inclusive("\n\n").next().unwrap().trim_end();
    assert_eq!(shown.trim_end(), printed, "put the table of `kitepush metrics` between the README's markers");
}

/// Every key that there is, with its default as `kitepush check` prints it.
fn keys() -> BTreeMap<String, String> {
    let mut config = Config::default();
    let name = || "<name>".to_owned();
    config.server.tls = Some(ServerTls::default());
    config.admin.tls = Some(ServerTls::default());
    config.admin.auth = Some(AdminAuth::default());
    config.families.insert(name(), Family::default());
    config.push.instance = Some("host name".to_owned());
    config.push.http = HttpConfig {
        basic_auth: Some(BasicAuth::default()),
        authorization: Some(Authorization::default()),
        oauth2: Some(OAuth2::default()),
        headers: [(name(), Header::default())].into(),
        ..HttpConfig::default()
    };
    let mut keys = BTreeMap::new();
    let mut path: Vec<String> = Vec::new();
    for line in config.to_yaml().lines() {
        path.truncate((line.len() - line.trim_start().len()) / 2);
        let (key, value) = line.trim_start().split_once(':').unwrap();
        path.push(key.trim_matches('"').to_owned());
        let default = match value.trim() {
            "" => continue,
            "null" => "none",
            "\"\"" => "required",
            value => value.trim_matches('"'),
        };
        keys.insert(path.join("."), default.to_owned());
    }
    keys
}

#[test]
fn every_key_stands_in_the_table_with_its_default() {
    let rows = rows(section("## Configuration"));
    let shown: BTreeMap<String, String> =
        rows.iter().map(|cells| (cells[0].replace('`', ""), cells[1].replace('`', ""))).collect();
    assert_eq!(shown.len(), rows.len(), "a key stands twice");
    assert_eq!(shown, keys());
    for cells in rows.iter().filter(|cells| cells[1] == "`{}`") {
        assert!(cells[2].starts_with("Map of "), "{} cannot be set by a variable", cells[0]);
    }
}

#[test]
fn every_key_but_maps_has_the_variable_that_the_rule_says() {
    let variables: Vec<(String, String)> = keys()
        .into_iter()
        .filter(|(key, default)| !key.contains('<') && default != "{}")
        .map(|(key, _)| (format!("KITEPUSH__{}", key.to_uppercase().replace('.', "__")), String::new()))
        .collect();
    assert!(variables.iter().any(|(name, _)| name == "KITEPUSH__PUSH__URL"));
    let problems = match Loaded::parse(None, &Environment::new(variables)).finish() {
        Ok(_) => Vec::new(),
        Err(problems) => problems.0,
    };
    let unknown: Vec<_> = problems.iter().filter(|problem| problem.key.starts_with("KITEPUSH")).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

fn sources(folder: &str) -> Vec<String> {
    let mut folders = vec![root().join(folder)];
    let mut texts = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                texts.push(std::fs::read_to_string(path).unwrap());
            }
        }
    }
    texts
}

#[test]
fn every_family_of_our_own_stands_in_the_table() {
    let printed = succeeds(Command::new(KITEPUSH).arg("metrics"));
    let (_, printed) = printed.split_once("\n\n").unwrap();
    let start = |cells: &[&str]| cells[..3].join(" ").trim().to_owned();
    let known: BTreeSet<String> = rows(printed).iter().map(|cells| start(cells)).collect();
    let known: BTreeSet<String> = known.into_iter().filter(|family| family.starts_with("`kitepush_")).collect();
    let rows = rows(section("### Metrics about kitepush itself"));
    let shown: BTreeSet<String> = rows.iter().map(|cells| start(cells)).collect();
    assert_eq!(shown, known);
    let says = |family: &str| ticked(rows.iter().find(|cells| cells[0].contains(family)).unwrap()[3]);
    assert_eq!(says("kitepush_webhooks_total"), Outcome::ALL.iter().map(|word| word.as_str()).collect());
    assert_eq!(says("kitepush_pushes_total"), PushOutcome::ALL.iter().map(|word| word.as_str()).collect());
}

#[test]
fn every_reason_of_a_refusal_is_explained() {
    let explained = ticked(section("### Why 401"));
    for reason in Rejection::ALL {
        assert!(explained.contains(reason.as_str()), "{}", reason.as_str());
    }
}

#[test]
fn every_test_that_the_threat_model_names_exists() {
    let sources: String = sources("src").into_iter().chain(sources("tests")).collect();
    let mut named = 0;
    let rows = rows(section("## Security"));
    for test in rows.iter().flat_map(|cells| ticked(cells.last().unwrap())) {
        assert!(sources.contains(&format!("fn {test}(")), "{test}");
        named += 1;
    }
    assert!(named > 15);
}

#[test]
fn the_image_has_the_version_that_compose_asks_for() {
    let image = format!("kitepush:{}", kitepush::VERSION);
    assert_eq!(section("## Install").matches(&image).count(), 2);
    assert!(std::fs::read_to_string(root().join("deploy/compose/.env")).unwrap().contains(&image));
}

/// GitHub's anchor of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let headings = README.lines().filter(|line| line.starts_with('#'));
    let anchors: BTreeSet<String> = headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect();
    let link = Regex::new(r"\]\(([^)]+)\)").unwrap();
    for target in link.captures_iter(README).map(|found| found.get(1).unwrap().as_str()) {
        match target.strip_prefix('#') {
            Some(wanted) => assert!(anchors.contains(wanted), "{target}"),
            None if target.starts_with("https://") => {}
            None => assert!(PathBuf::from(root()).join(target).exists(), "{target}"),
        }
    }
}
