"""The two interpreters of a sample, each in a confined process: that of the sample and that of its tests."""

import ast
import builtins
import json
import os
import sys
import types
from typing import Any

from etude.evaluate.wire import EndedError, Peer, words_of


def hold_sample(file: int, read: int, write: int) -> None:
    """Run the sample as a module, then answer the calls of its tests."""
    source = _read(file)
    module = types.ModuleType("sample")
    sys.modules["sample"], sys.argv = module, ["sample"]
    failure: BaseException | None = None
    try:
        exec(compile(source, "sample.py", "exec", dont_inherit=True), module.__dict__)
    except BaseException as error:  # whatever foreign code raises
        failure = error

    def find(name: str) -> Any:
        if failure is not None:
            raise failure
        return module.__dict__[name] if name else None

    Peer(read, write, is_guarded=False).serve(find)


def hold_tests(file: int, read: int, write: int, say: int) -> None:
    """Run the tests, and say the nonce after the last of them, or what failed."""
    asked = json.loads(_read(file))
    try:
        _test(asked, Peer(read, write, is_guarded=True))
        verdict: dict[str, Any] = {"nonce": asked["nonce"]}
    except EndedError as error:
        verdict = {"ended": str(error)}
    except BaseException as error:  # whatever a test raises
        kind = "assertion" if isinstance(error, AssertionError) else "error"
        verdict = {kind: type(error).__name__[:100], "words": words_of(error)[:300]}
    os.write(say, json.dumps(verdict).encode())
    os._exit(0)


def _test(asked: dict[str, Any], peer: Peer) -> None:
    """Run the tests of a problem; a function `check` among them is called with the entry point."""
    peer.ask("find", "")  # raises what the sample raised as it was imported
    names = _Names(peer)
    names["__name__"] = "tests"
    sys.modules["tests"] = types.ModuleType("tests")
    exec(compile(_complete_part(asked["context"], asked["entry_point"]), "prompt.py", "exec"), names)
    candidate = None
    if entry_point := asked["entry_point"]:  # also where Python has a function of that name
        candidate = names[entry_point] = peer.ask("find", entry_point)
    exec(compile(asked["tests"], "tests.py", "exec", dont_inherit=True), names)
    check = names.get("check")
    if entry_point and callable(check) and check is not candidate:
        check(candidate)


class _Names(dict[str, Any]):
    """Names of the tests; one that neither they, Python nor the prompt define is the sample's."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name) or name.startswith("__"):
            raise KeyError(name)
        return self._peer.ask("find", name)


def _complete_part(prompt: str, entry_point: str) -> ast.Module:
    """Definitions of a prompt that the tests may use: imports, constants and complete functions."""
    for text in (prompt, prompt.rpartition(f"def {entry_point}")[0]):
        try:
            body = ast.parse(text).body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        kept: list[ast.stmt] = [
            each for each in body
            if isinstance(each, (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign))
            or (isinstance(each, ast.FunctionDef) and each.name != entry_point and not _is_stub(each))
        ]  # fmt: skip
        return ast.Module(body=kept, type_ignores=[])
    return ast.Module(body=[], type_ignores=[])


def _is_stub(function: ast.FunctionDef) -> bool:
    return all(isinstance(each, (ast.Pass, ast.Expr)) for each in function.body)


def _read(file: int) -> str:
    """The text of a file, which is closed for good."""
    with open(file, encoding="utf-8") as opened:
        return opened.read()
