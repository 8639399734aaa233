"""Event files, as torch and TensorFlow's protobufs write them."""

import io
from pathlib import Path

import numpy as np
import pytest

from etude.watch.logs import read_log
from etude.watch.logs.tensorboard import is_event_file, read_events

pytest.importorskip("tensorboard")


def write(folder: Path, scalars: list[tuple[str, float, int]], *, new_style: bool = False) -> Path:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))
    writer.add_text("args", "{'lr': 1}")
    writer.add_histogram("weights", np.zeros(9), 0)
    for tag, value, step in scalars:
        writer.add_scalar(tag, value, step, new_style=new_style)
    writer.close()
    return next(folder.iterdir())


@pytest.mark.parametrize("new_style", [False, True])
def test_the_scalars_that_torch_writes_are_read(new_style: bool, tmp_path: Path) -> None:
    scalars = [
        ("train/loss", 3.0, 10),
        ("train/learning_rate", 0.5, 10),
        ("train/loss", 2.0, 20),
        ("eval/loss", 2.5, 20),
    ]
    write(tmp_path / "tb", scalars, new_style=new_style)
    log = read_log(tmp_path)
    (run,) = log.runs
    assert log.format == "TensorBoard events"
    found = [(point.step, point.loss, point.eval_loss, point.learning_rate) for point in run.points]
    assert found == [(10, 3.0, None, 0.5), (20, 2.0, 2.5, None)]


def test_two_files_of_a_run_that_went_back_are_one_log(tmp_path: Path) -> None:
    first = write(tmp_path, [("loss", 3.0, 10), ("loss", 9.0, 20), ("loss", 9.5, 30)])
    first.rename(first.with_name("events.out.tfevents.1.a"))
    write(tmp_path / "b", [("loss", 2.0, 20), ("loss", 1.5, 30)]).rename(tmp_path / "events.out.tfevents.2.a")
    (tmp_path / "b").rmdir()
    (run,) = read_log(tmp_path).runs
    assert [(point.step, point.loss) for point in run.points] == [(10, 3.0), (20, 2.0), (30, 1.5)]
    assert any("went back" in note for note in run.notes)


def test_a_validation_loss_with_a_count_of_its_own_is_left_out_and_named(tmp_path: Path) -> None:
    scalars = [("loss", 2.0, step) for step in range(100)]
    scalars[25::25] = [("val_loss", 3.0, epoch) for epoch in range(3)]
    scalars += [("val_loss", 3.0, 3)]
    path = write(tmp_path, scalars)
    (run,) = read_log(path).runs
    assert {point.eval_loss for point in run.points} == {None}
    assert "val_loss counts steps of its own" in run.notes[0]


def test_every_cut_and_every_flipped_byte_gives_a_part_of_the_points_or_no_log(tmp_path: Path) -> None:
    path = write(tmp_path, [("loss", float(9 - step), step) for step in range(5)])
    content = path.read_bytes()
    whole = [dict(row.figures) for row in read_events(io.BytesIO(content)).rows]
    assert whole == [{"step": step, "loss": 9.0 - step} for step in range(5)]
    for place in range(0, len(content), 3):
        flipped = content[:place] + bytes([content[place] ^ 0x40]) + content[place + 1 :]
        for damaged in (content[:place], flipped):
            found = [dict(row.figures) for row in read_events(io.BytesIO(damaged)).rows]
            assert found == whole[: len(found)]


def test_a_length_without_its_checksum_is_no_event_file() -> None:
    assert not is_event_file(b"") and not is_event_file(bytes(12)) and not is_event_file(b"step,loss\n1,2\n")
