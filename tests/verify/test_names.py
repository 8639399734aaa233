import pytest

from etude.verify.names import name_after, name_before, name_of


@pytest.mark.parametrize(
    ("label", "unit", "name"),
    [
        ("Batch size", "", "batch"), ("per_device_train_batch_size", "", "micro_batch"), ("Global batch size", "", "global_batch"),
        ("gradient_accumulation_steps", "", "accumulation"), ("Peak learning rate", "", "learning_rate"), ("Val loss", "", "validation_loss"),
        ("eval_loss", "", "validation_loss"), ("Perplexity", "", "perplexity"), ("num_train_epochs", "", "epochs"), ("Hidden size", "", "width"),
        ("Steps per epoch", "", "steps_per_epoch"), ("Trainable parameters", "", "trainable_parameters"), ("Total parameters", "", "parameters"),
        ("Elapsed", "s", "total_seconds"), ("The office", "", None), ("Warm-up steps", "", "warmup_steps"), ("MFU", "%", "mfu"),
        ("train_runtime", "", "total_seconds"), ("Sequence length", "", "seq_len"), ("eval_batch_size", "", "eval_batch"),
    ],
)  # fmt: skip
def test_a_label_is_the_name_of_a_quantity(label: str, unit: str, name: str | None) -> None:
    assert name_of(label, unit) == name


def test_words_before_and_after_a_figure_name_it() -> None:
    for text, name in (
        ("a batch size of ", "batch"),
        ("The loss fell from ", "loss"),
        ("learning rate: ", "learning_rate"),
    ):
        found = name_before(text, "")
        assert found and found.name == name
    for text, name in (
        (" training samples", "train_samples"),
        (" epochs of", "epochs"),
        (" optimizer steps", "steps"),
        ("-layer", "layers"),
    ):
        found = name_after(text, "")
        assert found and found.name == name
    assert name_before("the loss of 3 models on ", "") is None
    assert name_after(", epochs", "") is None
