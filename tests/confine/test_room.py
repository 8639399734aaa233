"""A room of a process, and the tiers that are found by trying."""

import os
import resource

import pytest

from etude.confine.room import Room, Tier, enter, strongest
from tests.confine.apart import outcome

_TIER = strongest()
needs_kernel = pytest.mark.skipif(not _TIER.confines, reason=f"this kernel confines nothing ({_TIER})")


@needs_kernel
@pytest.mark.parametrize("version", [1, 3, 4, 5])
def test_a_tier_is_masked_and_still_confines(version: int) -> None:
    found = strongest(Tier(version, True, False))
    assert found == Tier(min(version, _TIER.landlock), True, False)
    assert found.confines
    assert str(found) == f"Landlock {found.landlock} + seccomp + limits"


def test_without_landlock_or_without_seccomp_nothing_is_confined() -> None:
    assert not Tier(0, True, True).confines
    assert not Tier(7, False, True).confines
    assert str(Tier()) == "limits"


@needs_kernel
def test_namespaces_are_not_counted_where_a_container_denies_them() -> None:
    def attempt() -> list[object]:
        from etude.confine import seccomp

        seccomp.install(
            seccomp.deny_list(["unshare", "mount", "setns", "pidfd_getfd", "ptrace", "bpf", "keyctl"])
        )
        found = strongest()
        return [found.namespaces, found.confines]

    assert outcome(attempt) == [False, True]


@needs_kernel
def test_a_confined_process_has_its_limits_and_no_rights_of_root() -> None:
    def attempt() -> list[object]:
        status = open("/proc/self/status")  # noqa: SIM115 - what is open stays open
        enter(Room(cpu_seconds=7, memory_bytes=300 << 20), _TIER)
        lines = dict(line.split(":", 1) for line in status.read().splitlines())
        rights = {lines[name].strip().strip("0") for name in ("CapEff", "CapPrm", "CapBnd")}
        kinds = (resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE)
        return [sorted(rights), lines["NoNewPrivs"].strip(), [resource.getrlimit(kind) for kind in kinds]]

    assert outcome(attempt) == [[""], "1", [[7, 8], [300 << 20, 300 << 20], [0, 0], [0, 0]]]


@needs_kernel
def test_a_room_reads_what_it_was_given_and_nothing_else(tmp_path) -> None:
    (tmp_path / "given").mkdir()

    def attempt() -> list[str]:
        room = Room(cpu_seconds=5, memory_bytes=1 << 30, readable=(str(tmp_path / "given"),))
        enter(room, _TIER)
        read = []
        for path in (str(tmp_path / "given"), str(tmp_path), "/proc", "/etc", os.path.dirname(os.__file__)):
            try:
                os.listdir(path)
                read.append(path)
            except PermissionError:
                pass
        return read

    assert outcome(attempt) == [str(tmp_path / "given"), os.path.dirname(os.__file__)]
