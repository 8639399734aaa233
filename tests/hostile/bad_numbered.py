"""Inputs of the numbered list of the release (`numbered.py`) that nothing else tried."""

import tarfile
from collections.abc import Callable
from pathlib import Path

from tests.hostile.bad_data import ROW, file
from tests.hostile.bad_data import recipe as of_data
from tests.hostile.bad_recipes import GOOD, change, recipe
from tests.hostile.case import Case

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
NAMES = {
    "a slash": "a/b", "a NUL": "a\\u0000b", "a line end": "a\\nb", "300 letters": "a" * 300, "the word of a device": "CON", "a blank": "a b",
}  # fmt: skip


def section(name: bytes, line: bytes) -> Callable[[Path], list[str]]:
    """A good recipe with a line in a section, which may be new."""
    head = b"[" + name + b"]\n"
    return recipe(GOOD.replace(head, head + line + b"\n") if head in GOOD else GOOD + head + line + b"\n")


def in_itself(folder: Path) -> list[str]:
    """A sweep whose base recipe is the sweep."""
    lines = [
        'name = "loop"',
        'recipe = "sweep.toml"',
        "[[tiers]]",
        'name = "one"',
        "[[tiers.models]]",
        'name = "net"',
    ]
    (folder / "sweep.toml").write_text("\n".join(lines))
    return ["sweep", "plan", "sweep.toml"]


def tar(folder: Path) -> list[str]:
    """An archive with a member of an absolute path."""
    (folder / "row").write_bytes(ROW)
    with tarfile.open(folder / "rows.tar", "w") as archive:
        archive.add(folder / "row", "/tmp/etude-canary")
    return of_data(folder, "rows.tar")


CASES = [
    *(
        Case(
            name=f"a name with {what}",
            make=change(f'"{name}"'.encode(), b'"good"'),
            says="must be 1 to 64 lower case letters",
        )
        for what, name in NAMES.items()
    ),
    Case(name="an alias bomb in YAML", make=recipe(BOMB.encode()), says="recipe.toml:1: not valid TOML"),
    Case(
        name="an object of Python in YAML",
        make=recipe(b"!!python/object/apply:os.system ['touch /tmp/etude-canary']"),
        says="recipe.toml:1: not valid TOML",
    ),
    Case(
        name="a number with a leading zero", make=change(b"seed = 012"), says="recipe.toml:1: not valid TOML"
    ),
    Case(
        name="a time of day for a number",
        make=change(b"seed = 01:30:00"),
        says="seed .recipe.toml:1. is 01:30:00",
    ),
    Case(
        name="a rate that is NaN",
        make=section(b"optim", b"learning_rate = nan"),
        says="optim.learning_rate .* is nan; it must be a finite number",
    ),
    Case(
        name="a rate below zero",
        make=section(b"optim", b"learning_rate = -1e-3"),
        says="optim.learning_rate .* must be above 0",
    ),
    Case(name="no steps", make=change(b"steps = 0", b"steps = 10"), says="train.steps .recipe.toml:7. is 0"),
    Case(
        name="a batch below zero",
        make=change(b"global_batch_size = -8", b"global_batch_size = 8"),
        says="global_batch_size .* is -8; it must be above 0",
    ),
    Case(
        name="a warm-up that is longer than the run",
        make=section(b"schedule", b"warmup_steps = 11"),
        says="warmup_steps .* is 11 but the run has 10 steps",
    ),
    Case(
        name="a held-out share of all",
        make=section(b"data", b"validation_ratio = 1.0"),
        says="validation_ratio .* must be below 1",
    ),
    Case(
        name="an adapter of rank 0",
        make=section(b"adapter", b"rank = 0"),
        says="adapter.rank .* is 0; it must be at least 1",
    ),
    Case(
        name="two precisions",
        make=section(b"train", b'precision = "fp16+bf16"'),
        says="train.precision .* must be",
    ),
    Case(name="a key that is a secret", make=section(b"notify", b'token = "sk-canary-4711"'), says=""),
    Case(name="a sweep in itself", make=in_itself, says="a sweep itself; give a recipe"),
    Case(name="an archive with an absolute path", make=tar, says="is a TAR archive"),
    Case(
        name="a last row that is cut off",
        make=file("rows.jsonl", ROW * 3 + b'{"text": "cu'),
        says="rows.jsonl:4 is not valid JSON",
    ),
    Case(
        name="a text that is null",
        make=file("rows.jsonl", ROW + b'{"text": null}\n'),
        says="rows.jsonl:2 has null as field",
    ),
    Case(
        name="a text that is a number",
        make=file("rows.jsonl", ROW + b'{"text": 7}\n'),
        says="rows.jsonl:2 has a number as field",
    ),
]
