"""The bill of materials of a wheel names all that it installs, and is the same bytes each time."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def test_a_bill_of_materials_names_what_a_wheel_installs_and_nothing_else(tmp_path: Path) -> None:
    wheel = tmp_path / "etude_workbench-0.1.0-py3-none-any.whl"
    wheel.write_bytes(b"a wheel")
    first, second = (
        subprocess.run(
            [sys.executable, str(ROOT / "dev" / "sbom.py"), str(wheel)],
            check=True,
            capture_output=True,
            cwd=ROOT,
        ).stdout
        for _ in range(2)
    )
    bill = json.loads(first)
    assert first == second
    versions = {each["name"]: each["version"] for each in bill["components"]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    direct = {canonicalize_name(Requirement(each).name) for each in project["dependencies"]}
    (own,) = [
        each for each in bill["dependencies"] if each["ref"] == bill["metadata"]["component"]["bom-ref"]
    ]
    assert {each.split("/")[1].split("@")[0] for each in own["dependsOn"]} == direct
    assert direct <= versions.keys() and not {"pytest", "ruff", "mypy"} & versions.keys()
    assert bill["metadata"]["component"]["hashes"] == [
        {"alg": "SHA-256", "content": "69f51477f05c46bfa5ff0027a1fcde274695311a38adfb85611ffeb93c8b146b"}
    ]
    refs = {each["bom-ref"] for each in bill["components"]} | {bill["metadata"]["component"]["bom-ref"]}
    assert {each["ref"] for each in bill["dependencies"]} == refs
    assert all({*each["dependsOn"]} <= refs for each in bill["dependencies"])
