"""Formulas over quantities, in several layouts and units: true documents, and each with one figure changed."""

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from etude.verify.quantities import printed
from tests.verify.checked import check, contradicted, verdicts

# Layout: pairs of a label and a figure as a document.
LAYOUTS: dict[str, Callable[[list[tuple[str, str]]], str]] = {
    "items": lambda pairs: "\n".join(f"- {label}: {figure}" for label, figure in pairs),
    "bold items": lambda pairs: "\n".join(f"* **{label}**: {figure}" for label, figure in pairs),
    "table": lambda pairs: (
        "| Quantity | Value |\n|---|---|\n" + "\n".join(f"| {label} | {figure} |" for label, figure in pairs)
    ),
    "row": lambda pairs: (
        "| " + " | ".join(label for label, _ in pairs) + " |\n" + "|---" * len(pairs) + "|\n"
        "| " + " | ".join(figure for _, figure in pairs) + " |"
    ),
}  # fmt: skip
WORDS = {
    "batch": ("Global batch size", "Effective batch size", "global_batch_size"),
    "length": ("Sequence length", "Context length", "seq_len"),
    "steps": ("Total steps", "max_steps", "Training steps"),
    "per_step": ("Tokens per step", "Tokens per update"),
    "time": ("Training time", "Wall-clock time", "Duration"),
    "step_time": ("Step time", "Time per step"),
    "speed": ("Tokens per second", "Throughput (tokens/s)"),
}


@st.composite
def trainings(draw: st.DrawFn) -> tuple[Callable[[list[tuple[str, str]]], str], list[tuple[str, str]]]:
    """A layout, and a training with its derived figures printed in one of several ways."""
    batch, length = draw(st.sampled_from([32, 48, 64, 256])), draw(st.sampled_from([512, 1024, 2048]))
    steps = draw(st.integers(1_001, 90_000))
    seconds = draw(st.integers(11, 60)) / 10
    values = {
        "batch": f"{batch}", "length": draw(st.sampled_from([f"{length}", f"{length:,}"])), "steps": f"{steps:,}",
        "per_step": f"{batch * length:,}", "time": f"{steps * seconds / 3600:.2f} h", "step_time": f"{seconds} s",
        "speed": printed(round(batch * length / seconds)),
    }  # fmt: skip
    pairs = [(draw(st.sampled_from(WORDS[key])), value) for key, value in values.items()]
    return LAYOUTS[draw(st.sampled_from(sorted(LAYOUTS)))], pairs


@given(trainings())
@settings(max_examples=60, deadline=None)
def test_a_true_training_has_no_contradiction_and_one_changed_figure_has(
    training: tuple[Callable[[list[tuple[str, str]]], str], list[tuple[str, str]]],
) -> None:
    layout, pairs = training
    assert contradicted(layout(pairs)) == []
    for at, kind in ((3, "tokens"), (5, "speed"), (6, "speed")):
        label, figure = pairs[at]
        number, _, unit = figure.partition(" ")
        changed = f"{float(number.replace(',', '')) * 1.5:,.{1 if '.' in number else 0}f} {unit}".strip()
        found = check(layout([*pairs[:at], (label, changed), *pairs[at + 1 :]])).contradictions
        assert kind in [each.rule for each in found], (label, changed)


def test_a_rate_of_one_gpu_is_read_as_such() -> None:
    text = "- GPUs: 8\n- Tokens: 36,000,000\n- Training time: 10 h\n- Throughput: {} tokens/s"
    assert contradicted(text.format("1,000")) == contradicted(text.format("125")) == []
    assert contradicted(text.format("500")) == ["tokens/s 500"]


def test_two_values_of_an_operand_settle_nothing() -> None:
    assert verdicts("- alpha: 32\n- LoRA rank: 8\n- LoRA rank: 16\n- LoRA scaling: 9", "LoRA") == []
