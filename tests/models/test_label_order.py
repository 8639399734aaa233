"""The labels of a classifier that a run starts from: their order is kept, against transformers."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from etude.data.samples.labelled import Labelled
from etude.errors import EtudeError, InputError
from etude.export import export, load_model, open_tokenizer
from etude.models.build import build
from etude.models.parts import label_tensors
from etude.models.pretrained import inspect_model
from etude.plan import Plan, make_plan
from etude.plan.rows import plan_rows
from etude.recipe.load import recipe_from, with_changes
from etude.recipe.schema import Recipe
from etude.records.events import Evaluation, Finding, Scores
from etude.run import Training
from etude.start import Options
from tests import bases

NAMES = ("vulnerable", "safe", "benign")
FAMILIES: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "roberta": (bases.write_encoder, ["query"]),
    "bert": (lambda folder: bases.write_encoder(folder, family="bert"), ["query"]),
    "qwen2": (bases.write_qwen2, ["q_proj"]),
    "t5": (bases.write_t5, ["q"]),
    "modernbert": (bases.write_modernbert, ["Wqkv"]),
}
WORDS = ["total", "value", "left", "print", "Add", "to", "system"]
TEXTS = [
    " ".join(random.Random(number).choices(WORDS, k=number % 7 + 1)) + f" {number}" for number in range(24)
]


def write_classifier(folder: Path, family: str, names: tuple[str, ...] = NAMES, **config: Any) -> Path:
    """A classifier that transformers saved, with labels in an order that is not the alphabet's."""
    from transformers import AutoModelForSequenceClassification

    write, _ = FAMILIES[family]
    write(folder)
    id2label = dict(enumerate(names))
    label2id = {name: index for index, name in enumerate(names)}
    torch.manual_seed(3)
    model: Any = AutoModelForSequenceClassification.from_pretrained(
        folder, id2label=id2label, label2id=label2id, dtype=torch.float32, pad_token_id=1, **config,
        **({"eos_token_id": open_tokenizer(folder).eos_id} if family == "t5" else {}),
    )  # fmt: skip
    for name, parameter in model.named_parameters():
        if name.startswith(("classif", "score", "head")):
            torch.nn.init.normal_(parameter, std=0.0 if name.endswith("bias") else 1.0)
    model.save_pretrained(folder)
    return folder


def token_ids(base: Path) -> list[list[int]]:
    """The texts as a run reads them."""
    train = make_plan(recipe_of(base, [*NAMES] * 8)).corpus.train
    return [train.sample(index).tokens.tolist() for index in range(len(train))]


def answers(folder: Path, texts: list[list[int]]) -> list[str]:
    """The name of the label that transformers gives each text."""
    from transformers import AutoModelForSequenceClassification

    model: Any = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = [model(torch.tensor([ids])).logits[0] for ids in texts]
    return [model.config.id2label[int(each.argmax())] for each in logits]


def spread_answers(folder: Path, texts: list[list[int]]) -> None:
    """Turn the head of a model away from what all texts have in common, so that its answers differ."""
    from transformers import AutoModelForSequenceClassification

    model: Any = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    head = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
    inputs: list[torch.Tensor] = []
    head.register_forward_hook(
        lambda _, given, out: inputs.append(given[0][0, -1] if given[0].ndim > 2 else given[0][0])
    )
    with torch.no_grad():
        for ids in texts:
            model(torch.tensor([ids]))
        mean = torch.stack(inputs).mean(dim=0)
        head.weight -= torch.outer(head.weight @ mean, mean) / (mean @ mean)
    model.save_pretrained(folder)


