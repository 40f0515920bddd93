"""The Helm chart: each file of values/ is rendered and looked at from every side."""

import copy
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import kubernetes_validate
import yaml

from cases import case, end

HERE = Path(__file__).parent
CHART = HERE.parent.parent / "deploy/helm/kitepush"
BINARY = os.environ["KITEPUSH_BIN"]
OLDEST, NEWEST = "1.25", "1.37"
CRDS = ("monitoring.coreos.com/", "gateway.networking.k8s.io/")


def run(*command, **options):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)


def helm(*arguments):
    """Standard output, and the errors without helm's word on the chart's links."""
    done = run("helm", *arguments)
    errors = "\n".join(line for line in done.stderr.splitlines() if "found symbolic link" not in line)
    return done.returncode, done.stdout, errors


def render(*arguments, chart=CHART, release="release", kubernetes=NEWEST):
    code, out, errors = helm("template", release, chart, "--namespace", "ci", "--kube-version", kubernetes, *arguments)
    return (None, errors) if code else ([doc for doc in yaml.safe_load_all(out) if doc], errors)


def name_of(doc):
    return f"{doc['kind']}/{doc['metadata']['name']}"


def of_kind(docs, *kinds):
    return [doc for doc in docs if doc["kind"] in kinds]


def pods(docs):
    """(owner, labels of the pod, pod spec, names of the volumes that the owner claims)"""
    for doc in docs:
        if doc["kind"] == "Pod":
            yield doc, doc["metadata"]["labels"], doc["spec"], set()
        elif doc["kind"] in ("StatefulSet", "Deployment"):
            template = doc["spec"]["template"]
            claims = {claim["metadata"]["name"] for claim in doc["spec"].get("volumeClaimTemplates", [])}
            yield doc, template["metadata"]["labels"], template["spec"], claims


def selects(selector, labels):
    return selector and all(labels.get(key) == value for key, value in selector.items())


def duplicates(items):
    items = list(items)
    return {item for item in items if items.count(item) > 1}


# What the schemas of Kubernetes miss.


def pod_problems(docs):
    names = {name_of(doc) for doc in docs}
    for owner, labels, spec, claims in pods(docs):
        where = name_of(owner)
        volumes = [volume["name"] for volume in spec.get("volumes", [])] + sorted(claims)
        mounted = set()
        for name in duplicates(volumes):
            yield f"{where}: two volumes are called {name}"
        for container in spec["containers"]:
            ports = {port["name"] for port in container.get("ports", [])}
            for name in duplicates(env["name"] for env in container.get("env", [])):
                yield f"{where}: environment variable {name} stands twice"
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                target = next((action for key, action in container.get(probe, {}).items() if key in ("httpGet", "tcpSocket")), None)
                if target and target["port"] not in ports:
                    yield f"{where}: {probe} asks port {target['port']}, which the container doesn't name"
            for mount in container.get("volumeMounts", []):
                mounted.add(mount["name"])
                if mount["name"] not in volumes:
                    yield f"{where}: mounts {mount['name']}, which is no volume"
                if "subPath" in mount:
                    yield f"{where}: mounts {mount['name']} by subPath, so it wouldn't follow a rotation"
            for path in duplicates(mount["mountPath"] for mount in container.get("volumeMounts", [])):
                yield f"{where}: mounts {path} twice"
            if not container["resources"].get("requests"):
                yield f"{where}: no resource requests"
        for name in set(volumes) - mounted:
            yield f"{where}: nothing mounts {name}"
        for volume in spec.get("volumes", []):
            source = volume.get("configMap", {}).get("name")
            if source and f"ConfigMap/{source}" not in names:
                yield f"{where}: there is no ConfigMap {source}"
        if not selects(owner["spec"].get("selector", {}).get("matchLabels", labels), labels):
            yield f"{where}: doesn't select its own pods"


