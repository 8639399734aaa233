"""The head of a pretrained encoder-decoder, which files may say in several ways."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from etude.errors import InputError
from etude.models.pretrained import inspect_model, load_pretrained
from etude.models.t5_config import T5Config
from tests.bases import write_t5


@pytest.mark.parametrize(
    ("tied", "scaled", "said"),
    [
        (False, None, None),  # as transformers 4 writes T5 1.1
        (True, False, None),  # the same by transformers 5, which always writes true
        (False, True, None),
        (None, None, "but it is another matrix"),
        (True, None, "but it is another matrix"),
        (True, True, "but it is another matrix"),
    ],
)
def test_a_head_of_its_own_is_taken_where_every_transformers_takes_it(
    tied: bool | None, scaled: bool | None, said: str | None, tmp_path: Path
) -> None:
    from transformers import T5ForConditionalGeneration

    base = write_t5(tmp_path)
    tensors = load_file(base / "model.safetensors")
    say(base, tie_word_embeddings=tied, scale_decoder_outputs=scaled)
    save_file(
        tensors | {"lm_head.weight": tensors["shared.weight"].flip(0).clone()},
        base / "model.safetensors", metadata={"format": "pt"},
    )  # fmt: skip
    if said is not None:
        with pytest.raises(InputError, match=said):
            inspect_model(base)
        return
    tokens, targets = torch.arange(5, 30)[None], torch.arange(40, 50)[None]
    ours: Any = load_pretrained(inspect_model(base), dtype=torch.float32, dropout=0.0)[0].eval()
    theirs: Any = T5ForConditionalGeneration.from_pretrained(base).eval()
    with torch.no_grad():
        expected = theirs(input_ids=tokens, decoder_input_ids=targets).logits
        logits = ours.head(ours(tokens, targets, source_lengths=(25,), target_lengths=(10,)))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_a_head_that_is_the_embedding_may_stand_in_the_file_and_one_of_its_own_must(tmp_path: Path) -> None:
    base = write_t5(tmp_path)
    tensors = load_file(base / "model.safetensors")
    head = {"lm_head.weight": tensors["shared.weight"].clone()}
    save_file(tensors | head, base / "model.safetensors", metadata={"format": "pt"})
    pretrained = inspect_model(base)
    assert isinstance(pretrained.config, T5Config) and pretrained.config.tied
    load_pretrained(pretrained, dtype=torch.float32, dropout=0.0)[0]
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    say(base, tie_word_embeddings=False, scale_decoder_outputs=None)
    with pytest.raises(
        InputError, match=r"tie_word_embeddings is false, but the files have no lm_head\.weight"
    ):
        inspect_model(base)


def say(base: Path, **changes: bool | None) -> None:
    """Change keys of a config.json; None leaves one out."""
    values = json.loads((base / "config.json").read_text()) | changes
    (base / "config.json").write_text(
        json.dumps({key: each for key, each in values.items() if each is not None})
    )
