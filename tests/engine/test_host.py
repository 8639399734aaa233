"""Values come back as they were, by their names and in their shapes."""

import numpy as np
import torch

from etude.engine.host import to_host


def test_values_of_many_types_come_back_in_their_shapes() -> None:
    given = {
        "table": torch.arange(6.0).reshape(2, 3).t(),
        "flag": torch.tensor(True),
        "count": torch.tensor([3, 0]),
        "rough": torch.tensor([1.5, -0.25], dtype=torch.bfloat16),
        "none": torch.zeros(0),
    }
    told = to_host(given)
    assert list(told) == list(given)
    for name, each in given.items():
        assert told[name].shape == tuple(each.shape) and told[name].dtype == np.float64
        assert told[name].tolist() == each.double().tolist()
    assert to_host({}) == {}


def test_float64_loses_nothing() -> None:
    assert (
        to_host({"a": torch.tensor([1 + 1e-15], dtype=torch.float64), "b": torch.ones(2)})["a"][0]
        == 1 + 1e-15
    )
