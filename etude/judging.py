"""Runs and models of folders, judged by the code they write: `etude evaluate RUN --on FILE --k 1,10`."""

from collections.abc import Sequence
from pathlib import Path

import torch

from etude.engine.device import choose_device
from etude.engine.precision import choose_precision, has_native_bf16
from etude.errors import InputError
from etude.evaluate.execute import Exercise, check_solutions, judge, read_exercises
from etude.evaluate.sandbox import Sandbox
from etude.evaluate.solve import write_programs
from etude.evaluate.verdicts import Limits
from etude.export import find_end_ids, find_folder, load_model, open_chat, stored_dtype
from etude.models.families.table import family_of
from etude.models.parts import head_modules
from etude.records.store import Run
from etude.report.judged import Executed, ExecutedSystem, Sampled


def judge_models(
    given: Sequence[str], file: Path, sampled: Sampled, *, runs: Path = Path("runs"), is_unsafe: bool = False
) -> Executed:
    """Let models solve the problems of a file, and run what they write against its tests.

    Raises: InputError if there is no such model or file, it holds no problems, or nothing confines samples.
    """
    exercises = read_exercises(file)
    with Sandbox(limits=Limits(cpu_seconds=sampled.cpu_seconds), is_unsafe=is_unsafe) as sandbox:
        systems = []
        for name in given:
            samples = _write(name, exercises, sampled, runs)
            systems.append(ExecutedSystem(name, judge(sandbox, exercises, samples)))
        return Executed(str(file), systems, sampled, str(sandbox.tier), check_solutions(sandbox, exercises))


def _write(name: str, exercises: Sequence[Exercise], sampled: Sampled, runs: Path) -> list[list[str]]:
    """The samples of a model for each exercise."""
    folder, device = find_folder(name, runs), choose_device("auto")
    run = Run(folder.parent.parent)
    halves = {torch.bfloat16: "bf16", torch.float16: "fp16"} if has_native_bf16(device) else {}
    precision = choose_precision(halves.get(stored_dtype(folder), "fp32"), device, targets_per_step=1)
    model = load_model(folder, dtype=precision.dtype).to(device)
    if head_modules(model) or family_of(model).has_source:
        raise InputError(f"{name} is no model that goes on with text; give a causal one to write code")
    system = run.recipe.data.system if (run.path / "run.json").is_file() else None
    chat = open_chat(folder, system=system)
    ends = find_end_ids(folder, chat, is_chat=sampled.instruction)
    with precision.autocast():
        return write_programs(model, chat.tokenizer, chat, exercises, sampled, end_ids=ends)
