"""Points and facts without figures."""

from etude.watch.point import Facts, Point


def test_nothing_is_known_until_it_is_given() -> None:
    point, facts = Point(step=1), Facts()
    assert {getattr(facts, name) for name in facts.__slots__} == {None}
    unknown = {name for name in point.__slots__ if getattr(point, name) is None}
    assert unknown == set(point.__slots__) - {"step", "skipped", "metrics"}
