"""The configuration of an encoder, also in the words of transformers' config.json."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from etude.errors import InputError
from etude.models.config_checks import CLASS_STEMS
from etude.models.hf_config import (
    Keys,
    Unsupported,
    default_names,
    is_classifier,
    label_names,
    label_values,
    number,
    quoted,
    size,
)

# The model_type in config.json of an encoder with a code bias.
CODE_ENCODER = "etude_code_encoder"


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes and options of an encoder.

    context: longest sample in tokens. labels: scores of a sample, `multi` if several labels may hold at once.
    tasks: name and number of labels of each of several tasks, 0 for a masked one.
    classifier_dropout: before the layers of the classification head; `dropout` if None. code_bias: on the
    scores of every block, or of one more attention layer after them; such an encoder is none that
    transformers has.

    Raises: InputError if the values do not fit each other.
    """

    vocab_size: int
    n_layer: int
    n_head: int
    n_embd: int
    n_ffn: int
    context: int
    type_vocab_size: int = 1
    norm_eps: float = 1e-5
    dropout: float = 0.1
    attention_dropout: float = 0.1
    classifier_dropout: float | None = None
    pad_id: int = 1
    family: Literal["roberta", "bert"] = "roberta"
    labels: int = 0
    multi: bool = False
    tasks: tuple[tuple[str, int], ...] = ()
    code_bias: Literal["off", "inside", "after"] = "off"

    @property
    def longest(self) -> int:
        """Tokens that the model reads at most."""
        return self.context

    @property
    def first_position(self) -> int:
        """Row of the position embedding that the first token of a sample takes."""
        return self.pad_id + 1 if self.family == "roberta" else 0

    @property
    def is_masked(self) -> bool:
        """True if the model predicts hidden tokens, alone or as one of its tasks."""
        return any(not labels for _, labels in self.tasks) if self.tasks else not self.labels

    @property
    def outputs(self) -> int:
        """Labels that a head scores for the only task, 0 if there is no such head."""
        return 0 if self.tasks else self.labels

    def __post_init__(self) -> None:
        if self.n_embd % self.n_head:
            wrong = f"model.n_embd is {self.n_embd}, which {self.n_head} heads do not share evenly"
            raise InputError(f"{wrong}; use a multiple of {self.n_head}")
        if not 0 <= self.pad_id < self.vocab_size:
            wrong = f"the padding token is {self.pad_id}, which is not among {self.vocab_size} tokens"
            raise InputError(f"model: {wrong}")
        for name in ("dropout", "attention_dropout", "classifier_dropout"):
            if not 0 <= (getattr(self, name) or 0.0) < 1:
                wrong = f"model.{name} is {getattr(self, name)}; expected at least 0 and below 1"
                raise InputError(f"{wrong}; try 0.1")

    def to_hf(
        self, *, label_names: Sequence[str] = (), bos_id: int | None = None, eos_id: int | None = None
    ) -> dict[str, Any]:
        """The config.json with which transformers loads the weights as they are."""
        form = "ForMaskedLM" if self.is_masked else "ForSequenceClassification" if self.outputs else "Model"
        values: dict[str, Any] = {
            "architectures": [CLASS_STEMS[self.family] + form],
            "model_type": self.family,
            **{key: getattr(self, name) for name, key in _SIZES.items()},
            "hidden_act": "gelu",
            "hidden_dropout_prob": self.dropout,
            "attention_probs_dropout_prob": self.attention_dropout,
            "classifier_dropout": self.classifier_dropout,
            "max_position_embeddings": self.context + self.first_position,
            "type_vocab_size": self.type_vocab_size,
            "layer_norm_eps": self.norm_eps,
            "initializer_range": 0.02,
            "pad_token_id": self.pad_id,
            "bos_token_id": bos_id,
            "eos_token_id": eos_id,
            "tie_word_embeddings": True,
        }
        if self.outputs:
            names = label_names or default_names(self.labels)
            assert len(names) == self.labels, (names, self.labels)
            values |= label_values(names, multi=self.multi)
            if self.labels == 1 and not self.multi:  # one score alone would be a regression there
                del values["problem_type"]
        if self.code_bias != "off":  # nothing else computes it, so no tool may take it for a BERT
            values |= {"architectures": ["EtudeCodeEncoder"], "model_type": CODE_ENCODER}
            values["code_bias"] = self.code_bias
        return values

    @staticmethod
    def from_hf(values: Mapping[str, Any]) -> "EncoderConfig":
        """Read a config.json of RoBERTa or BERT; `labels` is 0 unless it is that of a classifier.

        Raises: InputError that names a wrong key.
        """
        family = values.get("model_type")
        if family == CODE_ENCODER:
            wrong = (
                f"{quoted(family)}, trained from scratch with model.code_bias, which model.from does not read"
            )
            advice = "begin with its weights by --from RUN in a recipe of the same sizes"
            raise InputError(f"config.json: model_type is {wrong}; {advice}")
        if family not in ("roberta", "bert"):
            raise Unsupported(f"config.json: model_type is {quoted(family)}; expected roberta or bert")
        _KEYS.check(values)
        pad_id = size(values, "pad_token_id", 1 if family == "roberta" else 0, least=0)
        skipped = pad_id + 1 if family == "roberta" else 0
        labels, multi = _labels(values)
        own_dropout = values.get("classifier_dropout") is not None
        sizes: dict[str, Any] = {name: size(values, key) for name, key in _SIZES.items()}
        return EncoderConfig(
            **sizes,
            context=size(values, "max_position_embeddings", least=skipped + 1) - skipped,
            type_vocab_size=size(values, "type_vocab_size", 2),
            norm_eps=number(values, "layer_norm_eps", 1e-12, below=1),
            dropout=number(values, "hidden_dropout_prob", 0.1, below=1),
            attention_dropout=number(values, "attention_probs_dropout_prob", 0.1, below=1),
            classifier_dropout=number(values, "classifier_dropout", 0.0, below=1) if own_dropout else None,
            pad_id=pad_id,
            family=family,
            labels=labels,
            multi=multi,
        )


