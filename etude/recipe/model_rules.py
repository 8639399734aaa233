"""Rules across the keys that say what is trained: [model] and [adapter]."""

from collections.abc import Iterator

from etude.recipe.model import Model
from etude.recipe.schema import Recipe


def find_model_conflicts(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Every conflict of [model] and [adapter], as `find_conflicts` of the whole recipe gives them."""
    model = recipe.model
    if model.from_ is not None:
        yield from _pretrained(recipe)
        return
    for name in sorted(model.model_fields_set & {"revision", "quantize", "rope_scaling"}):
        yield f"model.{name}", "belongs to a pretrained model; name one with model.from"
    if recipe.adapter is not None:
        yield (
            "adapter",
            'needs a pretrained model; for example [model] from = "Qwen/Qwen2.5-Coder-1.5B-Instruct"',
        )
    if model.code_bias is not None and model.kind != "encoder":
        yield "model.code_bias", 'is for an encoder from scratch; set kind = "encoder", or leave it out'
    yield from {"encoder": _encoder, "encoder-decoder": _encoder_decoder, "decoder": _decoder}[model.kind](
        model
    )


def _pretrained(recipe: Recipe) -> Iterator[tuple[str, str]]:
    model = recipe.model
    for name in sorted(
        model.model_fields_set - {"from_", "kind", "revision", "dropout", "quantize", "rope_scaling"}
    ):
        yield (
            f"model.{name}",
            "belongs to a model from scratch, but model.from names a pretrained one; leave it out",
        )
    if model.rope_scaling and recipe.adapter is not None:
        yield (
            "model.rope_scaling",
            "is not in the files of an adapter, so that others would load it with the old context; put "
            "rope_scaling into config.json of a copy of the model, or train all weights",
        )
    if model.quantize and recipe.adapter is None:
        yield "model.quantize", "freezes the weights, so something else must be trained; add an [adapter]"
    if model.quantize and recipe.adapter is not None and recipe.adapter.dora:
        yield (
            "adapter.dora",
            "needs the length of each row of the weights, which 4 bits do not keep; leave it out",
        )


def _encoder(model: Model) -> Iterator[tuple[str, str]]:
    sizes = {"kind", "n_layer", "n_head", "n_embd", "n_ffn", "vocab_size", "dropout", "code_bias"}
    for name in sorted(model.model_fields_set - sizes):
        yield (
            f"model.{name}",
            "belongs to a decoder; an encoder has n_layer, n_head, n_embd, n_ffn and dropout",
        )
    heads, width = model.n_head or 8, model.n_embd or 512
    if width % heads:
        yield (
            "model.n_embd",
            f"is {width}, which {heads} heads do not share evenly; use a multiple of {heads}",
        )


def _encoder_decoder(model: Model) -> Iterator[tuple[str, str]]:
    sizes = {"kind", "n_layer", "n_head", "n_embd", "n_ffn", "head_dim", "vocab_size", "tied", "dropout"}
    for name in sorted(model.model_fields_set - sizes - {"code_bias"}):
        yield (
            f"model.{name}",
            "belongs to a decoder; an encoder-decoder has " + ", ".join(sorted(sizes - {"kind"})),
        )


def _decoder(model: Model) -> Iterator[tuple[str, str]]:
    if model.preset is None:
        heads, kv_heads, width = model.n_head or 6, model.n_kv_head or model.n_head or 6, model.n_embd or 384
        if heads % kv_heads:
            yield (
                "model.n_kv_head",
                f"is {kv_heads}, which does not divide n_head {heads}; use {heads} or a divisor",
            )
        if model.head_dim is None and (width % heads or (width // heads) % 2):
            yield (
                "model.n_embd",
                (
                    f"is {width}, which {heads} heads do not share evenly; "
                    f"use a multiple of {2 * heads}, or set head_dim"
                ),
            )
    if model.head_dim is not None and model.head_dim % 2:
        yield (
            "model.head_dim",
            f"is {model.head_dim}; rotary positions need an even number; try {model.head_dim + 1}",
        )
    if model.qk_norm and model.qkv_bias:
        yield "model.qkv_bias", "together with qk_norm is no published architecture; set one of them to false"
    if model.layer_window is not None:
        yield from _layer_window(model, model.layer_window)


def _layer_window(model: Model, windows: list[int]) -> Iterator[tuple[str, str]]:
    sizes = sorted({*windows} - {0})
    if model.sliding_window is not None:
        yield "model.layer_window", "and sliding_window are both given; keep one of them"
    if 1 in sizes:
        yield (
            "model.layer_window",
            "has a window of 1, in which a token sees only itself; use 2 or more, or 0",
        )
    if len(sizes) > 1:
        yield (
            "model.layer_window",
            f"has windows of {sizes[0]:,} and {sizes[1]:,} tokens; a config.json holds one size and layers "
            "without, so keep one size beside 0",
        )
    if model.n_layer is not None and len(windows) > model.n_layer:
        yield (
            "model.layer_window",
            f"is for {len(windows)} layers, but n_layer is {model.n_layer}; give as many, or fewer",
        )
    if sizes and 0 in windows and not (model.qk_norm or model.qkv_bias):
        yield (
            "model.layer_window",
            "leaves some layers without a window, which a config.json says of Qwen3 and Qwen2 only; set "
            "qk_norm = true, or give all layers the window",
        )
