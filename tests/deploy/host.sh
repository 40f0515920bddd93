#!/usr/bin/env bash
# Compose and systemd, by their own tools. Run in the repository's root.
set -u
failed=0
case_() { # NAME COMMAND…: passed when it exits 0 and, for the silent tools, says nothing
    local out
    if out=$("${@:2}" 2>&1); then echo "ok - $1"; else echo "FAILED - $1"; sed 's/^/    /' <<<"$out"; failed=1; fi
}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unit=deploy/systemd/kitepush.service

# The unit names the place of an installed binary; here it is the one that was built.
sed "s|^ExecStart=/usr/local/bin/kitepush|ExecStart=$(realpath "$KITEPUSH_BIN")|" "$unit" >"$folder/kitepush.service"
silent() { local out; out=$(systemd-analyze verify --man=no "$folder/kitepush.service" 2>&1) && [ -z "$out" ] || { echo "$out"; return 1; }; }
case_ "systemd-analyze verify, without a word" silent

score() {
    local exposure
    exposure=$(systemd-analyze security --offline=yes "$unit" | sed -n 's/.*Overall exposure level for .*: \([0-9.]*\) .*/\1/p')
    echo "exposure $exposure"
    awk -v e="$exposure" 'BEGIN { exit !(e != "" && e < 2) }'
}
case_ "systemd-analyze security: $(score)" score
stops_in_time() { # TimeoutStopSec is longer than the default delay and timeout together
    [ "$(sed -n 's/^TimeoutStopSec=//p' "$unit")" -gt 10 ]
}
case_ "systemd gives the stop its time" stops_in_time
secret() { echo systemd-secret >"$folder/webhook"; KITEPUSH__AUTH__SECRET_FILES=$folder/webhook KITEPUSH__STATE__PATH=$folder/state.db "$KITEPUSH_BIN" check --config deploy/systemd/kitepush.yaml; }
case_ "systemd: kitepush check" secret

case_ "docker-compose config" docker-compose -f deploy/compose/compose.yaml config -q
docker-compose -f deploy/compose/compose.yaml config >"$folder/compose.yaml" 2>/dev/null
mounts() { # every file that is mounted from here is here, but for the secret
    python3 - "$folder/compose.yaml" <<'PYTHON'
import pathlib, re, sys, yaml
compose = yaml.safe_load(open(sys.argv[1]))
volumes = [volume if isinstance(volume, str) else f"{volume['source']}:{volume['target']}" for service in compose["services"].values() for volume in service.get("volumes", [])]
missing = [volume for volume in volumes if volume.startswith("/") and not pathlib.Path(volume.split(":")[0]).exists()]
open_ports = [(name, port) for name, service in compose["services"].items() for port in service.get("ports", []) if name != "kitepush" and "127.0.0.1" not in str(port)]
unsafe = [name for name, service in compose["services"].items() if not service.get("read_only") or service.get("cap_drop") != ["ALL"]]
gateway = compose["services"]["pushgateway"].get("ports")
configs = [path.read_text() for path in map(pathlib.Path, ["deploy/prometheus/prometheus.yml", "deploy/compose/kitepush.yaml", "deploy/compose/grafana/datasources/prometheus.yaml"])]
hosts = set(re.findall(r'(?://|")([a-z]+):\d+', "".join(configs)))
strangers = hosts - compose["services"].keys()
sys.exit(f"{missing=} {open_ports=} {unsafe=} {gateway=} {hosts=} {strangers=}" if missing or open_ports or unsafe or gateway or strangers or len(hosts) < 3 else 0)
PYTHON
}
case_ "compose: mounts exist, only the webhook's port is open, services are confined and find each other" mounts
case_ "compose: kitepush check" "$KITEPUSH_BIN" check --no-files --config deploy/compose/kitepush.yaml
exit $failed
