"""Python of a document, read and never run: names that nothing defines, orders of calls that cannot train."""

import ast
import builtins
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from etude.verify.facts import Facts
from etude.verify.reading import Block
from etude.verify.verdicts import CONTRADICTS, UNSETTLED, Finding, note

_MOST_BYTES, _MOST_DEPTH = 200_000, 60
_BLOCKS, _NAMES_USED = 3, 8  # of a document that is a program in parts
_BUILT_IN = {*dir(builtins), "__name__", "__file__", "__doc__", "display", "get_ipython"}
_MODULES = {
    "torch",
    "np",
    "nn",
    "F",
    "plt",
    "os",
    "json",
    "math",
    "pd",
    "tqdm",
    "random",
    "time",
    "sys",
    "re",
    "logging",
    "Path",
    "wandb",
    "datasets",
    "transformers",
}

_WHOLE = re.compile(
    r"\b(?:script|program|complete|full|whole|entire|runnable|self-contained|end-to-end|stand-?alone"
    r"|as it is|copy)\b",
    re.I,
)
_MAIN = re.compile(r"^if __name__ ?==|^def main\(", re.M)
_PLACEHOLDER = re.compile(r"(?:your|my|some|other)_?(?=[A-Z_a-z])", re.I)


@dataclass(frozen=True)
class _Call:
    """A call by the last part of its name, what it is called on, and its line."""

    name: str
    on: str
    line: int


def check_code(facts: Facts) -> Iterator[Finding]:
    """The Python blocks of a document, in their order."""
    blocks = [block for block in facts.document.blocks if block.kind == "code" and block.language == "python"]
    trees = [(block, tree) for block in blocks if (tree := _parse(block)) is not None]
    yield from _undefined(facts, trees)
    for block, tree in trees:
        yield from _orders(block, tree)
        yield from _decoded(block, tree)


def _parse(block: Block) -> ast.Module | None:
    """The tree of a block; None if it is no whole Python or too deep."""
    text = re.sub(r"^(\s*)(?:>>> |\.\.\. )", r"\1", block.text, flags=re.M)
    if len(text) > _MOST_BYTES or _is_deep(text):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _is_deep(text: str) -> bool:
    depth = most = 0
    for sign in text:
        depth += (sign in "([{") - (sign in ")]}")
        most = max(most, depth)
    long_chain = re.search(r"(?:[-+~.*/]|not ){200}|(?:\.\w{1,20}){200}|(?:[-+*/] ?\w{1,9} ?){400}", text)
    indent = max((len(line) - len(line.lstrip()) for line in text.splitlines()), default=0)
    return most > _MOST_DEPTH or indent > 4 * _MOST_DEPTH or long_chain is not None


def _undefined(facts: Facts, trees: list[tuple[Block, ast.Module]]) -> Iterator[Finding]:
    """Names that no block defines; a block that may be an excerpt of a program is not settled by them."""
    bound, has_star = set(_BUILT_IN), False
    told_whole = _told_whole(facts)
    for _, tree in trees:
        names, star = _bound(tree)
        bound |= names
        has_star = has_star or star
    if has_star:
        return
    told: set[str] = set()
    is_tutorial = _is_tutorial([tree for _, tree in trees], bound)
    for block, tree in trees:
        imports = any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(tree))
        is_program = (imports and id(block) in told_whole) or (facts.document.notebook and len(trees) > 1)
        is_program = is_program or is_tutorial
        for node in ast.walk(tree):
            if (
                not isinstance(node, ast.Name)
                or not isinstance(node.ctx, ast.Load)
                or node.id in bound
                or node.id in told
            ):
                continue
            told.add(node.id)
            is_whole = is_program or (imports and node.id in _MODULES)
            is_whole = is_whole and not _PLACEHOLDER.match(node.id)
            verdict = CONTRADICTS if is_whole else UNSETTLED
            why = "it is used and no code of the document defines or imports it"
            why += "" if is_whole else "; the block may be a part of a program"
            yield note(
                verdict,
                "undefined name",
                block.lines[0] + node.lineno - 1,
                node.id,
                why,
                fits="a definition or an import",
            )


def _is_tutorial(trees: list[ast.Module], bound: set[str]) -> bool:
    """True if several blocks, the first with the imports, define all that they use but for one name."""
    loaded = {
        node.id for tree in trees for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }  # fmt: skip
    starts = bool(trees) and any(isinstance(node, ast.Import | ast.ImportFrom) for node in trees[0].body)
    return (
        starts and len(trees) >= _BLOCKS and len(loaded & bound) >= _NAMES_USED and len(loaded - bound) == 1
    )


def _told_whole(facts: Facts) -> set[int]:
    """The blocks that their heading or the text right before them calls a whole program."""
    found, before = set(), ""
    for block in facts.document.blocks:
        if block.kind == "code":
            words = f"{block.section[-1] if block.section else ''} {before[-200:]}"
            if _WHOLE.search(words) or _MAIN.search(block.text):
                found.add(id(block))
        before = block.text
    return found


def _bound(tree: ast.Module) -> tuple[set[str], bool]:
    """The names that a tree defines anywhere, and True if it imports all of a module."""
    names: set[str] = set()
    star = False
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.alias):
            star = star or node.name == "*"
            names.add((node.asname or node.name).split(".")[0])
        elif (isinstance(node, ast.ExceptHandler) and node.name) or (
            isinstance(node, ast.MatchAs | ast.MatchStar) and node.name
        ):
            names.add(node.name)
        elif isinstance(node, ast.Global | ast.Nonlocal):
            names.update(node.names)
    return names, star


