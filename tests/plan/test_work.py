"""The work of evaluations, told before training and counted as it comes."""

import json
from pathlib import Path

from etude.plan import make_plan
from etude.plan.rows import plan_rows
from etude.plan.work import Work, evaluation_work, final_work, has_baselines
from tests.bases import write_instructions, write_qwen2
from tests.recipes import finetuning


def test_programs_are_told_in_the_plan_and_counted(tmp_path: Path) -> None:
    (tmp_path / "problems.jsonl").write_text(json.dumps({"prompt": "x = 1\n", "tests": "pass"}) * 1)
    base, rows = write_qwen2(tmp_path / "base"), write_instructions(tmp_path / "rows.jsonl")
    execute = {"path": str(tmp_path / "problems.jsonl"), "k": [2], "samples": 20, "max_tokens": 6}
    plan, without = (
        make_plan(finetuning(rows, base, {"evaluate.execute": each})) for each in (execute, None)
    )
    assert "20 samples for each of 1 problem, of up to 6 tokens" in dict(plan_rows(plan))["programs"]
    assert evaluation_work(plan) == evaluation_work(without) + Work(0, 2 * 6, 20)
    assert plan.fingerprint != without.fingerprint
    assert final_work(plan) == final_work(without) and not has_baselines(plan.tasks[0])
