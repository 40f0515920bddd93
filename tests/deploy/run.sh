#!/usr/bin/env bash
# Every check of deploy/: chart, image, release, compose, systemd, rules, Alertmanager, dashboards, and a known day through
# real servers. KITEPUSH_BIN is the binary (default target/release/kitepush); names of checks as arguments run those alone.
set -uo pipefail
cd "$(dirname "$0")/../.."
KITEPUSH_BIN=$(realpath -m "${KITEPUSH_BIN:-target/release/kitepush}")
export KITEPUSH_BIN PYTHONDONTWRITEBYTECODE=1
[ -x "$KITEPUSH_BIN" ] || { echo "there is no $KITEPUSH_BIN: cargo build --release"; echo "0 passed, 1 failed"; exit 1; }
# shellcheck source=tests/deploy/tools.sh
. tests/deploy/tools.sh

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
check() { # NAME COMMAND…: prints its cases; one that ends without saying why counts as failed
    local began=$SECONDS
    "${@:2}" >"$logs/$1" 2>&1 </dev/null
    local code=$?
    if [ "$code" != 0 ] && ! grep -q '^FAILED - ' "$logs/$1" || ! grep -qE '^(ok|FAILED|skipped) - ' "$logs/$1"; then
        echo "FAILED - $1 ended with exit $code" >>"$logs/$1"
    fi
    echo "== $1 ($((SECONDS - began)) s)"
    cat "$logs/$1"
}

checks=(chart dashboards rules alertmanager host image release upgrade known_day)
[ $# -gt 0 ] && checks=("$@")
for name in "${checks[@]}"; do
    if [ -f "tests/deploy/$name.sh" ]; then check "$name" bash "tests/deploy/$name.sh"; else check "$name" python3 "tests/deploy/$name.py"; fi
done

count() { cat "$logs"/* | grep -c "^$1 - "; }
passed=$(count ok) failed=$(count FAILED) skipped=$(count skipped)
if [ "$skipped" = 0 ]; then echo "$passed passed, $failed failed"; else echo "$passed passed, $failed failed, $skipped skipped"; fi
[ "$failed" = 0 ]
