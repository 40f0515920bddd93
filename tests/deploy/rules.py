"""The Prometheus rules: promtool's own checks and unit tests, and that the tests leave no rule out."""

import re
import subprocess
from pathlib import Path

import yaml

from cases import case, end

FOLDER = Path(__file__).parent.parent.parent / "deploy/prometheus"
rules = [rule for group in yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"] for rule in group["rules"]]
alerts = {rule["alert"]: rule for rule in rules if "alert" in rule}
records = {rule["record"]: rule for rule in rules if "record" in rule}


def promtool(*arguments):
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, cwd=FOLDER, check=False)
    return [] if done.returncode == 0 else (done.stdout + done.stderr).splitlines()


case("promtool check rules", promtool("check", "rules", "--lint=all", "--lint-fatal", "rules.yml"))
case("promtool check config", promtool("check", "config", "prometheus.yml"))
for path in sorted((FOLDER / "tests").glob("*.yml")):
    case(f"promtool test rules: {path.name}", promtool("test", "rules", f"tests/{path.name}"))

fires, silent, tested = {}, {}, set()
for path in (FOLDER / "tests").glob("*.yml"):
    for group in yaml.safe_load(path.read_text())["tests"]:
        for test in group["promql_expr_test"]:
            samples = test["exp_samples"]
            tested |= {name for name in records if name in test["expr"] and samples}
            if alert := re.search(r'ALERTS\{alertname="(\w+)"', test["expr"]):
                (fires if samples else silent).setdefault(alert[1], []).extend([sample for sample in samples if sample["labels"].startswith("ALERTS")] or [test])
case("each alert is tested: fires, does not fire, edge", [f"{name}: fires {len(fires.get(name, []))}, silent {len(silent.get(name, []))}" for name in alerts if not fires.get(name) or len(silent.get(name, [])) < 2])
case("each recording rule is tested", records.keys() - tested)

problems = []
for name, alert in alerts.items():
    if alert["labels"].get("severity") not in ("critical", "warning", "info") or "component" not in alert["labels"]:
        problems.append(f"{name}: severity and component")
    for key in ("summary", "description", "runbook"):
        text = alert["annotations"].get(key, "")
        if len(text) < 20:
            problems.append(f"{name}: {key} says nothing")
        for label in re.findall(r"\$labels\.(\w+)", text):
            if not all(re.search(rf'[{{,]{label}="', sample["labels"]) for sample in fires.get(name, []) if "labels" in sample):
                problems.append(f"{name}: {key} names the label {label}, which the alert doesn't have")
case("each alert says what it is, what to do, and for whom", problems)

sums = {name for name, rule in records.items() if re.search(r"\b(sum|max|min|avg|count)\b", rule["expr"])}
problems = []
for rule in rules:
    for inner in re.findall(r"\b(?:rate|irate|increase|delta|resets|changes)\(\s*([\w:]+)", rule["expr"]):
        if inner in sums or inner in ("sum", "max", "min", "avg", "count", "group", "histogram_quantile"):
            problems.append(f"{rule.get('record') or rule['alert']}: rates a sum")
case("rates first, then sums", problems)
end()
