"""A known CI day, sent through kitepush to a real Pushgateway and a real Prometheus, all three configured by what the
chart renders; then every expression of the dashboards and rules is run. None may be empty, none may name a metric that
doesn't exist, and the stat panels must show the day's own numbers."""

import base64
import datetime
import json
import math
import re
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import yaml

import servers
from cases import case, end

HERE = Path(__file__).parent
DEPLOY = HERE.parent.parent / "deploy"
SECRET = "known-day-" + uuid.uuid4().hex
NAMESPACE = uuid.UUID("0191a2b3-0000-7000-8000-000000000000")
CLUSTER = "0191a2b3-0000-7000-8000-0000000000c1"
NOW = int(time.time()) - 30
MORNING = NOW - 6 * 3600
API = "https://api.buildkite.com/v2/organizations/acme"
WEB = "https://buildkite.com/acme"


# The day. Times are seconds after MORNING.


def iso(seconds):
    if seconds is None:
        return None
    moment = datetime.datetime.fromtimestamp(MORNING + seconds, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def uid(name):
    return str(uuid.uuid5(NAMESPACE, name))


def pipeline(slug):
    return {
        "id": uid(slug), "url": f"{API}/pipelines/{slug}", "web_url": f"{WEB}/{slug}", "name": slug.title(), "description": None, "slug": slug,
        "repository": f"git@git.example.com:acme/{slug}.git", "cluster_id": CLUSTER, "branch_configuration": None, "default_branch": "main",
        "provider": {"id": "git", "settings": {"trigger_mode": "code", "build_pull_requests": True}, "webhook_url": "https://webhook.example.com"},
        "builds_url": f"{API}/pipelines/{slug}/builds", "created_at": iso(-9e6), "env": {}, "running_builds_count": 0, "visibility": "private", "steps": [],
    }  # fmt: skip


class Build:
    """One build; `event` gives its webhooks."""

    def __init__(self, slug, number, branch="main", at=0, wait=1, source="webhook", **fields):
        self.slug, self.number = slug, number
        self.fields = {"branch": branch, "source": source, "scheduled_at": at, "started_at": at + wait, "failing_at": None, "finished_at": None, **fields}

    def body(self, **now):
        fields = {**self.fields, **now}
        times = {key: iso(fields.pop(key)) for key in ("scheduled_at", "started_at", "failing_at", "finished_at")}
        return {
            "id": uid(f"{self.slug}#{self.number}"), "url": f"{API}/pipelines/{self.slug}/builds/{self.number}", "web_url": f"{WEB}/{self.slug}/builds/{self.number}",
            "number": self.number, "blocked": False, "blocked_state": "", "message": "Change", "commit": uid(f"commit {self.slug} {self.number}").replace("-", "") + "00000000",
            "tag": None, "author": None, "creator": None, "created_at": times["scheduled_at"], "meta_data": {}, "pull_request": None, "rebuilt_from": None, **fields, **times,
        }  # fmt: skip

    def event(self, event, state, /, **now):
        return {"event": event, "build": self.body(state=state, **now), "pipeline": pipeline(self.slug), "sender": None}

    def run(self, state, duration, failing=None):
        """From its scheduling to its end, in order."""
        started = self.fields["started_at"]
        events = [self.event("build.scheduled", "scheduled", started_at=None), self.event("build.running", "running")]
        if failing is not None:
            self.fields["failing_at"] = started + failing
            events.append(self.event("build.failing", "failing"))
        return [*events, self.event("build.finished", state, finished_at=started + duration)]

    def job(self, name, at, wait, queue="default", kind="script", **fields):
        return Job(self, name, at, wait, queue, kind, fields)


class Job:
    def __init__(self, build, name, at, wait, queue, kind, fields):
        self.build, self.name, self.kind, self.queue, self.fields = build, name, kind, queue, fields
        self.runnable, self.started = at, at + wait

    def event(self, event, state, /, **now):
        job = {
            "id": uid(f"{self.build.slug}#{self.build.number} {self.name}"), "type": self.kind, "name": self.name, "step_key": self.name,
            "agent_query_rules": [f"queue={self.queue}"], "state": state, "web_url": f"{WEB}/{self.build.slug}/builds/{self.build.number}#{self.name}",
            "command": "make", "soft_failed": False, "exit_status": None, "signal": None, "signal_reason": None, "artifact_paths": "", "agent": None,
            "created_at": iso(self.runnable), "scheduled_at": iso(self.runnable), "runnable_at": iso(self.runnable), "started_at": None, "finished_at": None,
            "retried": False, "retried_in_job_id": None, "retries_count": None, "retry_source": None, "cluster_id": CLUSTER, "cluster_queue_id": None, **self.fields, **now,
        }  # fmt: skip
        return {"event": event, "job": job, "build": self.build.body(state="running"), "pipeline": pipeline(self.build.slug), "sender": None}

    def agent(self):
        return {"id": uid("agent " + self.queue), "name": f"{self.queue}-1", "connection_state": "connected", "hostname": f"{self.queue}-1", "version": "3.90.0", "meta_data": [f"queue={self.queue}"]}

    def scheduled(self):
        return self.event("job.scheduled", "scheduled")

    def start(self):
        return self.event("job.started", "running", started_at=iso(self.started), agent=self.agent())

    def run(self, state, duration, exit_status=0, **now):
        over = dict(started_at=iso(self.started), finished_at=iso(self.started + duration), exit_status=exit_status, agent=self.agent())
        return [self.scheduled(), self.start(), self.event("job.finished", state, **over, **now)]


def agent(event, name):
    body = {"id": uid(name), "url": f"{API}/agents/{uid(name)}", "name": name, "connection_state": event.split(".")[1], "meta_data": ["queue=default"], "created_at": iso(0)}
    return {"event": event, "agent": body, "sender": None}


def day():
    """Every event, in the order in which Buildkite would send it."""
    events = []

    # web
    build = Build("web", 1, at=0, wait=4)
    events += build.run("passed", 120) + build.job("test", 5, 10).run("passed", 100)
    failed = build = Build("web", 2, at=600, wait=6)
    events += build.run("failed", 300, failing=200) + build.job("test", 607, 20).run("failed", 250, 1)
    build = Build("web", 3, "feature/login", at=1200, wait=20)
    events += build.run("passed", 60) + build.job("test", 1221, 3).run("passed", 50)
    build = Build("web", 4, "retry-uploads", at=1800, wait=3, pull_request={"id": "17", "base": "main", "repository": "git@git.example.com:acme/web.git"})
    lost = build.job("test", 1804, 40)
    again = build.job("test-again", 1840, 2, retry_source={"job_id": uid("web#4 test"), "retry_type": "automatic"})
    events += build.run("passed", 90) + lost.run("failed", 30, -1, signal_reason="agent_stop") + again.run("passed", 45)
    build = Build("web", 5, at=2400, wait=2)
    events += build.run("canceled", 45) + build.job("test", 2402, 1).run("canceled", 40, None)
    # blocked after 100 s, unblocked 600 s later, passed 100 s after that
    build = Build("web", 6, at=3000, wait=1)
    scheduled, running, passed = build.run("passed", 800)
    blocked = build.event("build.finished", "passed", blocked=True, blocked_state="passed", finished_at=3101)
    unblock = build.job("approve", 3050, 0, kind="manual").event("job.activated", "unblocked", unblocked_at=iso(3701), name=None, label="approve")
    unblock["build"] = blocked["build"]
    events += [scheduled, running, blocked, unblock, running, passed] + build.job("deploy", 3702, 8).run("passed", 90)
    build = Build("web", 7, at=4200, wait=5, source="ui", rebuilt_from={"id": uid("web#2"), "number": 2, "url": failed.body()["url"]})
    events += build.run("passed", 240) + build.job("test", 4206, 15, concurrency_wait_time_ms=7000).run("passed", 200)
    build = Build("web", 8, at=21000, wait=5)
    running = build.job("test", 21006, 5)
    events += build.run("passed", 0)[:2] + [running.scheduled(), running.start()]
    events += [running.event("job.promised_exit_status", "running", started_at=iso(21011), promised_exit_status=1, promised_exit_status_at=iso(21100), agent=running.agent())]
    events += [build.job("train", 21200, 0, "gpu").scheduled()]
    events += [Build("web", 9, at=4800).event("build.skipped", "skipped", started_at=None)]
    build = Build("web", 10, at=5400, wait=2)
    scheduled, running, _ = build.run("passed", 0)
    events += [scheduled, running, build.event("build.finished", "passed", blocked=True, blocked_state="running", finished_at=5460)]

    # api: four that pass; a fifth whose end came as a later version of the build, which no longer knew it
    for number, (duration, job_wait, job_duration) in enumerate([(30, 1, 20), (45, 2, 30), (50, 400, 40), (200, 5, 100)], 11):
        build = Build("api", number, at=600 * number, wait=1, source="schedule")
        events += build.run("passed", duration) + build.job("test", 600 * number + 1, job_wait, "builders").run("passed", job_duration)
    build = Build("api", 15, at=12000, wait=1)
    scheduled, running, _ = build.run("passed", 0)
    events += [scheduled, running, build.event("build.finished", "running")]

    # docs: a job that started before it could run, and more kept branches than values_per_label
    events += Build("docs", 1).job("lint", 13000, -5).run("passed", 10)
    events += [Build("docs", n, f"release/{n}", at=13000 + n).event("build.scheduled", "scheduled", started_at=None) for n in range(1, 21)]

    events += [agent("agent.connected", f"default-{n}") for n in (1, 2, 3)] + [agent("agent.lost", "default-2"), agent("agent.stopped", "default-3")]
    events += [{"event": "cluster_token.registration_blocked", "blocked_ip": "192.0.2.7", "cluster_token": {"id": uid("token"), "url": f"{API}/clusters/{CLUSTER}/tokens/1"}, "sender": None}]
    return events


# What the day shows, by hand.

BUILD_DURATIONS = {"web": [120, 60, 90, 800, 240], "api": [30, 45, 50, 200]}
WAITS = {"web": [10, 20, 3, 40, 2, 1, 8, 15, 5], "api": [1, 2, 400, 5]}
DURATION_BUCKETS = [10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200]
WAIT_BUCKETS = [1, 5, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200]
DUPLICATES, FORGED, UNKNOWN = 9, 4, 3


def quantile(q, values, buckets):
    """As Prometheus estimates it: linear within the bucket that holds the rank."""
    rank, below = q * len(values), 0
    for low, high in zip([0, *buckets], buckets):
        inside = sum(low < value <= high for value in values)
        if below + inside >= rank:
            return low + (high - low) * (rank - below) / inside
        below += inside
    return buckets[-1]


def between(low, high):
    return lambda value: low <= value <= high


def expected(events, samples):
    durations, waits = sum(BUILD_DURATIONS.values(), []), sum(WAITS.values(), [])
    web = BUILD_DURATIONS["web"]
    return {
        "overview": {
            "Builds finished": 11,
            "Failed share": 1 / 10,
            "Build duration p95": quantile(0.95, durations, DURATION_BUCKETS),
            "Job wait p95": quantile(0.95, waits, WAIT_BUCKETS),
            "Running now": 1,
            "Blocked now": 1,
        },
        "pipeline": {
            "Passed": 5,
            "Failed": 1,
            "Canceled": 1,
            "Default branch failed share": 1 / 4,
            "Duration p50": quantile(0.5, web, DURATION_BUCKETS),
            "Duration p95": quantile(0.95, web, DURATION_BUCKETS),
            "Jobs retried": 1,
            "Flaky": 1,
        },
        "queues": {
            "Waiting now": 1,
            "Running now": 1,
            "Longest wait now": between(time.time() - MORNING - 21200 - 60, time.time() - MORNING - 21200 + 60),
            "Wait p95": quantile(0.95, waits, WAIT_BUCKETS),
            "Waited over 5 min": 1 / 13,
            "Agents lost": 1,
            "Registrations blocked": 1,
        },
        "kitepush": {
            "Version": 1,
            "Last push": between(0, 15),
            "Last webhook": between(1, 120),
            "Webhooks accepted": len(events) - 1,
            "Duplicates": DUPLICATES + 1,
            "Rejected": FORGED,
            "Backlog": 0,
            "Samples": samples,
        },
    }


# Servers, configured by the chart.


def rendered():
    done = subprocess.run(["helm", "template", "release", DEPLOY / "helm/kitepush", "--namespace", "ci", "-f", HERE / "known_day.yaml"], capture_output=True, text=True, check=True)
    docs = [doc for doc in yaml.safe_load_all(done.stdout) if doc]
    return lambda kind, name="": next(doc for doc in docs if doc["kind"] == kind and doc["metadata"]["name"].endswith(name))


def now_only(expression):
    """The same expression on data that has no past."""
    return re.sub(r"\s*\boffset \w+", "", expression)


def operands(expression):
    """What an alert looks at, each part without its bound: empty exactly when something isn't there."""
    parts = re.split(r'(\{[^}]*\})', now_only(expression).replace("absent(", "count("))
    for index in range(0, len(parts), 2):
        parts[index] = re.sub(r"(<=|>=|==|!=|<|>)", r"\1 bool", parts[index])
    # `unless` and `or` at the top part the operands; inside of parentheses they become `and`.
    depth, found, word = 0, [""], ""
    for token in re.split(r"(\{[^}]*\}|[()]|\bunless\b(?:\s+on\s*\([^)]*\))?|\bor\b)", "".join(parts)):
        depth += {"(": 1, ")": -1}.get(token, 0)
        word = re.fullmatch(r"unless\b.*|or", token, re.S)
        if word and depth == 0:
            found.append("")
        else:
            found[-1] += "and" if word else token
    return found


def scrape(monitor, secret, gateway):
    """The scrape section that the operator makes of the ServiceMonitor, for one target and every second."""
    endpoint = monitor["spec"]["endpoints"][0]
    return {
        "job_name": "release-kitepush-pushgateway",
        "scrape_interval": "1s",
        "metrics_path": endpoint["path"],
        "honor_labels": endpoint["honorLabels"],
        "basic_auth": {key: secret[endpoint["basicAuth"][key]["key"]] for key in ("username", "password")},
        "static_configs": [{"targets": [gateway.removeprefix("http://")]}],
    }


def expressions():
    """(file, panel or rule, type of panel, expression)"""
    for path in sorted((DEPLOY / "grafana/dashboards").glob("*.json")):
        dashboard = json.loads(path.read_text())
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                yield path.stem, panel["title"], panel["type"], target["expr"]
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                metric, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()
                yield path.stem, f"${variable['name']}", "variable", f"count by ({label}) ({metric})"
    for group in yaml.safe_load((DEPLOY / "prometheus/rules.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield "rules", rule.get("record") or rule["alert"], "record" if "record" in rule else "alert", rule["expr"]


def metric_names(expression):
    bare = re.sub(r'"(\\.|[^"\\])*"', "", expression)
    return set(re.findall(r"\b(?:buildkite|kitepush|process|push|pipeline|queue|pipeline_\w+)[_:][a-z_:0-9]+\b|\bup\b", re.sub(r"\{[^}]*\}|\b(by|on|without|group_left)\s*\([^)]*\)", "", bare)))


def main():
    folder = Path(tempfile.mkdtemp(prefix="known-day-"))
    (folder / "webhook").mkdir()
    (folder / "webhook/token").write_text(SECRET + "\n")
    find = rendered()
    secret = {key: base64.b64decode(value).decode() for key, value in find("Secret", "-pushgateway")["data"].items()}
    for key, value in secret.items():
        (folder / key).write_text(value)
    (folder / "kitepush.yaml").write_text(find("ConfigMap", "kitepush")["data"]["kitepush.yaml"])
    rules = find("PrometheusRule")["spec"]
    for group in rules["groups"]:
        group.pop("interval", None)
        for rule in group["rules"]:
            rule["expr"] = now_only(rule["expr"])
    (folder / "rules.yml").write_text(yaml.safe_dump(rules))
    running = []
    try:
        gateway_args = next(a for a in find("StatefulSet", "-pushgateway")["spec"]["template"]["spec"]["containers"])["args"]
        assert "--web.config.file=/etc/pushgateway/web.yml" in gateway_args
        server, gateway = servers.pushgateway(folder, f"--web.config.file={folder}/web.yml")
        running.append(server)
        prometheus_port, listen, admin = servers.free_port(), servers.free_port(), servers.free_port()
        (folder / "prometheus.yml").write_text(yaml.safe_dump({
            "global": {"evaluation_interval": "1s"}, "rule_files": ["rules.yml"], "scrape_configs": [scrape(find("ServiceMonitor"), secret, gateway)],
        }))  # fmt: skip
        running.append(servers.Server("prometheus", ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb", f"--web.listen-address=127.0.0.1:{prometheus_port}"], folder))
        prometheus = servers.Prometheus(f"http://127.0.0.1:{prometheus_port}")
        kitepush = servers.Server("kitepush", [servers.BINARY, "serve", "--config", folder / "kitepush.yaml"], folder, {
            "KITEPUSH__SERVER__LISTEN": f"127.0.0.1:{listen}", "KITEPUSH__SERVER__SHUTDOWN_DELAY": "0s", "KITEPUSH__ADMIN__LISTEN": f"127.0.0.1:{admin}",
            "KITEPUSH__AUTH__SECRET_FILES": str(folder / "webhook"), "KITEPUSH__STATE__PATH": str(folder / "state.db"), "KITEPUSH__PUSH__URL": gateway,
            "KITEPUSH__PUSH__HTTP__BASIC_AUTH__USERNAME_FILE": str(folder / "username"), "KITEPUSH__PUSH__HTTP__BASIC_AUTH__PASSWORD_FILE": str(folder / "password"),
            "KITEPUSH__PUSH__INTERVAL": "1s", "KITEPUSH__PUSH__TIMEOUT": "1s", "KITEPUSH__PUSH__SCRAPE_INTERVAL": "1s", "KITEPUSH__PUSH__ZERO_HOLD": "3s", "KITEPUSH__PUSH__INSTANCE": "release-kitepush-0",
        })  # fmt: skip
        running.append(kitepush)
        kitepush.ready(lambda: servers.get(f"http://127.0.0.1:{admin}/readyz"))
        servers.until("Prometheus sees no kitepush", 30, lambda: prometheus.query("kitepush_build_info"))
        began = time.time() - 5

        # The hook of `helm test` is the first to come through the door.
        ping = find("Pod", "-ping")["spec"]["containers"][0]["args"]
        url = f"http://127.0.0.1:{listen}/webhook"
        ping = [re.sub(r"^--url=.*?(/[^/]*)$", rf"--url=http://127.0.0.1:{listen}\1", a).replace("/etc/kitepush/webhook", str(folder / "webhook")) for a in ping]
        done = subprocess.run([servers.BINARY, *ping], capture_output=True, text=True, timeout=30, check=False)
        case("helm test: the signed ping is taken", [] if done.returncode == 0 else [done.stdout + done.stderr])

        events = day()
        bad = []
        # Disorder: every fifth event comes after its successor; then duplicates, forgeries and what nobody knows.
        order = list(range(len(events)))
        for index in range(0, len(order) - 1, 5):
            order[index], order[index + 1] = order[index + 1], order[index]
        answers = {}
        for index in order:
            status, answer = servers.post(url, events[index], SECRET)
            answers[answer.get("outcome")] = answers.get(answer.get("outcome"), 0) + 1
            if status != 200:
                bad.append(f"{events[index]['event']}: {status} {answer}")
        for index in range(DUPLICATES):
            status, answer = servers.post(url, events[index * 7], SECRET)
            bad += [] if (status, answer.get("outcome")) == (200, "duplicate") else [f"a duplicate: {status} {answer}"]
        for index in range(FORGED):
            status, answer = servers.post(url, events[index], "not the secret")
            bad += [] if status == 401 else [f"a forgery: {status} {answer}"]
        for index in range(UNKNOWN):
            status, answer = servers.post(url, {"event": "build.imagined", "n": index}, SECRET)
            bad += [] if (status, answer.get("outcome")) == (200, "ignored") else [f"an unknown event: {status} {answer}"]
        case(f"{len(events)} webhooks of a day, with disorder, duplicates and forgeries", bad)
        print(f"    outcomes: {answers}")

        # What takes hours to happen, in a group of its own.
        rare = ""
        credentials = (secret["username"], secret["password"])
        for series in ('kitepush_events_missing_total{event="job.started"}', 'kitepush_in_flight_expired_total{kind="build_running"}'):
            # Of one type and help with what kitepush pushes, or the gateway refuses it.
            about = re.compile(rf"# (HELP|TYPE) {series.partition('{')[0]} .*")
            servers.until(f"{series} was never pushed", 20, lambda: about.search(servers.get(f"{gateway}/metrics", credentials)))
            rare += "".join(f"{line}\n" for line in servers.get(f"{gateway}/metrics", credentials).splitlines() if about.match(line)) + f"{series} 1\n"
        request = servers.urllib.request.Request(f"{gateway}/metrics/job/buildkite/instance/rare", rare.encode(), method="PUT")
        request.add_header("Authorization", "Basic " + base64.b64encode(f"{secret['username']}:{secret['password']}".encode()).decode())
        servers.urllib.request.urlopen(request, timeout=10).close()

        # Settled: what Prometheus reads is what it read three seconds ago, and the zero-hold is over.
        time.sleep(8)
        seen = []

        def settled():
            total = prometheus.query('sum({__name__=~"buildkite_.*_total|buildkite_.*_count"})')[0][1]
            seen.append(total)
            time.sleep(0.8)
            return len(seen) > 4 and len(set(seen[-4:])) == 1

        servers.until("Prometheus never settles", 60, settled)
        # The moment of a scrape: nothing to extrapolate.
        at = prometheus.query('timestamp(up)')[0][1]
        window = f"{math.ceil(at - began)}s"

        held = servers.get(f"{gateway}/metrics", credentials)
        samples = sum(line.startswith("buildkite_") for line in held.splitlines())
        numbers = expected(events, samples)
        listed = subprocess.run([servers.BINARY, "metrics", "--format", "json", "--config", folder / "kitepush.yaml"], capture_output=True, text=True, check=False)
        families = set(re.findall(r'"name":\s*"((?:buildkite|kitepush)_\w+)"', listed.stdout))
        case("kitepush metrics lists the catalogue", [] if listed.returncode == 0 and len(families) > 20 else [listed.stderr or listed.stdout])
        scraped = set(prometheus.api("label/__name__/values"))
        bases = {re.sub(r"_(bucket|sum|count)$", "", name) for name in scraped}
        named = {(labels["job"], labels["instance"]) for labels, _ in prometheus.query('{__name__=~"buildkite_.+|kitepush_build_info"}', at)}
        case("the pushed job and instance are the ones that count", [str(name) for name in named ^ {("buildkite", "release-kitepush-0")}])
        # No listener has a certificate here.
        case("every family of the catalogue reached Prometheus", sorted(families - bases - {"kitepush_certificate_reloads_total"}))

        stats, used = {}, set()
        empty, unknown = {}, {}
        for file, title, kind, expression in expressions():
            used |= metric_names(expression)
            if wrong := metric_names(expression) - scraped:
                unknown.setdefault(file, []).append(f"{title}: {', '.join(sorted(wrong))}")
            for asked in operands(expression) if kind == "alert" else [now_only(expression)]:
                for variable, value in {"$__range": window, "$__rate_interval": window, "$organization": "acme", "$pipeline": "web" if file == "pipeline" else ".*"}.items():
                    asked = asked.replace(variable, value)
                asked = re.sub(r"\$(branch|cluster|queue|job|instance)\b", ".*", asked)
                try:
                    result = [(labels, value) for labels, value in prometheus.query(asked, at) if not math.isnan(value)]
                except ValueError as error:
                    result = []
                    unknown.setdefault(file, []).append(f"{title}: {error}")
                if not result:
                    empty.setdefault(file, []).append(f"{title}: {asked}")
            if kind == "stat":
                stats.setdefault(file, {})[title] = [value for _, value in result]
        for file in ["overview", "pipeline", "queues", "kitepush", "rules"]:
            case(f"{file}: no expression names an unknown metric", unknown.get(file, []))
            case(f"{file}: no expression is empty", empty.get(file, []))
        for file, panels in stats.items():
            problems = [f"{title}: not among the day's numbers" for title in panels.keys() ^ numbers[file].keys()]
            for title, values in panels.items():
                wanted = numbers[file].get(title, math.nan)
                right = len(values) == 1 and (wanted(values[0]) if callable(wanted) else math.isclose(values[0], wanted, rel_tol=1e-6, abs_tol=1e-9))
                if not right:
                    problems.append(f"{title}: shows {values}, the day has {wanted}")
            case(f"{file}: the stat panels show the day's numbers", problems)
        bare = {re.sub(r"_(bucket|sum|count)$", "", name) for name in used}
        shown = {name for name in families if name.startswith("buildkite_")} - bare - {"buildkite_recent_build_info"}
        case("every buildkite family is on a dashboard or in a rule", sorted(shown))
        errors = [f"{rule['name']}: {rule['lastError']}" for group in prometheus.api("rules")["groups"] for rule in group["rules"] if rule["health"] == "err"]
        case("Prometheus evaluates every rule", errors)
        broken = [f"{alert['labels']['alertname']}: {text}" for alert in prometheus.api("alerts")["alerts"] for text in alert["annotations"].values() if "<error" in text or "%!" in text]
        case("annotations expand", broken)
        case("kitepush stops cleanly", [] if (code := kitepush.stop()) == 0 else [f"exit {code}", kitepush.log.read_text()[-500:]])
    except (TimeoutError, RuntimeError) as error:
        case("the known day", [str(error)])
    finally:
        for server in reversed(running):
            server.stop()
    if "--keep" in sys.argv:
        print(folder)
    else:
        subprocess.run(["rm", "-rf", folder], check=False)
    end()


if __name__ == "__main__":
    main()
