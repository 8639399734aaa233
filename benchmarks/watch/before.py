"""Score the tests before the first step on the grid: faults that they name, and healthy cases that hear one.

python benchmarks/watch/before.py [--only PATTERN] [--data]

Nothing is trained. Each fault of the rows, the recipe, the loss or the mask is put into every combination that
can have it, at all strengths; beside them stand the healthy cases that differ before the first step. --data:
the real data sets as they are, in the kinds of training that they have fields for. A finding that is an info
is no alarm. Writes results/watch_before.json.
"""

import argparse
import contextlib
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measure import write_result

from etude import Options
from etude.assemble import assemble
from etude.audit import Audit, audit
from etude.engine.world import World
from etude.errors import EtudeError
from etude.plan import make_plan
from etude.recipe.load import recipe_from
from etude.recipe.schema import Recipe
from watch.cases import COMBINATIONS, DATA, HARD, Case, present, pretrained
from watch.faults import FAULTS, Fault, own_loss
from watch.grid import quick, recipe_of_case

CLAIM = (
    "watch: tests before the first step name faults of rows, targets and masks, and nothing in healthy runs"
)
# Faults that are there before the first step; the others of the plan begin with a step.
TESTED = (
    "no_causal_mask", "labels_shifted_twice", "labels_not_shifted", "padding_scored", "prompt_scored",
    "template_swapped", "end_missing", "duplicates", "validation_leak", "labels_shuffled", "loss_mis_scaled",
    "answer_in_prompt",
)  # fmt: skip
SAME_BEFORE = {"warm_up_bump", "wsd_tail", "restart"}  # they differ once steps are made
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="cases whose name has this pattern")
    parser.add_argument("--data", action="store_true", help="the real data sets alone")
    options = parser.parse_args()
    started = time.monotonic()
    cases = [] if options.data else [*healthy_cases(), *faulty_cases()]
    tested = [(case, alarms(case)) for case in cases if re.search(options.only, case.name)]
    healthy, faulty = ([row for case, row in tested if case.is_healthy is flag] for flag in (True, False))
    data = [alarms_of(name, recipe) for name, recipe in real_data() if re.search(options.only, name)]
    rows = [["fault", "named: severe, middling, mild", "by its own kind", "other alarms"]]
    for name in TESTED:
        mine = [each for each in faulty if each["condition"] == name]
        if mine:
            rows.append([name, *counts(mine, FAULTS[name])])
    for title, part in (("healthy", healthy), ("real data", data)):
        wrong = [f"{each['name']}: {', '.join(each['alarms'])}" for each in part if each["alarms"]]
        rows.append([title, f"{len(wrong)} of {len(part)} with an alarm", "", "; ".join(wrong) or "none"])
    seconds = round(time.monotonic() - started, 1)
    named = {each["name"]: sorted(map(kind_of, each["alarms"])) for each in faulty}
    result = {"seconds": seconds, "faulty": named, "healthy": healthy, "data": data}
    if options.only or options.data:
        print("\n".join(" | ".join(row) for row in rows))
    else:
        write_result("watch_before", CLAIM, result, rows)


def healthy_cases() -> Iterator[Case]:
    for combination in present():
        for seed in (1, 2):
            yield Case(combination.name, "plain", 0, seed, True)
        for condition, traits in HARD.items():
            if traits <= combination.traits and condition not in SAME_BEFORE:
                yield Case(combination.name, condition, 0, 1, True)


def faulty_cases() -> Iterator[Case]:
    for name in TESTED:
        for combination in present():
            if any(traits <= combination.traits for traits in FAULTS[name].traits):
                for strength in range(3):
                    yield Case(combination.name, name, strength, 1, False)


def alarms(case: Case) -> Row:
    """The warnings and errors of a case before its first step."""
    fault = None if case.is_healthy else FAULTS[case.condition]
    strength = fault.strengths[case.strength] if fault else 0.0
    loss = fault.loss(strength) if fault and fault.loss else None
    if case.condition == "own_loss":
        loss = own_loss()
    with contextlib.ExitStack() as stack:
        if fault and fault.patch:
            stack.enter_context(fault.patch(strength))
        made = alarms_of(case.name, recipe_of_case(case, fault, {}), loss)
    return {"condition": case.condition, "strength": case.strength, **made}