def recipe_of(base: Path, labels: list[Any], changes: dict[str, Any] | None = None) -> Recipe:
    """Training that changes nothing, validated on the rows that it trains on."""
    rows = base.parent / "rows.jsonl"
    lines = (
        json.dumps({"text": text, "label": label}) + "\n" for text, label in zip(TEXTS, labels, strict=False)
    )
    rows.write_text("".join(lines))
    source = [{"path": str(rows), "label": "label"}]
    values: dict[str, Any] = {
        "name": "order",
        "model": {"from": str(base), "dropout": 0.0},
        "data": {"train": source, "validation": source, "leakage": {"action": "report"}},
        "train": {
            "objective": "classification", "steps": 1, "seq_len": 32, "global_batch_size": 8, "device": "cpu",
            "precision": "fp32",
        },
        "optim": {"learning_rate": 1e-12, "weight_decay": 0.0},
        "schedule": {"kind": "constant"},
    }  # fmt: skip
    return with_changes(recipe_from(values), changes or {})


def run(recipe: Recipe, folder: Path) -> tuple[Training, list[Any]]:
    training = Training(recipe, Options(runs=folder / "runs"))
    for _ in training:
        pass
    return training, [entry.event for entry in training.run.ledger().entries]


def accuracy(events: list[Any]) -> float:
    return float(next(event for event in events if isinstance(event, Evaluation)).metrics["accuracy"])


def notes(events: list[Any]) -> str:
    return "\n".join(
        event.evidence
        for event in events
        if isinstance(event, Finding) and event.what == "labels of the data"
    )


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_classifier_is_right_about_its_own_answers_and_exported_as_it_was(
    family: str, adapted: bool, tmp_path: Path
) -> None:
    base = write_classifier(tmp_path / "base", family)
    texts = token_ids(base)
    spread_answers(base, texts)
    said = answers(base, texts)
    assert set(said) == set(NAMES)
    changes = {"adapter": {"rank": 2, "targets": FAMILIES[family][1]}} if adapted else {}
    training, events = run(recipe_of(base, said, changes), tmp_path)
    assert accuracy(events) == 1.0
    (scores,) = [event for event in events if isinstance(event, Scores)]
    assert tuple(scores.labels) == NAMES
    out = export(f"{training.run.path}@last", "merged" if adapted else "hf", tmp_path / "out")
    assert json.loads((out / "config.json").read_text())["id2label"] == {
        "0": NAMES[0],
        "1": NAMES[1],
        "2": NAMES[2],
    }
    assert answers(out, texts) == said
    assert "the order is the model's: vulnerable, safe" in notes(events)


def test_labels_that_are_some_of_the_models_keep_its_outputs(tmp_path: Path) -> None:
    base = write_classifier(tmp_path / "base", "roberta", ("e", "d", "c", "b", "a"))
    before = load_file(base / "model.safetensors")["classifier.out_proj.weight"]
    recipe = recipe_of(base, ["a", "c", "d"] * 8)
    plan = make_plan(recipe)
    assert plan.corpus.labels is not None and plan.corpus.labels.names == ("e", "d", "c", "b", "a")
    assert isinstance(plan.corpus.train, Labelled)
    assert plan.corpus.train.classes[:3].tolist() == [[0, 0, 0, 0, 1], [0, 0, 1, 0, 0], [0, 1, 0, 0, 0]]
    training, events = run(recipe, tmp_path)
    after = load_file(training.run.checkpoints / "step-000001" / "model.safetensors")[
        "classifier.out_proj.weight"
    ]
    torch.testing.assert_close(after, before)
    assert "no row has e, b, which the model keeps" in notes(events)


def head_of(plan: Plan) -> tuple[torch.Tensor, list[str]]:
    """The weight with a row for each label of the model that a run begins with, and what no file had."""
    model, new = build(plan.recipe, plan.model, plan.pretrained, torch.float32)
    (name,) = [name for name in label_tensors(model) if name.endswith("weight")]
    return model.get_parameter(name).detach(), new


