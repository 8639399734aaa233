import json
from collections.abc import Callable
from pathlib import Path

import pytest

from etude import durable
from etude.errors import RecipeError
from etude.recipe.keys import recipe_keys
from etude.recipe.load import load_recipe, recipe_from
from etude.records.store import Run, create_run
from etude.ui.programs import Programs
from etude.ui.recipes import Given, check, estimate, preview, run_recipe, schema, unit_of, why_of
from tests.conftest import Outcome
from tests.report.runs import ENVIRONMENT, finished_run


def test_the_recipe_of_a_run_is_told_beside_the_defaults(tmp_path: Path) -> None:
    run = finished_run(tmp_path, {"optim.learning_rate": 1e-3})
    found = run_recipe(run)
    rows = {each["key"]: each for each in found["differences"]}
    assert (rows["optim.learning_rate"]["value"], rows["optim.learning_rate"]["other"]) == (1e-3, 6e-4)
    assert rows["train.steps"]["unit"] == "steps"
    assert "optimizer updates" in rows["train.steps"]["why"]
    assert "schedule.min_lr_ratio" not in rows
    assert found["toml"].startswith("name = ")
    assert found["edited"] is None


def test_the_recipe_of_a_run_is_told_beside_that_of_another_as_compare_has_it(
    tmp_path: Path, etude: Callable[..., Outcome]
) -> None:
    one, two = finished_run(tmp_path), finished_run(tmp_path, {"optim.learning_rate": 1e-3, "seed": 4})
    told = json.loads(etude("compare", one.path, two.path, "--json").out)["recipe"]
    found = run_recipe(one, two)["differences"]
    assert {each["key"]: [each["value"], each["other"]] for each in found} == told | {"seed": [17, 4]}


def test_a_value_that_nobody_set_is_told_as_derived(tmp_path: Path) -> None:
    recipe = recipe_from({"name": "a", "tokenizer": {"train_vocab_size": 300}, "data": {"train": [{"source": "python-stdlib"}]},
                          "train": {"steps": 40, "global_batch_size": 8, "micro_batch_size": 4, "seq_len": 64}})  # fmt: skip
    text = 'name = "a"\n[tokenizer]\ntrain_vocab_size = 300\n[[data.train]]\nsource = "python-stdlib"\n[train]\nsteps = 40\n'
    writer = create_run(tmp_path, recipe, recipe_text=text + "global_batch_size = 8\n")
    told = {"command": ["etude", "train", "a.toml", "train.seq_len=64"], "micro_batch_size": 4}
    durable.write_json(writer.run.path / "environment.json", {**ENVIRONMENT, **told, "data_fingerprint": "f"})
    writer.close("stopped")
    derived = {each["key"]: each["derived"] for each in run_recipe(Run(writer.run.path))["differences"]}
    assert derived["train.micro_batch_size"] and not derived["train.seq_len"] and not derived["train.steps"]
    assert not derived["data.train.0.source"] and not derived["tokenizer.train_vocab_size"]
    (writer.run.path / "environment.json").write_text("{")
    derived = {each["key"]: each["derived"] for each in run_recipe(Run(writer.run.path))["differences"]}
    assert derived["train.seq_len"]  # nothing tells where it is from


