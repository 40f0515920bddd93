"""The release folder: made with the binary that is there and local bases, then opened again."""

import hashlib
import json
import os
import subprocess
import tarfile
import tempfile
from pathlib import Path

import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from cases import case, end

ROOT = Path(__file__).parent.parent.parent

with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    buildah = f"buildah --root {folder}/store --runroot {folder}/run --storage-driver vfs"
    (folder / "bases").write_text("FROM scratch\nCOPY . /\n")
    certificates = folder / "certificates/etc/ssl/certs"
    certificates.mkdir(parents=True)
    (certificates / "ca-certificates.crt").write_text("# none here\n")
    made = subprocess.run([*buildah.split(), "bud", "-q", "-f", folder / "bases", "-t", "localhost/certificates", folder / "certificates"], capture_output=True, text=True, check=False)
    environment = {**os.environ, "OUT": f"{folder}/dist", "REGISTRY": "registry.example.com/ci", "PREBUILT": os.environ["KITEPUSH_BIN"], "BUILDER": buildah, "BUILD_OPTIONS": "--isolation chroot --build-arg CERTIFICATES_IMAGE=localhost/certificates"}
    done = subprocess.run([ROOT / "deploy/release/release.sh"], env=environment, capture_output=True, text=True, check=False)
    subprocess.run([*buildah.split(), "rmi", "--all", "--force"], capture_output=True, check=False)
    if case("release.sh", [] if done.returncode == 0 and made.returncode == 0 else (made.stderr + done.stdout + done.stderr).splitlines()[-15:]):
        dist = folder / "dist"
        version = json.loads(next(dist.glob("*.cdx.json")).read_text())["metadata"]["component"]["version"]
        wanted = {f"kitepush-{version}-image.tar", f"kitepush-{version}.tgz", f"kitepush-{version}.cdx.json", "SHA256SUMS"}
        case("image, chart, SBOM and checksums, and nothing else", wanted ^ {path.name for path in dist.iterdir()})
        sums = dict(reversed(line.split()) for line in (dist / "SHA256SUMS").read_text().splitlines())
        case("the checksums are right", [name for name in wanted - {"SHA256SUMS"} if sums.get(name) != hashlib.sha256((dist / name).read_bytes()).hexdigest()])
        bom = (dist / f"kitepush-{version}.cdx.json").read_text()
        error = JsonStrictValidator(SchemaVersion.V1_5).validate_str(bom)
        case("the SBOM follows CycloneDX's schema", [str(error)[:300]] if error else [])
        crates = {component["name"] for component in json.loads(bom)["components"]}
        case("the SBOM has what the binary has, and no test's crates", ({"actix-web", "rusqlite", "rustls", "reqwest"} - crates) | (crates & {"criterion", "insta", "proptest"}))
        with tarfile.open(dist / f"kitepush-{version}.tgz") as chart:
            values = yaml.safe_load(chart.extractfile("kitepush/values.yaml"))
            names = set(chart.getnames())
            case("the chart names the image of the registry, and carries its files", ([] if values["image"]["repository"] == "registry.example.com/ci/kitepush" else [values["image"]["repository"]]) + sorted({"kitepush/files/rules.yml", "kitepush/files/alertmanager.yml", "kitepush/files/dashboards/overview.json"} - names))
        rendered = subprocess.run(["helm", "template", "r", dist / f"kitepush-{version}.tgz", "--set", "webhook.existingSecret=a,prometheusRule.enabled=true,dashboards.enabled=true,alertmanagerConfig.enabled=true"], capture_output=True, text=True, check=False)
        case("the packaged chart renders", [] if rendered.returncode == 0 and "kind: PrometheusRule" in rendered.stdout else [rendered.stderr])
        with tarfile.open(dist / f"kitepush-{version}-image.tar") as archive:
            index = json.loads(archive.extractfile("index.json").read())
            case("the image is an OCI archive", [] if index["manifests"] else ["no manifest"])
end()
