"""A file of tensors is the same whether one process writes it or several ranks their rows."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from etude import durable
from etude.engine.tensor_files import Piece, begin_file, read_tensors, safetensors, write_rows
from etude.errors import InputError, StorageError

SHAPES = st.lists(st.integers(0, 5), min_size=0, max_size=3)
DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.int64])


def piece(tensor: torch.Tensor, rank: int, ranks: int) -> Piece:
    most = -(-len(tensor) // ranks)
    first = min(rank * most, len(tensor))
    return Piece(tuple(tensor.shape), first, min(most, len(tensor) - first))


@settings(deadline=None, max_examples=30)
@given(given=st.lists(st.tuples(SHAPES, DTYPES), max_size=5), ranks=st.integers(1, 4))
def test_ranks_write_the_file_of_one_process_and_read_their_rows(
    tmp_path_factory: pytest.TempPathFactory, given: list[tuple[list[int], torch.dtype]], ranks: int
) -> None:
    folder = tmp_path_factory.mktemp("files")
    tensors = {
        f"t{place}": torch.randint(-9, 9, shape).to(dtype) for place, (shape, dtype) in enumerate(given)
    }
    durable.write_file(folder / "whole", safetensors(tensors))
    for rank in reversed(range(ranks)):  # the layout is the same, whoever begins
        places = {name: piece(each, rank, ranks) for name, each in tensors.items() if each.dim()}
        mine = {
            name: each[places[name].first :][: places[name].rows] if name in places else each
            for name, each in tensors.items()
        }
        if rank == ranks - 1:
            begin_file(folder / "parts", mine, places)
        write_rows(folder / "parts", mine, places, is_main=rank == 0)
        if rank == 0:
            assert (folder / "parts").read_bytes() == (folder / "whole").read_bytes()
            assert all(
                torch.equal(each, mine[name])
                for name, each in read_tensors(folder / "whole", places.get).items()
            )


def test_rows_of_another_shape_are_refused(tmp_path: Path) -> None:
    durable.write_file(tmp_path / "a", safetensors({"w": torch.ones(4, 2)}))
    with pytest.raises(InputError, match=r"w is \[4, 2\], the model has \[4, 3\]"):
        read_tensors(tmp_path / "a", lambda _: Piece((4, 3), 0, 2))


def test_a_file_that_is_there_is_not_begun_again(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"mine")
    with pytest.raises(StorageError):
        begin_file(tmp_path / "a", {"w": torch.ones(2)}, {})
    assert (tmp_path / "a").read_bytes() == b"mine"
