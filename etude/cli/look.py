"""A look at data, model and machine: the facts that a recipe for fine-tuning should fit."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude.cli.draft import Facts, LabelCounts
from etude.cli.fields import (
    Fields,
    Row,
    check_given,
    find_labelled,
    find_sides,
    has_labels,
    read_first_rows,
    why_no_target,
)
from etude.errors import InputError, RecipeError, collect
from etude.recipe.kinds import TRAINING_KINDS

if TYPE_CHECKING:
    from etude.data.sources import Document
    from etude.models.families.family import Pretrained

_LOOK_AT, _MOST_CHARACTERS = 2000, 8 << 20
_NAMED_COLUMNS = 20
_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]
_BYTES_A_TOKEN = 3  # where there is no tokenizer to ask: English with code has 3 to 4
_UNLIMITED = {True: 512, False: 2**24}  # by whether it is an encoder-decoder, which is trained on short texts
_BY_KEY = {"label": "classification", "pair": "classification", "target": "seq2seq"}
_BY_NAME = {
    "bert": "classification",
    "unixcoder": "classification",
    "t5": "seq2seq",
}  # of a model that is not here
_SHAPES = {"classification": "labelled", "seq2seq": "pairs"}


@dataclass
class Read:
    """Rows of the data, the first texts with their second ones, and columns and files that nothing reads."""

    format: str
    rows: int
    texts: list[tuple[str, str | None]]
    labels: LabelCounts | None
    unread: list[str]
    left_out: list[str]


def look(data: Path, model: str, given: Mapping[str, str] | None = None) -> Facts:
    """Look at data, model and machine.

    given: names of fields, by the key of a source that names them in a recipe.

    Raises: RecipeError if the data or the model cannot be used.
    """
    from etude.models.hub import find_model
    from etude.models.pretrained import find_objective, inspect_model

    folder, problem, problems = None, None, list[str]()
    try:
        folder = find_model(model)
    except InputError as error:
        problem = str(error)
    objective, pretrained, found = "", None, None
    with collect(problems):
        objective, fields = _choose(data, model, folder, given or {})
        with collect(problems):
            found = read(data, objective, fields)
    if folder is not None:
        with collect(problems):
            pretrained = inspect_model(folder, objective or find_objective(folder))
    if problems or found is None:
        raise RecipeError(list(dict.fromkeys(problems)))
    return _put_together(
        model, folder, problem, objective=objective, fields=fields, pretrained=pretrained, found=found
    )


def read(data: Path, objective: str, fields: Fields) -> Read:
    """Read the rows to their end. Raises: InputError naming the row or file that cannot be used."""
    from etude.data.layout import look_through
    from etude.data.sources import read_documents

    source, counts = fields.source(data), _Counts()
    found = Read("", 0, [], None, [], [])
    unread: dict[str, None] = {}
    characters = 0
    for document in read_documents(source, undecodable=True):
        found.rows += not document.blank
        unread |= dict.fromkeys(document.unread[:_NAMED_COLUMNS])
        if document.is_undecodable and not document.line and data.is_dir():
            found.left_out.append(document.name)
        elif document.is_undecodable:
            what = f"{document.name} is binary or not UTF-8 text"
            raise InputError(f"{what}; convert it, or give a file or folder without such")
        if source.label is not None:
            counts.add(document)
        if len(found.texts) < _LOOK_AT and characters < _MOST_CHARACTERS and not document.blank:
            text, second = _sides(document, objective)
            found.texts.append((text[:_MOST_CHARACTERS], second and second[:_MOST_CHARACTERS]))
            characters += len(document.content)
    found.unread = list(unread)[:_NAMED_COLUMNS]
    found.format = _SHAPES.get(objective) or look_through(source).form.kind
    found.labels = counts.number(str(source.label)) if source.label is not None else None
    return found


class _Counts:
    """Rows of each labelling, as they come."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, ...], int] = {}
        self._values: list[Any] = []
        self._chosen: list[int] = []
        self._names: list[str] = []

    def add(self, document: "Document") -> None:
        """Count the label of a row."""
        from etude.data.labels import labelling

        number = self._numbers.setdefault(labelling(document.label), len(self._numbers))
        if number == len(self._values):
            self._values.append(document.label)
            self._names.append(document.name)
        self._chosen.append(number)

    def number(self, field: str) -> LabelCounts:
        """The labels in their order with their rows. Raises: as `number_labels`."""
        import numpy as np

        from etude.data.labels import number_labels

        chosen = np.array(self._chosen, dtype=np.int64)
        every = np.ones(len(chosen), dtype=bool)
        labels, table = number_labels(
            self._values,
            chosen,
            every,
            fields=repr(field),
            name_row=lambda row: self._names[self._chosen[row]],
        )
        return LabelCounts(
            dict(zip(labels.names, table.sum(axis=0, dtype=int).tolist())), labels.multi, labels.notes
        )


def _choose(data: Path, model: str, folder: Path | None, given: Mapping[str, str]) -> tuple[str, Fields]:
    """The kind of training by the fields that were given, else by the model, and the fields it reads."""
    from etude.models.pretrained import find_objective

    if {"label", "target"} <= given.keys():
        raise InputError("--label is for classification and --target for seq2seq; give one of them")
    rows = read_first_rows(data)
    check_given(given, rows, data)
    named = [objective for key, objective in _BY_KEY.items() if key in given]
    by_name = [objective for part, objective in _BY_NAME.items() if part in model.lower()]
    objective = [*named, *([find_objective(folder)] if folder else by_name), "causal"][0]
    if not rows and not TRAINING_KINDS[objective].chats:
        raise InputError(f"{data} has texts and no rows; for {model} give rows, as JSON Lines or CSV")
    return _FIELDS[objective](Fields(given), rows, data)