def _calls(node: ast.AST) -> list[_Call]:
    """The calls of a loop or function in the order of their lines."""
    found = []
    for each in ast.walk(node):
        if isinstance(each, ast.Call):
            if isinstance(each.func, ast.Attribute):
                found.append(_Call(each.func.attr, ast.unparse(each.func.value)[:80], each.lineno))
            elif isinstance(each.func, ast.Name):
                found.append(_Call(each.func.id, "", each.lineno))
    return sorted(found, key=lambda call: call.line)


def _orders(block: Block, tree: ast.Module) -> Iterator[Finding]:
    """The innermost loop or function that calls backward, and the order of what stands in it."""
    nodes = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.For | ast.While | ast.FunctionDef | ast.Module)
    ]
    chosen = []
    for node in nodes:
        calls = _calls(node)
        if not any(call.name == "backward" for call in calls):
            continue
        inner = [
            each
            for each in nodes
            if each is not node
            and each in set(ast.walk(node))
            and any(call.name == "backward" for call in _calls(each))
        ]
        if not inner:
            chosen.append((node, calls))
    whole = _calls(tree)
    for node, calls in chosen:
        yield from _order(block, calls, whole, is_loop=isinstance(node, ast.For | ast.While))


def _order(block: Block, calls: list[_Call], whole: list[_Call], *, is_loop: bool) -> Iterator[Finding]:
    """The faults of a loop or function, each at its line of the file."""
    faults = [*_faults_of_clipping(calls), *_faults_of_steps(calls, whole)]
    clears = any(call.name == "zero_grad" for call in whole) or re.search(
        r"\.grad = None|set_to_none", block.text
    )
    if is_loop and _steps_of(whole) and not clears:
        backward = next(call for call in calls if call.name == "backward")
        why = "no zero_grad() anywhere, so gradients of all steps add up"
        faults.append((backward, why, "optimizer.zero_grad() at each step"))
    for call, why, fits in faults:
        where = block.lines[0] + call.line - 1
        quoted = f"{call.name}(...)" if "clip" in call.name else f"{call.name}()"
        yield note(CONTRADICTS, "order of calls", where, quoted, why, fits=fits)


def _steps_of(calls: list[_Call]) -> list[_Call]:
    """The steps of optimizers, not of schedules or profilers."""
    others = re.compile(r"sched|lr_|warmup|profil|prof$|watch|logger")
    return [call for call in calls if call.name == "step" and not others.search(call.on)]


def _faults_of_clipping(calls: list[_Call]) -> Iterator[tuple[_Call, str, str]]:
    backward = next(call for call in calls if call.name == "backward")
    steps, clips = _steps_of(calls), [call for call in calls if "clip_grad" in call.name]
    where = "clipping between backward() and the step"
    for clip in clips:
        if clip.line < backward.line:
            yield clip, "it comes before backward(), so it clips gradients of before or none", where
        elif steps and backward.line < steps[0].line < clip.line:
            yield clip, "it comes after the step, which used the gradients as they were", where
    is_scaled = any("scaler" in call.on for call in steps)
    is_unscaled = any(call.name == "unscale_" for call in calls)
    if is_scaled and clips and not is_unscaled and clips[0].line > backward.line:
        why = "the gradients are still multiplied by the loss scale"
        yield clips[0], why, "scaler.unscale_(optimizer) before clipping"


def _faults_of_steps(calls: list[_Call], whole: list[_Call]) -> Iterator[tuple[_Call, str, str]]:
    backward = next(call for call in calls if call.name == "backward")
    steps = _steps_of(calls)
    zeros = [call for call in calls if call.name == "zero_grad"]
    schedules = [call for call in calls if call.name == "step" and "sched" in call.on]
    if not _steps_of(whole):
        why = "gradients are computed and no optimizer step follows, so nothing is learnt"
        yield backward, why, "optimizer.step() after backward()"
    if not steps:
        return
    is_cleared_last = any(zero.line > backward.line for zero in zeros)
    if len(steps) == 1 and steps[0].line < backward.line and not is_cleared_last:
        yield steps[0], "it comes before backward()", "the step after backward()"
    for zero in zeros:
        if backward.line < zero.line < steps[0].line:
            why = "it throws the gradients away between backward() and the step"
            yield zero, why, "zero_grad() before backward() or after the step"
    if schedules and schedules[0].line < steps[0].line:
        why = "the schedule steps before the optimizer, so the first rate is skipped"
        yield schedules[0], why, "the schedule's step after the optimizer's"


def _decoded(block: Block, tree: ast.Module) -> Iterator[Finding]:
    """Text that is decoded twice: the output of decode is decoded again."""
    texts: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and _is_decode(node.value):
            texts |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    rebound = {
        target.id for node in ast.walk(tree) if isinstance(node, ast.Assign) and not _is_decode(node.value)
        for target in node.targets if isinstance(target, ast.Name)
    }  # fmt: skip
    for node in ast.walk(tree):
        if not _is_decode(node) or not isinstance(node, ast.Call):
            continue
        base = node.func.value if isinstance(node.func, ast.Attribute) else None
        inner = [*node.args[:1], *([base] if base is not None else [])]
        if any(
            _is_decode(each) or (isinstance(each, ast.Name) and each.id in texts - rebound) for each in inner
        ):
            yield note(
                CONTRADICTS,
                "decoded twice",
                block.lines[0] + node.lineno - 1,
                ast.unparse(node)[:60],
                "what decode returned is text already",
                fits="one decode",
            )


def _is_decode(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("decode", "batch_decode")
    )
