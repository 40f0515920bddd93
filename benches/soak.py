#!/usr/bin/env python3
"""`make soak`: a million names of every kind from valid deliveries, beside deliveries that all carry one name.

Environment: SOAK_NAMES (1000000). Exit 1 when memory is not bounded, a delivery is lost, or strange names cost much.
"""

import os
import sys
import time

from harness import Kitepush, Requests, gateway, load, machine, median, table

NAMES = int(os.environ.get("SOAK_NAMES", "1000000"))
SECONDS = 5
# Everything that can tell series apart does: branches by name, steps as an opt-in label. All limits are the defaults.
EXTRA = """
labels: {branches: {keep: ['.*']}}
families:
  buildkite_jobs_finished_total: {labels: [branch, step_key]}
  buildkite_job_duration_seconds: {labels: [branch, step_key]}
"""
SPREADS = {"distinct": ["--distinct-names"], "constant": ["--pipelines", "1", "--queues", "1"]}


def main():
    print(f"{machine()}\n", flush=True)
    servers = {name: Kitepush(name, push=gateway(), extra=EXTRA) for name in SPREADS}
    enough = 100_000
    sent = {name: 0 for name in servers}
    rates = {name: [] for name in servers}
    missed = []
    rows = [["deliveries", "samples", "resident MiB", "deliveries/s", "one name: resident MiB", "deliveries/s"]]
    while sent["distinct"] < NAMES:
        for name, server in servers.items():
            with Requests(enough, *SPREADS[name]) as requests:
                seen = load(server, requests, SECONDS)
            # A wrapped file repeats itself; the next one is longer.
            enough = max(enough, int(seen["rate"] * SECONDS * 1.3))
            rates[name].append(seen["rate"])
            sent[name] = server.outcomes()["accepted"]
            if seen["refused"] or seen["broken"]:
                missed.append(f"{name}: {seen['refused']} refused, {seen['broken']} broken")
        distinct, constant = servers.values()
        rows.append([
            sent["distinct"], f"{distinct.metrics()['kitepush_samples']:.0f}", f"{distinct.resident():.0f}",
            f"{rates['distinct'][-1]:.0f}", f"{constant.resident():.0f}", f"{rates['constant'][-1]:.0f}"])
    time.sleep(3)
    ratio = median([one / other for one, other in zip(rates["distinct"], rates["constant"])])
    metrics = servers["distinct"].metrics()
    samples, pushes = metrics["kitepush_samples"], metrics['kitepush_pushes_total{outcome="ok"}']
    peaks = {name: server.resident("VmHWM") for name, server in servers.items()}
    for server in servers.values():
        server.stop()
    print(f"## {sent['distinct']} names of each kind, {samples:.0f} samples in the end, {pushes:.0f} pushes\n")
    table(*rows)
    print(f"At most {peaks['distinct']:.0f} MiB resident ({peaks['constant']:.0f} MiB with one name), {ratio:.2f} of the "
          "throughput with one name.", flush=True)
    if samples > 200_000:
        missed.append(f"{samples:.0f} samples are more than labels.limits.samples allows")
    if pushes < len(rows):
        missed.append(f"{pushes:.0f} pushes")
    if peaks["distinct"] > 256:
        missed.append(f"{peaks['distinct']:.0f} MiB resident")
    for miss in missed:
        print(f"missed: {miss}")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
