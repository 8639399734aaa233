"""Names of figures in logs, and the figure that each stands for."""

import re
from functools import lru_cache
from typing import NamedTuple

_EVAL = {"eval", "evaluation", "val", "valid", "validation", "dev", "test", "heldout", "holdout"}
_TRAIN = {"train", "training", "tr", "trainer"}
_NO_MEANING = {
    "metrics",
    "logs",
    "log",
    "scalars",
    "charts",
    "losses",
    "stats",
    "dataloader",
    "idx",
    "value",
    "optim",
    "optimizer",
    "throughput",
    "device",
}
_LOSS = {"loss", "nll", "xent", "crossentropy"}
_OF_LOSS = {
    "lm", "ce", "nll", "cross", "entropy", "token", "total", "avg", "average", "mean", "running", "smooth",
    "smoothed", "ema", "batch", "step", "epoch", "raw", "main", "sft", "mlm", "clm", "per", "tokens", "last",
}  # fmt: skip
_SMOOTHED = {"avg", "average", "mean", "running", "smooth", "smoothed", "ema"}
_OF_NORM = {"grad", "gradient", "gradients", "norm", "global", "total", "l2", "2", "0", "preclip", "pre"}
_OF_NORM |= {"before", "clip", "clipping", "unclipped", "avg", "average", "mean", "all"}
_NOT_A_RATE = {"momentum", "weight", "decay", "multiplier", "mult", "scale", "ratio", "factor", "beta"}
_PEAK = {"max", "peak", "reserved", "highest", "limit"}
# Names of an evaluation that are no metric of it.
_NO_METRIC = {
    "runtime", "time", "seconds", "second", "sec", "steps", "step", "samples", "preparation", "epoch", "iter",
    "tokens", "batch", "size", "count", "num", "n", "lr",
}  # fmt: skip
_STEPS = (
    "global_step", "trainer_global_step", "train_global_step", "current_steps", "current_step", "step",
    "steps", "train_step", "training_step", "train_steps", "optimizer_step", "iteration", "iterations",
    "iter", "iters", "it", "num_updates", "update", "updates", "ba", "batch", "batches",
)  # fmt: skip
_EXACT = {
    **{name: ("step", place) for place, name in enumerate(_STEPS)},
    **dict.fromkeys(("epoch", "epochs", "train_epoch", "current_epoch", "ep"), ("epoch", 0)),
    **dict.fromkeys(("max_steps", "total_steps"), ("steps", 0)),
    "steps_per_epoch": ("epoch_steps", 0),
    **dict.fromkeys(("num_train_epochs", "total_epochs", "max_epochs"), ("epochs", 0)),
    **dict.fromkeys(("loss_scale", "grad_scale", "amp_scale", "scaler_scale"), ("loss_scale", 0)),
    **dict.fromkeys(("tokens_per_second", "tokens_per_sec", "tok_per_sec", "tokens_s", "tok_s", "tokens_sec",
                     "tok_sec", "tokens_per_second_per_gpu", "tps", "wps", "tokens_second"),
                    ("tokens_per_second", 0)),
    **dict.fromkeys(("step_time", "iter_time", "step_seconds", "seconds_per_step", "time_per_step", "step_s",
                     "iteration_time", "batch_time", "seconds", "sec_per_step", "time_per_iteration"),
                    ("seconds", 0)),
    **dict.fromkeys(("step_ms", "step_time_ms", "ms_per_step", "dt_ms", "iter_time_ms",
                     "elapsed_time_per_iteration_ms", "ms"), ("milliseconds", 0)),
    **dict.fromkeys(("data_time", "wait_seconds", "data_wait", "data_seconds", "dataloader_time"),
                    ("wait_seconds", 0)),
    **dict.fromkeys(("gnorm", "norm"), ("grad_norm", 1)),
    **dict.fromkeys(("total_norm",), ("grad_norm", 2)),
    "skipped": ("skipped", 0), "number_of_skipped_iterations": ("skipped", 1),
    "update_ratio": ("update_ratio", 0),
    "rank": ("rank", 0), "local_rank": ("rank", 1), "global_rank": ("rank", 0), "process_index": ("rank", 0),
}  # fmt: skip
_BYTES = {"bytes": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_MEMORY = {"memory", "mem", "rss", "vram", "allocated"}


class Meaning(NamedTuple):
    """The figure that a name stands for: a field of `Point`, or another word of this package.

    rank   of the name among those for the same figure, the best first
    scale  from its unit to that of the field
    metric  name of a metric of an evaluation
    """

    figure: str
    rank: int = 0
    scale: float = 1.0
    metric: str = ""


@lru_cache(maxsize=4096)
def words_of(name: str) -> tuple[str, ...]:
    """The words of a name: `train/lossStep` is train, loss, step."""
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name[:200])
    return tuple(re.findall(r"[a-z0-9]+", spaced.replace("tok/s", "tok_s").lower()))


