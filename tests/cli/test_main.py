"""The command line: what it imports, what it prints, how it refuses."""

import ast
import gzip
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from etude.cli.main import app
from tests.conftest import Outcome

Etude = Callable[..., Outcome]
Write = Callable[..., Path]


def imported_by(*words: str) -> set[str]:
    code = (
        "import sys\nfrom etude.cli.main import main\nsys.argv = ['etude', *sys.argv[1:]]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    return {line.partition(".")[0] for line in done.stderr.splitlines()}


def test_help_imports_neither_torch_nor_numpy() -> None:
    assert not imported_by("--help") & {
        "torch",
        "numpy",
        "transformers",
        "pydantic",
        "tokenizers",
        "matplotlib",
    }


def test_no_help_loses_what_stands_in_brackets() -> None:
    def helps(command: Any) -> Iterator[str]:
        yield from (command.help or "", *(getattr(each, "help", None) or "" for each in command.params))
        for each in getattr(command, "commands", {}).values():
            yield from helps(each)

    assert not [text for text in helps(get_command(app)) if re.search(r"\[[a-z/\[]", text)]


def test_reading_commands_do_not_import_torch(write_recipe: Write, tmp_path: Path, etude: Etude) -> None:
    recipe = write_recipe({"train.steps": 2})
    assert etude("train", recipe, "--runs", tmp_path / "runs").code == 0
    (run,) = [path for path in (tmp_path / "runs").iterdir() if not path.name.startswith(".")]
    for words in (
        ["check", str(recipe)], ["schema"], ["runs", "--runs", str(tmp_path / "runs")], ["show", str(run)],
        ["compare", str(run), str(run)],
    ):  # fmt: skip
        assert not imported_by(*words) & {"torch", "transformers"}, words


def test_importing_etude_imports_nothing_heavy_and_exports_what_it_says() -> None:
    code = "import sys, etude; print(sorted({'torch', 'numpy', 'pydantic'} & set(sys.modules)))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )
    import etude as package

    assert all(getattr(package, name) is not None for name in package.__all__)
    assert sorted(package.__all__) == package.__all__
    with pytest.raises(AttributeError):
        _ = package.nothing


def refused(outcome: Outcome, *says: str, runs: Path | None = None) -> None:
    assert outcome.code == 2, outcome
    assert "Traceback" not in outcome.err
    lines = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, outcome.err
    for text in says:
        assert text in lines[0]
    if runs is not None:
        assert not runs.exists()


def gzip_bomb() -> bytes:
    return gzip.compress(b"\0" * (1 << 20))


BAD_DATA: dict[str, tuple[str, bytes | None, str]] = {
    "missing": ("gone.jsonl", None, "does not exist"),
    "empty": ("a.jsonl", b"", "a.jsonl"),
    "blank": ("a.txt", b" \n \n", "a.txt"),
    "binary": ("a.txt", b"\x7fELF\0\0\1", "a.txt"),
    "latin": ("a.txt", "déjà".encode("latin-1"), "UTF-8"),
    "broken line": ("a.jsonl", b'{"text": "x"}\n{"text": \n', "a.jsonl:2"),
    "no field": ("a.jsonl", b'{"content": "x"}\n', "a.jsonl:1"),
    "number": ("a.jsonl", b'{"text": 3}\n', "a.jsonl:1"),
    "nan": ("a.jsonl", b'{"text": NaN}\n', "a.jsonl:1"),
    "not gzip": ("a.jsonl.gz", b"plain", "a.jsonl.gz"),
    "zeros": ("a.txt.gz", gzip_bomb(), "a.txt.gz"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_is_one_line_and_nothing_is_written(
    case: str, tmp_path: Path, write_recipe: Write, etude: Etude
) -> None:
    name, content, says = BAD_DATA[case]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    recipe = write_recipe({"data.train.0.path": str(tmp_path / name)})
    refused(etude("train", recipe, "--runs", tmp_path / "runs"), says, runs=tmp_path / "runs")


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["optim.learning_rate=-1"], "optim.learning_rate (override) is -1"),
        (["optim.learning_rate=nan"], "finite"),
        (["train.steps=0"], "must be above 0"),
        (["train.stepz=3"], "did you mean steps?"),
        (["name='../x'"], "1 to 64 lower case"),
        (["train.device='cuda'"], "this machine and this torch have"),
        (["evaluate.metric='f1'"], "evaluate.metric"),
        (["model.vocab_size=256"], "at least 300"),
    ],
)
def test_a_bad_value_is_one_line_and_nothing_is_written(
    overrides: list[str], says: str, tmp_path: Path, write_recipe: Write, etude: Etude
) -> None:
    import torch

    if torch.cuda.is_available() and "cuda" in overrides[0]:
        pytest.skip("this machine has a GPU")
    refused(
        etude("train", write_recipe(), *overrides, "--runs", tmp_path / "runs"), says, runs=tmp_path / "runs"
    )


