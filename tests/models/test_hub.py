"""Pretrained models: found, looked at, loaded, and refused."""

from pathlib import Path

import pytest

from etude.errors import InputError
from etude.models.hub import find_model
from tests.bases import SMALL, write_model


def test_a_hub_id_is_found_in_the_cache_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    entry = tmp_path / "models--acme--tiny"
    write_model(entry / "snapshots" / "abc123", "qwen2", SMALL)
    (entry / "refs").mkdir()
    (entry / "refs" / "main").write_text("abc123")
    for revision in (None, "main", "abc123"):
        assert find_model("acme/tiny", revision) == entry / "snapshots" / "abc123"
    with pytest.raises(InputError, match="did you mean acme/tiny"):
        find_model("acme/tinny")
    with pytest.raises(InputError, match=f"looked for {tmp_path}.*did you mean Qwen/Qwen2.5-Coder-1.5B"):
        find_model("Qwen/Qwen2.5-Coder-1.5")
    with pytest.raises(InputError, match=r"fetch it with `hf download acme/other`, or give a folder"):
        find_model("acme/other")
    with pytest.raises(InputError, match=r"revision v2 of acme/tiny is not in .*acme--tiny; there is abc123"):
        find_model("acme/tiny", "v2")
    with pytest.raises(InputError, match=r"hf download acme/tiny --revision v2`$"):
        find_model("acme/tiny", "v2")
    for odd in (b"../../other", b"a\0b", b"\xff", b"a" * 5000):
        (entry / "refs" / "main").write_bytes(odd)
        with pytest.raises(InputError, match="refs/main"):
            find_model("acme/tiny")
    (entry / "refs" / "main").write_text("abc123")
    (entry / "snapshots" / "abc123" / "config.json").unlink()
    with pytest.raises(InputError, match=r"no snapshot there has a config\.json"):
        find_model("acme/tiny")
    for given in ("../../etc", "a/b/c", "", "acme/../x", "./nowhere"):
        with pytest.raises(InputError, match=r"model\.from"):
            find_model(given)