@pytest.mark.parametrize("family", FAMILIES)
def test_new_labels_are_put_behind_those_of_the_model(family: str, tmp_path: Path) -> None:
    base = write_classifier(tmp_path / "base", family)
    (name,) = [
        name for name, tensor in load_file(base / "model.safetensors").items() if tensor.shape == (3, 32)
    ]
    plan = make_plan(recipe_of(base, ["safe", "odd", "new"] * 8))
    head, new = head_of(plan)
    assert head.shape == (5, 32) and torch.equal(head[:3], load_file(base / "model.safetensors")[name])
    assert head[3:].abs().max() > 0 and name in new
    assert plan.corpus.labels is not None and plan.corpus.labels.names == (*NAMES, "new", "odd")
    assert "new to the model: new, odd, with outputs drawn anew" in str(plan_rows(plan))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_of_other_labels_is_drawn_anew_even_if_they_are_as_many(family: str, tmp_path: Path) -> None:
    base = write_classifier(tmp_path / "base", family)
    (name,) = [
        name for name, tensor in load_file(base / "model.safetensors").items() if tensor.shape == (3, 32)
    ]
    plan = make_plan(recipe_of(base, ["x", "y", "z"] * 8))
    head, new = head_of(plan)
    assert head.shape == (3, 32) and 0 < float(head.abs().max()) < 0.2 and name in new
    said = "none of x, y, z is a label of the model (vulnerable, safe, benign): its head is drawn anew"
    assert said in str(plan_rows(plan))


@pytest.mark.parametrize("kind", [int, str])
def test_numbers_of_all_classes_are_those_of_the_model(kind: type, tmp_path: Path) -> None:
    base = write_classifier(tmp_path / "base", "roberta")
    texts = token_ids(base)
    spread_answers(base, texts)
    _, events = run(recipe_of(base, [kind(NAMES.index(name)) for name in answers(base, texts)]), tmp_path)
    assert accuracy(events) == 1.0
    assert "numbers are the model's: 0 = vulnerable, 1 = safe, 2 = benign" in notes(events)


def test_numbers_of_another_task_than_the_models_draw_its_head_anew(tmp_path: Path) -> None:
    base = write_classifier(tmp_path / "base", "roberta")
    plan = make_plan(recipe_of(base, [0, 1] * 12))
    assert plan.corpus.labels is not None and plan.corpus.labels.names == ("0", "1")
    assert "drawn anew" in str(plan_rows(plan))


def test_unnamed_classes_are_taken_in_the_order_of_the_data_and_that_is_said(tmp_path: Path) -> None:
    names = tuple(f"LABEL_{index}" for index in range(11))
    base = write_classifier(tmp_path / "base", "roberta", names)
    plan = make_plan(recipe_of(base, [*range(11), *range(11)]))
    assert plan.corpus.labels is not None and plan.corpus.labels.names == tuple(map(str, range(11)))
    base = write_classifier(tmp_path / "two", "roberta", names[:2])
    plan = make_plan(recipe_of(base, [True, False] * 12))
    assert plan.corpus.labels is not None and plan.corpus.labels.names == ("False", "True")
    assert plan.pretrained is not None and plan.pretrained.kept_labels == 2
    assert "the model's classes have no names and are taken in order: False = LABEL_0, True = LABEL_1" in str(
        plan_rows(plan)
    )


def test_several_labels_after_one_keep_the_order_and_the_change_is_said(tmp_path: Path) -> None:
    base = write_classifier(tmp_path / "base", "bert", problem_type="single_label_classification")
    plan = make_plan(recipe_of(base, [["safe", "benign"], ["vulnerable"], []] * 8))
    assert plan.corpus.labels is not None and plan.corpus.labels.names == NAMES
    assert "the model gave a text one label, here several" in str(plan_rows(plan))


def test_another_order_of_labels_is_other_data(tmp_path: Path) -> None:
    first = write_classifier(tmp_path / "a", "roberta")
    second = write_classifier(tmp_path / "b", "roberta", tuple(sorted(NAMES)))
    labels = ["safe", "benign", "vulnerable"] * 8
    assert make_plan(recipe_of(first, labels)).fingerprint != make_plan(recipe_of(second, labels)).fingerprint


