"""The commands that prepare data and show them: the data page, and samples as they are trained on."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from etude.cli.options import Json, Overrides, RecipePath, load, parse_new_file, require_other
from etude.cli.printing import open_console, print_json, print_rows, print_table, print_text, say
from etude.durable import write_file
from etude.text import clean, one_line, plural, printable

if TYPE_CHECKING:
    from etude.data.corpus import Corpus
    from etude.errors import InputError
    from etude.recipe.schema import Recipe


@dataclass(frozen=True)
class Page:
    """The data page of one task: plain values by name, and the reason if its data are refused."""

    title: str
    values: dict[str, Any]
    refused: "InputError | None" = None


def prepare(
    recipe: RecipePath,
    overrides: Overrides = None,
    again: Annotated[bool, typer.Option("--again", help="also if it is prepared already")] = False,
    as_json: Json = False,
) -> None:
    """Tokenise the data of a recipe into the cache that runs share."""
    loaded = load(recipe, overrides, None)
    summaries = {task: open_corpus(part, again=again).summary for task, part in loaded.by_task().items()}
    if as_json:
        print_json(summaries.get("", summaries))
        return
    for task, summary in summaries.items():
        print_page(Page(_title(loaded, task), summary))


def data_page(
    recipe: RecipePath,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", parser=parse_new_file, metavar="PATH", help="where to write it (default: NAME-data.md)"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Look for duplicates, leaks and what cleaning finds; print it and write it down."""
    from etude.errors import RecipeError
    from etude.records.folder import require_outside_runs

    require_other(out, recipe)
    loaded = load(recipe, overrides, None)
    pages = {task: make_page(part, _title(loaded, task)) for task, part in loaded.by_task().items()}
    path = out or Path(f"{loaded.name}-data.md")
    require_outside_runs(path)
    write_file(path, "\n".join(map(page_text, pages.values())).encode())
    if as_json:
        values = {
            task: {**page.values, "refused": page.refused and str(page.refused)}
            for task, page in pages.items()
        }
        print_json(values.get("", values))
    else:
        for page in pages.values():
            print_page(page)
    say(f"written to {path}")
    refused = {task: page.refused for task, page in pages.items() if page.refused is not None}
    if problems := [f"task {task}: {why}" if task else str(why) for task, why in refused.items()]:
        raise RecipeError(problems)


def show_data(
    recipe: RecipePath,
    overrides: Overrides = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="how many")] = 3,
    as_json: Json = False,
) -> None:
    """Show samples as they are trained on, and which of their tokens are scored."""
    loaded = load(recipe, overrides, None)
    print_samples(show_samples(loaded, rows), as_json=as_json)
    for note in show_notes(loaded):
        say(f"note: {note}")


def make_page(recipe: "Recipe", title: str) -> Page:
    """The data page of a recipe of one task, near-duplicates included.

    Raises: InputError if the sources cannot be read.
    """
    from etude.data.gate import examine
    from etude.data.page import describe_gate
    from etude.errors import InputError

    gate = examine(recipe)
    values: dict[str, Any] = {"documents": len(gate.failed), **describe_gate(gate)}
    try:
        corpus = open_corpus(recipe)
    except InputError as error:
        return Page(title, values, error)
    samples = [_describe(recipe, corpus, 0)["parts"]]
    return Page(title, {**corpus.summary, **values, **describe_gate(gate, corpus.uses), "samples": samples})


def page_text(page: Page) -> str:
    """A data page as Markdown."""
    from etude.data.page import list_notes
    from etude.report.conditions import summary_tables
    from etude.report.markdown import fence, prose

    parts = [f"# Data of {prose(page.title)}"]
    if page.refused:
        parts.append(f"Refused: {prose(page.refused)}")
    if notes := list_notes(page.values):
        parts.append("\n".join(f"- {prose(note)}" for note in notes))
    parts += summary_tables({name: value for name, value in page.values.items() if name != "samples"})
    if sample := _first_sample(page):
        parts.append(f"{_sample_title(page)}\n\n{fence(sample)}")
    return "\n\n".join(parts) + "\n"


def print_page(page: Page) -> None:
    """Print a data page for a terminal: sources, splits and counts below each other, then the tables."""
    from etude.data.page import list_notes

    values = page.values
    print_text(f"Data of {page.title}")
    if page.refused:
        print_text(f"Refused: {printable(page.refused)}")
    for source in values.get("sources", []):
        _print_values("source", source)
    for name, group in values.items():
        if isinstance(group, dict):
            _print_values(name, group)
    _print_values("all", {n: value for n, value in values.items() if not isinstance(value, dict | list)})
    for name, rows in values.items():
        if isinstance(rows, list) and name not in ("sources", "samples"):
            _print_list(name, rows)
    print_text()
    for note in list_notes(values):
        print_text(f"note: {printable(note)}")
    if sample := _first_sample(page):
        print_text(f"{_sample_title(page)}\n{sample}")


def _print_values(title: str, values: dict[str, Any]) -> None:
    """Named values below each other, those that say nothing left out."""
    from etude.report.wording import count_title, value_title

    shown = {n: v for n, v in values.items() if v not in (None, [], {}, "") and v is not False}
    if shown:
        print_text(f"\n{title}")
        titled = count_title if "samples" in shown else value_title
        print_rows([(f"  {titled(name)}", _value(name, value)) for name, value in shown.items()])


