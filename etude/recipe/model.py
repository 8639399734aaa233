"""The sections of a recipe that say what is trained: model, tokenizer and adapter."""

from typing import Annotated, Literal

from pydantic import Field

from etude.recipe.section import Positive, Rate, Section, key


class RopeScaling(Section):
    """A change of the rotary frequencies by which a pretrained model reads longer texts than before."""

    kind: Literal["linear", "llama3", "yarn"] = key(
        ..., "rope_type of transformers; yarn needs the least training", example="yarn"
    )
    factor: Annotated[float, Field(ge=1, le=1024)] = key(..., "new context by the original one", example=4.0)
    original_context: Annotated[int, Field(ge=2, le=2**24)] = key(
        ...,
        "tokens that the model was trained with, as max_position_embeddings of its config.json",
        example=32_768,
    )


class Model(Section):
    """A pretrained model, or a decoder trained from scratch: what a preset names, single keys may change."""

    from_: str | None = Field(
        None,
        alias="from",
        description="a pretrained model: a folder, or a hub id whose files are on this machine",
        examples=["Qwen/Qwen2.5-Coder-1.5B-Instruct"],
    )
    revision: str | None = key(None, "of a hub id: a commit, tag or branch", example="main")
    rope_scaling: RopeScaling | None = key(None, "a longer context for a pretrained Qwen, Mistral or Llama")
    quantize: Literal["nf4"] | None = key(
        None, "frozen weights in 4 bits (QLoRA); with etude-workbench[quant], meant for cuda"
    )
    kind: Literal["decoder", "encoder", "encoder-decoder"] = key(
        "decoder",
        "decoder: RMSNorm, RoPE, grouped queries, SwiGLU; encoder: reads both ways, as RoBERTa; "
        "encoder-decoder: as T5",
        needs="no model.from",
    )
    preset: Literal["300m", "500m", "1b"] | None = key(
        None, "a ready size; single keys override it", example="300m"
    )
    n_layer: Annotated[int, Field(gt=0, le=4096)] | None = key(None, "blocks (default 6)", example=6)
    n_head: Positive | None = key(None, "query heads (default 6)", example=6)
    n_kv_head: Positive | None = key(
        None, "key and value heads; must divide n_head (default n_head)", example=6
    )
    n_embd: Positive | None = key(None, "width of the residual stream (default 384)", example=384)
    n_ffn: Positive | None = key(
        None, "width of the feed-forward (default 8/3 x n_embd in steps of 64)", example=1024
    )
    head_dim: Positive | None = key(None, "width of a head; even (default n_embd / n_head)", example=64)
    vocab_size: Positive | None = key(
        None, "rows of the embedding (default: the tokenizer's size)", example=50_257
    )
    tied: bool | None = key(None, "embedding and head share their weights (default true)", example=True)
    qk_norm: bool | None = key(None, "RMSNorm on queries and keys, as Qwen3 (default false)", example=True)
    qkv_bias: bool | None = key(
        None, "bias on queries, keys and values, as Qwen2 (default false)", example=False
    )
    sliding_window: Annotated[int, Field(ge=2, le=2**24)] | None = key(
        None, "tokens that a position sees, itself included, in every layer (default: all)", example=1024
    )
    layer_window: (
        Annotated[list[Annotated[int, Field(ge=0, le=2**24)]], Field(min_length=1, max_length=4096)] | None
    ) = key(
        None,
        "sliding_window by layer, 0 for all tokens; repeated over the layers",
        example=[1024, 1024, 0],
    )
    rope_theta: Rate | None = key(None, "base of the rotary frequencies (default 10000)", example=10_000.0)
    norm_eps: Rate | None = key(None, "added to the mean square in RMSNorm (default 1e-6)", example=1e-6)
    zero_init: bool | None = key(
        None, "output projections start at zero, so a block starts as identity", example=True
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = key(0.0, "share of activations dropped while training")
    code_bias: Literal["off", "inside", "after"] | None = key(
        None,
        "encoder: learn how tokens attend by identifier, depth and kind, in every block or in a layer after "
        "them (default off)",
    )

    @property
    def wants_code(self) -> bool:
        """True if the model reads the kind of code that each token is."""
        return self.code_bias not in (None, "off")


class Tokenizer(Section):
    """The source of token ids."""

    from_: str | None = Field(
        None, alias="from", description="a tokenizer.json or a folder with one", examples=["tokenizer.json"]
    )
    train_vocab_size: Annotated[int, Field(ge=257, le=1_000_000)] | None = key(
        None, "train a byte-level BPE of this size on the training documents", example=4096
    )
    eos_token: str | None = key(None, "token after each document (default: found in the given tokenizer)")


class Adapter(Section):
    """Low-rank updates beside frozen weights; left out, all weights are trained."""

    kind: Literal["lora"] = key("lora", "W x + alpha / rank B A x, where only A and B are trained")
    rank: Annotated[int, Field(ge=1, le=4096)] = key(8, "columns of B; more can learn more", example=8)
    alpha: Rate = key(16.0, "strength of the update; it is divided by rank", example=16.0)
    dropout: Annotated[float, Field(ge=0, lt=1)] = key(0.0, "share of the inputs of A dropped while training")
    targets: Literal["all-linear"] | Annotated[list[str], Field(min_length=1)] = key(
        ["q_proj", "k_proj", "v_proj", "o_proj"],
        "last parts of module names, or all-linear (all but the head)",
    )
    rank_stabilized: bool = key(False, "divide alpha by the root of rank (arXiv:2312.03732)")
    dora: bool = key(False, "train the length of each row of W apart from its direction (arXiv:2402.09353)")
