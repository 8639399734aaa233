"""The command that scores runs on one file of rows, or lets one that is going on evaluate now."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etude.cli import steer
from etude.cli.completion import complete_checkpoint
from etude.cli.options import Json, Runs, parse_name, parse_new_file, parse_path, require_other
from etude.cli.printing import page_width, print_json, print_text, say
from etude.errors import InputError
from etude.text import printable

if TYPE_CHECKING:
    from etude.report.judged import Sampled

_K = Annotated[
    str | None,
    typer.Option("--k", metavar="1,10", help="FILE has problems: run what the models write, for pass@k"),
]
_Samples = Annotated[int, typer.Option("--samples", min=1, help="of each problem, with --k")]
_Temperature = Annotated[
    float | None, typer.Option("--temperature", min=0, help="with --k (0.8; 0 for a single sample)")
]
_Instruction = Annotated[bool, typer.Option("--instruction", help="with --k: ask by the chat template")]
_Unsafe = Annotated[
    bool, typer.Option("--unsafe-exec", help="with --k: run code also where the kernel cannot confine it")
]


def evaluate(
    model: Annotated[
        list[str],
        typer.Argument(
            parser=parse_name,
            help="RUN (its best), RUN@last, RUN@step-200, or a folder",
            metavar="RUN|FOLDER...",
            autocompletion=complete_checkpoint,
        ),
    ],
    on: Annotated[
        Path | None,
        typer.Option(
            "--on", parser=parse_path, metavar="FILE", help="file of rows in the format of the run's data"
        ),
    ] = None,
    answers: Annotated[
        int | None, typer.Option("--answers", min=0, help="rows to answer (default: evaluate.answers)")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", parser=parse_new_file, metavar="FILE", help="also write JSON there"),
    ] = None,
    k: _K = None,
    samples: _Samples = 1,
    temperature: _Temperature = None,
    instruction: _Instruction = False,
    unsafe: _Unsafe = False,
    wait: steer.Wait = True,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Score runs on the same file of rows, side by side; or let a run that is going on evaluate now."""
    require_other(out, *([on] if on else []))
    if on is not None and k is not None:
        from etude.report.judged import Sampled

        warmth = temperature if temperature is not None else 0.8 if samples > 1 else 0.0
        asked = Sampled(ks=_parse_ks(k), samples=samples, temperature=warmth, instruction=instruction)
        _execute(model, on, asked, out, runs=runs, is_unsafe=unsafe, as_json=as_json)
        return
    if samples != 1 or temperature is not None or instruction or unsafe or k is not None:
        raise InputError(
            "--k, --samples, --temperature, --instruction and --unsafe-exec go with --on and --k"
        )
    if on is None:
        _evaluate_now(model, wait=wait, runs=runs, as_json=as_json)
        return
    from etude import durable
    from etude.records.events import plain
    from etude.rescore import rescore

    found = rescore(model, on, runs=runs, answers=answers)
    if as_json:
        print_json(found.to_dict())
    else:
        print_text("\n".join(map(printable, found.lines(page_width()))))
    if out is not None:
        durable.write_file(out, (json.dumps(plain(found.to_dict()), indent=2) + "\n").encode())
        say(f"written to {out}")


def _execute(
    models: list[str], file: Path, sampled: "Sampled", out: Path | None, *, runs: Path, is_unsafe: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Run what models write for the problems of a file. Raises: InputError."""
    from etude import durable
    from etude.judging import judge_models

    if is_unsafe:
        say("--unsafe-exec: code of the model may do all that you can do on this machine")
    found = judge_models(models, file, sampled, runs=runs, is_unsafe=is_unsafe)
    if as_json:
        print_json(found.to_dict())
    else:
        print_text("\n".join(map(printable, found.lines(page_width()))))
    if out is not None:
        durable.write_file(out, (json.dumps(found.to_dict(with_samples=True), indent=2) + "\n").encode())
        say(f"written to {out}")


def _parse_ks(text: str) -> tuple[int, ...]:
    """Numbers as 1,10,100. Raises: InputError."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 7 and int(part) for part in parts):
        raise InputError(f"--k is {text[:40]!r}; expected numbers of samples from 1, as 1,10")
    return tuple(dict.fromkeys(int(part) for part in parts))


def _evaluate_now(names: list[str], *, wait: bool, runs: Path, as_json: bool) -> None:
    """Let a run that is going on measure itself on its validation samples. Raises: InputError."""
    from etude.control.mailbox import is_going_on
    from etude.records.store import open_run

    found = [open_run(name, runs) for name in names]
    if len(found) > 1 or not is_going_on(found[0]):
        which = f"{len(found)} runs" if len(found) > 1 else f"run {found[0].name}, which is {found[0].state}"
        raise InputError(f"give --on FILE to score {which}; one run that is going on evaluates without it")
    steer.ask(found[0], "evaluate", wait=wait, as_json=as_json)
