"""Real servers on free loopback ports, stopped by their own process ids; webhooks signed with Python's hmac."""

import base64
import hashlib
import hmac
import http.client
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

BINARY = os.environ["KITEPUSH_BIN"]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(what, seconds, condition):
    """The first true answer of the condition; an error after that many seconds."""
    end = time.monotonic() + seconds
    while True:
        try:
            if answer := condition():
                return answer
        except (OSError, urllib.error.URLError, http.client.HTTPException):
            pass
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.2)


def get(url, credentials=None, data=None):
    request = urllib.request.Request(url, data)
    if credentials:
        request.add_header("Authorization", "Basic " + base64.b64encode(":".join(credentials).encode()).decode())
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


class Server:
    """A process with a port and a log, stopped when the block ends."""

    def __init__(self, name, command, folder, env=None):
        self.log = Path(folder) / f"{name}.log"
        self.name = name
        with self.log.open("w") as log:
            self.process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, env={**os.environ, **(env or {})})

    def ready(self, condition, seconds=20):
        def alive():
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended: {self.log.read_text()[-2000:]}")
            return condition()

        until(f"{self.name} is not ready: {self.log.read_text()[-2000:]}", seconds, alive)
        return self

    def stop(self):
        """The exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def port_open(port):
    def condition():
        with socket.create_connection(("127.0.0.1", port), 1):
            return True

    return condition


def pushgateway(folder, *options):
    port = free_port()
    server = Server("pushgateway", ["prometheus-pushgateway", f"--web.listen-address=127.0.0.1:{port}", f"--persistence.file={folder}/pushgateway", *options], folder)
    server.ready(port_open(port))
    return server, f"http://127.0.0.1:{port}"


def signed(body, secret, at=None):
    timestamp = str(int(at or time.time()))
    digest = hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"timestamp={timestamp},signature={digest}"


def post(url, body, secret, signature=None):
    """(status, body) of a webhook; body is an object or bytes."""
    if not isinstance(body, bytes):
        event = body["event"]
        body = json.dumps(body, separators=(",", ":")).encode()
    else:
        event = "ping"
    headers = {"Content-Type": "application/json", "X-Buildkite-Event": event, "X-Buildkite-Signature": signature or signed(body, secret)}
    request = urllib.request.Request(url, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"{}")


class Prometheus:
    """What PromQL answers."""

    def __init__(self, url):
        self.url = url

    def api(self, path, **parameters):
        return json.loads(get(f"{self.url}/api/v1/{path}", data=urllib.parse.urlencode(parameters).encode() if parameters else None))["data"]

    def query(self, expression, at=None):
        """[(labels, value)] of an instant query; an error of the expression is raised with its text."""
        try:
            result = self.api("query", query=expression, **({"time": at} if at else {}))
        except urllib.error.HTTPError as error:
            raise ValueError(f"{expression}: {json.loads(error.read())['error']}") from error
        if result["resultType"] == "scalar":
            return [({}, float(result["result"][1]))]
        return [(sample["metric"], float(sample["value"][1])) for sample in result["result"]]
