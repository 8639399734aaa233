"""Write the bill of materials of a wheel as CycloneDX 1.6 JSON: all that it installs, by version and licence.

    python dev/sbom.py dist/a/etude_workbench-0.1.0-py3-none-any.whl > dist/sbom.cdx.json

The versions are those of this environment, which `constraints.txt` names. The same wheel in the same environment
gives the same bytes: there is no date in it, and its serial number is a hash of the rest.

Source: https://cyclonedx.org/docs/1.6/json/, https://github.com/package-url/purl-spec.
"""

import hashlib
import json
import sys
import uuid
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

NAME = "etude-workbench"


def main() -> None:
    (wheel,) = map(Path, sys.argv[1:])
    json.dump(describe(wheel.read_bytes()), sys.stdout, indent=1, sort_keys=True)
    sys.stdout.write("\n")


def describe(wheel: bytes) -> dict[str, Any]:
    """The bill of materials of the bytes of a wheel of etude."""
    found = installed()
    root = _component(found[NAME]) | {"type": "application"}
    root["hashes"] = [{"alg": "SHA-256", "content": hashlib.sha256(wheel).hexdigest()}]
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": root},
        "components": [_component(each) for name, each in sorted(found.items()) if name != NAME],
        "dependencies": [
            {
                "ref": _address(each),
                "dependsOn": sorted({_address(found[on]) for on in needs(each) if on in found}),
            }
            for _, each in sorted(found.items())
        ],
    }
    number = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(bill, sort_keys=True))
    return {**bill, "serialNumber": f"urn:uuid:{number}"}


def installed() -> dict[str, Distribution]:
    """etude and all that it needs without extras, directly or not, by name."""
    found: dict[str, Distribution] = {}
    wanted = [NAME]
    while wanted:
        name = wanted.pop()
        if name not in found:
            found[name] = distribution(name)
            wanted += needs(found[name])
    return found


def needs(package: Distribution) -> Iterator[str]:
    """Names of what a package needs on this machine."""
    for line in package.requires or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield canonicalize_name(requirement.name)


def _component(package: Distribution) -> dict[str, Any]:
    names = {
        "type": "library",
        "name": canonicalize_name(package.metadata["Name"]),
        "version": _version(package),
    }
    licence = package.metadata["License-Expression"]
    named = [
        each.rpartition(" :: ")[2]
        for each in package.metadata.get_all("Classifier", [])
        if each.startswith("License ::")
    ]
    known = (
        [{"expression": licence}] if licence else [{"license": {"name": each}} for each in sorted({*named})]
    )
    return {
        **names,
        "purl": _address(package),
        "bom-ref": _address(package),
        **({"licenses": known} if known else {}),
    }


def _version(package: Distribution) -> str:
    return package.version.partition("+")[0]  # a label as +cpu is of a build, and nowhere else


def _address(package: Distribution) -> str:
    return f"pkg:pypi/{canonicalize_name(package.metadata['Name'])}@{_version(package)}"


if __name__ == "__main__":
    main()
