"""The watch in the loops of docs/watch-anywhere.md: one's own, transformers', Lightning's."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from etude.watch import Watcher

PAGE = (Path(__file__).parents[2] / "docs" / "watch-anywhere.md").read_text("utf-8")


def program(word: str) -> str:
    (block,) = [each for each in re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S) if word in each]
    return str(block)


def kinds(watcher: Watcher) -> set[str]:
    return {finding.kind for finding in watcher.findings}


def test_the_loop_of_the_page_runs_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    steps = iter(range(1, 2000))

    def train_one_step() -> tuple[float, float]:
        step = next(steps)
        return (float("nan") if step == 700 else 3.0 + 1 / step), 1.0

    names: dict[str, Any] = {"train_one_step": train_one_step}
    exec(program("train_one_step"), names)
    assert "step 700: a figure is not finite" in capsys.readouterr().out


def test_a_callback_of_transformers_sees_what_its_trainer_logs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("accelerate", reason="the trainer of transformers needs accelerate")
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

    names: dict[str, Any] = {}
    exec(program("TrainerCallback"), names)
    torch.manual_seed(17)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=16, n_layer=1, n_head=2, n_positions=16))
    rows = [{"input_ids": row, "labels": row} for row in torch.randint(0, 32, (16, 12))]

    def train(callback: Any, steps: int, **options: Any) -> Any:
        args = TrainingArguments(
            output_dir=str(tmp_path), max_steps=steps, logging_steps=1, per_device_train_batch_size=4,
            eval_strategy="steps", eval_steps=3, use_cpu=True, report_to=[], disable_tqdm=True,
            logging_nan_inf_filter=False, save_strategy="no", **options,
        )  # fmt: skip
        trainer = Trainer(
            model=model, args=args, train_dataset=rows, eval_dataset=rows[:4], callbacks=[callback]
        )
        trainer.train()
        return trainer

    watch = names["Watch"]()
    trainer = train(watch, 6)
    history = trainer.state.log_history
    points = watch.watcher._points
    assert [point.loss for point in points if point.loss is not None] == [
        row["loss"] for row in history if "loss" in row
    ]
    held = [point for point in points if point.eval_loss is not None]
    assert [(point.step, point.eval_loss) for point in held] == [
        (row["step"], row["eval_loss"]) for row in history if "eval_loss" in row
    ]
    assert all(
        point.grad_norm and point.learning_rate is not None and point.epoch for point in points if point.loss
    )
    assert "non_finite" not in kinds(watch.watcher)
    with torch.no_grad():
        model.transformer.wte.weight[:] = float("nan")
    capsys.readouterr()
    broken = train(names["Watch"](), 6)
    assert "step 1: a figure is not finite" in capsys.readouterr().out and broken.state.global_step == 1


@pytest.mark.skipif(importlib.util.find_spec("lightning") is None, reason="lightning is not installed")
def test_a_callback_of_lightning_sees_the_losses_of_its_trainer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import lightning

    class Model(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)
            self.broken_from = 10**9

        def loss(self, batch: Any) -> Any:
            return self.layer(batch[0]).square().mean()

        def training_step(self, batch: Any, index: int) -> Any:
            return self.loss(batch) * (float("nan") if self.global_step >= self.broken_from else 1.0)

        def validation_step(self, batch: Any, index: int) -> None:
            self.log("val_loss", self.loss(batch))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    names: dict[str, Any] = {}
    exec(program("lightning.Callback"), names)
    torch.manual_seed(17)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(40, 4)), batch_size=4)

    def train(model: Model) -> Any:
        watch = names["Watch"]()
        trainer = lightning.Trainer(
            max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, log_every_n_steps=5,
            enable_progress_bar=False, enable_model_summary=False, callbacks=[watch], default_root_dir=str(tmp_path),
        )  # fmt: skip
        trainer.fit(model, loader, loader)
        return watch.watcher

    watcher = train(Model())
    points = watcher._points
    assert [point.step for point in points if point.loss is not None] == [5, 10, 15, 20]
    assert [point.step for point in points if point.eval_loss is not None] == [
        10,
        20,
    ] and "non_finite" not in kinds(watcher)
    model = Model()
    model.broken_from = 7
    capsys.readouterr()
    assert (
        "non_finite" in kinds(train(model)) and "step 10: a figure is not finite" in capsys.readouterr().out
    )