@lru_cache(maxsize=4096)
def meaning_of(name: str) -> Meaning | None:
    """The figure that a name stands for; None if it is none that a watch reads."""
    words = words_of(name)
    joined = "_".join(words)
    if name == "_step":  # W&B's own count of rows
        return Meaning("step", len(_STEPS))
    plain = [word for word in words if word not in _NO_MEANING and word not in _TRAIN]
    for known in (joined, "_".join(plain)):
        if known in _EXACT:
            figure, rank = _EXACT[known]
            return Meaning("seconds", 1, 1e-3) if figure == "milliseconds" else Meaning(figure, rank)
    if plain == ["runtime"] and set(words) & _TRAIN:
        return Meaning("summary")
    if set(words) & _EVAL:
        return _of_evaluation([word for word in words if word not in _NO_MEANING])
    return _of_training(plain)


def is_of_evaluation(text: str) -> bool:
    """True for a name, or a short text, with a word for an evaluation."""
    return bool(set(words_of(text)) & _EVAL)


def is_of_training(text: str) -> bool:
    """True for a name with a word for training."""
    return bool(set(words_of(text)) & _TRAIN)


def _of_training(plain: list[str]) -> Meaning | None:
    words = set(plain)
    if _is_loss(plain):
        return Meaning("loss", 2 * ("epoch" in words) + bool(words & _SMOOTHED))
    if words & {"grad", "gradient", "gradients"} and "norm" in words and words <= _OF_NORM:
        return Meaning("grad_norm", int(bool(words & {"avg", "average", "mean"})))
    if ("lr" in words or {"learning", "rate"} <= words) and not words & _NOT_A_RATE:
        others = len(words - {"lr", "learning", "rate"})
        return Meaning("learning_rate", others)
    if words & _MEMORY and not words & _PEAK:
        unit = next((_BYTES[word] for word in plain if word in _BYTES), None)
        return Meaning("memory_bytes", 0, unit) if unit else None
    return None


def _of_evaluation(words: list[str]) -> Meaning | None:
    rest = [word for word in words if word not in _EVAL]
    is_test = int("test" in words and not set(words) & (_EVAL - {"test"}))
    if set(rest) & _TRAIN:
        return None
    if _is_loss(rest):
        return Meaning("eval_loss", 4 * is_test + 2 * ("step" in rest) + ("average" in rest))
    if rest and rest[-1] == "loss" and words[0] in _EVAL:  # of one of several validation sets
        return Meaning("eval_loss", 8)
    if not rest or set(rest) & _NO_METRIC or is_test:
        return None
    return Meaning("metric", 0, 1.0, "_".join(rest))


def _is_loss(words: list[str]) -> bool:
    found = set(words)
    named = found & _LOSS or {"cross", "entropy"} <= found
    return bool(named) and found <= _LOSS | _OF_LOSS | {"0", "1"}
