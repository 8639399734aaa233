"""Names of figures."""

import pytest

from etude.watch.logs.names import is_of_evaluation, meaning_of

NAMES = {
    "loss": ["loss", "train_loss", "train/loss", "training_loss", "Training Loss", "Loss/train", "trainLoss", "lm loss",
             "tr_loss", "ce_loss", "train/ce_loss", "nll_loss", "cross_entropy", "loss_step", "train_loss_epoch",
             "running_loss", "metrics/train/CrossEntropy", "losses/total_loss"],
    "eval_loss": ["eval_loss", "val_loss", "valid_loss", "validation/loss", "Validation Loss", "valLoss", "dev loss",
                  "test_loss", "loss/val", "val_loss_epoch", "val_loss/dataloader_idx_0", "eval_code_loss",
                  "validation_nll"],
    "learning_rate": ["lr", "learning_rate", "train/lr", "learning rate", "lr-AdamW", "lr-AdamW/pg1", "lr/group_0"],
    "grad_norm": ["grad_norm", "train/grad_norm", "gradient_norm", "gnorm", "grad norm", "grad_2.0_norm_total",
                  "total_grad_norm", "global_grad_norm", "grad_norm/total", "norm"],
    "step": ["step", "Step", "global_step", "train/global_step", "trainer/global_step", "iter", "iteration", "_step",
             "num_updates", "current_steps"],
    "epoch": ["epoch", "train/epoch", "Epoch"],
    "tokens_per_second": ["tokens_per_second", "tokens/s", "tok/s", "train/tokens_per_second", "tps", "tok/sec"],
    "seconds": ["step_time", "iter_time", "dt_ms", "elapsed time per iteration (ms)", "seconds"],
    "loss_scale": ["loss_scale", "loss scale", "grad_scale"],
    "memory_bytes": ["memory_gb", "gpu_mem_gib", "rss_bytes"],
    "metric": ["eval_accuracy", "val_acc", "validation/f1", "eval/rouge_l", "val_ppl"],
    "summary": ["train_runtime", "train/train_runtime"],
}  # fmt: skip
NOTHING = [
    "kl_loss", "aux_loss", "loss_fn", "max_grad_norm", "grad_norm_layer_3", "lr-AdamW-momentum", "weight_decay", "eval_runtime",
    "eval_samples_per_second", "val_steps", "accuracy", "memory", "max_memory_gb", "gpu_mem_peak_gb", "note", "", "test_accuracy",
    "weight_norm", "train_val_gap", "batch_size", "lr_multiplier",
]  # fmt: skip


@pytest.mark.parametrize(
    ("figure", "name"), [(figure, name) for figure, names in NAMES.items() for name in names]
)
def test_a_usual_name_stands_for_its_figure(figure: str, name: str) -> None:
    meaning = meaning_of(name)
    assert meaning is not None and meaning.figure == figure


@pytest.mark.parametrize("name", NOTHING)
def test_a_name_of_something_else_stands_for_nothing(name: str) -> None:
    assert meaning_of(name) is None


def test_units_are_in_the_scale_and_metrics_have_their_names_without_the_split() -> None:
    gib, milliseconds, f1 = meaning_of("gpu_mem_gib"), meaning_of("dt_ms"), meaning_of("validation/f1")
    assert gib and milliseconds and f1
    assert (gib.scale, milliseconds.scale, f1.metric) == (2**30, 1e-3, "f1")


def test_words_for_an_evaluation_are_known() -> None:
    assert all(map(is_of_evaluation, ["val", "Evaluation", "dev set"])) and not is_of_evaluation("train")
