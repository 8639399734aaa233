"""Records of what people say, as a journal holds them."""

from etude.records.events import from_json, to_json
from etude.records.people import Note, Rating


def test_words_and_ratings_are_read_as_they_were_written() -> None:
    for made in (
        Note("lessons", "more data", "ann"),
        Rating(3, "def", "f", "ann", 4.0),
        Rating(3, "a", "b", "c", 0.5, "other"),
    ):
        assert from_json(to_json(made, 5.0)) == made
