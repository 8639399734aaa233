"""Encoders for tests: their configurations by head, and the logits of hidden tokens."""

from dataclasses import replace

from torch import Tensor
from torch.nn import functional

from etude.models.encoder import Encoder
from etude.models.encoder_config import EncoderConfig

ROBERTA = EncoderConfig(
    vocab_size=97, n_layer=3, n_head=4, n_embd=48, n_ffn=80, context=32, type_vocab_size=1, labels=3
)
CONFIGS = {
    "roberta": ROBERTA,
    "roberta pad 4": replace(
        ROBERTA, pad_id=4, type_vocab_size=2, norm_eps=1e-6, classifier_dropout=0.2, multi=True
    ),
    "bert": replace(ROBERTA, family="bert", pad_id=0, type_vocab_size=2, norm_eps=1e-12),
}
HEADS = ("masked", "classification", "none")


def with_head(config: EncoderConfig, head: str) -> EncoderConfig:
    """The same encoder with a head for hidden tokens, for its labels, or for a task of its own only."""
    if head == "classification":
        return config
    return replace(config, labels=0, multi=False, tasks=(("own", 2),) if head == "none" else ())


def masked_logits(model: Encoder, hidden: Tensor) -> Tensor:
    """Logits (..., V) of the tokens that stand at hidden states (..., C)."""
    rows = model.masked_rows(hidden)
    return functional.linear(rows, model.head_weight().to(rows.dtype), model.head_bias().to(rows.dtype))
