"""Logs in lines, beyond those of the corpus."""

from etude.watch.logs.lines import read_lines


def rows(text: str) -> list[dict[str, float]]:
    source = read_lines(text)
    return [] if source is None else [dict(row.figures) for row in source.rows]


def test_prose_about_a_loss_is_no_log() -> None:
    assert rows("The loss of step one was high.\nWe train for 3 epochs with a learning rate of 0.1.\n") == []


def test_bars_over_other_things_give_no_step() -> None:
    text = "Map: 100%|██████████| 500/500 [00:01<00:00]\nLoading shards: 50%|█████     | 1/2 [00:01<00:01]\n"
    assert rows(text + "{'loss': 2.5, 'epoch': 0.5}\n{'loss': 2.0, 'epoch': 1.0}\n") == [
        {"loss": 2.5, "epoch": 0.5},
        {"loss": 2.0, "epoch": 1.0},
    ]


def test_a_line_without_an_end_and_many_escapes_end_no_reader() -> None:
    # Quadratic time would take hours.
    rows("step 1 loss 2.5 " * 200_000)
    rows("\x1b[" * 500_000 + " loss")
    rows(("loss" + " " * 4000 + "\n") * 300)
    rows(("|" * 4000 + " loss 1%|\n") * 300)