def restricted_problems(docs):
    """The restricted Pod Security Standard, and what the chart promises beyond it."""
    for owner, _, spec, _ in pods(docs):
        where, security = name_of(owner), spec.get("securityContext", {})
        wanted = {
            "runAsNonRoot": security.get("runAsNonRoot") is True,
            "a user that is not root": security.get("runAsUser", 0) > 0,
            "seccomp RuntimeDefault": security.get("seccompProfile") == {"type": "RuntimeDefault"},
            "no service account token": spec.get("automountServiceAccountToken") is False,
            "no service links": spec.get("enableServiceLinks") is False,
            "no host namespaces": not any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")),
            "volumes of allowed types": all(
                set(volume) - {"name"} <= {"configMap", "secret", "projected", "emptyDir", "persistentVolumeClaim"} for volume in spec.get("volumes", [])
            ),
        }
        for container in spec["containers"] + spec.get("initContainers", []):
            own = container.get("securityContext", {})
            wanted |= {
                "no privilege escalation": own.get("allowPrivilegeEscalation") is False,
                "read-only root": own.get("readOnlyRootFilesystem") is True,
                "no capabilities": own.get("capabilities") == {"drop": ["ALL"]},
                "not privileged": not own.get("privileged"),
                "no host ports": not any("hostPort" in port for port in container.get("ports", [])),
            }
        yield from (f"{where}: {what} is missing" for what, there in wanted.items() if not there)


def network_problems(docs):
    """Services, routes, policies and monitors lead to ports that exist."""
    ports = [(labels, {port["name"] for container in spec["containers"] for port in container.get("ports", [])}) for _, labels, spec, _ in pods(docs)]
    services = {doc["metadata"]["name"]: doc for doc in of_kind(docs, "Service")}
    for name, service in services.items():
        chosen = [names for labels, names in ports if selects(service["spec"]["selector"], labels)]
        if len(chosen) != 1:
            yield f"Service/{name}: selects {len(chosen)} workloads"
        for port in service["spec"]["ports"]:
            if not any(port["targetPort"] in names for names in chosen):
                yield f"Service/{name}: no pod has port {port['targetPort']}"
    for policy in of_kind(docs, "NetworkPolicy"):
        own = policy["spec"]["podSelector"]["matchLabels"]
        for rule in policy["spec"].get("ingress", []):
            for port in rule["ports"]:
                if not any(port["port"] in names for labels, names in ports if selects(own, labels)):
                    yield f"{name_of(policy)}: guards port {port['port']}, which its pods don't have"
        for rule in policy["spec"].get("egress", []):
            if not rule.get("to"):
                yield f"{name_of(policy)}: egress to everywhere"
            for port in rule["ports"]:
                for peer in rule["to"] if isinstance(port["port"], str) else []:
                    if not any(port["port"] in names for labels, names in ports if selects(peer["podSelector"]["matchLabels"], labels)):
                        yield f"{name_of(policy)}: egress to port {port['port']}, which no pod has"
        if not selects(own, next((labels for labels, _ in ports if selects(own, labels)), {})):
            yield f"{name_of(policy)}: guards no pod"
    for ingress in of_kind(docs, "Ingress"):
        for path in (path for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]):
            backend = services.get(path["backend"]["service"]["name"], {"spec": {"ports": []}})
            if path["pathType"] != "Exact":
                yield "Ingress: the path isn't exact"
            if path["backend"]["service"]["port"]["name"] not in {port["name"] for port in backend["spec"]["ports"]}:
                yield "Ingress: leads to no service"
    for route in of_kind(docs, "HTTPRoute"):
        for rule in route["spec"]["rules"]:
            if [(match["path"]["type"], match["method"]) for match in rule["matches"]] != [("Exact", "POST")]:
                yield "HTTPRoute: more than POST on the exact path"
            for backend in rule["backendRefs"]:
                if backend["port"] not in {port["port"] for port in services[backend["name"]]["spec"]["ports"]}:
                    yield "HTTPRoute: leads to no service"
    monitors = of_kind(docs, "ServiceMonitor")
    if len(monitors) > 1:
        yield "more than one ServiceMonitor: everything is counted twice"
    for monitor in monitors:
        chosen = [service for service in services.values() if selects(monitor["spec"]["selector"]["matchLabels"], service["metadata"]["labels"])]
        endpoints = monitor["spec"]["endpoints"]
        if len(chosen) != 1 or len(endpoints) != 1:
            yield f"ServiceMonitor: {len(chosen)} services and {len(endpoints)} endpoints"
        elif endpoints[0]["port"] not in {port["name"] for port in chosen[0]["spec"]["ports"]}:
            yield f"ServiceMonitor: no port {endpoints[0]['port']}"
        elif endpoints[0].get("honorLabels", False) != chosen[0]["metadata"]["name"].endswith("-pushgateway"):
            yield "ServiceMonitor: honorLabels belongs to the Pushgateway, and to it alone"