def _labelled(given: Fields, rows: Sequence[Row], data: Path) -> tuple[str, Fields]:
    return "classification", find_labelled(given, rows, data)


def _pairs(given: Fields, rows: Sequence[Row], data: Path) -> tuple[str, Fields]:
    """Sources with targets, or instructions with answers; texts to be classified if there is only a label."""
    from etude.data.formats import find_format

    if sides := find_sides(given, rows, data):
        return "seq2seq", sides
    if find_format(rows, given.values.get("field", "text"), None).kind != "text":
        return "seq2seq", given
    if has_labels(rows):
        return _labelled(given, rows, data)
    raise InputError(why_no_target(rows, data))


_FIELDS: Mapping[str, Callable[[Fields, Sequence[Row], Path], tuple[str, Fields]]] = {
    "causal": lambda given, rows, data: ("causal", given),
    "classification": _labelled,
    "seq2seq": _pairs,
}


def _sides(document: "Document", objective: str) -> tuple[str, str | None]:
    from etude.data.samples.pairs import take_sides

    is_pair = TRAINING_KINDS[objective].model == "encoder-decoder"
    return take_sides(document) if is_pair else (document.text, document.pair)


def _put_together(
    model: str, folder: Path | None, problem: str | None, *, objective: str, fields: Fields,
    pretrained: "Pretrained | None", found: Read,
) -> Facts:  # fmt: skip
    import psutil
    import torch

    from etude.engine.device import choose_device
    from etude.records.environment import describe_machine

    weights, context = None, None
    targets: str | list[str] | None = _TARGETS if TRAINING_KINDS[objective].chats else None
    if pretrained is not None:
        weights = _count_weights(pretrained, len(found.labels.counts) if found.labels else 0)
        context, targets = _context(pretrained), _choose_targets(pretrained)
    tokens, written, is_guess = _count_tokens(found.texts, folder, objective)
    device = choose_device("auto")
    on_gpu = device.type == "cuda"
    memory = torch.cuda.get_device_properties(0).total_memory if on_gpu else psutil.virtual_memory().total
    return Facts(
        base=model, title=_name_of(model), objective=objective, fields=fields,
        format=found.format, rows=found.rows, unread=found.unread, tokens=tokens, written=written,
        labels=found.labels, is_guess=is_guess, weights=weights, context=context, targets=targets,
        is_named=bool(pretrained and pretrained.labels), problem=problem, left_out=found.left_out,
        device=device.type, memory=memory, cores=describe_machine()["cores"],
    )  # fmt: skip


def _count_weights(pretrained: "Pretrained", labels: int) -> int:
    from etude.models.parts import count_parts
    from etude.models.pretrained import meta_model

    parameters = pretrained.parameters or count_parts(meta_model(replace(pretrained, labels=labels)))
    return parameters["total"]


def _context(pretrained: "Pretrained") -> int:
    """Tokens that a model reads at most; of one without a limit, as many as it is mostly trained on."""
    from etude.models.families.table import family_of

    config = pretrained.config
    return min(config.longest if config.longest < 2**30 else _UNLIMITED[family_of(config).has_source], 2**24)


def _choose_targets(pretrained: "Pretrained") -> str | list[str] | None:
    """The layers that get an adapter; None for encoders and encoder-decoders, trained with all weights."""
    from etude.models.parts import find_targets
    from etude.models.pretrained import find_objective, meta_model

    if not TRAINING_KINDS[find_objective(pretrained.path)].chats:
        return None
    try:
        find_targets(meta_model(pretrained), _TARGETS)
    except InputError:  # other families call them otherwise
        return "all-linear"
    return _TARGETS


def _name_of(model: str) -> str:
    """The name of a model: of a checkpoint that of its run, since many have a step-000100."""
    from etude.records.store import Run

    run = Run(Path(model).absolute().parent.parent)
    with contextlib.suppress(InputError):
        return str(run.info["name"])
    return Path(model).name


def _count_tokens(
    texts: Sequence[tuple[str, str | None]], folder: Path | None, objective: str
) -> tuple[list[int], list[int], bool]:
    """Tokens of each text and of each target, ascending, and whether they are guessed."""
    from etude.export import open_tokenizer

    kind = TRAINING_KINDS[objective]
    seconds = [second for _, second in texts if second is not None] if kind.writes_text else []
    firsts = [(text, None if seconds else second) for text, second in texts]
    with contextlib.suppress(InputError):
        if folder is not None:
            tokenizer = open_tokenizer(folder)
            if not kind.joins_texts:
                return (
                    sorted(len(ids) for ids in tokenizer.encode_batch([text for text, _ in firsts])),
                    [],
                    False,
                )
            joined = (tokenizer.encode_joined(each) for each in (firsts, [(text, None) for text in seconds]))
            first, second = (sorted(len(ids) for ids, *_ in encoded) for encoded in joined)
            return first, second, False
    lengths = [[text + (second or "") for text, second in firsts], seconds]
    tokens, written = (sorted(len(text.encode()) // _BYTES_A_TOKEN + 1 for text in each) for each in lengths)
    return tokens, written, True
