"""`etude init`: the recipe it writes is valid, fits the data, and nothing is written over."""

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from etude.cli.init import write_recipe
from etude.data.prepared import prepare
from etude.errors import InputError, RecipeError
from etude.recipe.load import load_recipe, recipe_from
from etude.report.history import read_history
from etude.run import run_recipe
from etude.start import Options
from tests.bases import (
    write_encoder,
    write_gpt2,
    write_gptj,
    write_instructions,
    write_labelled,
    write_modernbert,
    write_pairs,
    write_qwen2,
    write_t5,
)
from tests.conftest import Outcome
from tests.recipes import tiny

Etude = Callable[..., Outcome]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_qwen2(tmp_path_factory.mktemp("init") / "qwen2")


def test_the_recipe_is_short_commented_and_fits_the_rows(base: Path, tmp_path: Path) -> None:
    rows, out = write_instructions(tmp_path / "rows.jsonl", 200), tmp_path / "recipe.toml"
    found = dict(write_recipe(rows, str(base), out).rows)
    recipe, lines = load_recipe(out), out.read_text().splitlines()
    assert recipe.data.train[0].path == str(rows) and recipe.model.from_ == str(base)
    assert found["data"].startswith("200 rows, alpaca")
    assert 20 <= len([line for line in lines if line]) <= 35
    assert sum("#" in line for line in lines) > 6 and max(map(len, lines)) < 200
    assert recipe.train.seq_len >= 64 and recipe.adapter is not None


def test_it_trains_as_it_is(base: Path, tmp_path: Path) -> None:
    write_recipe(write_instructions(tmp_path / "rows.jsonl", 30), str(base), tmp_path / "recipe.toml")
    recipe = load_recipe(tmp_path / "recipe.toml", ["train.epochs=1", "evaluate.answer_tokens=4"])
    assert run_recipe(recipe, Options(runs=tmp_path / "runs")).run.state == "finished"


@pytest.mark.parametrize("write", [write_gptj, write_gpt2])
def test_the_next_command_takes_the_recipe_of_another_family(
    write: Callable[[Path], Path], tmp_path: Path
) -> None:
    from etude.plan import make_plan

    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(json.dumps({"instruction": "Add 3", "output": f"{n} " * 400}) + "\n" for n in range(40))
    )
    write_recipe(rows, str(write(tmp_path / "base")), tmp_path / "recipe.toml")
    recipe = load_recipe(tmp_path / "recipe.toml", ["data.too_long=cut"])
    assert (
        recipe.adapter is not None and recipe.adapter.targets == "all-linear" and recipe.train.seq_len == 256
    )
    make_plan(recipe)


@pytest.mark.parametrize(
    ("write", "given", "says"),
    [
        (write_encoder, {}, "no field that is called as labels mostly are .*; name it with --label FIELD"),
        (write_encoder, {"target": "output"}, "seq2seq takes T5, CodeT5"),
        (write_qwen2, {"target": "output"}, "seq2seq takes T5, CodeT5"),
        (write_t5, {"target": "outptu"}, "has no field 'outptu'; did you mean 'output'\\?"),
        (write_t5, {"target": "output", "label": "input"}, "give one of them"),
    ],
)
def test_rows_that_a_model_cannot_learn_from_get_no_recipe(
    write: Callable[[Path], Path], given: dict[str, str], says: str, tmp_path: Path
) -> None:
    rows, base = write_instructions(tmp_path / "rows.jsonl"), str(write(make(tmp_path / "base")))
    with pytest.raises(RecipeError, match=says) as caught:
        write_recipe(rows, base, tmp_path / "new.toml", given=given)
    assert len(caught.value.problems) == 1 and not (tmp_path / "new.toml").exists()


