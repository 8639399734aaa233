"""The result of a quantised export in words: rows, the section of a card, and JSON."""

import json
from dataclasses import replace

from etude.report.quantized import Beside, Gguf, Packed, Quantized, share_of_loss

PACKED = Packed(
    bits=4, group=128, method="gptq", calibration=64, layers=20, kept=["model.layers.0.mlp.up_proj"],
    costs={"model.layers.0.mlp": 0.05, "model.layers.1.mlp": 0.001},
)  # fmt: skip
RESULT = Quantized(
    form=PACKED,
    figures={
        "loss": Beside([2.0, 1.9, 2.1], [2.02, 1.92, 2.12], [0.02, 0.01, 0.03]),
        "stop_rate": Beside([1.0, 1.0, 1.0], [0.5, 0.4, 0.6], None),
    },
    samples=40, most_loss=0.02, file_bytes=(4_000_000, 1_000_000), tokens_per_second=(1000.0, 990.0),
)  # fmt: skip
GGUF = Gguf(
    form="Q4_K_M", file="model-Q4_K_M.gguf", formats={"blk.0.ffn_up.weight": "Q4_K", "output.weight": "Q8_0"},
    instead={"output.weight": "Q6_K"}, splits="qwen2", texts=(10, 4), bits_per_byte=(1.0, 1.01), head_dim=32,
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


def test_a_gguf_names_its_formats_and_what_its_text_costs() -> None:
    result = replace(RESULT, form=GGUF, base_loss=3.02)
    rows = dict(result.rows())
    assert rows["tensors"] == "1 Q4_K, 1 Q8_0" and rows["gain kept"].startswith("98.04% of what tuning took")
    assert rows["other formats"] == "output.weight Q8_0 for Q6_K: rows that no block divides"
    assert rows["text in llama.cpp"].endswith(
        "4 of 10 texts get other ids; bits per byte 1.0000, there 1.0100 (+1.00%)"
    )
    assert "`output.weight` Q8\\_0" in result.section() or "`output.weight` Q8_0" in result.section()
    assert 'from_pretrained(folder, gguf_file="model-Q4_K_M.gguf", head_dim=32)' in "\n".join(
        GGUF.program("AutoModelForCausalLM")
    )
    same = replace(GGUF, texts=None, bits_per_byte=None)
    assert dict(same.rows())["text in llama.cpp"] == "split as qwen2, as the tokenizer does"


def test_tuning_that_took_nothing_has_no_gain_to_keep() -> None:
    assert replace(RESULT, base_loss=1.9).gain is None and RESULT.gain is None
    assert "gain kept" not in dict(RESULT.rows())
