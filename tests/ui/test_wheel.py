"""The wheel holds the page as it stands in the tree."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from etude.ui.static import WEB, read_assets

ROOT = Path(__file__).parents[2]


def test_every_file_of_the_page_is_in_the_wheel_byte_for_byte(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling is absent: install etude-workbench[dev]")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        prefix = "etude/ui/web/"
        held = {
            name.removeprefix(prefix): archive.read(name)
            for name in archive.namelist()
            if name.startswith(prefix)
        }
        archive.extractall(tmp_path / "installed")
    there = {path.relative_to(WEB).as_posix() for path in WEB.rglob("*") if path.is_file()}
    assert held == {name: asset.content for name, asset in read_assets().items()} and held.keys() == there
    # Installed elsewhere, it finds them beside itself.
    code = "from etude.ui.static import WEB, read_assets; print(WEB, *(each.etag for each in read_assets().values()))"
    installed = tmp_path / "installed"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    place, *etags = done.stdout.split()
    assert Path(place) == installed / prefix and etags == [each.etag for each in read_assets().values()]
