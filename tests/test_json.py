"""JSON for scripts: the keys that docs/json.md promises, in snake_case, and errors."""

import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from etude.recipe.keys import recipe_keys
from etude.records.events import RARE, TYPES
from etude.records.store import Run
from tests.bases import write_instructions, write_qwen2
from tests.conftest import Outcome
from tests.misleading import equal_within_noise

Etude = Callable[..., Outcome]
PAGE = (Path(__file__).parents[1] / "docs" / "json.md").read_text("utf-8")
# By the command as the page has it, the words of a command line and the way to the object with the keys.
COMMANDS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "check RECIPE --deep": ("check RECIPE --deep", lambda value: value),
    "estimate RECIPE": ("estimate RECIPE --quick", lambda value: value),
    "estimate --from RUN": ("estimate --from RUN", lambda value: value),
    "estimate --history": ("estimate --history --runs RUNS", lambda value: value[0]),
    "init": ("init --data ROWS --model MODEL --out OUT", lambda value: value),
    "prepare RECIPE": ("prepare RECIPE", lambda value: value),
    "data RECIPE": ("data RECIPE --out PAGE", lambda value: value),
    "data show RECIPE": ("data show RECIPE", lambda value: value[0]),
    "show RUN": ("show RUN", lambda value: value),
    "runs": ("runs", lambda value: value[0]),
    "compare RUN RUN...": ("compare RUN OTHER", lambda value: value),
    "evaluate RUN... --on FILE": ("evaluate RUN OTHER --on TEXTS", lambda value: value),
    "evaluate RUN... --on FILE --k 1,10": (
        "evaluate RUN --on PROBLEMS --k 1 --samples 1",
        lambda value: value,
    ),
    "report RUN": ("report RUN", lambda value: value),
    "watch RUN|FILE": ("watch LOG", lambda value: value),
    "rate RUN --scores ...": ("rate RUN --scores 4", lambda value: next(iter(value.values()))),
    "rate RUN --agreement LEVEL": (
        "rate RUN --agreement ordinal",
        lambda value: {**value, **value["agreement"]},
    ),
    "rate RUN": ("rate RUN --rater anna", lambda value: value[0]),
    "export RUN OUT": ("export RUN FOLDER --to hf", lambda value: value),
    "export RUN OUT --to int8": (
        "export RUN SMALL --to int8",
        lambda value: {**value, **value["quantized"], "quantized": 0},
    ),
    "export RUN OUT --to gguf": (
        "export RUN GGUF --to gguf --max-loss 9",
        lambda value: {**value, **value["quantized"], "quantized": 0},
    ),
    "average RUN... --out FOLDER": ("average RUN OTHER --greedy --out MEAN", lambda value: value),
    "note RUN TEXT": ("note RUN done --section lessons --author anna", lambda value: value),
    "generate": ("generate RUN --prompt x --max-tokens 2", lambda value: value[0]),
}


def promised(command: str) -> list[str]:
    """The keys that the page promises of a command; of one that is as another, those too."""
    (text,) = re.findall(rf"^- `{re.escape(command)}`: (.*?)(?=^-|^$)", PAGE, re.M | re.S)
    keys = re.findall(r"`(\w+)`", text)
    before = {
        "data RECIPE": "prepare RECIPE", "runs": "show RUN", "estimate RECIPE": "check RECIPE --deep",
    }.get(command)  # fmt: skip
    if before:
        keys = [*promised(before), *(key for key in keys if key not in ("prepare", "show"))]
        keys = [key for key in keys if command != "estimate RECIPE" or key != "audit"]
    return keys


