"""Event files, as torch and TensorFlow's protobufs write them."""

import io
from pathlib import Path

import numpy as np
import pytest

from etude.errors import InputError
from etude.watch.logs import read_log, tensorboard
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
    whole = [dict(row.figures) for row in read_events([io.BytesIO(content)]).rows]
    assert whole == [{"step": step, "loss": 9.0 - step} for step in range(5)]
    for place in range(0, len(content), 3):
        flipped = content[:place] + bytes([content[place] ^ 0x40]) + content[place + 1 :]
        for damaged in (content[:place], flipped):
            found = [dict(row.figures) for row in read_events([io.BytesIO(damaged)]).rows]
            assert found == whole[: len(found)]


def test_a_length_without_its_checksum_is_no_event_file() -> None:
    assert not is_event_file(b"") and not is_event_file(bytes(12)) and not is_event_file(b"step,loss\n1,2\n")


def frame(record: bytes) -> bytes:
    """A record as TFRecord has it, with the checksums that TensorBoard's own package computes."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    file = io.BytesIO()
    RecordWriter(file).write(record)
    return file.getvalue()


@pytest.mark.parametrize("record", [b"", b"\x2a\x80\x20" + b"\x0a\x00" * 2048, bytes(1 << 17)])
def test_records_without_scalars_are_given_up_after_so_many(
    record: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tensorboard._MOST_BYTES == 128 << 20
    monkeypatch.setattr(tensorboard, "_MOST_BYTES", 2 << 20)
    framed = frame(record)

    class Endless(io.RawIOBase):  # the file, again and again
        at = 0

        def read(self, size: int = -1) -> bytes:
            place = self.at % len(framed)
            self.at += size
            return (framed + framed)[place : place + size]

        def seek(self, offset: int, whence: int = 0) -> int:
            self.at += offset
            return self.at

    with pytest.raises(InputError, match=r"or 2 MiB of records"):
        read_events([Endless()])


def test_a_large_record_with_scalars_is_checked_too() -> None:
    from tensorboard.compat.proto import event_pb2

    event = event_pb2.Event(step=3)
    for each in range(100):
        event.summary.value.add(tag=f"loss/{each}", simple_value=2.0)
    content = frame(event.SerializeToString())
    assert len(content) > 1024 and len(list(read_events([io.BytesIO(content)]).rows)) == 100
    flipped = content[:-20] + bytes([content[-20] ^ 1]) + content[-19:]
    source = read_events([io.BytesIO(flipped)])
    assert not source.rows and "damaged" in source.notes[0]


def test_a_log_has_more_event_files_than_a_process_may_open(tmp_path: Path) -> None:
    import resource

    from tensorboard.compat.proto import event_pb2

    for number in range(100):
        event = event_pb2.Event(step=number)
        event.summary.value.add(tag="loss", simple_value=2.5)
        (tmp_path / f"events.out.tfevents.{number:04}").write_bytes(frame(event.SerializeToString()))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(int(each.name) for each in Path("/proc/self/fd").iterdir()) + 30
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, before[1]))
    try:
        assert len(read_log(tmp_path).runs[0].points) == 100
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
