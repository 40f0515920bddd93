"""The image: packs the binary that is there, is built by buildah from local bases, and does the main job under podman
against a real Pushgateway, read-only, as uid 65532, without capabilities."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import servers
from cases import case, end, skipped

ROOT = Path(__file__).parent.parent.parent
DOCKERFILE = ROOT / "deploy/docker/Dockerfile"
NAME = f"localhost/kitepush-check-{os.getpid()}"
LIMIT = 15_000_000


def run(*command):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)


def said(done):
    return [] if done.returncode == 0 else (done.stdout + done.stderr).splitlines()[-15:]


case("hadolint", said(run("hadolint", DOCKERFILE)))
case("arm64 and amd64 in the release", [] if "linux/amd64,linux/arm64" in (ROOT / "deploy/release/release.sh").read_text() else ["release.sh names no arm64"])

with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    store = ["--root", folder / "store", "--runroot", folder / "run", "--storage-driver", "vfs"]

    def image(tag, context, *options):
        return run("buildah", *store, "bud", "--isolation", "chroot", "--layers=false", "-t", f"{NAME}/{tag}", *options, context)

    def size(tag):
        return json.loads(run("podman", *store, "image", "inspect", f"{NAME}/{tag}").stdout)[0]["Size"]

    # Local bases: the certificates of this machine, and for a binary that is not static its libraries.
    context = folder / "context"
    shutil.copytree(ROOT / "deploy/docker/state", context / "deploy/docker/state")
    run("objcopy", "--strip-all", servers.BINARY, context / "kitepush")
    certificates = folder / "certificates/etc/ssl/certs"
    certificates.mkdir(parents=True)
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    (certificates / "ca-certificates.crt").write_bytes(bundle.read_bytes() if bundle.exists() else b"# none here\n")
    libraries = folder / "libraries"
    libraries.mkdir()
    linked = run("ldd", context / "kitepush").stdout
    for library in re.findall(r"(/\S+)", linked):
        (libraries / library[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, libraries / library[1:])
    (folder / "base").write_text("FROM scratch\nCOPY . /\n")
    problems = said(image("certificates", folder / "certificates", "-f", folder / "base"))
    base = "scratch"
    if any(libraries.iterdir()):
        problems += said(image("libraries", libraries, "-f", folder / "base"))
        base = f"{NAME}/libraries"
    version = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
    arguments = {"BINARY": "prebuilt", "PREBUILT": "kitepush", "CERTIFICATES_IMAGE": f"{NAME}/certificates", "BASE_IMAGE": base, "VERSION": version, "REVISION": "abcdef0"}
    built = not problems and image("kitepush", context, "-f", DOCKERFILE, *(part for key, value in arguments.items() for part in ("--build-arg", f"{key}={value}")))
    if case(f"buildah builds it on {'an empty base' if base == 'scratch' else 'a base with the libraries of this machine'}", problems or said(built)):
        own = size("kitepush") - (size("libraries") if base != "scratch" else 0)
        case(f"under 15 MB: {own / 1e6:.1f} MB", [] if own < LIMIT else ["too large"])
        config = json.loads(run("buildah", *store, "inspect", "--type", "image", f"{NAME}/kitepush").stdout)["OCIv1"]["config"]
        labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
        wanted = {"user": (config["User"], "65532:65532"), "entrypoint": (config["Entrypoint"], ["/kitepush"]), "version": (labels["version"], version), "revision": (labels["revision"], "abcdef0"), "licenses": (labels["licenses"], "Apache-2.0")}
        case("non-root, with OCI labels", [f"{key}: {got!r}, not {want!r}" for key, (got, want) in wanted.items() if got != want])

        podman = ["podman", *store, "--cgroup-manager", "cgroupfs", "--runtime", "runc", "run", "--rm", "--network", "host",
                  "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--read-only", "--read-only-tmpfs=false", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]  # fmt: skip
        first = run(*podman, f"{NAME}/kitepush", "--version")
        if first.returncode and re.search(r"OCI permission denied|OCI runtime error|cannot clone", first.stderr):
            skipped("podman runs it", f"this machine runs no containers: {first.stderr.splitlines()[-1]}")
        else:
            case("podman runs it", said(first))
            secrets, state = folder / "webhook", folder / "state"
            for path in (secrets, state):
                path.mkdir()
            folder.chmod(0o755)
            (secrets / "token").write_text("a secret of this test\n")
            (secrets / "token").chmod(0o444)
            os.chown(state, 65532, 65532)
            gateway, url = servers.pushgateway(folder)
            listen, admin = servers.free_port(), servers.free_port()
            environment = {"POLICY": "strict", "SERVER__LISTEN": f"127.0.0.1:{listen}", "ADMIN__LISTEN": f"127.0.0.1:{admin}", "STATE__PATH": "/var/lib/kitepush/state.db",
                           "PUSH__URL": url.replace("127.0.0.1", "localhost"), "PUSH__INTERVAL": "1s", "PUSH__ZERO_HOLD": "0s", "PUSH__INSTANCE": "image"}  # fmt: skip
            command = [*podman, "--name", f"kitepush-check-{os.getpid()}", "-v", f"{secrets}:/etc/kitepush/webhook:ro", "-v", f"{state}:/var/lib/kitepush"]
            command += [part for key, value in environment.items() for part in ("-e", f"KITEPUSH__{key}={value}")]
            with gateway, servers.Server("kitepush", [*command, f"{NAME}/kitepush"], folder) as container:
                try:
                    container.ready(lambda: servers.get(f"http://127.0.0.1:{admin}/readyz"), 30)
                    process = next(p for p in Path("/proc").glob("[0-9]*") if (p / "cmdline").exists() and (p / "cmdline").read_bytes().startswith(b"/kitepush\0serve"))
                    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
                    mounts = [line.split() for line in (process / "mountinfo").read_text().splitlines()]
                    root = next(mount for mount in mounts if mount[4] == "/")
                    wanted = {"Uid": "65532\t65532\t65532\t65532", "CapEff": "0" * 16, "CapBnd": "0" * 16, "NoNewPrivs": "1"}
                    problems = [f"{key} is {status[key]}" for key, want in wanted.items() if status[key].strip() != want]
                    case("uid 65532, no capabilities, read-only root", problems + ([] if "ro" in root[5].split(",") else [f"root is {root[5]}"]))
                    sent = run(servers.BINARY, "send", "--url", f"http://127.0.0.1:{listen}/webhook", "--secret-file", secrets / "token", "--ping")
                    case("it takes a signed ping", said(sent))
                    pushed = 'kitepush_webhooks_total{event="ping",instance="image",job="buildkite",outcome="accepted"} 1'
                    servers.until("the ping never reached the gateway", 20, lambda: pushed in servers.get(f"{url}/metrics"))
                    case("it pushes to a real Pushgateway, by name", [])
                    inside = run("podman", *store, "--cgroup-manager", "cgroupfs", "--runtime", "runc", "exec", f"kitepush-check-{os.getpid()}", "/kitepush", "healthcheck", "--url", f"http://127.0.0.1:{admin}/readyz")
                    case("its own healthcheck says ready", said(inside))
                    case("its state is in the volume", [] if (state / "state.db").exists() else ["no state.db"])
                except (TimeoutError, RuntimeError) as error:
                    case("the main job", [str(error), container.log.read_text()[-1000:]])
                code = container.stop()
                case("it stops cleanly", [] if code == 0 else [f"exit {code}", container.log.read_text()[-500:]])
    run("buildah", *store, "rmi", "--all", "--force")
end()
