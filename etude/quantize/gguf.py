"""A decoder of a run as GGUF, for llama.cpp and Ollama: written, read back, and what its text costs there."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from etude import durable
from etude.data.tokenize import Tokenizer
from etude.engine import checkpoint as checkpoints
from etude.engine.tensor_files import read_tensors
from etude.errors import FaultError, InputError
from etude.export import find_end_ids, load_model, open_chat
from etude.quantize.gguf_file import Decoder, gguf_pieces, import_gguf, read_gguf
from etude.quantize.gguf_tokens import Splits, add_tokens, encode, find_splits
from etude.quantize.gguf_types import FORMS
from etude.quantize.modelfile import modelfile
from etude.quantize.scoring import Examiner
from etude.report.quantized import Gguf, share_of_loss

_TEXT_SAMPLES = 64  # validation samples whose texts are encoded in both ways


@dataclass(frozen=True, kw_only=True)
class GgufSettings:
    """Choices for a GGUF file: its form, a key of FORMS in any case, and the share of loss that it may cost.

    The same share is allowed for the ids that llama.cpp gives to text, where it splits text otherwise than
    the tokenizer of the run.
    """

    form: str = "q8_0"
    most_loss: float = 0.02

    def __post_init__(self) -> None:
        object.__setattr__(self, "form", self.form.upper())
        if self.form not in FORMS:
            known = ", ".join(FORMS).lower()
            raise InputError(f"--type {self.form.lower()} is not known; use one of {known}")

    @property
    def file(self) -> str:
        """The name of the file."""
        return f"model-{self.form}.gguf"

    @property
    def advice(self) -> str:
        """Changes that make it cost less."""
        return "ask for more bits, such as --type q8_0, or allow more"

    def check(self, whole: Path, model: nn.Module) -> None:
        """Raises: InputError if GGUF has no such model or tokenizer, or a package is missing."""
        import_gguf(self.form)
        _describe(whole)
        find_splits(open_chat(whole).tokenizer, [])

    def write(self, hidden: Path, whole: Path, model: nn.Module, examiner: Examiner) -> Gguf:
        """Write the file and a Modelfile for Ollama; `whole` has the files of the original.

        Raises: FaultError if the ids that llama.cpp gives to text cost too much.
        """
        decoder, tensors = _describe(whole)
        chat = open_chat(whole)
        texts = examiner.validation_texts(_TEXT_SAMPLES)
        splits = find_splits(chat.tokenizer, texts)
        others, costs = None, None
        if not splits.same:
            others, costs = _compare_texts(model, chat.tokenizer, splits, texts)
            self._require_readable(splits, costs)
        ends = find_end_ids(whole, chat, is_chat=chat.tokenizer.chat_template is not None)

        def about(writer: Any) -> None:
            writer.add_type("model")
            writer.add_name(examiner.recipe.records.title or examiner.recipe.name)
            add_tokens(writer, chat.tokenizer, splits.name, decoder.config.vocab_size, ends)

        durable.write_file(hidden / self.file, gguf_pieces(decoder, self.form, tensors, about))
        text = modelfile(self.file, chat, ends, decoder.config.longest)
        durable.write_file(hidden / "Modelfile", text.encode())
        formats = decoder.formats(self.form, {name: tuple(each.shape) for name, each in tensors.items()})
        return Gguf(
            form=self.form, file=self.file, formats={name: each.name for name, each in formats.items()},
            instead={name: each.asked for name, each in formats.items() if each.asked != each.name},
            splits=splits.name, texts=others, bits_per_byte=costs, head_dim=decoder.untold_head_dim,
        )  # fmt: skip

    def read(self, hidden: Path, whole: Path, objective: str | None) -> nn.Module:
        """The model in the written file."""
        decoder, _ = _describe(whole)
        model = load_model(whole, dtype=torch.float32, objective=objective)
        for name, tensor in read_gguf(hidden / self.file, decoder).items():
            model.get_parameter(name).data.copy_(tensor)
        return model

    def _require_readable(self, splits: Splits, costs: tuple[float, float]) -> None:
        cost = share_of_loss(costs[1], costs[0])
        if not cost <= self.most_loss:
            raise FaultError(
                f"llama.cpp splits text as {splits.name} at best, which costs {cost:.2%} of the bits per "
                f"byte, and --max-loss allows {self.most_loss:.2%}; nothing is written: allow more, or train "
                "with a tokenizer that llama.cpp knows"
            )


def _describe(whole: Path) -> tuple[Decoder, dict[str, Tensor]]:
    values = durable.read_json_object(whole / "config.json")
    tensors = read_tensors(whole / checkpoints.MODEL_FILE)
    if "CausalLM" not in str(values.get("architectures")):
        raise InputError("--to gguf is for models that write text; use --to hf, int8 or int4")
    return Decoder.of(values, list(tensors)), tensors


def _compare_texts(
    model: nn.Module, tokenizer: Tokenizer, splits: Splits, texts: Sequence[str]
) -> tuple[tuple[int, int], tuple[float, float]]:
    """Texts and those with other ids, and bits per byte with the tokenizer's own ids and with the others."""
    own = [each.tolist() for each in tokenizer.encode_batch(list(texts))]
    others = encode(splits.inner, texts)
    count = sum(len(text.encode()) for text in texts)
    bits = [_bits(model, tokenizer.eos_id, rows) / max(count, 1) for rows in (own, others)]
    return (len(texts), sum(a != b for a, b in zip(own, others))), (bits[0], bits[1])


@torch.no_grad()
def _bits(model: Any, begin: int, rows: Sequence[Sequence[int]]) -> float:
    """The bits that a model needs for rows of ids, each behind the end of a text."""
    device, total = next(model.parameters()).device, 0.0
    for row in rows:
        ids = torch.tensor([[begin, *row]], device=device)
        losses = functional.cross_entropy(model.logits(ids[:, :-1])[0].float(), ids[0, 1:], reduction="sum")
        total += float(losses) / float(torch.log(torch.tensor(2.0)))
    return total
