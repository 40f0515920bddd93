#!/usr/bin/env python3
"""`make bench`: the running server beside a bare handler, in alternating rounds of one run.

Environment: BENCH_ROUNDS (5), BENCH_SECONDS (4, per round), BENCH_DISK (where the state file goes; default target/).
Exit 1 when a target is missed. Arguments name the parts to run: speed, memory, start; default all.
"""

import os
import sys
import time

from harness import (CONNECTIONS, Floor, Kitepush, Requests, disk, gateway, load, machine, median, send_all, sync_cost,
                     table)
import harness
import subprocess

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
SECONDS = int(os.environ.get("BENCH_SECONDS", "4"))
missed = []


def judge(what, value, holds):
    if not holds:
        missed.append(f"{what}: {value}")
    return f"{value} {'✓' if holds else '✗ missed'}"


def speed():
    """Throughput and latency, in memory and with the state file, beside the floor."""
    servers = {
        "floor": Floor(),
        "memory": Kitepush("memory"),
        "state file": Kitepush("disk", state=disk / "state.db"),
    }
    with Requests(200_000) as warm:
        rate = max(load(server, warm, 2)["rate"] for server in servers.values())
    # One file a round and server that counts, so that no delivery is a duplicate.
    enough = rate * (SECONDS + 1) * 1.2
    seen = {name: [] for name in servers}
    for number in range(ROUNDS):
        order = list(servers) if number % 2 == 0 else list(reversed(servers))
        with Requests(enough) as requests:
            for name in order:
                before = servers[name].outcomes() if name != "floor" else {}
                used = sum(servers[name].cpu().values())
                result = load(servers[name], requests, SECONDS)
                result["cpu"] = (sum(servers[name].cpu().values()) - used) / result["requests"] * 1e6
                if name != "floor":
                    after = servers[name].outcomes()
                    new = {word: after[word] - before.get(word, 0) for word in after}
                    result["accepted"] = new["accepted"]
                    # What wrk cut off at the end was counted all the same.
                    if not 0 <= new["accepted"] - result["requests"] <= CONNECTIONS or new["duplicate"]:
                        missed.append(f"{name}: wrk saw {result['requests']} answers, the server counted {new}")
                seen[name].append(result)
    ratios = {
        name: median([own["rate"] / floor["rate"] for own, floor in zip(seen[name], seen["floor"])]) for name in servers
    }
    rows = [["", "deliveries/s", "of the floor", "CPU µs each", "p50 ms", "p99 ms", "not 200", "broken"]]
    targets = {"memory": 0.8, "state file": 0.6}
    for name, results in seen.items():
        of = lambda key: median([result[key] for result in results])
        refused, broken = (sum(result[key] for result in results) for key in ("refused", "broken"))
        ratio, p99 = f"{ratios[name]:.2f}", f"{of('p99'):.1f}"
        if name in targets:
            ratio = judge(f"{name}: share of the floor", ratio, ratios[name] >= targets[name])
            p99 = judge(f"{name}: p99", p99, of("p99") < 25)
        if refused or broken or any(result["rounds"] for result in results):
            missed.append(f"{name}: {refused} refused, {broken} broken")
        rows.append([name, f"{of('rate'):.0f}", ratio, f"{of('cpu'):.0f}", f"{of('p50'):.1f}", p99, refused, broken])
    print(f"## Throughput: {CONNECTIONS} connections, one worker, median of {ROUNDS} rounds of {SECONDS} s\n")
    table(*rows)
    for name in ("memory", "state file"):
        cpu = servers[name].cpu()
        total = sum(cpu.values())
        busiest = sorted(cpu.items(), key=lambda item: -item[1])[:3]
        print(f"{name}: processor time " + ", ".join(f"{thread} {used / total:.0%}" for thread, used in busiest))
    commits = servers["state file"].metrics()
    count, seconds = (commits[f"kitepush_ledger_commit_seconds_{part}"] for part in ("count", "sum"))
    events = sum(servers["state file"].outcomes().values())
    print(f"state file: {events / count:.0f} deliveries a commit, {seconds / count * 1e3:.2f} ms a commit\n")
    for server in servers.values():
        server.stop()
    keep_alive()


