#!/usr/bin/env python3
"""The crates that kitepush is built from, as CycloneDX 1.5, from cargo's own metadata and the lock file."""

import json
import subprocess
import sys
import tomllib
import uuid


def components(metadata, checksums):
    """What reaches the binary: the normal and build dependencies of the root, and theirs."""
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: [dep["pkg"] for dep in node["deps"] if any(kind["kind"] != "dev" for kind in dep["dep_kinds"])] for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    reached, ahead = {root}, [root]
    while ahead:
        new = [dependency for dependency in nodes[ahead.pop()] if dependency not in reached]
        reached.update(new)
        ahead += new

    def component(package, kind):
        purl = f"pkg:cargo/{package['name']}@{package['version']}"
        found = {"type": kind, "bom-ref": purl, "name": package["name"], "version": package["version"], "purl": purl}
        if package.get("license"):
            found["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
        if checksum := checksums.get((package["name"], package["version"])):
            found["hashes"] = [{"alg": "SHA-256", "content": checksum}]
        return found

    listed = sorted((component(packages[id], "library") for id in reached - {root}), key=lambda c: c["purl"])
    graph = [{"ref": f"pkg:cargo/{packages[id]['name']}@{packages[id]['version']}", "dependsOn": sorted({f"pkg:cargo/{packages[d]['name']}@{packages[d]['version']}" for d in nodes[id]})} for id in reached]
    return component(packages[root], "application"), listed, sorted(graph, key=lambda g: g["ref"])


def main():
    platform = subprocess.run(["rustc", "--print", "host-tuple"], capture_output=True, text=True, check=True).stdout.strip()
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", platform]
    metadata = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    with open("Cargo.lock", "rb") as lock:
        checksums = {(p["name"], p["version"]): p.get("checksum") for p in tomllib.load(lock)["package"]}
    root, listed, graph = components(metadata, checksums)
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(graph))  # the same crates, the same document
    json.dump({"bomFormat": "CycloneDX", "specVersion": "1.5", "serialNumber": f"urn:uuid:{serial}", "version": 1, "metadata": {"component": root}, "components": listed, "dependencies": graph}, sys.stdout, indent=1)
    print()


main()
