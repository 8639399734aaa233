"""The trial of a stranger's tokenizer in a process apart, with limits, before this process loads it.

The library that reads it is native code, which a broken file can make panic, abort or fill the memory, and
whose rules can turn a letter into millions. `main` is the process; it reads a tokenizer.json from stdin, or
makes one of the files in a folder, and answers with a line of JSON that says what is wrong, if anything is.
"""

import contextlib
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etude import durable
from etude.confine.room import Room, enter_strongest
from etude.errors import InputError, StorageError
from etude.processes import python_command, python_environment

_MOST_IDS = 1 << 22  # the largest vocabulary known has 2 ** 18
_MOST_ADDED = 1 << 17
_MOST_AROUND = 64
_MOST_GROWTH = 64
_MEMORY_BYTES = 2 << 30
_SECONDS, _SECONDS_A_MEGABYTE = 6, 0.5  # of the processor: 1 s for Qwen2's 4 MB
_ONE_THREAD = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
# Letters, digits and signs of several scripts, each alone and many times, and what looks like code and prose.
_PROBES = (
    *("".join(map(chr, range(low, low + 256)))
      for low in (0x20, 0x370, 0x600, 0x900, 0x2000, 0x3040, 0x4E00, 0xAC00)),
    *(chr(code) * 60 + end for code in range(0x20, 0x7F) for end in ("", "?")),
    *(f"{piece}!" for piece in
      ("ab" * 40, "xyz" * 30, "a b " * 30, "1" * 60, "\n" * 60, "\t \n" * 30, "_" * 60)),
    # Some patterns take time that grows with the square of a word, which shows in a long one.
    *(sign * 4000 + end for sign in "aA1 \n_(\u4e00" for end in ("", "?")),
    "def f(x):\n    return {'key': x[0] + 1.5e3}  # a comment\n\n\n" * 4,
    "The quick brown fox isn't here; it's 10,000 miles away. \u00c9t\u00e9, na\u00efve, \ufdfa, "
    "\U0001f469\u200d.",
    "<s> </s> <unk> <pad> <|im_start|>user\n<|im_end|> [INST] [/INST] <0x0A> \u2581 \u0120",
)  # fmt: skip


def vet(json_text: str, name: str) -> None:
    """Try a tokenizer.json, unless that was done before. Raises: InputError that says what is wrong."""
    data = json_text.encode()
    rules = Path(__file__).read_bytes()  # a verdict holds for the rules that it was found by
    seal = durable.cache_folder("tokenizers") / f"{hashlib.sha256(rules + data).hexdigest()}.json"
    if durable.is_plain(seal, follow=False):
        return
    if wrong := _try_apart(len(data), data=data)["wrong"]:
        raise InputError(f"tokenizer {name} {wrong}; it may be broken or hostile: give another one")
    with contextlib.suppress(StorageError):  # a cache that cannot be written to costs a second the next time
        durable.make_folder(seal.parent)
        durable.write_json(seal, {"tried": name})


def convert(folder: Path, size: int) -> str:
    """The tokenizer.json that transformers makes of a folder of `size` bytes. Raises: InputError."""
    answer = _try_apart(size, str(folder), str(size))
    if wrong := answer["wrong"]:
        raise InputError(f"tokenizer {folder} {wrong}; give a tokenizer.json")
    return str(answer["json"])


def _try_apart(size: int, *words: str, data: bytes = b"") -> dict[str, str | None]:
    """Answer of the process apart to a tokenizer of so many bytes; `wrong` is None if nothing is."""
    done = subprocess.run(
        python_command("etude.data.vet", *words), input=data, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, env={**python_environment(), **_ONE_THREAD}, start_new_session=True,
        check=False,
    )  # fmt: skip
    if done.returncode == -signal.SIGPROF:
        task = "convert" if words else "load and to read a few short texts"
        return {"wrong": f"takes over {_seconds(size):.0f} s of the processor to {task}"}
    if done.returncode or not done.stdout:
        return {"wrong": f"breaks its process or takes over {_MEMORY_BYTES >> 30} GiB"}
    answer: dict[str, str | None] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main() -> None:
    """Answer what is wrong with the tokenizer on stdin, or what becomes of one in a folder."""
    if sys.argv[1:]:
        _answer(_convert(sys.argv[1], int(sys.argv[2])))
    import tokenizers  # noqa: F401 - before it is confined, where it may lie anywhere

    data = sys.stdin.buffer.read()
    _limit(len(data), _MEMORY_BYTES)
    try:
        wrong = next(_find_faults(data.decode()), None)
    except RecursionError:
        wrong = "is nested too deeply"
    except BaseException as error:  # a panic of the native code is no Exception
        wrong = f"is no tokenizer.json ({_shorten(error)})"
    _answer({"wrong": wrong})


