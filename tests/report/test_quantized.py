"""The result of a quantised export in words: rows, the section of a card, and JSON."""

import json

from etude.report.quantized import Beside, Quantized, share_of_loss

RESULT = Quantized(
    bits=4, group=128, method="gptq", calibration=64, layers=20, kept=["model.layers.0.mlp.up_proj"],
    costs={"model.layers.0.mlp": 0.05, "model.layers.1.mlp": 0.001},
    figures={
        "loss": Beside([2.0, 1.9, 2.1], [2.02, 1.92, 2.12], [0.02, 0.01, 0.03]),
        "stop_rate": Beside([1.0, 1.0, 1.0], [0.5, 0.4, 0.6], None),
    },
    samples=40, most_loss=0.02, file_bytes=(4_000_000, 1_000_000), tokens_per_second=(1000.0, 990.0),
)  # fmt: skip


def test_the_share_of_the_loss_is_told_beside_what_was_allowed() -> None:
    rows = dict(RESULT.rows())
    assert rows["loss"] == "+1.00% (at most 2.00%) on 40 samples"
    assert (
        rows["file"].startswith("1.0 MB, 25.0 %") and rows["layers"] == "20 quantised, 1 of blocks left whole"
    )
    assert "not paired" in rows["stop rate"]


def test_a_card_names_scheme_costs_and_figures() -> None:
    section = RESULT.section()
    for part in (
        "weights of 4 bits, a scale for groups of 128 inputs, GPTQ on 64 training samples",
        "`model.layers.0.mlp.up_proj`", "`model.layers.0.mlp` +5.00%", "+0.02 [0.01, 0.03]",
    ):  # fmt: skip
        assert part in section


def test_json_has_the_numbers() -> None:
    values = json.loads(json.dumps(RESULT.to_dict()))
    assert values["file_bytes"] == {"original": 4_000_000, "quantized": 1_000_000}
    assert values["figures"]["loss"]["difference"] == [0.02, 0.01, 0.03] and values["bits"] == 4


def test_a_loss_of_nothing_has_a_share() -> None:
    assert share_of_loss(0.0, 0.0) == 0 and share_of_loss(3.0, 2.0) == 0.5 and share_of_loss(0.1, 0.0) > 1