@pytest.mark.parametrize(
    ("write", "multi", "keys"),
    [
        (write_encoder, False, {"field": "text", "label": "label"}),
        (write_encoder, True, {"field": "text", "label": "label"}),
        (write_modernbert, False, {"field": "text", "pair": "other", "label": "label"}),
        (write_t5, False, {"field": "text", "label": "label"}),
        (write_qwen2, True, {"field": "text", "label": "label"}),
    ],
)
def test_a_classification_recipe_trains_as_it_is(
    write: Callable[[Path], Path], multi: bool, keys: dict[str, str], tmp_path: Path, etude: Etude
) -> None:
    base, out = write(make(tmp_path / "base")), tmp_path / "recipe.toml"
    rows = write_labelled(tmp_path / "rows.jsonl", 80, multi=multi, pairs="pair" in keys)
    given = ["--pair", "other"] if "pair" in keys else []
    outcome = etude("init", "--model", base, "--data", rows, "--label", "label", *given, "--out", out)
    assert outcome.code == 0, outcome
    recipe, text = load_recipe(out), out.read_text()
    (source,) = recipe.data.train
    assert {key: getattr(source, key) for key in ("field", "pair", "label") if getattr(source, key)} == keys
    assert recipe.train.objective == "classification" and recipe.evaluate.metric == "f1"
    assert recipe.evaluate.patience == 3 and f"field = {json.dumps(keys['field'])}" in text
    assert recipe.optim.learning_rate == (2e-4 if recipe.adapter else 2e-5)
    assert (recipe.adapter is None) == (write is not write_qwen2)
    # Counts that the page of labels says, counted apart.
    found: Counter[str] = Counter()
    for line in rows.read_text().splitlines():
        label = json.loads(line)["label"]
        found.update(label if multi else [label])
    counts = ", ".join(f"{name} in {found[name]}" for name in sorted(found))
    per_row = "several or none" if multi else "one"
    assert f"# {len(found)} labels, {per_row} a row: {counts}\n" in text
    recipe = load_recipe(out, ["train.epochs=1"])
    trained = run_recipe(recipe, Options(runs=tmp_path / "runs")).run
    assert trained.state == "finished"
    (count,) = re.findall(r"^# ([\d,]+) parameters$", text, re.M)
    if recipe.adapter is None:
        assert int(count.replace(",", "")) == read_history(trained).attempts[-1].parameters["total"]


@pytest.mark.parametrize("kind", ["pairs", "named", "instructions"])
def test_a_seq2seq_recipe_trains_as_it_is(kind: str, tmp_path: Path, etude: Etude) -> None:
    base, out = write_t5(make(tmp_path / "base")), tmp_path / "recipe.toml"
    write = write_instructions if kind == "instructions" else write_pairs
    rows = write(tmp_path / "rows.jsonl", 60)
    given = ["--target", "target", "--source", "kind"] if kind == "named" else []
    assert etude("init", "--model", base, "--data", rows, *given, "--out", out).code == 0
    recipe = load_recipe(out, ["train.epochs=1", "evaluate.answer_tokens=4"])
    (source,) = recipe.data.train
    wanted = {"pairs": ("source", "target"), "named": ("kind", "target"), "instructions": ("text", None)}
    assert (source.field, source.target) == wanted[kind]
    assert (recipe.train.objective, recipe.evaluate.metric) == ("seq2seq", "bleu")
    assert recipe.adapter is None and recipe.optim.learning_rate == 5e-5 and recipe.evaluate.answers > 2
    assert ("guessed by its name" in out.read_text()) == (kind == "pairs")
    assert run_recipe(recipe, Options(runs=tmp_path / "runs")).run.state == "finished"


def test_held_out_rows_are_read_by_the_same_fields(tmp_path: Path) -> None:
    base, out = write_encoder(make(tmp_path / "base")), tmp_path / "recipe.toml"
    rows, held_out = write_labelled(tmp_path / "rows.jsonl", 80), tmp_path / "held-out.jsonl"
    held_out.write_text("".join(rows.read_text().splitlines(keepends=True)[:9]))
    write_recipe(rows, str(base), out, held_out, {"label": "kind"})
    recipe = load_recipe(out)
    (source,) = recipe.data.validation or []
    assert (source.label, source.field) == ("kind", "text")  # type: ignore[union-attr]
    held_out.write_text('{"text": "a"}\n')
    with pytest.raises(InputError, match=r"held-out.jsonl:1 has no label field 'kind'"):
        write_recipe(rows, str(base), tmp_path / "other.toml", held_out, {"label": "kind"})


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_model_that_is_not_on_this_machine_is_said_and_lengths_are_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    rows = write_instructions(tmp_path / "rows.jsonl")
    found = dict(write_recipe(rows, "Qwen/Qwen2.5-Coder-1.5B-Instruct", tmp_path / "recipe.toml").rows)
    assert "not usable yet" in found["model"] and "guessed" in found["tokens a row"]
    assert load_recipe(tmp_path / "recipe.toml").model.from_ == "Qwen/Qwen2.5-Coder-1.5B-Instruct"


