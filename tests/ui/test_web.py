"""The files of the page hold together, are small, ask nobody else, and are typed."""

import gzip
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WEB = ROOT / "etude" / "ui" / "web"
OWN = sorted(path for path in WEB.iterdir() if path.suffix in (".js", ".css", ".html", ".svg"))
MODULES = [path for path in OWN if path.suffix == ".js"]
MOST_COMPRESSED = 150_000  # bytes of all files
MOST_LINES = 400  # of a file


def test_all_files_together_are_small() -> None:
    files = [path for path in WEB.rglob("*") if path.is_file()]
    assert sum(len(gzip.compress(path.read_bytes())) for path in files) < MOST_COMPRESSED


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_a_file_asks_nobody_else_and_leaves_the_content_policy_in_force(path: Path) -> None:
    text = path.read_text("utf-8")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), "the page works without a network"
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text
    )
    assert not re.search(r"\sstyle=|<style|\son[a-z]+=\"|javascript:", text), (
        "styles stand in the style sheets"
    )
    assert text.count("\n") <= MOST_LINES


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_a_module_is_checked_and_imports_what_is_there(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.startswith("// @ts-check\n")
    asked = re.findall(r"""(?:from |import\()"([^"]+)"\)?""", text)
    assert [name for name in asked if not name.startswith("./") or not (WEB / name).is_file()] == []


def test_the_page_names_files_that_are_there() -> None:
    names = re.findall(r'(?:href|src)="static/([^"]+)"', (WEB / "index.html").read_text("utf-8"))
    assert names and all((WEB / name).is_file() for name in names)


def test_a_vendored_file_is_the_one_that_was_taken() -> None:
    table = json.loads((WEB / "vendor" / "vendor.json").read_text("utf-8"))
    sums = {each["file"]: each["sha256"] for package in table for each in package["files"]}
    held = {path.name for path in (WEB / "vendor").iterdir()} - {"vendor.json"}
    assert sums.keys() == held
    assert all(
        hashlib.sha256((WEB / "vendor" / name).read_bytes()).hexdigest() == sums[name] for name in sums
    )
    for package in table:
        assert package["version"] and package["licence"]
        assert any(each["file"].startswith("LICENSE") for each in package["files"])


def test_the_types_hold() -> None:
    compiler = ROOT / "dev" / "node_modules" / "typescript" / "bin" / "tsc"
    if not (shutil.which("node") and compiler.exists()):
        pytest.skip("node or dev/node_modules is absent: make test installs it where npm is")
    checked = subprocess.run(
        ["node", str(compiler), "-p", str(ROOT / "dev")], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout[:4000]
