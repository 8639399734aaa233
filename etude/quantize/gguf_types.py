"""Number formats of the tensors of a GGUF file, mixed as llama.cpp mixes them.

Source: github.com/ggml-org/llama.cpp, src/llama-quant.cpp.
"""

from collections.abc import Sequence
from dataclasses import dataclass

# Forms of a file by the format of most of its tensors, and their numbers in general.file_type.
FORMS = {"F16": "F16", "Q8_0": "Q8_0", "Q6_K": "Q6_K", "Q5_K_M": "Q5_K", "Q4_K_M": "Q4_K"}
FILE_TYPES = {"F16": 1, "Q8_0": 7, "Q4_K_M": 15, "Q5_K_M": 17, "Q6_K": 18}
_BLOCKS = {"Q8_0": 32, "Q5_0": 32, "Q5_1": 32, "Q4_K": 256, "Q5_K": 256, "Q6_K": 256}  # numbers of a row
# The format of a tensor whose rows are no whole number of blocks.
_INSTEAD = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "Q5_0": "F16", "Q5_1": "F16", "Q8_0": "F16"}


@dataclass(frozen=True)
class Format:
    """The format of a tensor, and the one that its form asks for, which its shape may not allow."""

    name: str
    asked: str


def choose_format(form: str, tensor: str, shape: Sequence[int], *, n_layer: int, is_tied: bool) -> Format:
    """The format of a tensor by its name and shape in a file of a form.

    Vectors stay F32. With K-quants the output, which is the embedding of a tied model, has Q6_K; with the
    mixed ones (M) so have the values and the last feed-forward matrix of about half of the blocks.
    """
    if len(shape) == 1:
        return Format("F32", "F32")
    asked = FORMS[form]
    is_output = tensor == "output.weight" or (is_tied and tensor == "token_embd.weight")
    if asked.endswith("_K") and (is_output or _takes_more(form, tensor, n_layer)):
        asked = "Q6_K"
    found = asked
    while shape[-1] % _BLOCKS.get(found, 1):
        found = _INSTEAD[found]
    return Format(found, asked)


def _takes_more(form: str, tensor: str, n_layer: int) -> bool:
    """True for a matrix that has more bits than others in a mixed form."""
    block, _, part = tensor.removeprefix("blk.").partition(".")
    if not form.endswith("_M") or part not in ("attn_v.weight", "ffn_down.weight"):
        return False
    at, eighth = int(block), n_layer // 8
    return at < eighth or at >= 7 * n_layer // 8 or (at - eighth) % 3 == 2
