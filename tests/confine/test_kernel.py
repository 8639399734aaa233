"""Numbers and calls of the kernel."""

import errno
import os
import re
from pathlib import Path

import pytest

from etude.confine import kernel

pytestmark = pytest.mark.skipif(kernel.architecture() is None, reason="not Linux on x86-64 or aarch64")


def test_a_call_answers_as_the_library_does() -> None:
    assert kernel.call("getpid") == os.getpid()


def test_a_call_that_fails_raises_the_error_of_the_kernel() -> None:
    with pytest.raises(OSError) as raised:
        kernel.call("dup", -1)
    assert raised.value.errno == errno.EBADF


def test_the_numbers_are_those_of_the_headers() -> None:
    headers = list(Path("/usr/include").glob("*/asm/unistd_64.h"))
    if not headers:
        pytest.skip("no headers of the kernel here")
    known = dict(re.findall(r"#define __NR_(\w+) (\d+)", headers[0].read_text()))
    wrong = {name: kernel.number(name) for name in known if name in kernel._NUMBERS}
    assert wrong == {name: int(known[name]) for name in wrong}
    assert len(wrong) > 100