def test_a_model_that_is_missing_is_fetched_before_the_recipe_is_checked(base: Path, tmp_path: Path) -> None:
    rows = write_instructions(tmp_path / "rows.jsonl", 30)
    for model, next_rows in (
        (
            "acme/none",
            [("next", "hf download acme/none"), ("then", f"etude check {tmp_path / 'a.toml'} --deep")],
        ),
        (str(base), [("next", f"etude check {tmp_path / 'a.toml'} --deep")]),
    ):
        (tmp_path / "a.toml").unlink(missing_ok=True)
        found = write_recipe(rows, model, tmp_path / "a.toml").rows
        assert [row for row in found if row[0] in ("next", "then")] == next_rows


def test_editors_find_the_schema_beside_the_recipe(base: Path, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    rows = write_instructions(tmp_path / "texts" / "rows.jsonl", 30)
    write_recipe(rows, str(base), tmp_path / "recipe.toml")
    first = (tmp_path / "recipe.toml").read_text().splitlines()[0]
    assert first == "#:schema ./etude.schema.json"
    assert json.loads((tmp_path / "etude.schema.json").read_text())["$id"] == "urn:etude:recipe"
    write_recipe(rows, str(base), tmp_path / "second.toml")  # the file is etude's own
    # A folder that is trained on gets no file, and a stranger's file is left as it is.
    write_recipe(tmp_path / "texts", str(base), tmp_path / "texts" / "recipe.toml")
    assert not (tmp_path / "texts" / "etude.schema.json").exists()
    (tmp_path / "etude.schema.json").write_text("{}")
    write_recipe(rows, str(base), tmp_path / "third.toml")
    assert (tmp_path / "etude.schema.json").read_text() == "{}"
    for path in (tmp_path / "texts" / "recipe.toml", tmp_path / "third.toml"):
        assert "#:schema" not in path.read_text()


def test_plain_text_asks_for_no_answers(base: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps({"text": f"x = {n}\n"}) + "\n" for n in range(50))
    )
    write_recipe(tmp_path / "rows.jsonl", str(base), tmp_path / "recipe.toml")
    assert load_recipe(tmp_path / "recipe.toml").evaluate.answers == 0