def secret_problems(docs, values):
    """Every secret is either made by the chart or named in the values."""
    known = {doc["metadata"]["name"] for doc in of_kind(docs, "Secret")} | set(re.findall(r"[\w.-]+", json.dumps(values)))
    known |= {"kitepush-alertmanager"} if not values.get("alertmanagerConfig", {}).get("existingSecret") else set()

    def referred(node):
        if isinstance(node, dict):
            for key, value in node.items():
                if key in ("secretName", "apiURL", "apiKey", "username", "password") and value:
                    yield value if isinstance(value, str) else value["name"]
                yield from referred(value)
        elif isinstance(node, list):
            for item in node:
                yield from referred(item)

    for doc in docs:
        for name in referred(doc.get("spec", {})):
            if name not in known:
                yield f"{name_of(doc)}: there is no secret {name}"


def seconds(duration):
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h)", duration).groups()
    return int(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit]


def config_problems(docs, values):
    """kitepush's configuration fits the pod it runs in."""
    config = yaml.safe_load(next(doc for doc in docs if "kitepush.yaml" in doc.get("data", {}))["data"]["kitepush.yaml"])
    owner, _, spec, _ = next(pod for pod in pods(docs) if pod[0]["kind"] != "Pod" and pod[2]["containers"][0]["name"] == "kitepush")
    mounts = [mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]]
    for path in re.findall(r"(?:/etc|/var)/[^\s'\"]+", yaml.safe_dump(config)):
        if not any(path == mount or path.startswith(mount + "/") for mount in mounts):
            yield f"{path} is not mounted"
    server = config["server"]
    needed = math.ceil(seconds(server["shutdown_delay"]) + seconds(server["shutdown_timeout"]))
    if not needed < spec["terminationGracePeriodSeconds"] <= needed + 10:
        yield f"{spec['terminationGracePeriodSeconds']} s to terminate, the stop takes {needed} s"
    if owner["spec"]["replicas"] != 1:
        yield "not exactly one replica"
    if owner["kind"] == "Deployment":
        if owner["spec"]["strategy"] != {"type": "Recreate"}:
            yield "a Deployment that may run two writers"
        if config["push"].get("instance") != owner["metadata"]["name"] or "path" in config.get("state", {}):
            yield "a Deployment needs a fixed instance and keeps no state file"
    elif not config["state"]["path"].startswith("/var/lib/kitepush/"):
        yield "the state is not on the volume"
    if config["policy"] != "strict":
        yield "the policy isn't strict"
    if config["admin"].get("isolated") and not of_kind(docs, "NetworkPolicy") and not values.get("config", {}).get("admin", {}).get("isolated"):
        yield "the admin listener is called isolated, and nothing isolates it"
    token = next((volume for volume in spec["volumes"] if "projected" in volume), None)
    if bool(token) != bool(values.get("push", {}).get("serviceAccountToken")):
        yield "the service account token is projected exactly when an audience is set"


IMMUTABLE = ("selector", "serviceName", "volumeClaimTemplates", "podManagementPolicy", "clusterIP")


def upgrade_problems(docs, values_file, folder):
    """What Kubernetes refuses to change stays as it is under a new chart, a new image and another configuration."""
    newer = folder / "newer"
    shutil.copytree(CHART, newer)
    chart = yaml.safe_load((newer / "Chart.yaml").read_text()) | {"version": "9.9.9", "appVersion": "9.9.9"}
    (newer / "Chart.yaml").write_text(yaml.safe_dump(chart))
    after, errors = render("-f", values_file, "--set", "config.log.level=warn,podLabels.upgraded=now", chart=newer)
    shutil.rmtree(newer)
    if after is None:
        return [errors]
    after = {name_of(doc): doc for doc in after}
    problems = []
    for doc in of_kind(docs, "StatefulSet", "Deployment", "Service"):
        other = after.get(name_of(doc), {}).get("spec", {})
        for field in IMMUTABLE:
            if doc["kind"] == "Service" and field == "selector":
                continue
            if doc["spec"].get(field) != other.get(field):
                problems.append(f"{name_of(doc)}: {field} changes on upgrade")
    before_sum, after_sum = (next(doc["spec"]["template"]["metadata"]["annotations"]["checksum/config"] for doc in found if doc["kind"] in ("StatefulSet", "Deployment") and "annotations" in doc["spec"]["template"]["metadata"]) for found in (docs, after.values()))
    if before_sum == after_sum:
        problems.append("a new configuration doesn't restart the pod")
    return problems


