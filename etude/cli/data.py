"""What `etude data show` prints: samples as they are trained on, and which of their tokens are scored."""

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from etude.data.prepared import Corpus
    from etude.data.split import Split
    from etude.data.tokenize import Tokenizer
    from etude.recipe.schema import Recipe


def show_rows(recipe: "Recipe", rows: int = 3) -> list[dict[str, Any]]:
    """The first training samples of a recipe: index, tokens, scored, and parts of text that are scored or not.

    Raises: InputError if the data cannot be used.
    """
    corpus = open_corpus(recipe)
    return [_describe(corpus.train, index, corpus.tokenizer) for index in range(min(rows, len(corpus.train)))]


def open_corpus(recipe: "Recipe", *, again: bool = False) -> "Corpus":
    """The prepared data of a recipe, with the tokenizer of its model if it names no other. Raises: InputError."""
    from etude.data.prepared import prepare
    from etude.models.hub import find_model

    folder = None
    if recipe.model.from_ is not None and recipe.tokenizer.from_ is None:
        folder = find_model(recipe.model.from_, recipe.model.revision)
    return prepare(recipe, again=again, tokenizer_folder=folder)


def print_rows(rows: list[dict[str, Any]], *, as_json: bool = False) -> None:
    """Print samples: on a terminal what is scored in another colour, else within [[ and ]]."""
    if as_json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.text import Text

    from etude.report.wording import clean

    console = Console(soft_wrap=True, highlight=False)
    has_colours = console.color_system is not None and not console.no_color
    if has_colours:
        console.print(Text.assemble("colours: ", ("not scored", "dim"), " ", ("scored", "bold green")))
    for row in rows:
        text = Text(f"--- sample {row['sample']}: {row['tokens']:,} tokens, {row['scored']:,} scored\n")
        for part in row["parts"]:
            shown = clean(part["text"])
            if has_colours:
                text.append(shown, style="bold green" if part["scored"] else "dim")
            else:
                text.append(f"[[{shown}]]" if part["scored"] else shown)
        console.print(text)


def _describe(split: "Split", index: int, tokenizer: "Tokenizer") -> dict[str, Any]:
    import numpy as np

    sample = split.sample(index)
    # The first token is given; of the last label there is a token only if it is scored.
    ids = np.r_[sample.tokens, sample.labels[-1:][sample.labels[-1:] >= 0]]
    scored = np.r_[False, sample.labels >= 0][: len(ids)]
    borders = [0, *(np.flatnonzero(np.diff(scored)) + 1).tolist(), len(ids)]
    # Decoded from the start each time, since some tokenizers decode a first token in another way.
    texts = [tokenizer.decode(ids[:border].tolist(), skip_special=False) for border in borders]
    # Of a character whose bytes are in two parts the second one has all.
    texts = [*(text.rstrip("\ufffd") for text in texts[:-1]), texts[-1]]
    parts = [
        {"text": after[len(before) :], "scored": bool(scored[low])}
        for before, after, low in zip(texts, texts[1:], borders)
    ]
    return {"sample": index, "tokens": len(ids), "scored": int(scored.sum()), "parts": parts}