def _answer(answer: dict[str, str | None]) -> None:
    sys.stdout.write("\n" + json.dumps(answer) + "\n")
    sys.stdout.flush()
    os._exit(0)  # without what native code does at its end


def _convert(folder: str, size: int) -> dict[str, str | None]:
    import psutil
    from transformers import AutoTokenizer

    _limit(size, psutil.Process().memory_info().vms + _MEMORY_BYTES, Path(folder))
    try:
        loaded = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return {"json": loaded.backend_tokenizer.to_str(), "wrong": None}
    except BaseException as error:  # its many loaders raise anything, and native code panics
        return {"wrong": f"cannot be loaded by transformers ({_shorten(error)})"}


def _find_faults(text: str) -> Iterator[str]:
    content = json.loads(text)
    if not isinstance(content, dict):
        yield "is no tokenizer.json (not a JSON object)"
    for text_name, rules in (("a text", ("normalizer", "pre_tokenizer")), ("a decoded text", ("decoder",))):
        if (growth := math.prod(_growth_of(content.get(rule)) for rule in rules)) > _MOST_GROWTH:
            yield f"has rules that make {text_name} {growth:,.0f} times as long"
    added = content.get("added_tokens")
    if isinstance(added, list) and len(added) > _MOST_ADDED:
        yield f"has {len(added):,} added tokens, over {_MOST_ADDED:,}"
    from tokenizers import Tokenizer

    inner = Tokenizer.from_str(text)
    ids = inner.get_vocab(with_added_tokens=True).values()
    if not ids or max(ids) >= _MOST_IDS:
        yield f"has an id {max(ids):,}, over {_MOST_IDS:,}" if ids else "has no token"
    if (around := inner.num_special_tokens_to_add(True)) > _MOST_AROUND:
        yield f"puts {around:,} tokens around a text"
    inner.no_truncation()
    inner.no_padding()
    for special in (False, True):
        inner.encode_special_tokens = special
        for probe in _PROBES:
            try:
                encoded = inner.encode(probe, add_special_tokens=False).ids
            except Exception:  # a text without tokens is refused where it is met
                continue
            if len(encoded) > _MOST_GROWTH * len(probe.encode()):
                yield f"makes {len(encoded):,} tokens of {len(probe):,} characters"
            if len(inner.decode(encoded)) > _MOST_GROWTH * (len(probe.encode()) + len(encoded)):
                yield f"decodes {len(encoded):,} tokens to more than {_MOST_GROWTH} characters each"


def _growth_of(rule: Any) -> float:
    """The factor by which a text can grow by the replacements of a rule, as they are written."""
    if not isinstance(rule, dict):
        return 1.0
    growth = 1.0
    for key in ("normalizers", "pretokenizers", "decoders"):
        for part in rule[key] if isinstance(rule.get(key), list) else ():
            growth *= _growth_of(part)
    new = rule.get("content", rule.get("prepend"))
    if rule.get("type") in ("Replace", "Prepend") and isinstance(new, str):
        pattern = rule.get("pattern")
        old = pattern.get("String") if isinstance(pattern, dict) else None
        growth *= max(len(new) / max(len(old), 1) if isinstance(old, str) else len(new), 1.0)
    return growth


def _shorten(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _seconds(size: int) -> float:
    return _SECONDS + _SECONDS_A_MEGABYTE * size / 1e6


def _limit(size: int, most_bytes: int, folder: Path | None = None) -> None:
    """Confine this process; it may read a folder, and what is linked there as the hub's cache does."""
    linked = () if folder is None else (path.resolve() for path in folder.iterdir() if path.is_file())
    files = [] if folder is None else [folder, *linked]
    enter_strongest(Room(cpu_seconds=None, memory_bytes=most_bytes, readable=tuple(map(str, files))))
    signal.setitimer(signal.ITIMER_PROF, _seconds(size))  # nobody catches the signal: it ends the process


if __name__ == "__main__":
    main()