def keep_alive():
    """What keep-alive would save the floor; for information."""
    servers = [Floor(), Floor("--keep-alive")]
    rates = []
    with Requests(200_000) as requests:
        for _ in range(3):
            rates.append([load(server, requests, 2)["rate"] for server in servers])
    for server in servers:
        server.stop()
    gain = median([kept / closed for closed, kept in rates])
    print(f"With keep-alive the floor would take {gain:.2f} times as many (for information: Buildkite gains nothing, "
          "see src/listener).\n", flush=True)


def memory():
    """Resident memory with 10,000 series and pushes under way."""
    server = Kitepush("series", push=gateway())
    with Requests(4000, "--pipelines", "400", "--queues", "5") as requests:
        send_all(server, requests)
    time.sleep(6)
    idle = server.resident()
    samples = server.metrics()["kitepush_samples"]
    with Requests(60_000, "--pipelines", "400", "--queues", "5") as requests:
        load(server, requests, 3)
    time.sleep(3)
    loaded = server.resident()
    pushes = server.metrics()['kitepush_pushes_total{outcome="ok"}']
    server.stop()
    print("## Memory: 10,400 series, memory only, a push every second\n")
    table(["", "MiB"], ["after the first pushes", judge("resident at 10,000 series", f"{idle:.0f}", idle < 64)],
          ["after some 40,000 more deliveries", judge("resident at 10,000 series", f"{loaded:.0f}", loaded < 64)])
    print(f"{samples:.0f} samples, {pushes:.0f} pushes\n", flush=True)
    if samples < 60_000 or pushes < 2:
        missed.append("memory: there were not as many samples and pushes as there should be")


def start():
    """Start from a large state file, and memory with it."""
    state = disk / "large.db"
    url = gateway()
    ids, spread = 1_000_000, ["--pipelines", "541", "--queues", "5"]
    maker = Kitepush("history", state=state)
    maker.stop()
    began = time.monotonic()
    subprocess.run([harness.LOAD, "history", "--config", maker.config, "--ids", str(ids), *spread], check=True)
    made = time.monotonic() - began
    size = state.stat().st_size / 2**20
    times, first, pushed = [], [], []
    for number in range(3):
        server = Kitepush("large", state=state, push=url)
        times.append(server.ready_after)
        busy = sum(server.cpu().values())
        first.append(server.resident("VmHWM"))
        time.sleep(8)
        metrics = server.metrics()
        pushed.append(server.resident("VmHWM"))
        resident = server.resident()
        code = server.stop()
    records, samples = metrics["kitepush_ledger_records"], metrics["kitepush_samples"]
    pushes = metrics['kitepush_pushes_total{outcome="ok"}']
    print(f"## Start: {records:.0f} counted ids, {samples:.0f} samples, {size:.0f} MiB of state file\n")
    table(["", ""],
          ["from exec to ready", judge("start", f"{median(times):.2f} s", median(times) < 3)],
          ["of that processor time", f"{busy:.2f} s"],
          ["resident when ready, at most", f"{max(first):.0f} MiB"],
          ["resident after pushes, at most", judge("resident", f"{max(pushed):.0f} MiB", max(pushed) < 256)],
          ["resident after pushes, now", f"{resident:.0f} MiB"])
    print(f"{pushes:.0f} pushes; the history took {made:.0f} s to count ({ids / made:.0f} a second)\n", flush=True)
    if samples < 100_000 or records < 1_000_000 or pushes < 2 or code:
        missed.append("start: the state was not as large as it should be")


if __name__ == "__main__":
    parts = [globals()[name] for name in sys.argv[1:] or ("speed", "memory", "start")]
    print(f"{machine()}, fdatasync {sync_cost():.2f} ms\n", flush=True)
    for part in parts:
        part()
    for miss in missed:
        print(f"missed: {miss}")
    sys.exit(bool(missed))
