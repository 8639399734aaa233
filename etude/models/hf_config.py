"""Read a config.json key by key, so that none which would change the model is passed over."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etude.errors import InputError

LARGEST_SIZE = 2**24
MOST_LABELS = 100_000
# Keys that say how the weights of any family were made, stored or used, not what the model computes.
_HARMLESS = frozenset({
    "architectures", "bos_token_id", "eos_token_id", "sep_token_id", "initializer_range", "use_cache",
    "dtype", "torch_dtype", "transformers_version", "transformers.js_config", "_name_or_path",
    "_attn_implementation", "_attn_implementation_autoset", "_commit_hash", "return_dict",
    "output_hidden_states", "output_attentions", "output_past", "torchscript", "use_bfloat16",
    "gradient_checkpointing", "id2label", "label2id", "num_labels", "_num_labels", "problem_type",
    "tokenizer_class", "prefix", "finetuning_task", "task_specific_params", "tie_last_hidden_states",
    "max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups",
    "num_return_sequences", "diversity_penalty", "length_penalty", "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size", "bad_words_ids", "temperature", "top_k", "top_p", "typical_p",
    "repetition_penalty", "output_scores", "return_dict_in_generate", "forced_bos_token_id",
    "forced_eos_token_id", "remove_invalid_values", "exponential_decay_length_penalty", "suppress_tokens",
    "begin_suppress_tokens",
})  # fmt: skip


class Unsupported(InputError):
    """A config.json of a model that an own family does not have; transformers may have it."""


@dataclass(frozen=True)
class Keys:
    """The keys of a config.json that a family of models knows: each is read, harmless, or refused.

    model: how messages call it. read: keys that say what it computes. only: keys of which it has one value;
    null means the same. harmless: keys, beside those of every family, that change nothing it computes.
    """

    model: str
    read: frozenset[str]
    only: Mapping[str, Any]
    harmless: frozenset[str] = frozenset()

    def check(self, values: Mapping[str, Any]) -> None:
        """Refuse a key that is neither read nor known to change nothing; null is none. Raises: InputError."""
        for name, value in values.items():
            if value is None:
                continue
            if name in self.only and value != self.only[name]:
                is_of_kind = isinstance(value, type(self.only[name]))
                wrong = f"{name} is {quoted(value)}; this {self.model} has only {self.only[name]!r}"
                error = Unsupported if is_of_kind else InputError
                raise error(f"config.json: {wrong}; use another model")
            if not any(name in known for known in (self.only, self.read, self.harmless, _HARMLESS)):
                wrong = f"unknown key {quoted(name)}"
                raise Unsupported(f"config.json: {wrong}; remove it if it does not change the model")


def size(
    values: Mapping[str, Any],
    name: str,
    default: int | None = None,
    *,
    least: int = 1,
    most: int = LARGEST_SIZE,
) -> int:
    """The whole number of a key; its default where it is absent or null.

    Raises: InputError that names the key; Unsupported if it is missing and has no default.
    """
    value = default if values.get(name) is None else values[name]
    expected = f"a whole number from {least} to {most:,}"
    if value is None:
        raise Unsupported(str(unfit(name, value, expected)))
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise unfit(name, value, expected)
    return value


def flag(values: Mapping[str, Any], name: str, default: bool = False) -> bool:
    """As `size`, true or false."""
    value = default if values.get(name) is None else values[name]
    if not isinstance(value, bool):
        raise unfit(name, value, "true or false")
    return value


def number(values: Mapping[str, Any], name: str, default: float, *, below: float = 1e30) -> float:
    """As `size`, a number from 0 to less than `below`."""
    value = default if values.get(name) is None else values[name]
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < below:
        raise unfit(name, value, "a number" if below > 1 else f"a number from 0 to below {below:g}")
    return float(value)


def label_names(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of a classifier's labels in the order of its outputs; `LABEL_0` and so on without any.

    transformers leaves them out where there are two. Raises: InputError if they are no names of labels 0, 1,
    2 ..., or if id2label, label2id and num_labels disagree.
    """
    given = None if values.get("num_labels") is None else size(values, "num_labels", most=MOST_LABELS)
    by_number = _ordered("id2label", _pairs(values, "id2label"))
    by_name = _ordered("label2id", [(str(number), name) for name, number in _pairs(values, "label2id")])
    count = len(by_number or by_name) or given or 2
    unnamed = default_names(count)
    if given not in (None, count):
        wrong = f"num_labels is {given:,}, but there are {count:,} names"
        raise InputError(f"config.json: {wrong}; mend the wrong one")
    if by_number and by_name and by_name not in (by_number, unnamed):
        differing = (pair for pair in zip(by_number, by_name) if pair[0] != pair[1])
        first, second = map(quoted, next(differing, (len(by_number), len(by_name))))
        wrong = f"id2label and label2id disagree ({first} and {second})"
        raise InputError(f"config.json: {wrong}; mend the wrong one")
    return by_number or by_name or unnamed


def is_classifier(values: Mapping[str, Any]) -> bool:
    """True if config.json is that of a classifier."""
    return "ForSequenceClassification" in str(values.get("architectures"))


def label_values(names: Sequence[str], *, multi: bool) -> dict[str, Any]:
    """The values of config.json for labels by output; multi: several of them may hold at once."""
    return {
        "id2label": {str(label): name for label, name in enumerate(names)},
        "label2id": {name: label for label, name in enumerate(names)},
        "problem_type": f"{'multi' if multi else 'single'}_label_classification",
    }


def default_names(count: int) -> tuple[str, ...]:
    """The names that transformers gives to labels without any."""
    return tuple(f"LABEL_{index}" for index in range(count))


def quoted(value: object, most: int = 60) -> str:
    """A foreign value as an error shows it: on one line, cut to so many characters."""
    text = repr(value)
    return text if len(text) <= most else text[: most - 1] + "…"


def unfit(name: str, value: object, expected: str, file: str = "config.json") -> InputError:
    """The error for a value that a key cannot have."""
    return InputError(f"{file}: {name} is {quoted(value)}; expected {expected}; mend or replace the file")


def _pairs(values: Mapping[str, Any], key: str) -> list[tuple[str, Any]]:
    given = {} if values.get(key) is None else values[key]
    if not isinstance(given, Mapping):
        wrong = f"{key} is {quoted(given)}; expected an object of numbers and names"
        raise InputError(f"config.json: {wrong}; mend it")
    if len(given) > MOST_LABELS:
        raise InputError(f"config.json: {key} has {len(given):,} labels; expected at most {MOST_LABELS:,}")
    return list(given.items())


def _ordered(key: str, pairs: list[tuple[str, Any]]) -> tuple[str, ...]:
    """Names by number. Raises: InputError unless the numbers are 0 to n - 1, and no name is twice."""
    names = dict(pairs)
    for number, name in pairs:
        if not isinstance(name, str) or not name.strip():
            wrong = f"{key} names label {quoted(number)} {quoted(name)}; expected text"
            raise InputError(f"config.json: {wrong}; mend it")
    wanted = [str(number) for number in range(len(pairs))]
    if extra := [number for number in names if number not in set(wanted)]:
        wrong = f"{key} has label number {quoted(extra[0])}"
        expected = f"{len(pairs):,} labels have the numbers 0 to {len(pairs) - 1:,}"
        raise InputError(f"config.json: {wrong}; {expected}; mend it")
    if len(names) < len(pairs) or len(set(names.values())) < len(names):
        what = "name" if key == "id2label" else "number"
        raise InputError(f"config.json: {key} has the same {what} twice; mend it")
    return tuple(names[number] for number in wanted)
