"""The commands that use a model: write it for other tools, read one of theirs, and let it write."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from etude.cli.completion import complete_checkpoint
from etude.cli.options import Json, Runs, parse_name, parse_output
from etude.cli.printing import print_json, print_rows, say
from etude.errors import InputError

Speaking = Annotated[
    str,
    typer.Argument(
        parser=parse_name,
        help="RUN (its best), RUN@last, RUN@step-200, or a folder",
        metavar="RUN|FOLDER",
        autocompletion=complete_checkpoint,
    ),
]
MaxTokens = Annotated[int, typer.Option("--max-tokens", help="tokens of each answer at most")]
Temperature = Annotated[float, typer.Option("--temperature", help="0 takes the likeliest token")]
TopK = Annotated[int | None, typer.Option("--top-k", help="draw among this many tokens")]
TopP = Annotated[float | None, typer.Option("--top-p", help="draw among the likeliest of this mass")]
Seed = Annotated[int, typer.Option("--seed", help="of the draws")]


def import_model(
    model: Annotated[
        str,
        typer.Argument(
            parser=parse_name, help="a folder with pytorch_model.bin, or a hub id", metavar="MODEL"
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Argument(
            parser=parse_output, help="the folder to write (default: NAME-safetensors)", metavar="[OUT]"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Turn a model published as a pickle into safetensors, without running anything of it."""
    from etude.convert import convert
    from etude.models.hub import find_model

    folder = find_model(model)
    files = [str(path) for path in convert(folder, out or Path(f"{Path(model).name}-safetensors"))]
    print_rows([("wrote", file) for file in files], files, as_json)


class ExportKind(StrEnum):
    """Forms that a run is written in."""

    peft = "peft"
    merged = "merged"
    hf = "hf"
    int8 = "int8"
    int4 = "int4"
    gguf = "gguf"
    onnx = "onnx"


class GgufType(StrEnum):
    """Forms of a GGUF file, as llama.cpp names them."""

    f16 = "f16"
    q8_0 = "q8_0"
    q6_k = "q6_k"
    q5_k_m = "q5_k_m"
    q4_k_m = "q4_k_m"


class QuantizeMethod(StrEnum):
    """Ways to round the weights."""

    gptq = "gptq"
    round = "round"


Form = Annotated[
    ExportKind,
    typer.Option(
        "--to",
        metavar="FORM",
        help="peft: the adapter, merged: base and adapter, hf: a whole model, int8 and int4: one of fewer "
        "bits, gguf: one for llama.cpp, onnx: an encoder for onnxruntime",
    ),
]


