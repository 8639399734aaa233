"""The sections of a recipe that say where its rows come from, and what becomes of them."""

from typing import Annotated, Literal

from pydantic import Field

from etude.recipe.section import Count, Positive, Ratio, Section, key


class Source(Section):
    """Documents, or instructions with answers, from a file, a folder or a built-in collection."""

    path: str | None = key(
        None,
        "a file or a folder, relative to the recipe; JSON Lines, JSON arrays and CSV are rows, others texts",
    )
    source: Literal["python-stdlib"] | None = key(None, "a built-in collection", example="python-stdlib")
    glob: str | None = key(None, "which files of a folder", example="**/*.py")
    format: Literal["text", "prompt", "alpaca", "messages", "sharegpt"] | None = key(
        None, "what the rows hold (default: found out from their fields, and said)", example="alpaca"
    )
    field: str = key("text", "the field that holds the text")
    pair: str | None = key(None, "the field of a second text, read with the first", example="code")
    task: str | None = key(None, "which of the [tasks.<name>] the rows are for", example="defects")
    target: str | None = key(None, "the field of the text to be written, for seq2seq", example="target")
    label: str | None = key(
        None, "the field of the label, or of a list of labels, for classification", example="label"
    )
    capability: str = key("capability", "the field, where there is one, by which scores are told apart")
    group_by: str | None = key(
        None, "field whose equal values stay in one split, and are refused in several sources", example="repo"
    )
    max_bytes: Positive = key(16 << 30, "bytes that the files may hold, unpacked; more is refused")
    max_row_bytes: Positive = key(
        4 << 20, "bytes of a row; a longer one is refused, as it takes memory 300 times"
    )


Policy = Literal["off", "warn", "drop"]


class Clean(Section):
    """Documents that teach little or harm: each filter is off, warns (counts and shows them) or drops them.

    There is no undecodable text to warn of and keep.
    """

    too_short: Policy = key("off", "fewer than min_characters", example="drop")
    too_long: Policy = key("off", "more than max_characters", example="warn")
    undecodable: Literal["off", "drop"] = key(
        "off",
        "files that are binary or not UTF-8, and such lines of JSONL: refused, or left out and counted",
        example="drop",
    )
    generated: Policy = key("off", "files that say that a program wrote them", example="drop")
    minified: Policy = key("off", "code squeezed into few lines, and data in text form", example="drop")
    licence_only: Policy = key("off", "nothing but a licence header", example="drop")
    syntax: Policy = key("off", "Python, JSON, TOML and XML files that do not parse", example="warn")
    secret: Policy = key("off", "keys, tokens and passwords; no output shows them", example="drop")
    min_characters: Count = key(16, "for too_short", needs='too_short != "off"')
    max_characters: Positive = key(1_000_000, "for too_long", needs='too_long != "off"')


class Leakage(Section):
    """Documents of the held-out sets, or of benchmarks, that are among the training documents or
    near-duplicates.
    """

    action: Literal["report", "refuse", "drop"] = key(
        "refuse", "refuse above max_ratio, or drop the training documents that leak"
    )
    max_ratio: Ratio = key(
        0.05,
        "share of a held-out set that may be in the training documents, near-duplicates too",
        needs='action = "refuse"',
    )
    benchmarks: list[str] = key(
        [], "JSONL files of evaluation problems (HumanEval, MBPP ...)", example=["mbpp.jsonl"]
    )


class Data(Section):
    """The data of training, validation and test."""

    train: Annotated[list[Source], Field(min_length=1)] = key(..., "one or more sources")
    validation: Literal["none"] | list[Source] | None = key(
        None, "sources of their own, or 'none'; by default a part of the training documents", example="none"
    )
    validation_ratio: Annotated[float, Field(gt=0, lt=1)] = key(
        0.05, "share of the documents held out", example=0.05, needs="no data.validation"
    )
    test: list[Source] = key([], "sources that only the finished model is scored on")
    clean: Clean = Clean()
    deduplicate: Literal["off", "exact", "near"] = key(
        "off",
        "leave out training documents that are there already: but for white space, or alike in "
        "near_threshold",
    )
    near_threshold: Annotated[float, Field(ge=0.5, le=1)] = key(
        0.8, "Jaccard similarity of the 5-token shingles from which documents are near-duplicates"
    )
    leakage: Leakage = Leakage()
    executor: Literal["local", "ray"] = key("local", "what reads the data: all cores, or Ray Data")
    sample: Literal["row", "document"] = key(
        "row", "a sample is a row of seq_len tokens cut from the documents end to end, or one document"
    )
    attend_across_documents: bool = key(
        True, "tokens of a row see the documents before theirs", needs='data.sample = "row"'
    )
    template: Literal["auto", "chat", "plain"] = key(
        "auto",
        "how an instruction becomes text: the tokenizer's chat template, or a plain one; auto: chat if there "
        "is one",
    )
    system: str | None = key(
        None, "system message of instructions that have none", example="You write Python."
    )
    answers_only: bool = key(
        True, "only answers and what ends them are targets, not the instructions; masked hides tokens of both"
    )
    too_long: Literal["cut", "drop", "refuse"] = key(
        "cut",
        "what becomes of answers, labelled texts and documents of a sample each that do not fit into "
        "seq_len, and of pairs whose sides do not",
    )

    @property
    def paths(self) -> list[str]:
        """The files and folders of all sources."""
        held_out = self.validation if isinstance(self.validation, list) else []
        return [each.path for each in (*self.train, *held_out, *self.test) if each.path is not None]