def _print_list(title: str, rows: list[dict[str, Any]]) -> None:
    """A table of the columns that any row has, and the examples of the rows below it."""
    if not rows:
        return
    columns = list(dict.fromkeys(name for row in rows for name in row if name != "examples"))
    print_text(f"\n{title.replace('_', ' ')}")
    header = [name.replace("_", " ") for name in columns]
    print_table([header, *([_value(name, row.get(name)) for name in columns] for row in rows)])
    for example in (example for row in rows for example in row.get("examples", ())):
        print_text(f"  - {printable(example)}")


def _value(name: str, value: Any) -> str:
    from etude.report.wording import number, percent

    if isinstance(value, list):
        return ", ".join(map(str, value))
    return percent(value) if name == "share" else number(value)


def _title(recipe: "Recipe", task: str) -> str:
    return f"{recipe.name}, task {task}" if task else recipe.name


def _sample_title(page: Page) -> str:
    """The words above the first sample; of a classifier no token is scored."""
    has_brackets = any(part["scored"] for part in page.values["samples"][0])
    return "First sample, what is scored in double brackets:" if has_brackets else "First sample:"


def _first_sample(page: Page) -> str:
    for parts in page.values.get("samples", []):
        return "".join(f"[[{part['text']}]]" if part["scored"] else part["text"] for part in parts)[:4000]
    return ""


def show_samples(recipe: "Recipe", rows: int = 3) -> list[dict[str, Any]]:
    """The first training samples of each task: index, tokens, scored, and parts of text, scored or not.

    Raises: InputError if the data cannot be used.
    """
    samples = []
    for task, part in recipe.by_task().items():
        corpus, named = open_corpus(part), {"task": task} if task else {}
        for index in range(min(rows, len(corpus.train))):
            samples.append(named | _describe(part, corpus, index))
    return samples


def show_notes(recipe: "Recipe") -> list[str]:
    """Notes on the reading of the sources of each task. Raises: InputError."""
    from etude.data.page import list_notes

    notes = [note for part in recipe.by_task().values() for note in list_notes(open_corpus(part).summary)]
    return list(dict.fromkeys(notes))


def open_corpus(recipe: "Recipe", *, again: bool = False) -> "Corpus":
    """The prepared data of a recipe of one task, by the tokenizer of its model if it names no other.

    Raises: InputError.
    """
    from etude.data.prepared import prepare
    from etude.models.hub import find_model

    folder = None
    if recipe.model.from_ is not None and recipe.tokenizer.from_ is None:
        folder = find_model(recipe.model.from_, recipe.model.revision)
    return prepare(recipe, again=again, tokenizer_folder=folder)


def print_samples(rows: list[dict[str, Any]], *, as_json: bool = False) -> None:
    """Print samples, the scored parts in another colour on a terminal, else within [[ and ]]."""
    if as_json:
        print_json(rows)
        return
    from rich.text import Text

    console = open_console(soft_wrap=True)
    has_colours = console.color_system is not None and not console.no_color
    if has_colours:
        console.print(Text.assemble("colours: ", ("not scored", "dim"), " ", ("scored", "bold green")))
    for row in rows:
        task = f"{printable(row['task'])}, " if "task" in row else ""
        tokens = plural(row["tokens"], "token")
        text = Text(f"--- {task}sample {row['sample']}: {tokens}, {_describe_targets(row)}\n")
        for part in row["parts"]:
            shown = clean(part["text"])
            if has_colours:
                text.append(shown, style="bold green" if part["scored"] else "dim")
            else:
                text.append(f"[[{shown}]]" if part["scored"] else shown)
        console.print(text)


def _describe(recipe: "Recipe", corpus: "Corpus", index: int) -> dict[str, Any]:
    import numpy as np

    from etude.data.secrets import find, redact_parts

    tokenizer, sample = corpus.tokenizer, corpus.train.sample(index)
    if sample.is_pair:
        ids = np.r_[sample.tokens, sample.labels]
        scored = np.arange(len(ids)) >= len(sample.tokens)
    elif recipe.kind.hides_tokens:
        scored = sample.labels >= 0
        whole = np.where(scored, sample.labels, sample.tokens)
        # A secret of which a token is hidden would not be known, so that text is shown with nothing hidden.
        ids = whole if find(tokenizer.decode(whole.tolist())) else sample.tokens
    else:  # the first token is given; of the last label there is a token only if it is scored
        ids = np.r_[sample.tokens, sample.labels[-1:][sample.labels[-1:] >= 0]]
        scored = np.r_[False, sample.labels >= 0][: len(ids)]
    borders = [0, *(np.flatnonzero(np.diff(scored)) + 1).tolist(), len(ids)]
    # Decoded from the start each time, since some tokenizers decode a first token in another way.
    texts = [tokenizer.decode(ids[:border].tolist(), skip_special=False) for border in borders]
    # Of a character whose bytes are in two parts the second one has all.
    texts = [*(text.rstrip("\ufffd") for text in texts[:-1]), texts[-1]]
    shown = redact_parts([after[len(before) :] for before, after in itertools.pairwise(texts)])
    parts = [{"text": text, "scored": bool(scored[low])} for text, low in zip(shown, borders)]
    row = {"sample": index, "tokens": len(ids), "scored": int(scored.sum()), "parts": parts}
    if corpus.labels and sample.classes is not None:
        row["labels"] = [corpus.labels.names[place] for place in np.flatnonzero(sample.classes)]
    return row


def _describe_targets(row: dict[str, Any]) -> str:
    """The labels of a sample, or else how many of its tokens are scored."""
    if "labels" not in row:
        return f"{row['scored']:,} scored"
    if not row["labels"]:
        return "no label"
    return f"label{'s'[: len(row['labels']) != 1]} {', '.join(map(one_line, row['labels']))}"
