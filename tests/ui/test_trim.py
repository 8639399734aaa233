from etude.ui.trim import trim


def test_what_is_short_stays_as_it_is() -> None:
    payload = {"a": [1, 2.5, None, True], "b": {"c": "text\nwith\tlines"}}
    assert trim(payload) == payload


def test_a_long_text_and_a_long_list_are_cut_and_that_is_said() -> None:
    found = trim({"text": "x" * 10_000_000, "rows": list(range(1_000_000))})
    assert len(found["text"]) == 20_000
    assert found["rows"] == list(range(5_000))
    assert found["cut"] == [
        "text: 20,000 of 10,000,000 characters",
        "rows: 5,000 of 1,000,000 entries",
    ]


def test_many_long_texts_together_are_bounded() -> None:
    found = trim({"rows": [{"text": "y" * 20_000} for _ in range(2_000)]})
    assert len(repr(found)) < 5_000_000
    assert len(found["cut"]) == 51


def test_characters_that_drive_a_terminal_become_visible() -> None:
    """Escape sequences for a terminal in texts of models, rows and logs."""
    assert trim({"na\x1bme": ["\x1b]0;x\x07", "\u202etxt.exe", "\ud800"]}) == {
        "na\\x1bme": ["\\x1b]0;x\\x07", "\\u202etxt.exe", "\\ud800"]
    }  # fmt: skip


def test_what_is_nested_without_end_is_cut() -> None:
    deep: list[object] = []
    for _ in range(500):
        deep = [deep]
    assert trim({"deep": deep})["cut"] == ["deep: nested too deeply"]