def keys_within(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from keys_within(one)


@pytest.fixture
def words(tmp_path: Path, write_recipe: Callable[..., Path], etude: Etude) -> dict[str, Any]:
    recipe, runs = write_recipe({"train.steps": 2, "evaluate.prompts": ["def "]}), tmp_path / "runs"
    for _ in range(2):
        assert etude("train", recipe, "--new", "--runs", runs).code == 0
    first, second = sorted(path for path in runs.iterdir() if not path.name.startswith("."))
    rows = write_instructions(tmp_path / "rows.jsonl", 20)
    (tmp_path / "texts.jsonl").write_text('{"text": "def f(x):\\n    return x"}\n' * 3)
    problem = {"task_id": "one", "prompt": "def f(x):\n", "tests": ["assert f(1) == 2"], "entry_point": "f"}
    (tmp_path / "problems.jsonl").write_text(json.dumps(problem))
    return {
        "PROBLEMS": tmp_path / "problems.jsonl",
        "RECIPE": recipe, "RUN": first, "RUNS": runs, "LOG": first / "trainer_state.json", "OTHER": second, "ROWS": rows, "TEXTS": tmp_path / "texts.jsonl", "OUT": tmp_path / "out.toml", "FOLDER": tmp_path / "exported", "PAGE": tmp_path / "page.md", "SMALL": tmp_path / "small", "GGUF": tmp_path / "gguf", "MEAN": tmp_path / "mean",
        "MODEL": next((first / "checkpoints").iterdir()),
    }  # fmt: skip


def test_every_command_has_the_keys_that_are_promised(
    words: dict[str, Any], tmp_path: Path, etude: Etude
) -> None:
    for command, (line, within) in COMMANDS.items():
        given = [words.get(word, word) for word in line.split()]
        if command == "runs":
            given += ["--runs", tmp_path / "runs"]
        outcome = etude(*given, "--json")
        assert outcome.code == 0, outcome
        value = json.loads(outcome.out)
        assert set(promised(command)) <= set(within(value)), command
        names = {str(words["RUN"].name), str(words["OTHER"].name), *recipe_keys()}
        odd = {key for key in keys_within(value) if not re.fullmatch(r"[a-z][a-z0-9_]*", key)} - names
        assert not {key for key in odd if not re.search(r"[./@]|^Modelfile$", key)}, (
            command
        )  # names of files, keys, figures


def test_an_ensemble_has_the_keys_that_are_promised(misleading: Any, etude: Etude) -> None:
    runs: list[Run] = misleading(equal_within_noise)
    outcome = etude("ensemble", *(run.path for run in runs), "--json")
    assert set(promised("ensemble RUN RUN...")) <= set(json.loads(outcome.out))


def test_each_line_of_the_page_is_tried() -> None:
    listed = set(re.findall(r"^- `(.*?)`:", PAGE.partition("## Lines of a run")[0], re.M))
    assert listed == {*COMMANDS, "ensemble RUN RUN...", "check RECIPE", "recipes"}


def test_numbers_are_numbers(words: dict[str, Any], etude: Etude) -> None:
    plan = json.loads(etude("check", words["RECIPE"], "--deep", "--json").out)
    assert (plan["steps"], plan["global_batch_size"], plan["devices"]) == (2, 8, 1)
    assert plan["epochs"] == plan["steps"] / plan["steps_per_epoch"]
    assert plan["tokens"] == 2 * 8 * 32 >= plan["targets"]
    assert plan["operations"] > 6 * plan["targets"] * plan["parameters"]["head"]
    shown = json.loads(etude("show", words["RUN"], "--json").out)
    assert (plan["trainable"], plan["steps"]) == (shown["trainable"], shown["step"])


@pytest.mark.parametrize(
    ("line", "says", "count"),
    [
        ("show nothing", "there is no run nothing", 1),
        ("check RECIPE optim.lr=1 train.stepz=3", "train.stepz", 2),
        ("show", "Missing argument 'RUN'", 1),
        ("check RECIPE --bogus", "No such option", 1),
        ("bogus", "No such command", 1),
    ],
)
def test_an_error_is_json_too_and_its_line_stays(
    line: str, says: str, count: int, write_recipe: Callable[..., Path], etude: Etude
) -> None:
    given = [write_recipe() if word == "RECIPE" else word for word in line.split()]
    outcome = etude(*given, "--json")
    value = json.loads(outcome.out)
    assert list(value)[:3] == ["error", "problems", "exit_code"]
    assert value.keys() <= {"error", "problems", "exit_code", "places"}
    assert says in value["error"] and value["exit_code"] == outcome.code == 2
    assert value["problems"][0] == value["error"] and len(value["problems"]) == count
    assert [f"error: {problem}" for problem in value["problems"]] == outcome.err.splitlines()
    assert etude(*given).out == ""


def test_refused_data_are_one_value_that_says_so(
    tmp_path: Path, write_recipe: Callable[..., Path], etude: Etude
) -> None:
    rows = "".join(
        json.dumps({"text": f"def f{n % 20}(x):\n    return x * {n % 20}\n"}) + "\n" for n in range(40)
    )
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text(rows)
    changes = {
        "data.train.0.path": str(tmp_path / "a.jsonl"),
        "data.validation": [{"path": str(tmp_path / "b.jsonl")}],
    }
    outcome = etude("data", write_recipe(changes), "--out", tmp_path / "page.md", "--json")
    assert outcome.code == 2
    assert "leaks" in json.loads(outcome.out)["refused"]


def lines(outcome: Outcome) -> list[dict[str, Any]]:
    return [json.loads(line) for line in outcome.out.splitlines()]


def test_training_prints_a_line_for_each_record_with_the_keys_that_are_promised(
    tmp_path: Path, write_recipe: Callable[..., Path], etude: Etude
) -> None:
    recipe = write_recipe({"train.steps": 3, "evaluate.prompts": ["def "], "evaluate.every_steps": 2})
    outcome = etude("train", recipe, "--runs", tmp_path / "runs", "--json")
    made = lines(outcome)
    assert outcome.code == 0 and "validation loss" in outcome.err
    assert [each["step"] for each in made if each["type"] == "step"] == [1, 2, 3]
    first, last = made[0], made[-1]
    assert (first["type"], last["type"], last["exit_code"]) == ("run", "end", 0)
    shown = json.loads(etude("show", first["name"], "--runs", tmp_path / "runs", "--json").out)
    assert {key: last[key] for key in shown if key != "disk_bytes"} == {
        key: value for key, value in shown.items() if key != "disk_bytes"
    }
    journal = (Path(first["path"]) / "journal.jsonl").read_text().splitlines()
    kept = [each for line in journal if (each := json.loads(line))["type"] in TYPES]
    timeless = [{key: each[key] for key in each if key not in ("crc", "time")} for each in kept]
    assert [{key: each[key] for key in each if key != "time"} for each in made[1:-1]] == timeless
    for each in made:
        assert set(promised(each["type"])) - {"show", *RARE} <= set(each), each["type"]
    again = lines(etude("train", recipe, "--runs", tmp_path / "runs", "--json"))
    assert [(each["type"], each["name"]) for each in again] == [("end", first["name"])]


def test_an_error_is_a_line_and_every_seed_has_its_end(
    tmp_path: Path, write_recipe: Callable[..., Path], etude: Etude
) -> None:
    recipe, runs = write_recipe({"train.steps": 4}), tmp_path / "runs"
    broken = lines(etude("train", recipe, "optim.lr=1", "--runs", runs, "--json"))
    assert broken[-1]["type"] == "error" and broken[-1]["exit_code"] == 2
    refused = lines(etude("resume", "nothing", "--runs", runs, "--json"))
    assert [each["type"] for each in refused] == ["error"]
    seeds = lines(etude("train", recipe, "--runs", runs, "--repeat", "2", "--json"))
    assert [each["exit_code"] for each in seeds if each["type"] == "end"] == [0, 0]


def test_a_chat_answers_each_line_of_stdin_with_a_line(
    tmp_path: Path, etude: Etude, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_qwen2(tmp_path / "model")
    monkeypatch.setattr("sys.stdin", io.StringIO("Say it.\n/reset\nAgain.\n" + "word " * 5000 + "\n"))
    outcome = etude("chat", folder, "--max-tokens", 3, "--json")
    first, second, refused = lines(outcome)
    assert (first["prompt"], second["prompt"]) == ("Say it.", "Again.") and outcome.code == 0
    assert first["tokens"] <= 3 and set(first) == {"prompt", "text", "tokens", "stopped"}
    assert set(refused) == {"prompt", "error"}
