"""Data and weights are told apart by what they hold: a change that keeps size and time is noticed."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from etude import durable
from etude.errors import InputError
from etude.models.weights import digest
from etude.recipe.schema import Recipe
from etude.run import Training, run_recipe
from etude.start import Options
from tests.bases import write_qwen2
from tests.conftest import Outcome

Make = Callable[..., Recipe]


def change_quietly(path: Path, place: int) -> None:
    """Change one byte of a file, keeping its size and time."""
    times, data = path.stat(), bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def stop_early(recipe: Recipe, runs: Path) -> None:
    for step in Training(recipe, Options(runs=runs)):
        if step.number == 2:
            break


def test_data_that_changed_with_its_size_and_time_kept_is_refused(
    tmp_path: Path, make_recipe: Make, corpus: Path
) -> None:
    recipe = make_recipe({"train.steps": 4})
    stop_early(recipe, tmp_path / "runs")
    change_quietly(corpus, corpus.read_bytes().index(b"def ") + 4)
    with pytest.raises(InputError, match=r"the data of run .* has changed since it started"):
        run_recipe(recipe, Options(runs=tmp_path / "runs"))


def test_a_base_that_changed_with_its_size_and_time_kept_is_refused(
    tmp_path: Path, make_recipe: Make
) -> None:
    base = write_qwen2(tmp_path / "base")
    recipe = make_recipe(
        {"model": {"from": str(base)}, "tokenizer": {}, "adapter": {"rank": 2}, "train.steps": 4}
    )
    stop_early(recipe, tmp_path / "runs")
    change_quietly(base / "model.safetensors", -2)
    with pytest.raises(InputError, match="holds other weights than when it started"):
        run_recipe(recipe, Options(runs=tmp_path / "runs"))


def test_very_large_files_are_sampled_and_check_deep_reads_them_whole(
    tmp_path: Path,
    write_recipe: Callable[..., Path],
    etude: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(durable.reading, "_WHOLE_BYTES", 1 << 10)
    monkeypatch.setattr(durable.reading, "_SAMPLE_BYTES", 8)
    base = write_qwen2(tmp_path / "base")
    path = write_recipe({"model": {"from": str(base)}, "tokenizer": {}, "adapter": {"rank": 2}})
    assert etude("check", path, "--deep").code == 0
    first, corpus, weights = digest(base), tmp_path / "corpus.jsonl", base / "model.safetensors"
    for file, says in ((corpus, "etude prepare"), (weights, "copy it again")):
        known, before = durable.content_key(file), file.read_bytes()
        place = next(
            place for place in range(len(before) // 2, len(before)) if not was_noticed(file, place, known)
        )
        assert place
        outcome = etude("check", path, "--deep")
        assert (
            outcome.code == 2 and says in outcome.err and "though its size and time have not" in outcome.err
        )
        change_quietly(file, place)
        change_quietly(file, 0)
        assert durable.content_key(file) != known  # the first bytes are always looked at
        change_quietly(file, 0)
    assert digest(base) == first and etude("check", path, "--deep").code == 0


def was_noticed(file: Path, place: int, known: list[object]) -> bool:
    """Change a byte; if the samples notice it, change it back."""
    change_quietly(file, place)
    if is_noticed := durable.content_key(file) != known:
        change_quietly(file, place)
    return is_noticed
