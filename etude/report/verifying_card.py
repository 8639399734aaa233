"""The card of an exported model, and its files, held against the run that they come from."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etude import durable
from etude.errors import DamageError, InputError
from etude.records.folder import step_of
from etude.records.head import hash_lines
from etude.records.manifest import read_manifest
from etude.records.store import Run, open_run
from etude.report.card import make_card
from etude.report.deviations import Deviation, compare_texts
from etude.report.history import History
from etude.report.verifying import Verification, known_figures
from etude.report.write import Report

CARD = "README.md"
_MOST_BYTES = 16 << 20
_WRITTEN_BY = re.compile(r"\| Written by \| etude [\w.+-]{1,40} \|")
# Files that an export writes anew for the tools that read it; all others are those of the checkpoint.
_MADE = ("config.json", "adapter_config.json", "generation_config.json")


def verify_export(folder: Path, runs: Path) -> Verification:
    """Make the card of an exported model again and compare, and hold its files against the checkpoint.

    Raises: InputError if its README.md is no card of ours, or its run is not under `runs`.
    """
    stated = durable.read_text(folder / CARD, most_bytes=_MOST_BYTES, follow=False)
    said = dict(
        re.findall(r"^\| (Run|Checkpoint|Journal, SHA-256 at export) \| `([^`|]+)` \|$", stated, re.M)
    )
    if len(said) != 3 or step_of(said["Checkpoint"]) is None:
        raise InputError(
            f"{folder / CARD} is no card that etude export writes; verify the file as a document"
        )
    run, made = open_run(said["Run"], runs), Verification(folder.name)
    until = hash_lines(run.path / "journal.jsonl").get(said["Journal, SHA-256 at export"])
    made.count("heads of journals")
    if until is None:
        rule = "no part of the journal of the run has this head: it was changed since, or the card was"
        stands = said["Journal, SHA-256 at export"][:16]
        made.deviations.append(Deviation(CARD, "chain", stands, "", rule))
    if " Quantised: " in stated:
        made.open.append("the card and the weights of a quantised model follow from no record of its run")
        return made
    history = History(run, run.ledger(until))
    is_merged = run.recipe.adapter is not None and not durable.is_plain(folder / "adapter_config.json")
    kind = "merged" if is_merged else "peft" if run.recipe.adapter else "hf"
    text, places = make_card(history, said["Checkpoint"], kind)
    made.count("figures of the card", sum(len(each.figures) for each in places))
    if (version := _WRITTEN_BY.search(stated)) and version[0] not in text:
        made.open.append("the card was written by another etude; sentences may differ for that")
        text = _WRITTEN_BY.sub(lambda _: version[0], text)
    known = known_figures(Report(text, places, {}, {}), history)
    made.add(compare_texts(CARD, stated, text, known))
    made.add(_check_files(folder, run, said["Checkpoint"], made, is_merged=is_merged))
    return made


def _check_files(
    folder: Path, run: Run, checkpoint: str, made: Verification, *, is_merged: bool
) -> Iterator[Deviation]:
    """The files of an export that are those of its checkpoint, by their SHA-256."""
    try:
        files: dict[str, Any] = read_manifest(run.checkpoints / checkpoint)["files"]
    except (DamageError, InputError):
        made.open.append(f"{checkpoint} is not there any more, so the files are not held against it")
        return
    if is_merged:
        made.open.append("merged weights are those of no file of the run; etude export makes them again")
    for name, entry in files.items():
        path = folder / name
        if name in _MADE or (is_merged and name.endswith(".safetensors")) or not durable.is_plain(path):
            continue
        made.count("files of the export")
        if (found := durable.sha256_file(path)) != entry["sha256"]:
            rule = f"it is not that of {checkpoint} of {run.name}"
            yield Deviation(name, "checkpoint", found[:16], entry["sha256"][:16], rule)
