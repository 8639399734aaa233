"""Second blind test of the watch: the same six causes, each written in other ways than in the first, and 12 easy runs.

python benchmarks/watch/blind_second.py [--only "rows repeated"] [--case llama-1] [--tell FILE]

Data, shapes, seeds and faults are others than those of `blind.py`; how a run is set up and judged is the same.
Written from the documents for users alone, without a look at the code of the watch, its tests or the other
benchmarks; cases, accepted names and rule were committed before the first run, and none changed after it.
Labels that are shifted twice count as `labels_shifted_twice` only, labels that are not shifted as
`labels_not_shifted` only. Writes results/watch_blind_second.json.
"""

import argparse
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measure import write_result

from watch import blind_second_faults as faults
from watch import blind_second_leaks as leaks
from watch import blind_second_rows as data
from watch.blind import ACCEPTED, EASY, STEPS, Accepted, Setup, judged, table
from watch.blind_rows import DATA, Row, Rows, as_rows, draw_rows
from watch.blind_second_rows import SHAPES, instructions, own_model, shape_values, texts

CLAIM = (
    "watch: cause of a loss that falls too far, named before 2 % of the run, by a second test written blind"
)
FIXED_IN = "6c00070"  # the commit of cases, accepted names and rule, before any run
TWICE: Accepted = ({"labels_shifted_twice"}, r"shifted twice|after the next")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=[*ACCEPTED, EASY])
    parser.add_argument("--case", help="SHAPE-SEED, as llama-1")
    parser.add_argument("--tell", type=Path, help="JSON Lines of finished runs: added to, and not run again")
    options = parser.parse_args()
    if not (DATA / "cosqa_dev").exists():
        raise SystemExit("no data for the blind test on this machine; see shared/data beside the code")
    every = [
        (cause, shape, seed)
        for cause in (*ACCEPTED, EASY)
        for shape in SHAPES
        for seed in range(3 if cause == EASY else 2)
    ]
    chosen = [
        (cause, shape, seed)
        for cause, shape, seed in every
        if options.only in (None, cause) and options.case in (None, f"{shape}-{seed}")
    ]
    told = options.tell.read_text("utf-8").splitlines() if options.tell and options.tell.exists() else []
    done = {(run["cause"], run["shape"], run["seed"]): run for run in map(json.loads, told)}
    for case in chosen:
        if case not in done:
            done[case] = run_case(*case)
            print(json.dumps(done[case]), file=sys.stderr, flush=True)
            if options.tell:
                with options.tell.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(done[case]) + "\n")
    runs = [done[case] for case in chosen]
    if chosen == every:
        faulty, easy = ([run for run in runs if (run["cause"] == EASY) == side] for side in (False, True))
        right = {"causes": sum(run["right"] for run in faulty), "easy": sum(run["right"] for run in easy)}
        figures = {**right, "of": [len(faulty), len(easy)], "fixed_in": FIXED_IN, "runs": runs}
        write_result("watch_blind_second", CLAIM, figures, table(runs, SHAPES))
    else:
        print("\n".join(" | ".join(map(str, row)) for row in table(runs, SHAPES)))


def run_case(cause: str, shape: str, seed: int) -> dict[str, Any]:
    """Train one case until step 40, and judge what was said."""
    setup = build_easy(shape, seed) if cause == EASY else build(cause, shape, seed)
    return judged(setup, cause, shape, seed, lambda home: recipe_values(setup, shape, seed, home))


