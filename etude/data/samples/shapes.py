"""The one place that chooses a shape of samples."""

from etude.data.layout import look_through
from etude.data.listing import list_sources
from etude.data.samples.conversations import ConversationShape
from etude.data.samples.labelled import LabelledShape
from etude.data.samples.pairs import PairShape
from etude.data.samples.shape import Shape
from etude.data.samples.texts import TextShape
from etude.recipe.schema import Recipe

_TEXTS, _CONVERSATIONS = TextShape(), ConversationShape()
_SHAPES: tuple[Shape, ...] = (_TEXTS, _CONVERSATIONS, LabelledShape(), PairShape())
SHAPES = {shape.name: shape for shape in _SHAPES}


def choose_shape(recipe: Recipe) -> Shape:
    """The shape that the kind of training, or else the rows and data.sample, ask for. Raises: InputError."""
    first, *others = allowed_shapes(recipe)
    return others[0] if others and (has_conversations(recipe) or texts_are_examples(recipe)) else first


def allowed_shapes(recipe: Recipe) -> tuple[Shape, ...]:
    """The shapes that a kind of training may have."""
    return (SHAPES[recipe.kind.shape],) if recipe.kind.shape else (_TEXTS, _CONVERSATIONS)


def has_conversations(recipe: Recipe) -> bool:
    """True if rows of a source are conversations. Raises: InputError."""
    return any(look_through(source).form.kind != "text" for _, source in list_sources(recipe))


def texts_are_examples(recipe: Recipe) -> bool:
    """True if a text begins as the pretrained model expects it, instead of after an end token."""
    return recipe.model.from_ is not None and recipe.data.sample == "document"