def test_the_next_run_begins_with_what_the_command_line_set_and_with_absolute_paths(tmp_path: Path) -> None:
    text = "name = 'a' # mine\n[[data.train]]\npath = 'c.jsonl'\n[train]\nsteps = 40\nglobal_batch_size = 8\n"
    text += "micro_batch_size = 'auto'\n[tokenizer]\ntrain_vocab_size = 300\n"
    (tmp_path / "c.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "a.toml").write_text(text)
    said = ["optim.learning_rate=0.5", "name=b"]
    recipe = load_recipe(tmp_path / "a.toml", said)
    writer = create_run(tmp_path / "runs", recipe, recipe_text=text)
    told = {**ENVIRONMENT, "command": ["etude", "train", "a.toml", *said]}
    durable.write_json(
        writer.run.path / "environment.json", {**told, "micro_batch_size": 4, "data_fingerprint": "f"}
    )
    writer.close("stopped")
    found = check(run_recipe(Run(writer.run.path))["next"], tmp_path / "elsewhere")["given"]
    assert (found["name"], found["optim.learning_rate"]) == ("b", 0.5)
    assert found["data.train.0.path"] == str(tmp_path / "c.jsonl")
    assert (found["train.micro_batch_size"], found["train.steps"]) == ("auto", 40)
    assert "# mine" in run_recipe(Run(writer.run.path))["next"]


def test_a_recipe_that_was_edited_is_said(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    path = run.path / "resolved.toml"
    path.write_text(path.read_text().replace("seed = 17", "seed = 18"))
    assert "was changed after" in run_recipe(Run(run.path))["edited"]


def test_the_form_has_every_key_of_a_recipe_with_its_reason() -> None:
    sections = {each["name"]: each for each in schema()["sections"]}
    dotted = {key["key"] for each in sections.values() for key in each["keys"]}
    listed = {key.replace(".0.", ".") for key in recipe_keys()}
    assert listed <= dotted
    rate = next(key for key in sections["optim"]["keys"] if key["name"] == "learning_rate")
    assert (rate["kind"], rate["default"], rate["least"], rate["above"]) == ("number", 6e-4, 0, True)
    size = next(key for key in sections["train"]["keys"] if key["name"] == "micro_batch_size")
    assert (size["kind"], size["choices"], size["default"]) == ("whole", ["auto"], "auto")
    assert sections["data.train"]["is_list"]
    assert sections["tasks"]["is_named"]
    assert "data.clean" in sections
    assert all(key["why"] for each in sections.values() for key in each["keys"])
    assert json.dumps(schema(), allow_nan=False)


def test_problems_stand_by_key_and_line_with_what_to_do(tmp_path: Path) -> None:
    found = check('name = "a"\n[train]\nsteps = -1\n[[data.train]]\npath = "x"\n', tmp_path)
    places = {each["key"]: each for each in found["problems"]}
    assert places["train.steps"] == {
        "key": "train.steps", "line": 3, "text": "is -1; it must be above 0", "remedy": "try 1000"
    }  # fmt: skip
    assert found["values"] == {}
    assert found["given"]["train.steps"] == -1


@pytest.mark.parametrize("text", ["", "name =", "[" * 5000, 'a = "\ud800"', "x = 1" + "0" * 5000, "\0"])
def test_a_text_that_is_no_recipe_is_a_problem_and_no_fault(tmp_path: Path, text: str) -> None:
    found = check(text, tmp_path)
    assert found["problems"]
    assert json.dumps({**found, "toml": ""}, allow_nan=False)


VALID = '# mine\nname = "a"\n[[data.train]]\npath = "corpus.jsonl"\n[train]\nsteps = 4 # few\nglobal_batch_size = 8\n'


def test_a_form_changes_the_text_and_keeps_its_comments(tmp_path: Path) -> None:
    found = check(VALID, tmp_path, {"optim.learning_rate": 1e-3, "train.steps": None, "train.epochs": 2})
    assert found["toml"].startswith("# mine\n")
    assert "steps" not in found["toml"]
    assert found["given"]["optim.learning_rate"] == 1e-3
    assert found["given"]["train.epochs"] == 2


def test_a_change_that_has_no_place_is_a_problem(tmp_path: Path) -> None:
    found = check(VALID, tmp_path, {"data.train.7.path": "x"})
    assert "change it by hand" in found["problems"][0]["text"]
    assert found["toml"] == VALID


def test_a_text_that_takes_long_to_change_is_changed_by_hand(tmp_path: Path) -> None:
    for text, value in (
        (f"{VALID}# {'x' * 40_000}\n", 2),
        (VALID + "x=[1,2]\n" * 2_000, 2),
        (VALID, "x" * 40_000),
    ):
        found = check(text, tmp_path, {"train.steps": value})
        assert "too long to be changed by the form; change it by hand" in found["problems"][0]["text"]
        assert found["toml"] == text


def test_the_estimate_and_the_rows_are_those_of_the_commands(
    corpus: Path, write_recipe: Callable[..., Path], etude: Callable[..., Outcome]
) -> None:
    path, programs = write_recipe(), Programs()
    told = json.loads(etude("estimate", path, "--quick", "--json").out)
    found = estimate(programs, path.read_text(), corpus.parent)
    assert found["parameters"] == told["parameters"]
    rows = preview(programs, path.read_text(), corpus.parent, 2)
    assert rows["samples"] == json.loads(etude("data", "show", path, "--rows", 2, "--json").out)
    gone = path.read_text().replace("corpus.jsonl", "gone.jsonl")
    assert "gone.jsonl" in preview(programs, gone, corpus.parent)["problem"]
    with pytest.raises(RecipeError):
        estimate(programs, "name = 1", corpus.parent)


def test_the_rows_of_another_file_are_read_as_those_of_the_recipe(
    tmp_path: Path, corpus: Path, write_recipe: Callable[..., Path]
) -> None:
    text, programs = write_recipe().read_text(), Programs()
    other = tmp_path / "other.jsonl"
    lines = [json.dumps({"text": f"def sent_{n}(a):\n    return a + {n}"}) for n in range(60)]
    other.write_text("\n".join(lines))
    by_path = preview(programs, text, tmp_path, given=Given("other.jsonl"))
    assert "sent_" in "".join(part["text"] for part in by_path["samples"][0]["parts"])
    by_text = preview(programs, text, tmp_path, given=Given("../x/mine.JSONL", "\n".join(lines)))
    assert by_text == by_path
    bad = preview(programs, text, tmp_path, given=Given("mine.jsonl", '{"text": "a"}\n{"text": '))
    assert "mine.jsonl" in bad["problem"] and "/rows" not in bad["problem"]
    assert "gone.jsonl" in preview(programs, text, tmp_path, given=Given("gone.jsonl"))["problem"]


def test_keys_have_reasons_and_units() -> None:
    assert why_of("data.train.3.path") == recipe_keys()["data.train.0.path"].description
    assert why_of("no.such") is None
    assert (unit_of("model.vocab_size"), unit_of("train.global_batch_size")) == ("tokens", "samples")
    assert (unit_of("train.seq_len"), unit_of("checkpoint.every_minutes"), unit_of("name")) == (
        "tokens", "minutes", ""
    )  # fmt: skip


def test_a_name_of_very_many_parts_is_a_problem_and_takes_no_memory(tmp_path: Path) -> None:
    found = check("a." * 20_000 + "b = 1", tmp_path)
    assert "nested too deeply" in found["problems"][0]["text"]
    assert found["given"] == {}  # the names of its levels alone would have 400 MB
