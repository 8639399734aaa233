"""The commands that prepare data and show them: the data page, and samples as they are trained on."""

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from etude.cli.options import Json, Overrides, RecipePath, load, parse_new_file
from etude.cli.printing import open_console, print_json, print_rows, print_table, print_text, say
from etude.durable import write_file
from etude.text import clean, printable

if TYPE_CHECKING:
    from etude.data.corpus import Corpus
    from etude.errors import InputError
    from etude.recipe.schema import Recipe


def prepare(
    recipe: RecipePath,
    overrides: Overrides = None,
    again: Annotated[bool, typer.Option("--again", help="also if it is prepared already")] = False,
    as_json: Json = False,
) -> None:
    """Tokenise the data of a recipe into the cache that runs share."""
    from etude.recipe.load import flatten

    parts = load(recipe, overrides, None).by_task()
    summaries = {task: open_corpus(part, again=again).summary for task, part in parts.items()}
    summary = summaries.get("", summaries)
    print_rows([(key, str(value)) for key, value in flatten(summary).items()], summary, as_json)


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

    loaded = load(recipe, overrides, None)
    made = {task: make_page(part) for task, part in loaded.by_task().items()}
    text = "\n".join(page_text(loaded, task, *each) for task, each in made.items())
    pages = {task: page for task, (page, _) in made.items()}
    path = out or Path(f"{loaded.name}-data.md")
    require_outside_runs(path)
    write_file(path, text.encode())
    if as_json:
        print_json(pages.get("", pages))
    else:
        for task, each in made.items():
            print_page(loaded, task, *each)
    say(f"written to {path}")
    if problems := [
        f"task {task}: {why}" if task else str(why) for task, (_, why) in made.items() if why is not None
    ]:
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


def make_page(recipe: "Recipe") -> tuple[dict[str, Any], "InputError | None"]:
    """The data page of a recipe of one task, near-duplicates included, and the reason if it is refused.

    Raises: InputError if the sources cannot be read.
    """
    from etude.data.gate import examine
    from etude.data.page import describe_gate
    from etude.errors import InputError

    gate = examine(recipe)
    page: dict[str, Any] = {"documents": len(gate.failed), **describe_gate(gate)}
    try:
        corpus = open_corpus(recipe)
    except InputError as error:
        return page, error
    page = {
        **corpus.summary,
        **page,
        **describe_gate(gate, corpus.uses),
        "samples": [_describe(recipe, corpus, 0)["parts"]],
    }
    return page, None


def page_text(recipe: "Recipe", task: str, page: dict[str, Any], refused: "InputError | None") -> str:
    """The data page as Markdown; of one of several tasks, with its name."""
    from etude.data.page import list_notes
    from etude.report.conditions import summary_tables
    from etude.report.markdown import fence, prose

    tables = summary_tables({key: value for key, value in page.items() if key != "samples"})
    notes = "\n".join(f"- {prose(note)}" for note in list_notes(page))
    parts = [f"# Data of {prose(_title(recipe, task))}", *([f"Refused: {prose(refused)}"] if refused else [])]
    parts += [*([notes] if notes else []), *tables]
    if shown := _first_sample(page):
        parts.append("First sample, what is scored in double brackets:\n\n" + fence(shown))
    return "\n\n".join(parts) + "\n"


def print_page(recipe: "Recipe", task: str, page: dict[str, Any], refused: "InputError | None") -> None:
    """Print the data page for a terminal: sources, splits and counts below each other, then the tables."""
    from etude.data.page import list_notes

    lists = {
        name: rows
        for name, rows in page.items()
        if isinstance(rows, list) and name not in ("sources", "samples")
    }
    groups = {name: values for name, values in page.items() if isinstance(values, dict)}
    single = {name: value for name, value in page.items() if not isinstance(value, dict | list)}
    print_text(f"Data of {_title(recipe, task)}")
    if refused:
        print_text(f"Refused: {printable(refused)}")
    for source in page.get("sources", []):
        _print_values("source", source)
    for name, values in groups.items():
        _print_values(name, values)
    _print_values("all", single)
    for name, rows in lists.items():
        _print_list(name, rows)
    print_text()
    for note in list_notes(page):
        print_text(f"note: {printable(note)}")
    if shown := _first_sample(page):
        print_text(f"First sample, what is scored in double brackets:\n{shown}")


def _print_values(title: str, values: dict[str, Any]) -> None:
    """Named values below each other, those that say nothing left out."""
    shown = {
        name: value
        for name, value in values.items()
        if value not in (None, [], {}, "") and value is not False
    }
    if shown:
        print_text(f"\n{title}")
        print_rows(
            [(f"  {name.replace('_', ' ')}", _value(name, value)) for name, value in shown.items()],
            None,
            False,
        )


def _print_list(title: str, rows: list[dict[str, Any]]) -> None:
    """A table of the columns that any row has, and the examples of the rows below it."""
    if not rows:
        return
    columns = list(dict.fromkeys(name for row in rows for name in row if name != "examples"))
    print_text(f"\n{title}")
    header, body = (
        [name.replace("_", " ") for name in columns],
        [[_value(n, row.get(n)) for n in columns] for row in rows],
    )
    print_table([header, *body])
    for example in (example for row in rows for example in row.get("examples", ())):
        print_text(f"  - {printable(example)}")


def _value(name: str, value: Any) -> str:
    from etude.report.wording import number, percent

    if isinstance(value, list):
        return ", ".join(map(str, value))
    return percent(value) if name == "share" else number(value)


def _title(recipe: "Recipe", task: str) -> str:
    return f"{recipe.name}, task {task}" if task else recipe.name


def _first_sample(page: dict[str, Any]) -> str:
    for parts in page.get("samples", []):
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
        text = Text(f"--- {task}sample {row['sample']}: {row['tokens']:,} tokens, {row['scored']:,} scored\n")
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
    return {"sample": index, "tokens": len(ids), "scored": int(scored.sum()), "parts": parts}
