"""Models judged by the code that they wrote, beside each other, as `etude evaluate --k` shows them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from etude.errors import InputError
from etude.records.events import plain
from etude.report.columns import Row, lay_out, wrap
from etude.report.wording import with_interval
from etude.scores.pass_at_k import difference, figure
from etude.text import one_line, plural

_MOST_TEMPERATURE, _MOST_SAMPLES = 100, 10_000
_NAMED = 5  # problems of a list in a sentence


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """The way in which samples are drawn. Raises: InputError if a value is out of its range.

    ks           of pass@k
    samples      of each problem
    temperature  0 takes the likeliest token, for one sample of each problem
    instruction  whether its chat template asks the model
    cpu_seconds  that a sample may compute
    """

    ks: tuple[int, ...] = (1,)
    samples: int = 1
    temperature: float = 0.8
    top_p: float | None = 0.95
    max_tokens: int = 512
    seed: int = 17
    instruction: bool = False
    cpu_seconds: int = 10

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= _MOST_TEMPERATURE:  # not, so that NaN is none
            raise InputError(
                f"--temperature is {self.temperature}; expected 0 to {_MOST_TEMPERATURE}; try 0.8"
            )
        if not 1 <= self.samples <= _MOST_SAMPLES:
            raise InputError(f"--samples is {self.samples:,}; expected 1 to {_MOST_SAMPLES:,}; try 20")
        if not self.ks or min(self.ks) < 1 or max(self.ks) > self.samples:
            wrong = f"--k {','.join(map(str, self.ks))} with --samples {self.samples}"
            most = max((20, *self.ks))
            raise InputError(f"{wrong}: pass@k needs k from 1 to the number of samples; try --samples {most}")
        if self.samples > 1 and self.temperature == 0:
            raise InputError("--temperature 0 writes one and the same sample; give --samples 1, or 0.8")


@dataclass(frozen=True)
class ExecutedSystem:
    """A model, and the verdicts on its samples of each problem."""

    name: str
    judged: Sequence[Any]

    @property
    def counts(self) -> list[tuple[int, int]]:
        """Samples and passed ones of each problem."""
        return [each.counts for each in self.judged]


@dataclass(frozen=True)
class Executed:
    """Systems on the problems of one file; the first is what the others are held against.

    tier      confinement of the samples
    unsolved  problems whose own solution does not pass here
    """

    file: str
    systems: list[ExecutedSystem]
    sampled: Sampled
    tier: str
    unsolved: list[str]

    def to_dict(self, *, with_samples: bool = False) -> dict[str, Any]:
        """Plain values for JSON. with_samples: the programs and their verdicts too."""
        first = self.systems[0]
        return {
            "file": self.file, "problems": len(first.judged), "sandbox": self.tier, **asdict(self.sampled),
            "own_solution_fails": self.unsolved, "baseline": first.name,
            "systems": [
                {
                    "name": system.name,
                    "figures": {name: plain(list(value)) for name, value in self._figures(system).items()},
                    "against_baseline": {} if system is first else {
                        f"pass@{k}": plain([gain.value, gain.low, gain.high])
                        for k in self.sampled.ks
                        for gain in [difference(system.counts, first.counts, k)]
                    },
                    "outcomes": dict(_outcomes(system)),
                    "unsteady": _names(system, lambda each: each.unsteady),
                    "by_problem": [_to_dict(each, with_samples=with_samples) for each in system.judged],
                }
                for system in self.systems
            ],
        }  # fmt: skip

    def lines(self, width: int) -> list[str]:
        """The result in words, and a table of pass@k and outcomes."""
        count = len(self.systems[0].judged)
        lines = [line for sentence in self._sentences() for line in wrap(sentence, width)]
        rows = [Row("", [system.name for system in self.systems], is_text=True)]
        for name in (f"pass@{k}" for k in self.sampled.ks):
            values = [self._figures(system)[name] for system in self.systems]
            rows.append(Row(name, [with_interval(*value, rows=count) for value in values]))
        counted = [_outcomes(system) for system in self.systems]
        for outcome in dict.fromkeys(name for each in counted for name in each):
            rows.append(Row(outcome, [f"{each[outcome]:,}" for each in counted]))
        return [*lines, "", *lay_out(rows, width)]

    def _sentences(self) -> list[str]:
        first, *others = self.systems
        of = f"{plural(self.sampled.samples, 'sample')} of each of {plural(len(first.judged), 'problem')}"
        k = self.sampled.ks[0]
        sentences = []
        for system in others:
            gain = difference(system.counts, first.counts, k)
            sure = "within the noise" if gain.is_noise else "beyond the noise"
            bounds = f"[{gain.low:+.3f}, {gain.high:+.3f}]"
            what = f"pass@{k} of {system.name} less {first.name}"
            sentences.append(f"{what}: {gain.value:+.3f} {bounds}, {sure}.")
        sentences.append(f"{of}, run in a sandbox of {self.tier}; intervals of 95 % are over problems.")
        if self.unsolved:
            some = ", ".join(map(one_line, self.unsolved[:_NAMED]))
            of_whom = plural(len(self.unsolved), "problem")
            sentences.append(f"The own solution of {of_whom} does not pass here: {some}.")
        for system in self.systems:
            if unsteady := _names(system, lambda each: each.unsteady):
                some = ", ".join(map(one_line, unsteady[:_NAMED]))
                sentences.append(f"Samples of {system.name} that ended otherwise when run again: {some}.")
        return sentences

    def _figures(self, system: ExecutedSystem) -> dict[str, tuple[float, float, float]]:
        return {f"pass@{k}": figure(system.counts, k) for k in self.sampled.ks}


def _outcomes(system: ExecutedSystem) -> Counter[str]:
    return Counter(verdict.outcome for each in system.judged for verdict in each.verdicts)


def _names(system: ExecutedSystem, chosen: Any) -> list[str]:
    return [each.exercise.name for each in system.judged if chosen(each)]


def _to_dict(judged: Any, *, with_samples: bool) -> dict[str, Any]:
    samples, passed = judged.counts
    values = {"task_id": judged.exercise.name, "samples": samples, "passed": passed}
    if with_samples:
        values["programs"] = [
            {"program": program, "outcome": verdict.outcome, "words": verdict.words}
            for program, verdict in zip(judged.samples, judged.verdicts)
        ]
    return values
