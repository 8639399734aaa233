"""Learning rates that are usual for a kind of training which begins with a pretrained model."""

from etude.recipe.schema import Optim, Recipe

_OF_ADAPTER = 2e-4
_OF_ALL = {"causal": 2e-5, "masked": 5e-5, "classification": 2e-5, "seq2seq": 5e-5}
_DEFAULT = Optim().learning_rate


def usual_rate(objective: str, *, adapter: bool) -> float:
    """The learning rate of AdamW that most published fine-tunings of this kind have, or are close to."""
    return _OF_ADAPTER if adapter else _OF_ALL[objective]


def advise_rate(recipe: Recipe) -> str | None:
    """A warning where a pretrained model would be trained with the default of a model from scratch."""
    is_open = "learning_rate" not in recipe.optim.model_fields_set
    if recipe.model.from_ is None or not is_open or recipe.optim.kind == "muon":
        return None
    parts = [part.train.objective for part in recipe.by_task().values()]
    rate = min(usual_rate(objective, adapter=recipe.adapter is not None) for objective in parts)
    what = "an adapter" if recipe.adapter else "all weights of a pretrained model"
    return (
        f"optim.learning_rate is not set: its default {_DEFAULT:g} is for a model from scratch, and undoes "
        f"much of a pretrained one; usual for {what} is {rate:g}"
    )