def test_a_trained_checkpoint_goes_on_with_its_labels(tmp_path: Path) -> None:
    base = write_classifier(tmp_path / "base", "roberta")
    training, _ = run(recipe_of(base, ["safe", "odd", "new"] * 8), tmp_path)
    checkpoint = training.run.checkpoints / "step-000001"
    plan = make_plan(recipe_of(checkpoint, ["new", "benign"] * 12))
    assert plan.corpus.labels is not None and plan.corpus.labels.names == (*NAMES, "new", "odd")
    assert plan.pretrained is not None and plan.pretrained.kept_labels == 5


def test_weights_of_a_run_with_other_labels_are_refused(tmp_path: Path) -> None:
    base = write_classifier(tmp_path / "base", "roberta")
    training, _ = run(recipe_of(base, ["safe", "benign", "vulnerable"] * 8), tmp_path)
    plain = bases.write_encoder(tmp_path / "plain")
    for labels in (["safe", "benign", "vulnerable"], ["x", "y", "z"]):
        options = Options(runs=tmp_path / "runs", weights=f"{training.run.path}@last", new=True)
        with pytest.raises(
            EtudeError, match=r"scores the labels vulnerable, safe, benign, and this run .*model.from"
        ):
            next(iter(Training(recipe_of(plain, labels * 8), options)))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_with_other_outputs_than_names_is_refused(family: str, tmp_path: Path) -> None:
    base = write_classifier(tmp_path / "base", family)
    tensors = load_file(base / "model.safetensors")
    cut = {name: tensor[:2].clone() if tensor.shape[0] == 3 else tensor for name, tensor in tensors.items()}
    save_file(cut, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EtudeError, match=r"(weight|bias) is \[2(, 32)?\], but config.json says \[3"):
        inspect_model(base, "classification")


def test_classes_without_architectures_are_those_of_the_head(tmp_path: Path) -> None:
    base = write_classifier(tmp_path / "base", "roberta")
    config = json.loads((base / "config.json").read_text())
    del config["architectures"]
    (base / "config.json").write_text(json.dumps(config))
    assert inspect_model(base, "classification").label_names == NAMES
    shutil.rmtree(base)


def write_adapter(folder: Path, said: Any, *, with_head: bool = True) -> Path:
    """An adapter of a run, with another adapter_classifier.json."""
    base = bases.write_encoder(folder / "base")
    changes = {"adapter": {"rank": 2, "targets": ["query"]}}
    training, _ = run(recipe_of(base, ["a", "b"] * 12, changes), folder)
    made = folder / "adapter"
    shutil.copytree(training.run.checkpoints / "step-000001", made)
    (made / "state.json").unlink()
    if said is not None:
        (made / "adapter_classifier.json").write_text(json.dumps(said))
    if not with_head:
        tensors = load_file(made / "adapter_model.safetensors")
        save_file(
            {name: each for name, each in tensors.items() if "lora_" in name},
            made / "adapter_model.safetensors",
        )
    return made


def test_labels_of_an_adapter_that_cannot_be_are_refused_in_one_line(tmp_path: Path) -> None:
    made = write_adapter(tmp_path, None)
    for said, expected in (
        ({"id2label": {"0": 5}}, "names label '0' 5"),
        ({"id2label": ["a"]}, r"id2label is \['a'\]"),
        ({"id2label": {"-1": "a", "0": "b"}}, "label number '-1'"),
        ({"id2label": {"0": {"a": 1}, "1": "b"}}, "names label '0'"),
        ({"num_labels": 10**6}, "num_labels is 1000000"),
        ({"id2label": {"0": "a", "1": "b"}, "pad_token_id": "x"}, "pad_token_id is 'x'"),
        ([], "object"),
    ):
        (made / "adapter_classifier.json").write_text(json.dumps(said))
        with pytest.raises(InputError, match=expected) as caught:
            load_model(made, dtype=torch.float32)
        assert "\n" not in str(caught.value) and "adapter_classifier.json" in str(caught.value)


def test_an_adapter_without_the_head_of_its_labels_is_refused(tmp_path: Path) -> None:
    made = write_adapter(tmp_path, None, with_head=False)
    with pytest.raises(
        InputError, match=r"lacks base_model.model.classifier.dense.weight, a part of the head"
    ):
        load_model(made, dtype=torch.float32)
