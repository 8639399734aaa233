"""`etude average`: the mean of the weights of several checkpoints, measured, and kept unless it is worse.

Source: arXiv:2203.05482 (soups of runs, greedy ones too).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from etude import durable
from etude.engine import checkpoint as checkpoints
from etude.engine.device import choose_device
from etude.engine.tensor_files import read_tensors, safetensors
from etude.errors import FaultError, InputError
from etude.export import export, load_model, require_new
from etude.models.lora import ADAPTER_FILE
from etude.objectives.kind import Measured
from etude.quantize.scoring import Examiner, compare
from etude.recipe.load import flatten
from etude.recipe.metric import ChosenMetric
from etude.records.folder import list_checkpoints
from etude.records.store import Run, open_run
from etude.report.averaged import Averaged
from etude.report.card import model_card
from etude.report.history import read_history
from etude.start import find_weights, split_choice

_FREE = ("name", "seed")  # keys in which runs of one recipe may differ, beside those of what is recorded
_FREE_SECTIONS = ("records.", "notify.", "checkpoint.")
_MODEL = ("model.", "tokenizer.", "adapter.", "train.objective", "data.")

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Member:
    """A checkpoint of a run, by the name that commands take."""

    run: Run
    folder: Path

    @property
    def name(self) -> str:
        return f"{self.run.name}@{self.folder.name}"


def average(
    given: Sequence[str],
    out: Path,
    *,
    last: int | None = None,
    greedy: bool = False,
    runs: Path = Path("runs"),
) -> Averaged:
    """Write the mean of the weights of the last checkpoints of a run, or of a checkpoint of each of several.

    An adapter is merged into its base before. Each member and the mean, read back, are measured on the
    validation samples. greedy: members are taken from the best on, each only if the mean does not get worse.

    Raises: InputError if there are fewer than two, runs differ in more than their seed (with greedy: in model
    or data), or tensors differ in shape; FaultError if the mean is worse than the best member beyond the
    noise of the rows.
    """
    members = _last_of(given, last, runs) if last is not None else _each_of(given, runs)
    require_new(out := out.absolute())
    _require_alike(members, greedy=greedy)
    examiner = Examiner(members[0].run, choose_device("auto"))
    with durable.new_folder(out) as hidden:
        soup = _Soup(examiner, members)
        used = soup.choose_greedily() if greedy else list(range(len(members)))
        mean = soup.mean(used)
        best = members[soup.order[0]]
        kind = "merged" if (best.folder / ADAPTER_FILE).is_file() else "hf"
        whole = export(f"{best.run.path}@{best.folder.name}", kind, hidden / "whole", runs=runs)
        _write(hidden, whole, mean)
        durable.remove_folder(whole)
        measured = examiner.measure(soup.load(hidden))
        figures = compare(soup.measured[soup.order[0]], measured)
        parts = measured.score.parts
        result = Averaged(
            members={member.name: soup.value(at) for at, member in enumerate(members)},
            used=tuple(members[at].name for at in used), best=best.name, figure=soup.figure, figures=figures,
            samples=len(parts if parts is not None else ()), is_greedy=greedy,
        )  # fmt: skip
        if result.helps is False:
            raise FaultError(
                f"the mean is {result.verdict}; nothing is written: give --greedy, or checkpoints nearer to "
                "each other, as of one run or of runs from the same pretrained weights"
            )
        card = model_card(best.run, best.folder.name, kind, result)
        durable.write_file(hidden / "README.md", card.encode())
    return result


class _Soup:
    """Members, measured one after another; `order` is from the best to the worst by `figure`."""

    def __init__(self, examiner: Examiner, members: Sequence[Member]) -> None:
        self._examiner, self._members = examiner, members
        self._shapes: dict[str, tuple[int, ...]] = {}
        self.measured: list[Measured] = []
        for member in members:
            model = self.load(member.folder)
            self._check_shapes(member, self._weights(model))
            self.measured.append(examiner.measure(model))
        self.figure = ChosenMetric.parse(examiner.recipe.evaluate.metric).name
        first = compare(self.measured[0], self.measured[0])
        if self.figure not in first or first[self.figure].difference is None:
            self.figure = "loss"
        self._sign = ChosenMetric.parse(self.figure).sign
        self.order = sorted(range(len(members)), key=lambda at: -self._sign * self.value(at))

    def load(self, folder: Path) -> nn.Module:
        """The model of a folder in fp32."""
        model = load_model(folder, dtype=torch.float32, objective=self._examiner.recipe.untold_objective)
        return model.to(self._examiner.world.device)

    def value(self, at: int) -> float:
        """The deciding figure of a member."""
        return self.measured[at].with_intervals()[self.figure][0]

    def mean(self, places: Sequence[int]) -> Weights:
        """The mean of the weights of members, in fp32 on the CPU; integers are those of the first."""
        mean: Weights = {}
        for count, place in enumerate(places, 1):
            for name, tensor in self._weights(self.load(self._members[place].folder)).items():
                if count == 1:
                    mean[name] = tensor.detach().cpu().clone()
                elif tensor.is_floating_point():
                    mean[name] += (tensor.detach().cpu() - mean[name]) / count
        return mean

    def choose_greedily(self) -> list[int]:
        """Members from the best on, each kept if the deciding figure of the mean does not get worse by it."""
        used, best = [self.order[0]], self.value(self.order[0])
        model = self.load(self._members[used[0]].folder)
        places = self._weights(model)
        for place in self.order[1:]:
            mean = self.mean([*used, place])
            with torch.no_grad():
                for name, tensor in places.items():
                    tensor.copy_(mean[name])
            value = self._examiner.measure(model).with_intervals()[self.figure][0]
            if self._sign * (value - best) >= 0:
                used, best = [*used, place], value
        return used

    def _weights(self, model: nn.Module) -> Weights:
        return checkpoints.trained_tensors(model)[1]

    def _check_shapes(self, member: Member, weights: Weights) -> None:
        shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        self._shapes = self._shapes or shapes
        for name in self._shapes.keys() | shapes.keys():
            one, other = self._shapes.get(name), shapes.get(name)
            if one != other:
                first = self._members[0].name
                wrong = f"{name} is {one or 'not'} in {first} and {other or 'not'} in {member.name}"
                raise InputError(f"{wrong}; average models of the same sizes")


def _last_of(given: Sequence[str], last: int, runs: Path) -> list[Member]:
    """The newest checkpoints of a run. Raises: InputError if it keeps fewer."""
    if len(given) > 1 or split_choice(given[0])[1] != "best" or "@" in given[0]:
        raise InputError("--last is for the checkpoints of one run; give RUN alone, or leave --last out")
    if last < 2:
        raise InputError(f"--last is {last}; a mean takes 2 checkpoints or more")
    run = open_run(given[0], runs)
    found = list_checkpoints(run.path / "checkpoints")
    if len(found) < last:
        raise InputError(
            f"run {run.name} has {len(found)} checkpoints, and --last asks for {last}; give fewer, or train "
            "with a larger checkpoint.keep"
        )
    return [Member(run, folder) for folder in found[-last:]]


def _each_of(given: Sequence[str], runs: Path) -> list[Member]:
    """One checkpoint of each run. Raises: InputError if there are fewer than two, or one comes twice."""
    members = [
        Member(open_run(split_choice(each)[0], runs), find_weights(each, runs).parent) for each in given
    ]
    if len(members) < 2:
        raise InputError("a mean takes two runs or more; give --last 5 for the checkpoints of one run")
    names = [member.name for member in members]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"{twice} is given twice; give each checkpoint once")
    return members


def _require_alike(members: Sequence[Member], *, greedy: bool) -> None:
    """Raises: InputError if a checkpoint is damaged, or runs differ in what makes their mean mean nothing."""
    first = members[0]
    for member in members:
        checkpoints.verify_checkpoint(member.folder, member.run.info["id"])
        if member.run.path == first.run.path:
            continue
        for what, mine, theirs in _differing(first.run, member.run, greedy=greedy):
            advice = "" if greedy else ", or give --greedy for runs that differ in how they were trained"
            raise InputError(
                f"{member.run.name} and {first.run.name} differ in {what} ({theirs} and {mine}); average "
                f"runs of one recipe that differ in their seed{advice}"
            )


def _differing(first: Run, other: Run, *, greedy: bool) -> Iterator[tuple[str, Any, Any]]:
    """Each difference of two runs: its name and both values."""
    for key, name in (("data_fingerprint", "their data"), ("base", "their base")):
        mine, theirs = (run.environment.get(key) for run in (first, other))
        if isinstance(mine, dict) and isinstance(theirs, dict):
            mine, theirs = mine.get("sha256"), theirs.get("sha256")
        if mine != theirs:
            yield name, str(mine)[:12], str(theirs)[:12]
    one, two = (flatten(run.recipe.to_dict()) for run in (first, other))
    for key in sorted(one.keys() | two.keys()):
        is_free = key in _FREE or key.startswith(_FREE_SECTIONS) or (greedy and not key.startswith(_MODEL))
        if one.get(key) != two.get(key) and not is_free:
            yield key, one.get(key), two.get(key)
    if not greedy:
        changes = [read_history(run).changes for run in (first, other)]
        if changes[0] != changes[1]:
            yield "the changes made while they ran", len(changes[0]), len(changes[1])


def _write(hidden: Path, whole: Path, mean: Weights) -> None:
    """Write the files of an exported member with the mean for its weights, each in its dtype there."""
    stored = read_tensors(whole / checkpoints.MODEL_FILE)
    tensors = {name: mean[name].to(tensor.dtype) for name, tensor in stored.items()}
    for path in whole.iterdir():
        if path.name not in (checkpoints.MODEL_FILE, "README.md"):
            durable.write_file(durable.inside(hidden, path.name), [path.read_bytes()])
    durable.write_file(hidden / checkpoints.MODEL_FILE, safetensors(tensors))