def recipe_values(setup: Setup, shape: str, seed: int, home: Path) -> dict[str, Any]:
    """The recipe as the user wrote it, over the rows as files."""
    for name, rows in (("train", setup.rows), ("held-out", setup.held_out)):
        (home / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return {
        "name": "blind-second", "seed": seed + 31, **shape_values(shape, seed),
        "data": {
            "train": [{"path": str(home / "train.jsonl")}],
            "validation": [{"path": str(home / "held-out.jsonl")}],
        },
        "train": {
            "steps": STEPS, "seq_len": (48 if seed else 96) if "text" in setup.rows[0] else 256,
            "global_batch_size": 8, "device": "cpu", "precision": "fp32",
        },
        "evaluate": {"every_steps": 500},
    }  # fmt: skip


# ---- the 48 runs with a fault ----

_TEXTS = {("tall", 0): "java", ("module", 0): "methods", ("module", 1): "mended", ("neox", 0): "mended"}
_PAIRS = {
    ("tall", 1): "described", ("neox", 1): "sharp", ("llama", 0): "problems", ("llama", 1): "queries",
    ("tall", 0): "sharp", ("module", 0): "problems", ("module", 1): "described", ("neox", 0): "queries",
}  # fmt: skip


def build(cause: str, shape: str, seed: int) -> Setup:
    """The case of a cause, a shape and a seed; a module of one's own needs a loss, which is right if no other is."""
    is_text = (shape, seed) in _TEXTS and cause != "answer in the prompt"
    items: Any = texts(_TEXTS[shape, seed]) if is_text else instructions(_PAIRS[shape, seed])
    rows = as_rows(list(items[:2000]))
    held = min(128, len(rows) // 6)
    setup = Setup(rows[held:], rows[:held], model=own_model(shape, seed))
    setup.loss = faults.right if shape == "module" else None
    _FAULTS[cause](setup, (shape, seed))
    assert setup.given
    return setup


def _documents(setup: Setup) -> None:
    """Texts are samples of their own, and short, of different lengths."""
    setup.values |= {"data.sample": "document", "train.seq_len": 128}
    for place, row in enumerate((*setup.rows, *setup.held_out)):
        row["text"] = row["text"][: 60 + place * 7 % 100]


def _loss(setup: Setup, loss: faults.Loss) -> None:
    setup.loss, setup.given = loss, f"loss: {(loss.__doc__ or '').splitlines()[0]}"


def _not_shifted(setup: Setup, case: tuple[str, int]) -> None:
    loss = {
        ("tall", 0): faults.wrong_way_round, ("tall", 1): faults.shifts_again,
        ("module", 0): faults.soft_copies, ("module", 1): faults.rolls_on,
        ("neox", 0): faults.reads_labels, ("neox", 1): faults.old_collator,
        ("llama", 0): faults.shifts_again, ("llama", 1): faults.gathers_tokens,
    }[case]  # fmt: skip
    if case == ("module", 1):
        _documents(setup)
    if loss in (faults.shifts_again, faults.rolls_on):
        setup.accepted = TWICE
    _loss(setup, loss)


def _future(setup: Setup, case: tuple[str, int]) -> None:
    if case in (("tall", 0), ("tall", 1), ("llama", 0)):
        kind, setup.given = {
            ("tall", 0): ("head", "kernel: one head is not masked"),
            ("tall", 1): ("keys", "kernel: keys and values are one place on"),
            ("llama", 0): ("penalty", "kernel: a penalty of 1 in place of a mask"),
        }[case]  # fmt: skip
        setup.broken = lambda: faults.kernel(kind)
    elif case == ("module", 0):
        setup.model = own_model(*case, faults.hides_by_little)
        setup.given = f"module: {faults.hides_by_little.__doc__}"
    elif case == ("module", 1):
        setup.model = own_model(*case, mixes=True)
        setup.given = "module: a convolution over both neighbours before attention"
    else:
        losses = {
            ("neox", 0): faults.in_blocks,
            ("neox", 1): faults.long_prefix,
            ("llama", 1): faults.both_ways,
        }
        _loss(setup, losses[case])


def _padding(setup: Setup, case: tuple[str, int]) -> None:
    of_rows: dict[tuple[str, int], tuple[Callable[..., Rows], str, int]] = {
        ("tall", 0): (leaks.filled_front, "[PAD]", 90),
        ("neox", 0): (leaks.filled_back, "</s>", 110),
        ("llama", 0): (leaks.filled_back, "\n", 120),
    }
    if case in of_rows:
        fill, mark, count = of_rows[case]
        setup.rows, setup.held_out = (fill(each, mark, count) for each in (setup.rows, setup.held_out))
        setup.given = f"rows: {(fill.__doc__ or '').splitlines()[0]} Mark: {mark!r}"
        return
    if "text" in setup.rows[0]:
        _documents(setup)
    losses = {
        ("tall", 1): faults.ends_left, ("module", 0): faults.longest_mask, ("module", 1): faults.no_negative,
        ("neox", 1): faults.long_mask, ("llama", 1): faults.other_pad,
    }  # fmt: skip
    _loss(setup, losses[case])


def _repeated(setup: Setup, case: tuple[str, int]) -> None:
    remake = {
        ("tall", 0): leaks.sampled, ("tall", 1): leaks.four_workers,
        ("module", 0): leaks.overlapping, ("module", 1): leaks.numbered,
        ("neox", 0): leaks.boilerplate, ("neox", 1): leaks.reworded,
        ("llama", 0): leaks.exported_twice, ("llama", 1): leaks.reformatted,
    }[case]  # fmt: skip
    if case == ("module", 1):
        _documents(setup)
    setup.rows = remake(setup.rows, random.Random(50))
    setup.given = f"rows: {(remake.__doc__ or '').splitlines()[0]}"


def _answer_in_prompt(setup: Setup, case: tuple[str, int]) -> None:
    leak: Callable[[Row], Row] = {
        ("tall", 0): leaks.in_docstring, ("tall", 1): leaks.in_retrieved,
        ("module", 0): leaks.in_json, ("module", 1): leaks.on_one_line,
        ("neox", 0): leaks.in_suffix, ("neox", 1): leaks.in_system,
        ("llama", 0): leaks.in_comments, ("llama", 1): leaks.in_some_hints,
    }[case]  # fmt: skip
    setup.rows, setup.held_out = ([leak(row) for row in each] for each in (setup.rows, setup.held_out))
    setup.values |= {"train.seq_len": 384}
    setup.given = f"rows: {(leak.__doc__ or '').splitlines()[0]}"


def _mis_scaled(setup: Setup, case: tuple[str, int]) -> None:
    loss = {
        ("tall", 0): faults.accumulated, ("tall", 1): faults.means_of_rows,
        ("module", 0): faults.mean_of_classes, ("module", 1): faults.by_characters,
        ("neox", 0): faults.by_guess, ("neox", 1): faults.by_rows,
        ("llama", 0): faults.by_devices, ("llama", 1): faults.mean_of_chunks,
    }[case]  # fmt: skip
    if loss is faults.by_rows:
        setup.values["train.micro_batch_size"] = 2
    _loss(setup, loss)


_FAULTS: dict[str, Callable[[Setup, tuple[str, int]], None]] = {
    "labels not shifted": _not_shifted,
    "future visible": _future,
    "padding scored": _padding,
    "rows repeated": _repeated,
    "answer in the prompt": _answer_in_prompt,
    "loss mis-scaled": _mis_scaled,
}


# ---- the 12 runs that are easy ----

_MAKERS: dict[tuple[str, int], Callable[[random.Random], Any]] = {
    ("tall", 0): data.inserts, ("tall", 1): data.bases, ("tall", 2): data.elements,
    ("module", 0): data.rules, ("module", 1): data.asserts, ("module", 2): data.series,
    ("neox", 0): data.accesses, ("neox", 1): data.ask_color, ("neox", 2): data.ask_binary,
    ("llama", 0): data.ask_select, ("llama", 1): data.ask_class, ("llama", 2): data.ask_weekday,
}  # fmt: skip


def build_easy(shape: str, seed: int) -> Setup:
    """Rows that are all different and soon foretold; some with a right loss of the user's, for modules all."""
    make = _MAKERS[shape, seed]
    rows = as_rows(draw_rows(make, 2600, seed + 60))
    setup = Setup(rows[128:], rows[:128], model=own_model(shape, seed))
    given = f"easy: {(make.__doc__ or '').splitlines()[0]}"
    if "text" in rows[0] and seed == 2:
        setup.values |= {"data.sample": "document", "train.seq_len": 160}
    if shape == "module":
        _loss(setup, faults.right)
    elif seed == 2:
        _loss(setup, faults.logits_by_etude if shape == "tall" else faults.right_wide)
    setup.given = f"{given} {setup.given}".strip()
    return setup


if __name__ == "__main__":
    main()