def test_a_tokenizer_larger_than_the_embedding_is_refused(
    tmp_path: Path, write_recipe: Write, etude: Etude
) -> None:
    from etude.data.bpe import train_tokenizer

    tokenizer = train_tokenizer(iter(["def total(a):\n    return a\n" * 20]), 290)
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    recipe = write_recipe()
    text = recipe.read_text().replace("train_vocab_size = 300", f'from = "{tmp_path / "tokenizer.json"}"')
    recipe.write_text(text)
    outcome = etude("train", recipe, "model.vocab_size=100", "--runs", tmp_path / "runs")
    refused(outcome, "model.vocab_size is 100", runs=tmp_path / "runs")
    assert etude("train", recipe, "train.steps=1", "--runs", tmp_path / "runs").code == 0


def test_too_little_data_for_validation_is_refused(tmp_path: Path, write_recipe: Write, etude: Etude) -> None:
    (tmp_path / "one.txt").write_text("x")
    recipe = write_recipe({"data.train.0.path": str(tmp_path / "one.txt")})
    refused(etude("train", recipe, "--runs", tmp_path / "runs"), "validation", runs=tmp_path / "runs")


def test_warm_up_longer_than_the_epochs_is_refused(tmp_path: Path, write_recipe: Write, etude: Etude) -> None:
    recipe = write_recipe({"train.steps": None, "train.epochs": 1, "schedule.warmup_steps": 500})
    refused(etude("train", recipe, "--runs", tmp_path / "runs"), "this data gives", runs=tmp_path / "runs")


def test_damaged_prepared_data_is_refused_and_can_be_built_anew(
    tmp_path: Path, write_recipe: Write, etude: Etude, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "cache"))
    recipe = write_recipe({"train.steps": 1})
    assert etude("prepare", recipe).code == 0
    (tokens,) = (tmp_path / "cache").glob("prepared/*/tokens.bin")
    data = bytearray(tokens.read_bytes())
    data[10] ^= 1
    tokens.write_bytes(data)
    refused(
        etude("train", recipe, "--runs", tmp_path / "runs"), "tokens.bin", "--again", runs=tmp_path / "runs"
    )
    assert etude("prepare", recipe, "--again").code == 0
    assert etude("train", recipe, "--runs", tmp_path / "runs").code == 0


def test_two_runs_into_one_folder_are_refused(tmp_path: Path, write_recipe: Write, etude: Etude) -> None:
    from etude.records.store import hold_run, list_runs

    recipe = write_recipe({"train.steps": 2})
    assert etude("train", recipe, "--runs", tmp_path / "runs").code == 0
    (run,) = list_runs(tmp_path / "runs")
    holder = hold_run(run)
    refused(etude("train", recipe, "--runs", tmp_path / "runs"), "is in use by process")
    holder.close("finished")


