"""Compare what etude/ui/web/vendor/ holds with the packages of npm that it was taken from.

`python dev/vendor.py` fetches each package of vendor.json by `npm pack` and compares every file byte by byte;
`--take` copies the files from there instead, for a new version that was written into vendor.json.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

VENDOR = Path(__file__).parents[1] / "etude" / "ui" / "web" / "vendor"
TABLE = VENDOR / "vendor.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--take", action="store_true", help="copy the files, and write their SHA-256")
    asked = parser.parse_args()
    table: list[dict[str, Any]] = json.loads(TABLE.read_text("utf-8"))
    differing = []
    for package in table:
        with tempfile.TemporaryDirectory() as folder:
            unpacked = _fetch(f"{package['package']}@{package['version']}", Path(folder))
            for each in package["files"]:
                content = (unpacked / each["from"]).read_bytes()
                if asked.take:
                    (VENDOR / each["file"]).write_bytes(content)
                    each["sha256"] = hashlib.sha256(content).hexdigest()
                elif content != (VENDOR / each["file"]).read_bytes():
                    differing.append(f"{each['file']} is not {each['from']} of {package['package']}")
    if asked.take:
        TABLE.write_text(json.dumps(table, indent=2) + "\n", "utf-8")
    print("\n".join(differing) or f"{TABLE.parent} is as npm has it")
    return 1 if differing else 0


def _fetch(name: str, folder: Path) -> Path:
    """The folder of an unpacked package."""
    if (npm := shutil.which("npm")) is None:
        sys.exit("npm is needed for this")
    subprocess.run([npm, "pack", "--silent", name], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    with tarfile.open(next(folder.glob("*.tgz"))) as packed:
        packed.extractall(folder, filter="data")
    return folder / "package"


if __name__ == "__main__":
    sys.exit(main())
