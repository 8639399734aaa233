from etude.recipe.course import Change
from etude.records.changes import changes_of
from etude.records.events import Control


def test_a_record_gives_back_the_changes_it_was_made_of() -> None:
    control = Control(
        5, "change", "seed is 3 after step 4: slower: much", "r-1", {"optim.learning_rate": 1e-3}, 4,
        before={"optim.learning_rate": 3e-3}, who="ann@host", channel="python",
    )  # fmt: skip
    asked = ("slower: much", "r-1", "ann@host", "python")
    assert changes_of(control) == [Change(4, "optim.learning_rate", 1e-3, *asked)]


def test_another_decision_has_none() -> None:
    assert changes_of(Control(5, "pause", "it was asked to", "r-1")) == []
