"""The datastore of W&B, as the package of W&B writes it."""

import io
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from etude.errors import InputError
from etude.watch.logs import read_log, wandb
from etude.watch.logs.wandb import read_datastore

pytest.importorskip("wandb")
BLOCK = 1 << 15
PROGRAM = """
import sys, wandb
settings = wandb.Settings(disable_git=True, console="off", x_disable_stats=True)
run = wandb.init(project="p", mode="offline", dir=sys.argv[1], settings=settings)
for step in (1, 2, 3):
    run.log({"train/loss": 3.0 / step, "train/learning_rate": 0.5, "train/global_step": 10 * step})
run.log({"eval/loss": 1.25, "train/global_step": 30})
run.log({"train/train_runtime": 9.0, "train/train_loss": 2.0, "train/global_step": 30})
run.finish()
"""


def frame(records: list[bytes]) -> bytes:
    """Records in LevelDB's log format, pieces over the edges of blocks."""
    out = bytearray(b":W&B" + struct.pack("<HB", 0xBEE1, 0))
    for record in records:
        kind, rest = 1, record
        while True:
            left = BLOCK - len(out) % BLOCK
            if left < 7:
                out += bytes(left)
                continue
            piece, rest = rest[: left - 7], rest[left - 7 :]
            is_first = len(piece) + len(rest) == len(record)
            kind = (1 if is_first else 4) if not rest else (2 if is_first else 3)
            out += struct.pack("<IHB", zlib.crc32(piece, zlib.crc32(bytes([kind]))), len(piece), kind) + piece
            if not rest:
                break
    return bytes(out)


def history(**values: object) -> bytes:
    from wandb.proto import wandb_internal_pb2 as proto

    record = proto.Record()
    for name, value in values.items():
        record.history.item.add(nested_key=name.split("__"), value_json=json.dumps(value))
    return bytes(record.SerializeToString())


def test_a_run_that_the_package_kept_offline_is_read(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], check=True, capture_output=True)
    log = read_log(tmp_path / "wandb")
    found = [(point.step, point.loss, point.eval_loss) for point in log.runs[0].points]
    assert log.format == "datastore of W&B" and found == [(10, 3.0, None), (20, 1.5, None), (30, 1.0, 1.25)]


def test_records_over_the_edges_of_blocks_are_joined() -> None:
    records = [history(_step=step, train__loss=2.0, note="x" * (step * 977 % 5000)) for step in range(60)]
    source = read_datastore(io.BytesIO(frame(records)))
    assert [row.figures["_step"] for row in source.rows] == list(range(60))
    assert {row.figures["train/loss"] for row in source.rows} == {2.0} and not source.notes


def test_every_cut_and_every_flipped_byte_gives_a_part_of_the_rows() -> None:
    content = frame([history(_step=step, loss="NaN" if step == 2 else 9 - step) for step in range(4)])
    whole = [str(row.figures) for row in read_datastore(io.BytesIO(content)).rows]
    assert len(whole) == 4 and "nan" in whole[2]
    for place in range(7, len(content)):
        flipped = content[:place] + bytes([content[place] ^ 0x40]) + content[place + 1 :]
        for damaged in (content[:place], flipped):
            found = [str(row.figures) for row in read_datastore(io.BytesIO(damaged)).rows]
            assert found == whole[: len(found)]


def test_a_datastore_may_end_where_no_header_fits_into_its_block() -> None:
    for left in range(1, 7):
        content = frame([history(_step=1, loss=2.0)])
        padding = BLOCK - len(content) - 7 - left
        piece = struct.pack("<IHB", zlib.crc32(bytes(padding), zlib.crc32(b"\1")), padding, 1)
        source = read_datastore(io.BytesIO(content + piece + bytes(padding)))
        assert [row.figures["loss"] for row in source.rows] == [2.0] and not source.notes


def test_a_datastore_of_nothing_but_empty_pieces_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wandb._MOST_BYTES == 128 << 20
    monkeypatch.setattr(wandb, "_MOST_BYTES", 8 << 20)
    empty = struct.pack("<IHB", zlib.crc32(b"\1"), 0, 1)
    block = empty * (BLOCK // 7) + bytes(BLOCK % 7)
    content = b":W&B\0\0\0" + block[7:] + block * 40
    with pytest.raises(InputError, match=r"or 8 MiB of history"):
        read_datastore(io.BytesIO(content))
