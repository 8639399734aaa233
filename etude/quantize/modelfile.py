"""A Modelfile for Ollama: the GGUF file, the texts that end an answer, and the prompt as a Go template.

Source: github.com/ollama/ollama, docs/modelfile.md and docs/template.md.
"""

import re
from collections.abc import Sequence

from etude.data.render import ChatTemplate
from etude.data.turns import Message
from etude.errors import InputError

_USUAL_CONTEXT = 4096  # tokens that Ollama reads by default
_SYSTEM, _PROMPT, _ANSWER, _NEXT = "etudeSystem", "etudePrompt", "etudeAnswer", "etudeNext"
_UNSAFE = re.compile(r'\{\{|\}\}|"""')  # would be read as a part of the template, or end it


def modelfile(file: str, chat: ChatTemplate, ends: Sequence[int], context: int) -> str:
    """The Modelfile of a GGUF file.

    ends: ids at which an answer ends. context: longest sequence in tokens.
    """
    lines = [f"FROM ./{file}", f"PARAMETER num_ctx {min(context, _USUAL_CONTEXT)}"]
    for end in ends:
        text = chat.tokenizer.decode([end], skip_special=False)
        is_plain = re.fullmatch(r'[^"\x00-\x1f\x7f]+', text)
        lines.append(f'PARAMETER stop "{text}"' if is_plain else f"# id {end} ends an answer, too")
    if chat.tokenizer.chat_template is not None:
        template = go_template(chat)
        lines.append(
            f'TEMPLATE """{template}"""'
            if template
            else "# The chat template has no like in Ollama's; it stands in the file."
        )
    return "\n".join(lines) + "\n"


def go_template(chat: ChatTemplate) -> str | None:
    """The Go template of a turn that writes what a chat template writes, turn by turn; None if none does."""
    asked: list[Message] = [{"role": "user", "content": _PROMPT}]
    system: list[Message] = [{"role": "system", "content": _SYSTEM}, *asked]
    turns: list[Message] = [
        *asked,
        {"role": "assistant", "content": _ANSWER},
        {"role": "user", "content": _NEXT},
    ]
    try:
        one, two = (chat.render(each, add_generation_prompt=True) for each in (asked, turns))
    except InputError:
        return None
    before, found, prompt = one.partition(_PROMPT)
    between = two.partition(_ANSWER)[2].partition(_NEXT)[0]
    if not found or not between.endswith(before) or two != f"{one}{_ANSWER}{between}{_NEXT}{prompt}":
        return None
    end = between.removesuffix(before)
    first = _begin(chat, before)
    try:
        head, found, behind = chat.render(system, add_generation_prompt=True).partition(_SYSTEM)
        middle, _, rest = behind.partition(_PROMPT)
    except InputError:
        found, head, middle, rest = "", "", "", ""
    literals = [first, prompt, end]
    if found and rest == prompt:
        head = _begin(chat, head)
        literals += [head, middle]
        first = f"{{{{ if .System }}}}{head}{{{{ .System }}}}{middle}{{{{ else }}}}{first}{{{{ end }}}}"
    if any(_UNSAFE.search(text) for text in literals):
        return None
    return f"{first}{{{{ .Prompt }}}}{prompt}{{{{ .Response }}}}{end}"


def _begin(chat: ChatTemplate, text: str) -> str:
    """The beginning of a prompt without the token that llama.cpp puts there itself."""
    bos = chat.tokenizer.bos_id
    return text if bos is None else text.removeprefix(chat.tokenizer.decode([bos], skip_special=False))