def schema_problems(docs, version):
    for doc in docs:
        if not doc["apiVersion"].startswith(CRDS):
            try:
                kubernetes_validate.validate(doc, version, strict=True)
            except Exception as error:  # any error is a finding
                yield f"{name_of(doc)}: {str(error).splitlines()[0]}"


def crd_problems(manifests):
    node = os.environ["KITEPUSH_NODE"]
    done = run("node", "--input-type=module", "--eval", (HERE / "crd.mjs").read_text(), input=json.dumps(manifests), cwd=node)
    return [line for line in (done.stdout + done.stderr).splitlines() if line]


def file_problems(docs, values):
    """What comes from files says what the files say."""
    deploy = CHART.parent.parent
    for doc in of_kind(docs, "PrometheusRule"):
        rules = yaml.safe_load((deploy / "prometheus/rules.yml").read_text())
        disabled = values["prometheusRule"].get("disabledAlerts", [])
        for group in rules["groups"]:
            group["rules"] = [rule for rule in group["rules"] if rule.get("alert") not in disabled]
            for rule in group["rules"]:
                if "alert" in rule:
                    rule["labels"]["namespace"] = "ci"
        if doc["spec"] != rules:
            yield "PrometheusRule differs from rules.yml"
    for doc in of_kind(docs, "ConfigMap"):
        if doc["metadata"]["name"].endswith("-dashboards"):
            files = {path.name: json.loads(path.read_text()) for path in (deploy / "grafana/dashboards").glob("*.json")}
            if not files or {name: json.loads(text) for name, text in doc["data"].items()} != files:
                yield "the dashboards differ from their files"
    for doc in of_kind(docs, "AlertmanagerConfig"):
        if plain_alertmanager(doc, values) != yaml.safe_load((deploy / "alertmanager/alertmanager.yml").read_text()):
            yield "AlertmanagerConfig differs from alertmanager.yml"


def plain_alertmanager(doc, values):
    """An AlertmanagerConfig as the operator writes it out, less the namespace."""
    secret = values["alertmanagerConfig"].get("existingSecret", "kitepush-alertmanager")

    def snake(key):
        return {"apiURL": "api_url_file", "apiKey": "api_key_file", "sourceMatch": "source_matchers", "targetMatch": "target_matchers"}.get(
            key, re.sub("([A-Z])", lambda found: "_" + found[1].lower(), key)
        )

    def plain(node):
        if isinstance(node, list):
            return [plain(item) for item in node]
        if not isinstance(node, dict):
            return node
        if set(node) == {"name", "matchType", "value"}:
            return f"{node['name']}{node['matchType']}\"{node['value']}\""
        if set(node) == {"name", "key"}:
            return f"/etc/alertmanager/secrets/{node['key']}" if node["name"] == secret else node
        return {snake(key): plain(value) for key, value in node.items()}

    return plain(doc["spec"])


def check_config(docs, folder):
    """The rendered configuration passes `kitepush check --no-files`."""
    path = folder / "kitepush.yaml"
    path.write_text(next(doc["data"]["kitepush.yaml"] for doc in docs if "kitepush.yaml" in doc.get("data", {})))
    done = run(BINARY, "check", "--no-files", "--config", path)
    return [] if done.returncode == 0 else (done.stdout + done.stderr).splitlines() or [f"exit {done.returncode}"]


REFUSED = {
    "no secret": ([], "No webhook secret"),
    "two replicas": (["replicas=2"], "replicas"),
    "an unknown value": (["ingres.enabled=true"], "ingres"),
    "an unknown key of kitepush": (["config.push.intervall=5s"], "intervall"),
    "an inline secret in the configuration": (["config.auth.secrets={a}"], "secrets"),
    "a duration without a unit": (["config.server.shutdown_delay=5"], "shutdown_delay"),
    "an open admin listener": (["access.enabled=false"], "leaves the admin listener open"),
    "two gateways": (["pushgateway.enabled=true", "config.push.url=http://a:9091"], "exclude each other"),
    "a gateway that no policy names": (["config.push.url=http://a:9091"], "access.gateway"),
    "a scrape that counts twice": (["config.push.url=http://a:9091", "access.gateway.namespace=a", "serviceMonitor.enabled=true"], "count twice"),
    "a scrape without its password": (["serviceMonitor.enabled=true", "config.admin.auth.basic_auth_users.a=b"], "basicAuthSecret"),
    "an ingress without a host": (["ingress.enabled=true"], "ingress.host"),
    "a route without a gateway": (["httpRoute.enabled=true"], "httpRoute.parentRefs"),
}


