"""Learning rates that rose before a jump."""

from etude.watch import Watcher
from etude.watch.point import Point
from etude.watch.rates import Rates


def test_a_rate_that_rose_is_named_with_its_steps_and_a_decay_is_not() -> None:
    rates, falling = Rates(), Rates()
    for step in range(1, 101):
        rates.add(Point(step=step, learning_rate=1e-3 if step < 80 else 1e-1))
        falling.add(Point(step=step, learning_rate=1e-3 / step))
    assert rates.causes() == ["a learning rate that rose from 0.001 at step 51 to 0.1 at step 80"]
    assert falling.causes() == [] == Rates().causes()


def test_the_rate_comes_first_among_the_causes_of_a_jump_that_followed_it() -> None:
    watcher = Watcher()
    for step in range(1, 101):
        after = step > 80
        watcher.observe(
            step=step,
            loss=2 + 0.01 * (step % 7) + 5 * after,
            grad_norm=1 + 0.01 * (step % 5) + 20 * after,
            learning_rate=1e-3 * (100 if after else 1),
        )
    kinds = [each.kind for each in watcher.findings]
    assert kinds == ["spike", "divergence"]
    assert all(
        "rose from 0.001" in each.causes[0] and "to 0.1 at step 81" in each.causes[0]
        for each in watcher.findings
    )
