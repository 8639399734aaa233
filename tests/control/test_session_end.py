import os
import time

import psutil
import pytest

from etude.control.session_end import SessionEnd, find_session_end


def test_a_limit_counts_from_the_start_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_END_TIME", "KAGGLE_KERNEL_RUN_TYPE", "COLAB_RELEASE_TAG"):
        monkeypatch.delenv(name, raising=False)
    assert find_session_end(None) is None
    end = find_session_end("1h30m")
    assert end is not None and end.moment == psutil.Process().create_time() + 5400
    assert str(end).endswith("(run.session_limit = 1h30m)")
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    end = find_session_end("1h30m")
    assert end is not None and end.moment == psutil.Process(1).create_time() + 5400
    assert psutil.Process(os.getpid()).create_time() > psutil.Process(1).create_time()


def test_the_earlier_end_counts_and_one_that_is_no_time_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_END_TIME", "100")
    assert find_session_end("1h") == SessionEnd(100.0, "SLURM_JOB_END_TIME")
    assert str(find_session_end(None)) == "the session is over (SLURM_JOB_END_TIME)"
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 10**6))
    end = find_session_end("1s")
    assert end is not None and end.origin == "run.session_limit = 1s"
    for odd in ("", "soon", "-1", "1e9", "٣", "9" * 400):
        monkeypatch.setenv("SLURM_JOB_END_TIME", odd)
        assert find_session_end("1h") == find_session_end("1h")
        assert find_session_end(None) is None