# Sizes without a default, by their names here and in config.json.
_SIZES = {
    "vocab_size": "vocab_size", "n_embd": "hidden_size", "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads", "n_ffn": "intermediate_size",
}  # fmt: skip
_KEYS = Keys(
    "encoder",
    read=frozenset({
        "model_type", "architectures", "vocab_size", "hidden_size", "num_hidden_layers",
        "num_attention_heads", "intermediate_size", "max_position_embeddings", "type_vocab_size",
        "layer_norm_eps", "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout",
        "pad_token_id", "id2label", "num_labels", "problem_type",
    }),
    only={
        "hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False,
        "is_encoder_decoder": False, "add_cross_attention": False, "tie_word_embeddings": True,
        "pruned_heads": {},
    },
    harmless=frozenset({
        "cls_token_id", "mask_token_id", "unk_token_id", "decoder_start_token_id", "chunk_size_feed_forward",
        "tie_encoder_decoder", "directionality", "pooler_type", "pooler_fc_size",
        "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head", "eos_token_ids",
        "sentence_transformers", "etude_tasks",
    }),
)  # fmt: skip


def encoder_name(name: str, family: str) -> str:
    """A tensor of a file by the name that it has in an encoder.

    Files of the bare body leave out the family; old ones call the parts of a norm gamma and beta; the head of
    a masked model has its bias under two names.
    """
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
    name = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)
    name = re.sub(r"^(lm_head|cls\.predictions)\.decoder\.bias$", r"\1.bias", name)
    return f"{family}.{name}" if name.startswith(("embeddings.", "encoder.", "pooler.")) else name


def _labels(values: Mapping[str, Any]) -> tuple[int, bool]:
    """Labels of a classifier, and whether several may hold at once."""
    if not is_classifier(values):
        return 0, False
    if values.get("problem_type") == "regression":
        wrong = "problem_type is 'regression'; this encoder scores labels"
        raise Unsupported(f"config.json: {wrong}; use another model")
    return len(label_names(values)), values.get("problem_type") == "multi_label_classification"
