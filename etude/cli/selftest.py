"""The commands that try a machine, and etude on it."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from etude.cli.options import Json, Runs
from etude.cli.printing import print_json, print_text, say
from etude.text import plural, rough_size


def selftest(as_json: Json = False) -> None:
    """Try a minute of what etude promises on this machine, and print a record to paste into a report."""
    from etude.selftest import run_checks

    record = run_checks(lambda check: say(f"{check.name}: {check.state}"))
    if as_json:
        print_json(record)
    else:
        print_text(_text(record))
    if any(check["state"] == "failed" for check in record["checks"]):
        raise typer.Exit(1)


def doctor(
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Find in seconds what keeps this machine from training: versions, devices, disk, memory, limits."""
    from etude.doctor import examine

    checks = []
    for check in examine(runs):
        checks.append(check)
        if not as_json:
            print_text(f"{check.state}: {check.name}: {check.words}")
    if as_json:
        print_json({"checks": [asdict(check) for check in checks]})
    if any(check.state == "failed" for check in checks):
        raise typer.Exit(1)


def _text(record: dict[str, Any]) -> str:
    """The record in lines, one a check."""
    machine = record["machine"]
    gpus = ", ".join(gpu["name"] for gpu in machine["gpus"]) or "no GPU"
    lines = [
        ", ".join(f"{name} {version}" for name, version in record["versions"].items()),
        f"{machine['platform']}; {machine['cpu']}, {plural(machine['cores'], 'core')}; "
        f"{rough_size(machine['memory_bytes'])} of memory; {gpus}",
    ]
    lines += [
        f"{check['state']}: {check['name']}: {check['words']} ({check['seconds']:.1f} s)"
        for check in record["checks"]
    ]
    return "\n".join(lines)