# Keys of kitepush that the chart sets, or that don't belong into a ConfigMap.
MANAGED = {"server.listen", "server.tls", "admin.listen", "admin.tls", "auth.secret_files", "auth.secrets", "state.path"}


def open_objects(schema, path=""):
    """Objects of values.schema.json that take keys nobody has heard of."""
    if "properties" in schema and schema.get("additionalProperties") is not False:
        yield f"{path or 'the root'} is open"
    for key, below in schema.get("properties", {}).items():
        yield from open_objects(below, f"{path}.{key}".lstrip("."))


def schema_drift(folder):
    """The keys of `config` in values.schema.json are those that kitepush prints."""
    path = folder / "all.yaml"
    path.write_text("push: {url: 'http://127.0.0.1:9091', instance: a}\n")
    printed = run(BINARY, "check", "--no-files", "--config", path)
    effective = yaml.safe_load(printed.stdout) or {}
    sections = json.loads((CHART / "values.schema.json").read_text())["properties"]["config"]["properties"]

    def keys(node, path=""):
        for key, value in node.items():
            yield f"{path}{key}"
            if isinstance(value, dict) and value.get("type") == "object" and "properties" in value:
                yield from keys(value["properties"], f"{path}{key}.")

    def printed_keys(node, path=""):
        for key, value in node.items():
            yield f"{path}{key}"
            if isinstance(value, dict) and path.count(".") < 2 and f"{path}{key}" not in ("push.http", "families"):
                yield from printed_keys(value, f"{path}{key}.")

    schema, real = set(keys(sections)), set(printed_keys(effective)) - MANAGED
    real -= {key for key in real if any(key.startswith(managed + ".") for managed in MANAGED)}
    deep = {key for key in schema if key.startswith(("push.http.", "admin.auth"))}
    return [f"kitepush has {key}, the schema doesn't" for key in sorted(real - schema)] + [f"the schema has {key}, kitepush doesn't" for key in sorted(schema - deep - real)]


NOTES = {
    "default": ["rollout status statefulset/release-kitepush", "helm -n ci test release", "set ingress.enabled or httpRoute.enabled first"],
    "token": ["WARNING: webhook.token"],
    "ingress": ["https://ci-hooks.example.com/hooks/buildkite"],
    "http-route": ["https://ci-hooks.example.com/webhook"],
    "load-balancer": ["https://<address of service release-kitepush>:443/webhook"],
    "external-gateway": ["http://pushgateway.monitoring.svc.cluster.local:9091, with honor_labels: true"],
    "deployment": ["rollout status deployment/release-kitepush", "service release-kitepush-pushgateway, with honor_labels: true"],
}


def rendered_notes(values_file, folder):
    """NOTES.txt, which helm only renders where there is a cluster: as a ConfigMap of a copy of the chart."""
    copied = folder / "notes"
    shutil.copytree(CHART, copied)
    notes = (copied / "templates/NOTES.txt").read_text()
    (copied / "templates/_notes.tpl").write_text('{{ define "notes" }}' + notes + "{{ end }}")
    (copied / "templates/notes.yaml").write_text('{kind: ConfigMap, apiVersion: v1, metadata: {name: notes}, data: {notes: {{ include "notes" . | toJson }}}}')
    docs, errors = render("-f", values_file, chart=copied)
    shutil.rmtree(copied)
    return errors if docs is None else next(doc["data"]["notes"] for doc in docs if doc["metadata"]["name"] == "notes")


