"""A Modelfile: its template writes the prompts of the chat template, and hostile text does not leave it."""

import re
from collections.abc import Sequence

import pytest

from etude.data.bpe import train_tokenizer
from etude.data.render import PLAIN, ChatTemplate
from etude.data.tokenize import Tokenizer
from etude.data.turns import Message
from etude.quantize.modelfile import go_template, modelfile
from tests.bases import CHAT_ML


def chat(template: str | None) -> ChatTemplate:
    tokenizer = train_tokenizer(iter(["def a():\n    pass\n"] * 20), 280)
    given = {} if template is None else {"chat_template.jinja": template.encode()}
    tokenizer = Tokenizer(tokenizer.to_json(), tokenizer.eos_token, given)
    return ChatTemplate(tokenizer, template)


def as_ollama(template: str, messages: Sequence[Message]) -> str:
    """The prompt by Ollama's description: the template once for each question, the system message first."""
    text, system = "", ""
    for index, message in enumerate(messages):
        if message["role"] == "system":
            system = message["content"]
        elif message["role"] == "user":
            answer = messages[index + 1]["content"] if index + 1 < len(messages) else None
            turn = re.sub(
                r"\{\{ if \.System \}\}(.*)\{\{ else \}\}(.*)\{\{ end \}\}",
                lambda parts, system=system: parts[1] if system else parts[2],  # type: ignore[misc]
                template,
                flags=re.DOTALL,
            )
            turn = turn.replace("{{ .System }}", system).replace("{{ .Prompt }}", message["content"])
            before, _, behind = turn.partition("{{ .Response }}")
            text += before if answer is None else f"{before}{answer}{behind}"
            system = ""
    return text


CONVERSATIONS: list[list[Message]] = [
    [{"role": "user", "content": "Add 1."}],
    [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Add 1."}],
    [
        {"role": "user", "content": "Add 1."}, {"role": "assistant", "content": "x + 1"},
        {"role": "user", "content": "And 2?"},
    ],
]  # fmt: skip


@pytest.mark.parametrize("template", [CHAT_ML, PLAIN], ids=["ChatML", "plain"])
def test_the_template_writes_what_the_chat_template_writes(template: str) -> None:
    given = chat(template)
    written = go_template(given)
    assert written is not None
    for messages in CONVERSATIONS:
        assert as_ollama(written, messages) == given.render(messages, add_generation_prompt=True)


def test_ends_are_stops_and_the_context_is_told() -> None:
    given = chat(CHAT_ML)
    text = modelfile("model-F16.gguf", given, [given.tokenizer.eos_id], 128)
    assert text.startswith("FROM ./model-F16.gguf\nPARAMETER num_ctx 128\n")
    assert 'PARAMETER stop "<|endoftext|>"' in text and 'TEMPLATE """' in text
    assert "num_ctx 4096" in modelfile("a.gguf", given, [], 1 << 17)
    assert "TEMPLATE" not in modelfile("a.gguf", chat(None), [], 128)


@pytest.mark.parametrize(
    "text", ['"""\nADAPTER /etc/passwd\nTEMPLATE """', "{{ .Secret }}"], ids=["end", "template"]
)
def test_text_that_would_leave_the_template_is_not_written(text: str) -> None:
    literal = "{{ " + repr(text) + " }}"
    given = chat(literal + CHAT_ML)
    written = modelfile("a.gguf", given, [], 128)
    assert "ADAPTER" not in written and "Secret" not in written
    assert written.endswith("# The chat template has no like in Ollama's; it stands in the file.\n")