def test_a_file_is_never_written_over(base: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        write_recipe(write_instructions(tmp_path / "rows.jsonl"), str(base), tmp_path / "recipe.toml")
    assert (tmp_path / "recipe.toml").read_text() == "mine"


def test_data_that_cannot_be_read_leaves_no_recipe(base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        write_recipe(tmp_path / "gone.jsonl", str(base), tmp_path / "recipe.toml")
    assert not list(tmp_path.iterdir())
    (tmp_path / "image.py").write_bytes(b"\x7fELF\0")
    for data, says in (
        (tmp_path / "image.py", "image.py is binary or not"),
        (tmp_path, "has no text: 1 of its files"),
    ):
        with pytest.raises(InputError, match=says):
            write_recipe(data, str(base), tmp_path / "recipe.toml")
    assert not (tmp_path / "recipe.toml").exists()


def test_files_of_a_folder_that_are_no_texts_are_left_out_by_the_recipe_and_said(
    base: Path, tmp_path: Path
) -> None:
    data = tmp_path / "code"
    data.mkdir()
    for number in range(30):
        (data / f"m{number}.py").write_text(f"x = {number}\n")
    (data / "logo.png").write_bytes(b"\x89PNG\0")
    said = dict(write_recipe(data, str(base), tmp_path / "recipe.toml").rows)
    assert said["left out"] == f"1 file, binary or not UTF-8 text, such as {data / 'logo.png'}"
    recipe = load_recipe(tmp_path / "recipe.toml")
    assert recipe.data.clean.undecodable == "drop"
    assert len(prepare(recipe, tokenizer_folder=base).train) > 0
    (data / "rows.jsonl").write_bytes(b'{"text": "a"}\n{"text": "\xff"}\n')  # a line is not left out unasked
    with pytest.raises(InputError, match=r"rows.jsonl:2 is binary or not UTF-8 text"):
        write_recipe(data, str(base), tmp_path / "other.toml")


@pytest.mark.parametrize("name", ["a\x7fb.jsonl", 'a"b\n.jsonl'])
def test_odd_names_are_written_so_that_they_are_read_back(name: str, base: Path, tmp_path: Path) -> None:
    rows, out = write_instructions(tmp_path / name), tmp_path / f"{name}.toml"
    write_recipe(rows, str(base), out)
    assert load_recipe(out).data.train[0].path == str(rows)


def test_a_name_that_no_recipe_can_hold_is_refused(base: Path, tmp_path: Path) -> None:
    rows = write_instructions(tmp_path / "a\udcff.jsonl")
    with pytest.raises(InputError, match=r"is not UTF-8, so no recipe can name it"):
        write_recipe(rows, str(base), tmp_path / "recipe.toml")


def test_rows_of_a_file_are_held_out_where_one_is_named(base: Path, tmp_path: Path) -> None:
    rows = write_instructions(tmp_path / "rows.jsonl", 100)
    lines = rows.read_text().splitlines(keepends=True)
    held_out = tmp_path / "held-out.jsonl"
    held_out.write_text("".join(lines[-10:]))
    found = []
    for count in (5, 8, 60):
        (tmp_path / f"{count}.jsonl").write_text("".join(lines[:count]))
        out = tmp_path / f"{count}.toml"
        told = dict(write_recipe(tmp_path / f"{count}.jsonl", str(base), out, held_out).rows)
        assert told["held out"] == str(held_out) and "# 10 rows; runs that hold out" in out.read_text()
        corpus = prepare(load_recipe(out, ["data.leakage.action=report"]), tokenizer_folder=base)
        assert corpus.validation is not None and len(corpus.validation) == 10 and len(corpus.train) == count
        found.append(corpus.held_out["validation"])
    assert len(set(found)) == 1, "the same rows, so the three runs compare"


def test_held_out_rows_of_another_format_are_refused(base: Path, tmp_path: Path) -> None:
    rows, other = write_instructions(tmp_path / "rows.jsonl", 10), tmp_path / "other.jsonl"
    other.write_text('{"text": "total"}\n')
    with pytest.raises(InputError, match=r"other.jsonl has text rows, and the data alpaca ones"):
        write_recipe(rows, str(base), tmp_path / "recipe.toml", other)
    assert not (tmp_path / "recipe.toml").exists()


def test_a_run_is_a_model_and_gives_the_recipe_its_name(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch, etude: Callable[..., Outcome]
) -> None:
    run = run_recipe(recipe_from(tiny(corpus, {"train.steps": 2})), Options(runs=tmp_path / "runs")).run
    monkeypatch.chdir(tmp_path)
    write_instructions(tmp_path / "rows.jsonl", 30)
    for name, file in (("tiny", "a.toml"), (f"{run.name}@step-2", "b.toml"), ("tiny@last", "sub/c.toml")):
        outcome = etude("init", "--data", "rows.jsonl", "--model", name, "--out", file)
        assert outcome.code == 0, outcome
        recipe = load_recipe(tmp_path / file)
        assert recipe.name == "tiny-rows"
        assert recipe.model.from_ == str(run.checkpoints / "step-000002")
    assert 'from = "./runs/' in (tmp_path / "a.toml").read_text()
    changes = {
        "model": {"from": str(run.checkpoints / "step-000002")}, "tokenizer": {}, "adapter": {"rank": 2},
        "train.steps": 1, "name": "tuned",
    }  # fmt: skip
    run_recipe(recipe_from(tiny(corpus, changes)), Options(runs=tmp_path / "runs"))
    refused = etude("init", "--data", "rows.jsonl", "--model", "tuned", "--out", "d.toml")
    assert refused.code == 2 and "etude export tuned FOLDER --to merged" in refused.err
    assert not (tmp_path / "d.toml").exists()


def test_problems_of_data_model_and_file_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("mine")
    (make(tmp_path / "theirs") / "config.json").write_text('{"auto_map": {"AutoModel": "theirs.Model"}}')
    with pytest.raises(RecipeError) as caught:
        write_recipe(tmp_path / "gone.jsonl", str(tmp_path / "theirs"), tmp_path / "recipe.toml")
    there, data, model = caught.value.problems
    assert "is there already" in there and "wants its own code run" in model and "gone.jsonl" in data


def test_without_a_model_it_says_how_one_from_scratch_begins(
    tmp_path: Path, etude: Callable[..., Outcome]
) -> None:
    found = etude("init", "--data", tmp_path)
    assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)
    assert "--model is missing" in found.err and "etude recipes copy demo" in found.err