def test_pickled_weights_are_refused_and_no_code_runs(
    tmp_path: Path, write_recipe: Write, etude: Etude
) -> None:
    import torch

    from tests.engine.states import Payload

    torch.save({"x": Payload(tmp_path / "canary")}, tmp_path / "model.safetensors")
    outcome = etude("train", write_recipe(), "--from", tmp_path, "--runs", tmp_path / "runs")
    refused(outcome, "it is a pickle", runs=tmp_path / "runs")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["train", "gone.toml"], "does not exist"),
        (["show", "nothing"], "there is no run nothing"),
        (["resume", "nothing"], "there is no run nothing"),
        (["report", "../../etc"], "there is no run"),
        (["compare", "nothing"], "two runs or more"),
    ],
)
def test_what_is_not_there_is_named(
    words: list[str], says: str, etude: Etude, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(etude(*words), says)
    assert list(tmp_path.iterdir()) == [tmp_path / "corpus.jsonl"] or not list(tmp_path.iterdir())


def test_resuming_a_finished_run_is_refused(tmp_path: Path, write_recipe: Write, etude: Etude) -> None:
    assert etude("train", write_recipe({"train.steps": 2}), "--runs", tmp_path / "runs").code == 0
    refused(etude("resume", "tiny", "--runs", tmp_path / "runs"), "is finished")


def test_no_secret_of_the_environment_is_written(
    tmp_path: Path, write_recipe: Write, etude: Etude, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_API_KEY", "HF_TOKEN", "LINE_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "canary-5aad")
    assert etude("train", write_recipe({"train.steps": 2}), "--runs", tmp_path / "runs").code == 0
    files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert files and not any(b"canary-5aad" in path.read_bytes() for path in files)


@pytest.mark.parametrize(
    "environment", [{"LC_ALL": "C"}, {"LC_ALL": "tr_TR.UTF-8"}, {"PYTHONUTF8": "0", "LC_ALL": "C"}]
)
def test_a_run_does_not_depend_on_the_locale_or_the_folder_name(
    environment: dict[str, str], tmp_path: Path, write_recipe: Write, cache: Path
) -> None:
    folder = tmp_path / "with space ü"
    folder.mkdir()
    recipe = write_recipe({"train.steps": 1, "evaluate.prompts": ["é"]})
    done = subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", "-m", "etude", "train", str(recipe), "--runs", str(folder)],
        env={**os.environ, "ETUDE_CACHE": str(cache), **environment}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not [
        line for line in done.stderr.splitlines() if "EncodingWarning" in line and "/etude/etude" in line
    ]


def dangers(path: Path) -> set[str]:
    """What in the code of a file would unpickle, evaluate or start a shell."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names) if any(name.name.split(".")[0] in PICKLES for name in names):
                found.add("pickle")
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in PICKLES:
                found.add("pickle")
            case ast.Call(func=ast.Name(id="eval" | "exec" as name)):
                found.add(name)
            case ast.Call(func=ast.Attribute(value=ast.Name(id="torch"), attr="load"), keywords=keywords):
                safe = any(word.arg == "weights_only" and is_true(word.value) for word in keywords)
                found.add("torch.load of tensors" if safe else "torch.load")
            case ast.keyword(arg="allow_pickle" | "shell" as name, value=value) if is_true(value):
                found.add(name)
    return found


def is_true(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


PICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
# Tensors only, in a process apart; code of a model and its tests, each confined by the kernel.
ALLOWED = {"convert.py": {"torch.load of tensors"}, "evaluate/sides.py": {"exec"}}


def test_the_source_never_unpickles_evaluates_or_starts_a_shell() -> None:
    source = Path(__file__).parents[2] / "etude"
    found = {path.relative_to(source).as_posix(): dangers(path) for path in source.rglob("*.py")}
    assert {name: dangerous for name, dangerous in found.items() if dangerous} == ALLOWED


def test_each_danger_in_code_is_found_and_none_in_its_texts(tmp_path: Path) -> None:
    lines = "import pickle.x|from dill import load|eval(x)|exec(x)|torch.load(x)|run(shell=True)"
    for line in lines.split("|"):
        (tmp_path / "code.py").write_text(line)
        assert dangers(tmp_path / "code.py"), line
    (tmp_path / "code.py").write_text("model.eval()\nHELD = r'eval(uation)?'")
    assert not dangers(tmp_path / "code.py")


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGTERM", "SIGHUP"])
def test_a_signal_before_the_first_step_is_answered_with_the_code_of_a_stop(
    write_recipe: Write, tmp_path: Path, etude: Etude, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    recipe, number = write_recipe(), signal.Signals[name]
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr("etude.session.make_plan", lambda *_, **__: signal.raise_signal(number))
        ended = etude("train", recipe, "--runs", tmp_path / "runs")
    assert ended.code == 75 and f"{name} came while no step was under way" in ended.err
    assert signal.getsignal(number) is before
    assert etude("train", recipe, "--runs", tmp_path / "runs").code == 0


def test_a_command_without_memory_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch, etude: Etude) -> None:
    def fail() -> None:
        raise MemoryError

    monkeypatch.setattr("etude.cli.main.follow_launcher", fail)
    done = etude("runs")
    assert done.code == 1 and done.err.startswith("error: there is no memory left"), done.err
    assert len(done.err.splitlines()) == 1
