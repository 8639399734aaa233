"""Formats of tensors, by the rules that llama.cpp states."""

import pytest

from etude.quantize.gguf_types import FILE_TYPES, FORMS, Format, choose_format


def names(form: str, tensor: str, width: int = 512, n_layer: int = 16, *, is_tied: bool = False) -> Format:
    return choose_format(form, tensor, (64, width), n_layer=n_layer, is_tied=is_tied)


def test_vectors_stay_f32_in_every_form() -> None:
    for form in FORMS:
        found = choose_format(form, "output_norm.weight", (512,), n_layer=2, is_tied=True)
        assert found == Format("F32", "F32")


@pytest.mark.parametrize("form", ["Q4_K_M", "Q5_K_M"])
def test_a_mixed_form_gives_half_of_the_blocks_more_for_values_and_the_way_down(form: str) -> None:
    main = FORMS[form]
    for part in ("attn_v", "ffn_down"):
        more = [i for i in range(16) if names(form, f"blk.{i}.{part}.weight").name == "Q6_K"]
        assert more == [0, 1, 4, 7, 10, 13, 14, 15]  # first and last eighth, and each third between
    assert {names(form, f"blk.{i}.attn_q.weight").name for i in range(16)} == {main}
    assert {names("Q6_K", f"blk.{i}.ffn_down.weight").name for i in range(16)} == {"Q6_K"}


def test_the_output_has_six_bits_and_so_has_the_embedding_in_its_place() -> None:
    assert names("Q4_K_M", "output.weight").name == "Q6_K"
    assert names("Q4_K_M", "token_embd.weight", is_tied=True).name == "Q6_K"
    assert names("Q4_K_M", "token_embd.weight").name == "Q4_K"
    assert names("Q8_0", "output.weight").name == "Q8_0" and names("F16", "output.weight").name == "F16"


@pytest.mark.parametrize(
    ("form", "width", "expected"),
    [
        ("Q4_K_M", 96, "Q5_0"), ("Q5_K_M", 96, "Q5_1"), ("Q6_K", 96, "Q8_0"), ("Q8_0", 96, "Q8_0"),
        ("Q4_K_M", 40, "F16"), ("Q5_K_M", 40, "F16"), ("Q6_K", 40, "F16"), ("Q8_0", 40, "F16"),
        ("F16", 7, "F16"),
    ],
)  # fmt: skip
def test_rows_that_no_block_divides_have_another_format(form: str, width: int, expected: str) -> None:
    found = names(form, "blk.1.ffn_up.weight", width)
    assert found == Format(expected, FORMS[form])


def test_numbers_of_forms_are_those_of_the_package() -> None:
    gguf = pytest.importorskip("gguf", reason="the extra gguf is not installed")
    theirs = {name: gguf.LlamaFileType[f"MOSTLY_{name}"].value for name in FORMS}
    assert theirs == FILE_TYPES
