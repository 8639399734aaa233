"""A model that is ready to write text."""

from pathlib import Path

from etude.speaker import open_speaker
from tests.bases import write_qwen2


def test_a_speaker_of_chats_tells_what_it_loads_and_ends_where_the_template_does(tmp_path: Path) -> None:
    told: list[str] = []
    speaker = open_speaker(str(write_qwen2(tmp_path)), tmp_path, is_chat=True, told=told.append)
    assert told == [f"loading {tmp_path}"]
    assert speaker.settings({"seed": 1})["end_ids"] == speaker.end_ids
    assert speaker.context == 256 and speaker.chat.find_end() in speaker.end_ids
