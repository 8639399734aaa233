"""A tokenizer of a stranger is tried in a process apart, with limits, before this process loads it.

The library that reads it is native code, which a broken file can make panic, abort or fill the memory, and
whose rules can turn a letter into millions. `main` is the process; it reads a tokenizer.json from stdin and
answers with a line of JSON that says what is wrong, if anything is. Files that are no tokenizer.json are made
one there, too.
"""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etude import durable
from etude.errors import InputError, StorageError

_MOST_IDS = 1 << 22  # the largest vocabulary known has 2 ** 18
_MOST_ADDED = 1 << 17
_MOST_AROUND = 64
_MOST_GROWTH = 64
_MEMORY_BYTES = 2 << 30
_SECONDS, _SECONDS_A_MEGABYTE = 6, 0.5  # of the processor: 1 s for Qwen2's 4 MB
# Letters, digits and signs of several scripts, each alone and many times, and what looks like code and prose.
_PROBES = (
    *(
        "".join(map(chr, range(low, low + 256)))
        for low in (0x20, 0x370, 0x600, 0x900, 0x2000, 0x3040, 0x4E00, 0xAC00)
    ),
    *(chr(code) * 60 + end for code in range(0x20, 0x7F) for end in ("", "?")),
    *(
        f"{piece}!"
        for piece in ("ab" * 40, "xyz" * 30, "a b " * 30, "1" * 60, "\n" * 60, "\t \n" * 30, "_" * 60)
    ),
    # Some patterns take time that grows with the square of a word, which shows in a long one.
    *(sign * 4000 + end for sign in "aA1 \n_(\u4e00" for end in ("", "?")),
    "def f(x):\n    return {'key': x[0] + 1.5e3}  # a comment\n\n\n" * 4,
    "The quick brown fox isn't here; it's 10,000 miles away. \u00c9t\u00e9, na\u00efve, \ufdfa, "
    "\U0001f469\u200d.",
    "<s> </s> <unk> <pad> <|im_start|>user\n<|im_end|> [INST] [/INST] <0x0A> \u2581 \u0120",
)  # fmt: skip


def vet(json_text: str, name: str) -> None:
    """Try a tokenizer.json, unless that was done before.

    Raises: InputError with its `name` and what is wrong.
    """
    data = json_text.encode()
    rules = Path(__file__).read_bytes()  # a verdict holds for the rules that it was found by
    seal = durable.cache_folder("tokenizers") / f"{hashlib.sha256(rules + data).hexdigest()}.json"
    if durable.is_plain(seal, follow=False):
        return
    if reason := _try_apart(data):
        raise InputError(f"tokenizer {name} {reason}; it may be broken or hostile: give another one")
    with contextlib.suppress(StorageError):  # a cache that cannot be written to costs a second the next time
        durable.make_folder(seal.parent)
        durable.write_json(seal, {"tried": name})


def convert(folder: Path, size: int) -> str:
    """The tokenizer.json that transformers makes of the files in a folder, whose `size` is in bytes.

    Raises: InputError with what is wrong.
    """
    done = _run_apart(b"", str(folder), str(size))
    if done.returncode == -signal.SIGPROF:
        wrong = f"takes over {_seconds(size):.0f} s of the processor to convert"
    elif done.returncode or not done.stdout:
        wrong = f"breaks its process or takes over {_MEMORY_BYTES >> 30} GiB to convert"
    else:
        answer = json.loads(done.stdout.splitlines()[-1])
        if answer["wrong"] is None:
            return str(answer["json"])
        wrong = f"cannot be loaded by transformers ({answer['wrong']})"
    raise InputError(f"tokenizer {folder} {wrong}; give a tokenizer.json")


def _try_apart(data: bytes) -> str | None:
    done = _run_apart(data)
    if done.returncode == -signal.SIGPROF:
        return (
            f"takes over {_seconds(len(data)):.0f} s of the processor to load and to read a few short texts"
        )
    if done.returncode or not done.stdout:
        return f"breaks its process or takes over {_MEMORY_BYTES >> 30} GiB"
    reason: str | None = json.loads(done.stdout)["wrong"]
    return reason


def _run_apart(data: bytes, *words: str) -> "subprocess.CompletedProcess[bytes]":
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(folder for folder in sys.path if folder),
        "TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2",
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-P", "-m", "etude.data.vet", *words], input=data, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, env=environment, start_new_session=True, check=False,
    )  # fmt: skip


def main() -> None:
    """Answer what is wrong with the tokenizer on stdin, or what becomes of one in a folder."""
    if sys.argv[1:]:
        _answer(_convert(sys.argv[1], int(sys.argv[2])))
    data = sys.stdin.buffer.read()
    _limit(_seconds(len(data)), _MEMORY_BYTES)
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

    _limit(_seconds(size), psutil.Process().memory_info().vms + _MEMORY_BYTES)
    try:
        loaded = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return {"json": loaded.backend_tokenizer.to_str(), "wrong": None}
    except (
        BaseException
    ) as error:  # transformers raises whatever its many loaders raise, and native code panics
        return {"wrong": _shorten(error)}


def _find_faults(text: str) -> Iterator[str]:
    content = json.loads(text)
    if not isinstance(content, dict):
        yield "is no tokenizer.json (not a JSON object)"
    if (
        growth := _growth_of(content.get("normalizer")) * _growth_of(content.get("pre_tokenizer"))
    ) > _MOST_GROWTH:
        yield f"has rules that make a text {growth:,.0f} times as long"
    if (growth := _growth_of(content.get("decoder"))) > _MOST_GROWTH:
        yield f"has rules that make a decoded text {growth:,.0f} times as long"
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
                found = inner.encode(probe, add_special_tokens=False).ids
            except Exception:  # a text without tokens is said where it is met
                continue
            if len(found) > _MOST_GROWTH * len(probe.encode()):
                yield f"makes {len(found):,} tokens of {len(probe):,} characters"
            if len(inner.decode(found)) > _MOST_GROWTH * (len(probe.encode()) + len(found)):
                yield f"decodes {len(found):,} tokens to more than {_MOST_GROWTH} characters each"


def _growth_of(rule: Any) -> float:
    """How many times as long a text can become by the replacements of a rule, as they are written."""
    if not isinstance(rule, dict):
        return 1.0
    growth = 1.0
    for key in ("normalizers", "pretokenizers", "decoders"):
        for each in rule[key] if isinstance(rule.get(key), list) else ():
            growth *= _growth_of(each)
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


def _limit(seconds: float, most_bytes: int) -> None:
    import resource

    for kind, most in (
        (resource.RLIMIT_AS, most_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(OSError, ValueError):  # not every system has each limit
            resource.setrlimit(kind, (most, most))
    signal.setitimer(signal.ITIMER_PROF, seconds)  # nobody catches the signal, so it ends the process


if __name__ == "__main__":
    main()