def alarms_of(name: str, recipe: Recipe, loss: Any = None) -> Row:
    try:
        made = tests_of(recipe, loss)
    except EtudeError as error:
        made = Audit(left_out={"refused": str(error)[:200]})
    alarms, infos = (
        [f"{each.kind}: {each.evidence}" for each in made.findings if (each.severity == "info") is flag]
        for flag in (False, True)
    )
    print(name, "|", "; ".join(alarms) or "no alarm", "|", "; ".join(infos), made.left_out or "", flush=True)
    return {"name": name, "alarms": alarms, "infos": infos, "left_out": made.left_out}


def tests_of(recipe: Recipe, loss: Any = None) -> Audit:
    given = Options(loss=loss)
    plan = make_plan(recipe, own=given.own)
    state, new_weights = assemble(plan, given, World(plan.device))
    return audit(plan, state, given.own, is_fresh=plan.pretrained is None if not new_weights else None)


def counts(cases: list[Row], fault: Fault) -> tuple[str, str, str]:
    """Cases of a fault that were named, by strength; by its own kind; and alarms with other kinds."""

    def share(kinds: set[str], strength: int) -> str:
        mine = [each for each in cases if each["strength"] == strength]
        return (
            f"{sum(any(kind_of(said) in kinds for said in each['alarms']) for each in mine)} of {len(mine)}"
        )

    others = {kind_of(said) for each in cases for said in each["alarms"]} - fault.kinds - fault.named
    named, own = (
        ", ".join(share(kinds, strength) for strength in range(3)) for kinds in (fault.kinds, fault.named)
    )
    return named, own, ", ".join(sorted(others)) or "none"


def kind_of(said: str) -> str:
    return said.partition(":")[0]


def real_data() -> Iterator[tuple[str, Recipe]]:
    """The real data sets in the kinds of training that they have fields for, on a small model from scratch."""
    pair, question = (
        {"field": "source", "target": "target"},
        {"field": "query", "pair": "code", "label": "label"},
    )
    comment = {"field": "text", "label": "labels"}
    for name, objective, file, fields in (
        ("alpaca", "causal", "codealpaca/codealpaca_new.jsonl", {}),
        ("alpaca_2k", "causal", "codealpaca/codealpaca_2k.jsonl", {}),
        ("shakespeare", "causal", "tinyshakespeare/input.txt", {}),
        ("mbpp", "causal", "mbpp/mbpp.jsonl", {"field": "code"}),
        ("java_text", "causal", "java_to_cs/train.jsonl", {"field": "target"}),
        ("shakespeare", "masked", "tinyshakespeare/input.txt", {}),
        ("sven_code", "masked", "vuln_sven/train.jsonl", {"field": "code"}),
        ("comments", "classification", "comment_types_python/train.jsonl", comment),
        ("sven", "classification", "vuln_sven/train.jsonl", {"field": "code", "label": "label"}),
        ("cosqa", "classification", "cosqa_dev/train.jsonl", question),
        ("java", "seq2seq", "java_to_cs/train.jsonl", pair),
        ("refine", "seq2seq", "refine_small/train.jsonl", pair),
        ("concode", "seq2seq", "concode_dev/train.jsonl", pair),
    ):
        if not file.startswith("/") and not (DATA / file).exists():
            continue
        for seq_len in (64, 512):
            for changes in ({}, {"data.sample": "document"}) if objective == "causal" else ({},):
                yield (
                    f"{name}-{objective}-{seq_len}{'-apart' if changes else ''}",
                    real_recipe(objective, str(DATA / file), fields, seq_len, bool(changes)),
                )


def real_recipe(objective: str, path: str, fields: dict[str, str], seq_len: int, is_apart: bool) -> Recipe:
    kind = {"causal": "decoder", "seq2seq": "encoder-decoder"}.get(objective, "encoder")
    sources: dict[str, Any] = {"train": [{"path": path, **fields}]}
    held = Path(path).parent / "valid.jsonl"
    if held.exists():
        sources["validation"] = [{"path": str(held), **fields}]
    if is_apart:
        sources["sample"] = "document"
    train = {"objective": objective, "steps": 10, "seq_len": seq_len, "global_batch_size": 8, "device": "cpu"}
    return recipe_from({
        "name": "real", "model": {"kind": kind, "n_layer": 1, "n_head": 2, "n_embd": 16},
        "tokenizer": {"from": str(pretrained("decoder" if kind == "decoder" else kind))},
        "data": {**sources, "leakage": {"action": "report"}},
        "train": {**train, "micro_batch_size": 8, "precision": "fp32"}, "optim": {"learning_rate": 1e-3},
    })  # fmt: skip


if __name__ == "__main__":
    if not COMBINATIONS or not present():
        raise SystemExit("no data set of the benchmark is on this machine; see shared/data beside the code")
    with quick():
        main()
