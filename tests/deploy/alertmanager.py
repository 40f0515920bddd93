"""Alertmanager's example: checked and routed by amtool, and its inhibition seen in a real Alertmanager."""

import json
import subprocess
import tempfile
import urllib.request
from pathlib import Path

import yaml

import servers
from cases import case, end

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
CONFIG = DEPLOY / "alertmanager/alertmanager.yml"
rules = [rule for group in yaml.safe_load((DEPLOY / "prometheus/rules.yml").read_text())["groups"] for rule in group["rules"] if "alert" in rule]
labels = {rule["alert"]: {"alertname": rule["alert"], **rule["labels"]} for rule in rules}
RECEIVERS = {"critical": "opsgenie,slack", "warning": "slack", "info": "quiet"}


def amtool(*arguments):
    done = subprocess.run(["amtool", *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.strip(), done.stderr


code, out, errors = amtool("check-config", CONFIG)
case("amtool check-config", [] if code == 0 else [out, errors])
problems = []
for name, alert in labels.items():
    code, out, errors = amtool("config", "routes", "test", "--config.file", CONFIG, *(f"{key}={value}" for key, value in alert.items()))
    if (code, out) != (0, RECEIVERS[alert["severity"]]):
        problems.append(f"{name} goes to {out} {errors}")
case(f"amtool routes test: {len(labels)} alerts by severity", problems)
code, out, errors = amtool("config", "routes", "test", "--config.file", CONFIG, "alertname=Other", "severity=page")
case("amtool routes test: an alert of somebody else takes the default", [] if out == "slack" else [out, errors])
route = yaml.safe_load(CONFIG.read_text())["route"]
case("grouped by pipeline", [] if "pipeline" in route["group_by"] else [str(route["group_by"])])

QUEUE = {"organization": "acme", "buildkite_cluster": "linux", "queue": "gpu"}
PIPELINE = {"organization": "acme", "pipeline": "web"}
# (what fires, what is still heard)
INHIBITION = [
    ([labels["KitepushGatewayDown"], *(alert for name, alert in labels.items() if name != "KitepushGatewayDown")], ["KitepushGatewayDown"]),
    ([labels["KitepushAbsent"], labels["KitepushSeriesOverflow"], labels["BuildkiteBuildsStuck"] | PIPELINE], ["KitepushAbsent", "KitepushSeriesOverflow"]),
    ([labels["BuildkiteQueueWithoutAgents"] | QUEUE, labels["BuildkiteQueueWaitFastBurn"] | QUEUE, labels["BuildkiteQueueWaitSlowBurn"] | QUEUE | {"queue": "default"}], ["BuildkiteQueueWaitSlowBurn", "BuildkiteQueueWithoutAgents"]),
    ([labels["BuildkiteQueueWaitFastBurn"] | QUEUE, labels["BuildkiteQueueWaitSlowBurn"] | QUEUE], ["BuildkiteQueueWaitFastBurn"]),
    ([labels["KitepushPushStale"], labels["BuildkiteBuildsStuck"] | PIPELINE, labels["BuildkiteQueueWaitFastBurn"] | QUEUE], ["BuildkiteQueueWaitFastBurn", "KitepushPushStale"]),
]
for fired, heard in INHIBITION:
    with tempfile.TemporaryDirectory() as folder:
        url = f"http://127.0.0.1:{(port := servers.free_port())}"
        command = ["prometheus-alertmanager", f"--config.file={CONFIG}", f"--storage.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="]
        with servers.Server("alertmanager", command, folder) as alertmanager:
            alertmanager.ready(lambda: servers.get(f"{url}/-/ready"))
            body = json.dumps([{"labels": alert, "annotations": {"summary": "a"}} for alert in fired]).encode()
            urllib.request.urlopen(urllib.request.Request(f"{url}/api/v2/alerts", body, {"Content-Type": "application/json"}), timeout=10).close()

            def quiet():
                known = json.loads(servers.get(f"{url}/api/v2/alerts"))
                active = sorted(alert["labels"]["alertname"] for alert in known if alert["status"]["state"] == "active")
                return len(known) == len(fired) and active == heard and not any(alert["status"]["state"] == "unprocessed" for alert in known)

            try:
                servers.until("", 10, quiet)
                problems = []
            except TimeoutError:
                known = json.loads(servers.get(f"{url}/api/v2/alerts"))
                problems = [f"{alert['labels']['alertname']}: {alert['status']['state']}" for alert in known]
            case(f"inhibition: of {len(fired)} only {', '.join(heard)}", problems)
end()