def export_model(
    run: Annotated[
        str,
        typer.Argument(
            parser=parse_name,
            help="RUN, RUN@best, RUN@last or RUN@step-200",
            metavar="RUN",
            autocompletion=complete_checkpoint,
        ),
    ],
    out: Annotated[Path, typer.Argument(parser=parse_output, help="the folder to write", metavar="OUT")],
    kind: Form,
    type_: Annotated[
        GgufType | None, typer.Option("--type", help="of a gguf, by the bits of a weight (default: q8_0)")
    ] = None,
    method: Annotated[
        QuantizeMethod | None,
        typer.Option(help="of rounding: gptq is calibrated (default of int4), round is not (of int8)"),
    ] = None,
    group: Annotated[
        int | None,
        typer.Option(help="inputs that share a scale; 0 for all (default of int8; of int4: 128, 64 or 32)"),
    ] = None,
    calibration: Annotated[
        int | None, typer.Option(help="training samples to calibrate with (default: 128)")
    ] = None,
    max_loss: Annotated[
        float | None,
        typer.Option(help="share of the validation loss that fewer bits may cost (default: 0.02)"),
    ] = None,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Write the model of a run for transformers, PEFT or vLLM, with a model card of the run's figures."""
    from etude.records.store import open_run
    from etude.report.summary import warn_of_best
    from etude.report.wording import size
    from etude.start import split_choice

    given = {
        "--type": type_,
        "--method": method,
        "--group": group,
        "--calibration": calibration,
        "--max-loss": max_loss,
    }
    asked = {option: value for option, value in given.items() if value is not None}
    measured, beside = _write_export(run, kind.value, out, asked, runs)
    files = {path.name: path.stat().st_size for path in sorted(out.iterdir())}
    sizes = [(name, size(count)) for name, count in files.items()]
    name, which = split_choice(run)
    if which == "best" and (warning := warn_of_best(open_run(name, runs))):
        say(warning)
    folder = str(out.absolute())
    rows = [("folder", folder), *sizes, *measured, ("load with", "the code under Use in README.md")]
    print_rows(rows, {"folder": folder, "files": files, **beside}, as_json)


def _write_export(
    run: str, kind: str, out: Path, asked: dict[str, Any], runs: Path
) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """Write a form of a run; rows and values on what fewer bits cost. asked: options of these, as given."""
    from etude.export import export
    from etude.quantize.export import export_quantized
    from etude.quantize.gguf import GgufSettings
    from etude.quantize.packed import BITS, Settings

    of_packed = ("--method", "--group", "--calibration", "--max-loss")
    taken = {"int8": of_packed, "int4": of_packed, "gguf": ("--type", "--max-loss")}
    for option in asked:
        if option not in taken.get(kind, ()):
            forms = " and ".join(f"--to {form}" for form, options in taken.items() if option in options)
            raise InputError(f"{option} is for {forms}, not for --to {kind}; leave it out")
    names = {"--max-loss": "most_loss", "--type": "form"}
    chosen = {names.get(option, option[2:]): value for option, value in asked.items()}
    if kind in taken:
        settings = Settings(bits=BITS[kind], **chosen) if kind in BITS else GgufSettings(**chosen)
        result = export_quantized(run, settings, out, runs=runs)
        return list(result.rows()), {"quantized": result.to_dict()}
    if kind == "onnx":
        from etude.quantize.onnx import export_onnx

        checked = export_onnx(run, out, runs=runs)
        return list(checked.rows()), {"onnx": checked.to_dict()}
    export(run, kind, out, runs=runs)
    return [], {}


def generate(
    model: Speaking,
    prompt: Annotated[
        list[str],
        typer.Option("--prompt", help="what to continue, - reads it from stdin; may be given more than once"),
    ],
    instruction: Annotated[
        bool, typer.Option("--instruction", help="the prompt is an instruction to answer")
    ] = False,
    max_tokens: MaxTokens = 128,
    temperature: Temperature = 0.8,
    top_k: TopK = None,
    top_p: TopP = None,
    seed: Seed = 17,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Continue prompts with the model of a run, or one in a folder."""
    from etude.cli.generate import Sampling, generate_texts, print_texts

    sampling = Sampling(max_tokens, temperature, top_k, top_p, seed)
    if prompt.count("-") > 1:
        raise InputError("--prompt - is given twice, but stdin can be read once only; leave one out")
    prompt = [sys.stdin.read() if text == "-" else text for text in prompt]
    texts = generate_texts(model, prompt, sampling, runs=runs, is_instruction=instruction)
    if as_json:
        print_json(texts)
    else:
        print_texts(texts)


def chat(
    model: Speaking,
    system: Annotated[str | None, typer.Option("--system", help="a system message")] = None,
    max_tokens: MaxTokens = 512,
    temperature: Temperature = 0.8,
    top_k: TopK = None,
    top_p: TopP = None,
    seed: Seed = 17,
    runs: Runs = Path("runs"),
    as_json: Annotated[
        bool, typer.Option("--json", help="print each answer as a line of JSON; a line of stdin is a turn")
    ] = False,
) -> None:
    """Talk with the model of a run, or one in a folder."""
    from etude.cli.generate import Sampling
    from etude.cli.generate import chat as talk

    talk(
        model,
        Sampling(max_tokens, temperature, top_k, top_p, seed),
        runs=runs,
        system=system,
        as_json=as_json,
    )
