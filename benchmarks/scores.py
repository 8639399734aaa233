"""Scores of small models on real tasks, with intervals and beside baselines: `scores/*.toml` on
given data.

A run that is finished is taken as it is; one that is not goes on. Only figures of the runs asked for are
replaced.
"""

import argparse
import json
import sys
import tomllib
from pathlib import Path
from typing import Any

from measure import FOLDER, WORK, versions, write_result

from etude.recipe.load import recipe_from
from etude.records.events import Scores
from etude.records.store import Run, list_runs
from etude.run import run_recipe
from etude.start import Options

CLAIM = "Scores of small models on held-out rows, with bootstrap intervals of 95 %, beside baselines"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with java_to_cs, refine_small, vuln_sven ..."
    )
    parser.add_argument(
        "--encoder", type=Path, help="folder with a small pretrained encoder, for the classifiers"
    )
    parser.add_argument("--only", nargs="+", help="names of files in scores/")
    asked = parser.parse_args()
    names = asked.only or sorted(path.stem for path in (FOLDER / "scores").glob("*.toml"))
    file = FOLDER / "results" / "scores.json"
    result: dict[str, Any] = json.loads(file.read_text())["tasks"] if file.exists() else {}
    for name in names:
        text = (FOLDER / "scores" / f"{name}.toml").read_text()
        text = text.replace("DATA", str(asked.data.resolve())).replace("ENCODER", str(asked.encoder))
        recipe = recipe_from(tomllib.loads(text))
        runs = WORK / "scores"
        found = [
            run for run in list_runs(runs) if run.info["name"] == recipe.name and run.state == "finished"
        ]
        run = found[-1] if found else run_recipe(recipe, Options(runs=runs, recipe_text=text)).run
        result[name] = _describe(run)
    rows = [["task", "system", "metric", "value", "all figures"]]
    for name, told in result.items():
        for system, figures in told["systems"].items():
            others = ", ".join(f"{figure} {_cell(values)}" for figure, values in figures.items())
            rows.append(
                [f"{name} ({told['rows']})", system, told["metric"], _cell(figures[told["metric"]]), others]
            )
    used = versions(Path(sys.executable), ["torch", "scikit-learn", "sacrebleu"])
    write_result("scores", CLAIM, {"tasks": result, "versions": used}, rows)


def _describe(run: Run) -> dict[str, Any]:
    entries = run.ledger().entries
    (scores,) = [entry.event for entry in entries if isinstance(entry.event, Scores)]
    told = {"rows": scores.rows, "split": scores.split, "metric": scores.metric, "notes": scores.notes}
    best = run.best["step"] if run.best else None
    return {
        **told,
        "best_step": best,
        "systems": scores.systems,
        "gains": scores.gains,
        "by": scores.capabilities,
    }


def _cell(values: list[float]) -> str:
    value, low, high = values
    return f"{value:.4g} [{low:.4g}, {high:.4g}]"


if __name__ == "__main__":
    main()
