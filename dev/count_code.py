"""Count what a review of the structure counts, so that anybody can set two states of the code side by side.

`python dev/count_code.py [FOLDER]` prints a table for the package in FOLDER (default: etude); `--json` for
scripts, `--list NAME` the places behind a count. `tests/test_house.py` holds the counts to a budget. Everything
is read from the syntax tree; nothing is imported or run.
"""

import argparse
import ast
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

OBJECTIVES = {"causal", "masked", "classification", "seq2seq"}
OBJECTIVE_CLASSES = {"Causal", "Masked", "Classification", "Seq2Seq", "MultiTask", "Custom"}
SHAPES = {"are_pairs", "is_pair", "is_labelled", "are_examples", "has_conversations", "whole", "wholes"}
KINDS = {"texts", "examples", "labelled", "pairs", "conversations", "row", "document", "example", "pair"}
FAMILIES = {"Decoder", "Encoder", "T5", "DecoderConfig", "EncoderConfig", "T5Config", "T5Classifier"}
MOST_LINES, MOST_FILE_LINES, MOST_COLUMNS, MOST_POSITIONAL = 60, 400, 110, 6
PRAGMA = re.compile(r"\s+# (type: ignore|noqa|fmt: skip)\b.*$")  # what ruff does not count either
CLAUSE = re.compile(r"(What|Which|How|Whether|Of|Those|That|Where|When|Who) ")


@dataclass(frozen=True)
class Place:
    """Where something counted stands, and what it is."""

    file: str
    line: int
    what: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parents[1] / "etude")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--list", metavar="NAME", help="the places behind one count")
    asked = parser.parse_args()
    texts = read(asked.folder)
    found = count(texts, asked.folder.name)
    if asked.list:
        for place in found[asked.list]:
            print(f"{place.file}:{place.line}  {place.what}")
        return
    figures = {"lines": sum(text.count("\n") for text in texts.values()), "modules": len(texts)}
    figures |= {name: len(places) for name, places in found.items()}
    if asked.json:
        print(json.dumps(figures, indent=1))
        return
    for name, value in figures.items():
        print(f"{name:<28} {value:>7,}")


def read(folder: Path) -> dict[str, str]:
    """The text of each module, by its path within the folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in sorted(folder.rglob("*.py"))
    }


def count(texts: dict[str, str], package: str) -> dict[str, list[Place]]:
    """The places behind each count, for files by their path within the package."""
    found: dict[str, list[Place]] = defaultdict(list)
    trees = {file: ast.parse(text) for file, text in texts.items()}
    for file, text in texts.items():
        lines = text.splitlines()
        if len(lines) > MOST_FILE_LINES:
            found["files over 400 lines"].append(Place(file, 1, f"{len(lines)} lines"))
        for number, line in enumerate(lines, 1):
            if (columns := len(PRAGMA.sub("", line))) > MOST_COLUMNS:
                found["lines over 110 columns"].append(Place(file, number, f"{columns} columns"))
        for name, number, what in _counted(trees[file]):
            found[name].append(Place(file, number, what))
    found["import cycles, lazy ones too"] = [
        Place(ring[0], 1, " -> ".join(ring)) for ring in _cycles(trees, package)
    ]
    names = (
        "files over 400 lines", "functions over 60 lines", "lines over 110 columns", "branches by kind",
        "isinstance of families", "positional calls over 6", "docstrings with a clause",
        "public without docstring", "import cycles, lazy ones too",
    )  # fmt: skip
    return {name: found[name] for name in names}


def _counted(tree: ast.Module) -> Iterator[tuple[str, int, str]]:
    """(count, line, what) of each thing in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            size = (node.end_lineno or node.lineno) - node.lineno + 1
            if size > MOST_LINES:
                yield "functions over 60 lines", node.lineno, f"{node.name}: {size} lines"
        if isinstance(node, ast.Call):
            if len(node.args) > MOST_POSITIONAL and not any(
                isinstance(each, ast.Starred) for each in node.args
            ):
                yield "positional calls over 6", node.lineno, ast.unparse(node.func)
            if (
                isinstance(node.func, ast.Name)
                and node.func.id == "isinstance"
                and _names(node.args[1]) & FAMILIES
            ):
                yield "isinstance of families", node.lineno, ast.unparse(node)[:80]
        if what := _branch(node):
            yield "branches by kind", getattr(node, "lineno", 0), what
    described = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    for node in [tree, *(each for each in ast.walk(tree) if isinstance(each, described))]:
        text = ast.get_docstring(node)
        line, name = getattr(node, "lineno", 1), getattr(node, "name", "module")
        if text and CLAUSE.match(text):
            yield "docstrings with a clause", line, f"{name}: {text.splitlines()[0][:70]}"
        is_public = node is tree or (node in tree.body and name[0] != "_")
        if is_public and not text:
            yield "public without docstring", line, name


def _branch(node: ast.AST) -> str | None:
    """A question about the kind of training: a comparison, an attribute, a pattern or a type that
    names one."""
    if isinstance(node, ast.Compare):
        words = {
            each.value
            for each in ast.walk(node)
            if isinstance(each, ast.Constant) and isinstance(each.value, str)
        }
        is_labels = any(
            isinstance(each, ast.Attribute) and each.attr == "labels" for each in ast.walk(node.left)
        )
        is_none = any(isinstance(each, ast.Constant) and each.value is None for each in node.comparators)
        if words & (OBJECTIVES | KINDS) or (is_labels and is_none):
            return ast.unparse(node)[:80]
    if isinstance(node, ast.MatchClass) and _names(node.cls) & OBJECTIVE_CLASSES:
        return ast.unparse(node)[:80]
    if (
        isinstance(node, ast.MatchValue)
        and isinstance(node.value, ast.Constant)
        and node.value.value in OBJECTIVES | KINDS
    ):
        return f"case {node.value.value}"
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
        return ast.unparse(node)[:80] if _names(node.args[1]) & OBJECTIVE_CLASSES else None
    if isinstance(node, ast.Attribute) and node.attr in SHAPES and isinstance(node.ctx, ast.Load):
        return ast.unparse(node)[:80]
    return None


def _names(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def _cycles(trees: dict[str, ast.Module], package: str) -> list[list[str]]:
    """Rings of modules that import each other, imports within functions and for types counted too."""
    modules = {
        file.removesuffix(".py").replace("/", ".").removesuffix(".__init__"): tree
        for file, tree in trees.items()
    }
    arrows: dict[str, set[str]] = {name: set() for name in modules}
    for name, tree in modules.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                targets = {alias.name.removeprefix(f"{package}.") for alias in node.names}
                arrows[name] |= {target for target in targets if target in modules and target != name}
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == package:
                inside = node.module.removeprefix(package).removeprefix(".")
                targets = {f"{inside}.{alias.name}".strip(".") for alias in node.names} | {inside}
                arrows[name] |= {target for target in targets if target in modules and target != name}
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    rings: list[list[str]] = []

    def visit(name: str) -> None:  # Tarjan's strongly connected components
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in sorted(arrows[name]):
            if target not in index:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], index[target])
        if low[name] == index[name]:
            ring = [stack.pop()]
            while ring[-1] != name:
                ring.append(stack.pop())
            if len(ring) > 1:
                rings.append(sorted(ring))

    for name in sorted(arrows):
        if name not in index:
            visit(name)
    return rings


if __name__ == "__main__":
    main()
