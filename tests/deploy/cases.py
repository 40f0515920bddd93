"""Prints one line for each case that was checked, in the words that run.sh counts."""

import sys

failed = 0


def case(name, problems=()):
    """Passed when there are no problems, each of which is a line of text."""
    global failed
    problems = list(problems)
    print(f"{'FAILED' if problems else 'ok'} - {name}", flush=True)
    for problem in problems:
        print(f"    {problem}", flush=True)
    failed += bool(problems)
    return not problems


def skipped(name, why):
    print(f"skipped - {name}: {why}", flush=True)


def end():
    sys.exit(1 if failed else 0)