def values_table():
    """The rows of README.md, from the comments of values.yaml."""
    rows, path, about = [], [], []
    for line in (CHART / "values.yaml").read_text().splitlines():
        if found := re.match(r"( *)# -- (.*)", line):
            about.append(found[2])
        elif found := re.match(r"( *)([\w.]+):", line):
            depth = len(found[1]) // 2
            path = path[:depth] + [found[2]]
            if about:
                rows.append((".".join(path), " ".join(about)))
                about = []
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    leaves = []

    def walk(node, prefix):
        for key, value in node.items():
            name = f"{prefix}{key}"
            if name in dict(rows) or not isinstance(value, dict) or not value:
                leaves.append((name, value))
            else:
                walk(value, name + ".")

    walk(values, "")
    described = dict(rows)
    missing = [name for name, _ in leaves if name not in described]
    lines = ["| value | default | what it is |", "|---|---|---|"]
    lines += [f"| `{name}` | `{json.dumps(value)}` | {described.get(name, '')} |" for name, value in leaves]
    return "\n".join(lines), missing


def main():
    readme = CHART / "README.md"
    table, undescribed = values_table()
    if "--write" in sys.argv:
        text = re.sub(r"\| value \| default .*?\n(?!\|)", lambda _: table + "\n", readme.read_text(), flags=re.S)
        readme.write_text(text)
        return
    case("values.yaml: each value is described", undescribed)
    case("README.md: the table of values is current", [] if table + "\n" in readme.read_text() else ["run tests/deploy/chart.py --write"])
    versions = re.search(r'^version = "(.*)"', (CHART.parents[2] / "Cargo.toml").read_text(), re.M)[1]
    case("Chart.yaml: appVersion is the crate's version", [] if yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == versions else [versions])

    crds, folder = {}, Path(tempfile.mkdtemp())
    files = sorted((HERE / "values").glob("*.yaml"))
    for path in files:
        values = yaml.safe_load(path.read_text())
        code, out, errors = helm("lint", "--strict", CHART, "-f", path)
        problems = [] if code == 0 else (out + errors).splitlines()
        for kubernetes in (OLDEST, NEWEST):
            docs, errors = render("-f", path, kubernetes=kubernetes)
            if docs is None:
                problems.append(errors)
                break
            problems += schema_problems(docs, kubernetes)
        if case(f"{path.stem}: lint, and Kubernetes {OLDEST} and {NEWEST}", problems) and docs:
            problems = [f"two of {name}" for name in duplicates(name_of(doc) for doc in docs)]
            for look in (pod_problems, restricted_problems, network_problems):
                problems += look(docs)
            for look in (secret_problems, config_problems, file_problems):
                problems += look(docs, values)
            case(f"{path.stem}: what schemas miss", problems)
            case(f"{path.stem}: upgrades", upgrade_problems(docs, path, folder))
            case(f"{path.stem}: kitepush check", check_config(docs, folder))
            crds |= {f"{path.stem}: {name_of(doc)}": copy.deepcopy(doc) for doc in docs if doc["apiVersion"].startswith(CRDS)}
    case(f"{len(crds)} custom resources against their models", crd_problems(crds))
    case("custom resources of all kinds", {"ServiceMonitor", "PrometheusRule", "AlertmanagerConfig", "HTTPRoute"} - {doc["kind"] for doc in crds.values()})

    case("values.schema.json is closed", open_objects(json.loads((CHART / "values.schema.json").read_text())))
    case("values.schema.json: the keys of config are kitepush's", schema_drift(folder))
    wrong = folder / "wrong.yaml"
    wrong.write_text("policy: strict\npush: {url: 'http://gateway.example.com', intervall: 5s}\n")
    done = run(BINARY, "check", "--no-files", "--config", wrong)
    case("kitepush check refuses what is wrong", [] if done.returncode == 1 and "intervall" in done.stdout + done.stderr else [done.stdout + done.stderr or "taken"])

    for name, (sets, message) in REFUSED.items():
        secret = [] if name == "no secret" else ["--set", "webhook.existingSecret=a"]
        docs, errors = render(*secret, *(part for item in sets for part in ("--set", item)))
        case(f"refused: {name}", [] if docs is None and message in errors else [f"expected {message!r}, got {errors or 'manifests'}"])

    for path, lines in NOTES.items():
        notes = rendered_notes(HERE / "values" / f"{path}.yaml", folder)
        case(f"{path}: NOTES.txt says the next step", [f"{line!r} is not in: {notes}" for line in lines if line not in notes])
    shutil.rmtree(folder)
    end()


if __name__ == "__main__":
    main()
