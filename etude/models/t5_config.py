"""The configuration of an encoder-decoder, also in the words of transformers' config.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from etude.errors import InputError
from etude.models.hf_config import Keys, Unsupported, flag, number, quoted, size

# Of the feed-forward, each the name of a function of torch.
ACTIVATIONS = ("relu", "silu", "gelu")


@dataclass(frozen=True)
class T5Config:
    """Sizes and options of an encoder-decoder.

    n_layer, n_decoder_layer: blocks of each side. activation: of the feed-forward, a name of `ACTIVATIONS`,
    with "gated-" before it if a second product multiplies it. tied: the head is the embedding. scaled: hidden
    states are divided by sqrt(n_embd) before the head. buckets, max_distance: of relative positions.
    start_id: first token that the decoder reads.

    Raises: InputError if the values do not fit each other.
    """

    vocab_size: int
    n_layer: int
    n_decoder_layer: int
    n_head: int
    n_embd: int
    n_ffn: int
    head_dim: int
    activation: str = "relu"
    tied: bool = True
    scaled: bool = True
    buckets: int = 32
    max_distance: int = 128
    norm_eps: float = 1e-6
    dropout: float = 0.0
    start_id: int = 0

    @property
    def longest(self) -> int:
        """No limit: positions are relative, whatever config.json gives as n_positions."""
        return 2**30

    @property
    def gated(self) -> bool:
        """True if the feed-forward has a second product that multiplies the activated one."""
        return self.activation.startswith("gated-")

    def __post_init__(self) -> None:
        if self.activation.removeprefix("gated-") not in ACTIVATIONS:
            expected = f"{', '.join(ACTIVATIONS)}, or one of them after gated-"
            wrong = f"feed_forward_proj is {quoted(self.activation)}; expected {expected}"
            raise Unsupported(f"config.json: {wrong}; use another model")
        wrong = ""
        if self.buckets < 4:
            wrong = f"relative_attention_num_buckets is {self.buckets}; expected at least 4"
        elif self.max_distance <= self.buckets // 2:
            expected = f"more than half of the {self.buckets} buckets"
            wrong = f"relative_attention_max_distance is {self.max_distance}; expected {expected}"
        elif not 0 <= self.start_id < self.vocab_size:
            wrong = f"decoder_start_token_id is {self.start_id}, which is not among {self.vocab_size} tokens"
        if wrong:
            raise InputError(f"config.json: {wrong}; mend the file")

    def to_hf(self, *, eos_id: int | None, pad_id: int | None) -> dict[str, Any]:
        """The config.json with which AutoModelForSeq2SeqLM.from_pretrained loads the weights as they are."""
        return {
            "architectures": ["T5ForConditionalGeneration"],
            "model_type": "t5",
            "is_encoder_decoder": True,
            "vocab_size": self.vocab_size,
            "d_model": self.n_embd,
            "d_kv": self.head_dim,
            "d_ff": self.n_ffn,
            "num_layers": self.n_layer,
            "num_decoder_layers": self.n_decoder_layer,
            "num_heads": self.n_head,
            "feed_forward_proj": self.activation,
            "relative_attention_num_buckets": self.buckets,
            "relative_attention_max_distance": self.max_distance,
            "layer_norm_epsilon": self.norm_eps,
            "dropout_rate": self.dropout,
            "initializer_factor": 1.0,
            # transformers 4 scales where it ties; 5 reads the second key, and ties where no file has a head.
            "tie_word_embeddings": self.tied,
            "scale_decoder_outputs": self.scaled,
            "use_cache": True,
            "decoder_start_token_id": self.start_id,
            "eos_token_id": eos_id,
            "pad_token_id": pad_id,
        }

    @staticmethod
    def from_hf(values: Mapping[str, Any], *, has_head: bool | None = None) -> "T5Config":
        """Read a config.json of T5. Raises: InputError that names a wrong key.

        has_head: true if the weights have an `lm_head.weight` that is not `shared.weight`, which says more
        than the key tie_word_embeddings: transformers 5 writes true in any case.
        """
        if values.get("model_type") != "t5":
            raise Unsupported(f"config.json: model_type is {quoted(values.get('model_type'))}; expected t5")
        _KEYS.check(values)
        activation = "relu" if values.get("feed_forward_proj") is None else values["feed_forward_proj"]
        if not isinstance(activation, str):
            wrong = f"feed_forward_proj is {quoted(activation)}; expected a name"
            raise InputError(f"config.json: {wrong}; mend the file")
        kind, gated = activation.removeprefix("gated-"), activation.startswith("gated-")
        kind = "gelu_new" if activation == "gated-gelu" else kind
        for name, meant in (("dense_act_fn", kind), ("is_gated_act", gated)):
            if values.get(name) not in (None, meant):
                both = f"{name} is {quoted(values[name])}, but feed_forward_proj is {quoted(activation)}"
                raise InputError(f"config.json: {both}; use another model")
        n_layer, pad_id = size(values, "num_layers", 6), size(values, "pad_token_id", 0, least=0)
        says_tied = flag(values, "tie_word_embeddings", True)
        return T5Config(
            vocab_size=size(values, "vocab_size", 32_128),
            n_layer=n_layer,
            n_decoder_layer=size(values, "num_decoder_layers", n_layer),
            n_head=size(values, "num_heads", 8),
            n_embd=size(values, "d_model", 512),
            n_ffn=size(values, "d_ff", 2048),
            head_dim=size(values, "d_kv", 64),
            buckets=size(values, "relative_attention_num_buckets", 32),
            max_distance=size(values, "relative_attention_max_distance", 128),
            activation=activation,
            tied=says_tied if has_head is None else not has_head,
            scaled=flag(values, "scale_decoder_outputs", says_tied),
            norm_eps=number(values, "layer_norm_epsilon", 1e-6, below=1),
            dropout=number(values, "dropout_rate", 0.1, below=1),
            start_id=size(values, "decoder_start_token_id", pad_id, least=0),
        )


_KEYS = Keys(
    "model",
    read=frozenset({
        "model_type", "vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers",
        "num_heads", "feed_forward_proj", "dense_act_fn", "is_gated_act", "relative_attention_num_buckets",
        "relative_attention_max_distance", "layer_norm_epsilon", "dropout_rate", "tie_word_embeddings",
        "scale_decoder_outputs", "decoder_start_token_id", "pad_token_id",
    }),
    only={
        "is_encoder_decoder": True, "is_decoder": False, "add_cross_attention": False,
        "tie_encoder_decoder": False, "chunk_size_feed_forward": 0, "pruned_heads": {},
    },
    harmless=frozenset({"initializer_factor", "n_positions", "classifier_dropout"}),
)  # fmt: skip
