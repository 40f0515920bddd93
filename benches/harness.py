"""Servers, load and measurements: what run.py and soak.py share. Standard library only."""

import atexit
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
CONNECTIONS = 64
started = []


def median(values):
    return statistics.median(values)


def built():
    """The release binary, and the bench that serves the floor and signs requests."""
    output = subprocess.run(
        ["cargo", "build", "--release", "--locked", "--bin", "kitepush", "--bench", "load", "--message-format", "json"],
        cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    messages = [json.loads(line) for line in output.splitlines()]
    paths = {m["target"]["name"]: m["executable"] for m in messages if m.get("executable")}
    return paths["kitepush"], paths["load"]


KITEPUSH, LOAD = built()
SECRET = subprocess.run([LOAD, "secret"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

# The requests live in memory, where writing them does not disturb the disk; the state file on a real disk.
disk = pathlib.Path(tempfile.mkdtemp(prefix="bench-", dir=os.environ.get("BENCH_DISK", ROOT / "target")))
memory = pathlib.Path(tempfile.mkdtemp(prefix="bench-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else disk))


@atexit.register
def clean():
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()
    shutil.rmtree(disk, ignore_errors=True)
    shutil.rmtree(memory, ignore_errors=True)


signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


def spawn(command, **options):
    process = subprocess.Popen([str(part) for part in command], **options)
    started.append(process)
    return process


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


class Server:
    """A process that takes deliveries."""

    process = None
    port = None

    def resident(self, field="VmRSS"):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"^{field}:\s+(\d+) kB", status, re.M).group(1)) / 1024

    def cpu(self):
        """Seconds of processor time, per thread name."""
        used = {}
        for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            name = (task / "comm").read_text().strip()
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            used[name] = used.get(name, 0) + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return used

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class Floor(Server):
    """Reads, verifies, parses, and nothing else."""

    def __init__(self, *options):
        self.process = spawn([LOAD, "floor", *options], stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline().rpartition(":")[2])


class Kitepush(Server):
    """The service with one worker."""

    def __init__(self, name, state=None, push=None, extra="", started_within=30):
        self.port, self.admin = free_port(), free_port()
        self.config = memory / f"{name}.yaml"
        lines = [
            f"server: {{listen: 127.0.0.1:{self.port}, workers: 1, max_connections_per_address: 1024}}",
            f"admin: {{listen: 127.0.0.1:{self.admin}}}",
            f"auth: {{secrets: ['{SECRET}']}}",
            f"push: {{url: '{push}', instance: bench, interval: 1s, zero_hold: 2s}}" if push else "",
            f"state: {{path: {state}}}" if state else "",
            "log: {level: error}",
            extra,
        ]
        self.config.write_text("\n".join(lines))
        self.began = time.monotonic()
        self.process = spawn([KITEPUSH, "serve", "--config", self.config])
        self.ready_after = self.wait(started_within)

    def wait(self, within):
        while time.monotonic() < self.began + within:
            if self.process.poll() is not None:
                sys.exit("kitepush did not start")
            try:
                get(f"http://127.0.0.1:{self.admin}/readyz")
                return time.monotonic() - self.began
            except OSError:
                time.sleep(0.005)
        sys.exit(f"kitepush was not ready within {within} s")

    def metrics(self):
        samples = {}
        for line in get(f"http://127.0.0.1:{self.admin}/metrics").splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                samples[name] = float(value)
        return samples

    def outcomes(self):
        found = {}
        for name, value in self.metrics().items():
            match = re.match(r'kitepush_webhooks_total\{.*outcome="(\w+)"', name)
            if match:
                found[match.group(1)] = found.get(match.group(1), 0) + int(value)
        return found


def gateway():
    """A Pushgateway; its URL."""
    port = free_port()
    program = shutil.which("prometheus-pushgateway") or sys.exit("please install prometheus-pushgateway")
    spawn([program, f"--web.listen-address=127.0.0.1:{port}", "--persistence.file=", "--log.level=error"],
          stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    for _ in range(500):
        try:
            get(f"{url}/-/ready")
            return url
        except OSError:
            time.sleep(0.02)
    sys.exit("the Pushgateway does not start")


class Requests:
    """Files of signed requests, no job in two of them."""

    numbers = 0

    def __init__(self, count, *options, jobs_per_request=1):
        self.count = int(count)
        self.path = memory / f"requests-{Requests.numbers}"
        subprocess.run(
            [LOAD, "requests", "--out", self.path, "--host", "127.0.0.1", "--count", str(self.count), "--from",
             str(Requests.numbers), *options], check=True)
        Requests.numbers += self.count

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.path.unlink()


def load(server, requests, seconds, connections=CONNECTIONS):
    """Loads a server with distinct deliveries; what wrk saw."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", ROOT / "benches/wrk.lua",
               f"http://127.0.0.1:{server.port}/webhook", "--", requests.path]
    output = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True).stdout
    seen = json.loads(output.splitlines()[-1])
    seen["rate"] = seen["requests"] / seen["seconds"]
    return seen


def send_all(server, requests):
    """Sends every request of a file at least once."""
    before = sum(server.outcomes().values())
    while sum(server.outcomes().values()) - before < requests.count:
        load(server, requests, 1)


def machine():
    model = re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())
    file_system = subprocess.run(["stat", "-f", "-c", "%T", disk], stdout=subprocess.PIPE, text=True).stdout.strip()
    return (f"{os.cpu_count()} cores ({model.group(1) if model else os.uname().machine}), Linux {os.uname().release}, "
            f"state file on {file_system}, load before: {os.getloadavg()[0]:.2f}")


def sync_cost(count=200):
    """Median milliseconds of a 4 KiB write with fdatasync on the disk of the state file."""
    path = disk / "sync"
    times = []
    with open(path, "wb") as file:
        for _ in range(count):
            file.write(bytes(4096))
            file.flush()
            began = time.monotonic()
            os.fdatasync(file.fileno())
            times.append(time.monotonic() - began)
    path.unlink()
    return median(times) * 1e3


def table(*rows):
    """Prints a Markdown table."""
    rows = [[str(cell) for cell in row] for row in rows]
    for at, row in enumerate(rows):
        print("| " + " | ".join(row) + " |")
        if at == 0:
            print("|" + "---|" * len(row))
    print(flush=True)
