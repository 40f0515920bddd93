"""Upgrade and rollback: the previous version opens the state file that this one has written, and the other way round.

PREVIOUS_BIN is the previous release; without one, this version stands in for it."""

import os
import re
import subprocess
import tempfile
from pathlib import Path

import servers
from cases import case, end
from known_day import SECRET, Build

CURRENT = servers.BINARY
PREVIOUS = os.environ.get("PREVIOUS_BIN", CURRENT)
if PREVIOUS == CURRENT:
    print("    there is no PREVIOUS_BIN: this version stands in for the previous one")


def totals(binary, config):
    done = subprocess.run([binary, "totals", "--config", config], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout if done.returncode == 0 else f"exit {done.returncode}: {done.stderr}"


def send(binary, folder, builds):
    """Serves with that binary until it has counted these builds; the problems, and the exit code's."""
    listen, admin = servers.free_port(), servers.free_port()
    (folder / "kitepush.yaml").write_text(
        f"server: {{listen: '127.0.0.1:{listen}'}}\nadmin: {{listen: '127.0.0.1:{admin}'}}\nauth: {{secret_files: [{folder}/webhook]}}\nstate: {{path: {folder}/state.db}}\n"
    )
    with servers.Server("kitepush", [binary, "serve", "--config", folder / "kitepush.yaml"], folder) as kitepush:
        kitepush.ready(lambda: servers.get(f"http://127.0.0.1:{admin}/readyz"))
        answers = [servers.post(f"http://127.0.0.1:{listen}/webhook", event, SECRET) for number in builds for event in Build("web", number).run("passed", 60)]
        outcomes = [answer.get("outcome") for _, answer in answers]
        code = kitepush.stop()
    return outcomes, [] if code == 0 else [f"exit {code}", kitepush.log.read_text()[-800:]]


with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    (folder / "webhook").write_text(SECRET)
    config = folder / "kitepush.yaml"
    try:
        steps = [("a first version", PREVIOUS, [1, 2]), ("the upgrade", CURRENT, [2, 3]), ("the rollback", PREVIOUS, [3, 4]), ("the upgrade again", CURRENT, [4, 5])]
        for index, (step, binary, builds) in enumerate(steps):
            before = totals(binary, config) if index else ""
            outcomes, problems = send(binary, folder, builds)
            wanted = (["duplicate"] * 3 if index else ["accepted"] * 3) + ["accepted"] * 3
            if outcomes != wanted:
                problems.append(f"outcomes {outcomes}")
            both = {totals(CURRENT, config), totals(PREVIOUS, config)}
            if len(both) != 1:
                problems.append(f"the versions read different totals: {both}")
            after = both.pop()
            passed = [line for line in after.splitlines() if "buildkite_builds_finished_total" in line or "passed" in line]
            if not any(re.search(rf"\b{index + 2}\b", line) for line in passed):
                problems.append(f"expected {index + 2} passed builds: {after[:1500]}")
            if before and "exit" in before[:5]:
                problems.append(before)
            case(f"{step}: opens the state file, remembers, counts on", problems)
    except (TimeoutError, RuntimeError) as error:
        case("upgrade and rollback", [str(error)])
end()
