"""Classification from labelled rows to scores, against transformers and scikit-learn."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from sklearn.utils.class_weight import compute_class_weight

from etude.data.prepared import prepare
from etude.data.samples.labelled import take_labelled
from etude.data.samples.sample import Texts
from etude.errors import EtudeError
from etude.export import export
from etude.objectives.classification import Classification
from etude.plan import make_plan
from etude.recipe.load import with_changes
from etude.recipe.schema import Loss, Recipe
from etude.records.events import Evaluation, Finding, Scores
from etude.report.summary import summarize
from etude.run import Training
from etude.start import Options
from tests.bases import write_encoder, write_labelled
from tests.recipes import classification
from tests.reference import label_loss, train, train_plainly


@pytest.mark.parametrize("family", ["roberta", "bert"])
@pytest.mark.parametrize("kind", ["single", "multi", "pairs"])
def test_losses_are_those_of_transformers(family: str, kind: str, tmp_path: Path) -> None:
    base = write_encoder(tmp_path / "base", family=family)
    rows = write_labelled(tmp_path / "rows.jsonl", multi=kind == "multi", pairs=kind == "pairs")
    changes: dict[str, Any] = {"train.micro_batch_size": 4}
    if kind == "pairs":
        changes["data.train.0.pair"] = "other"
    recipe = classification(rows, base, changes)
    plan = make_plan(recipe)
    training, ours = train(recipe, tmp_path / "runs")
    theirs = _train_in_transformers(recipe, plan, training.run.checkpoints)
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert ours[-1] < ours[0] - 0.05


def _train_in_transformers(recipe: Recipe, plan: Any, checkpoints: Path) -> list[float]:
    """The same steps by padded batches with the loss of their model, from the weights that ours
    begins with."""
    from transformers import AutoModelForSequenceClassification

    from etude.models.pretrained import load_pretrained

    first, new = load_pretrained(plan.pretrained, dtype=torch.float32, dropout=0.0, seed=recipe.seed)
    assert all("classifier" in name or "pooler" in name for name in new) and new
    final = checkpoints / max(path.name for path in checkpoints.iterdir())
    model: Any = AutoModelForSequenceClassification.from_pretrained(final, dtype=torch.float32)
    assert model.config.id2label == dict(enumerate(plan.corpus.labels.names))
    model.load_state_dict(first.state_dict(), strict=False)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.train()
    split = plan.corpus.train
    return train_plainly(
        recipe, split, model.parameters(), lambda ids: label_loss(model, [split.sample(i) for i in ids])
    )


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("family", ["roberta", "bert"])
def test_tokens_are_those_of_transformers(pairs: bool, family: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    base = write_encoder(tmp_path / "base", family=family)
    rows = write_labelled(tmp_path / "rows.jsonl", 30, pairs=pairs)
    changes: dict[str, Any] = {"data.validation": "none", "train.seq_len": 12, "evaluate.metric": "loss"}
    if pairs:
        changes["data.train.0.pair"] = "other"
    corpus = prepare(classification(rows, base, changes), tokenizer_folder=base)
    theirs = AutoTokenizer.from_pretrained(base)
    for index, line in enumerate(rows.read_text().splitlines()):
        row = json.loads(line)
        given = (row["text"], row["other"]) if pairs else (row["text"],)
        expected = theirs(*given, truncation="longest_first", max_length=12)
        assert corpus.train.sample(index).tokens.tolist() == expected["input_ids"]


@pytest.mark.parametrize("pairs", [False, True])
def test_texts_are_cut_on_the_side_that_the_tokenizer_says_and_so_does_the_export(
    pairs: bool, tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    base = write_encoder(tmp_path / "base")
    settings = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps({**settings, "truncation_side": "left"}))
    rows = write_labelled(tmp_path / "rows.jsonl", 30, pairs=pairs)
    test = write_labelled(tmp_path / "test.jsonl", 12, pairs=pairs)
    sides = {"pair": "other"} if pairs else {}
    changes: dict[str, Any] = {
        "train.seq_len": 8, "train.steps": 4, "evaluate.every_steps": 4, "checkpoint.every_steps": 4,
        "data.train": [{"path": str(rows), "label": "label", **sides}],
        "data.test": [{"path": str(test), "label": "label", **sides}], "data.leakage.action": "report",
    }  # fmt: skip
    training = Training(classification(rows, base, changes), Options(runs=tmp_path / "runs"))
    for _ in training:
        pass
    out = export(training.run.name, "hf", tmp_path / "out", runs=tmp_path / "runs")
    theirs = AutoTokenizer.from_pretrained(out)
    assert theirs.truncation_side == "left"
    corpus = prepare(training.run.recipe, tokenizer_folder=base)
    model = AutoModelForSequenceClassification.from_pretrained(out, dtype=torch.float32).eval()
    said = [
        json.loads(line)
        for line in (training.run.path / "predictions" / "test.jsonl").read_text().splitlines()
    ]
    for index, (line, ours) in enumerate(zip(test.read_text().splitlines(), said, strict=True)):
        row = json.loads(line)
        given = (row["text"], row["other"]) if pairs else (row["text"],)
        batch = theirs(*given, truncation=True, max_length=8, return_tensors="pt")
        assert (
            corpus.test is not None
            and corpus.test.sample(index).tokens.tolist() == batch["input_ids"][0].tolist()
        )
        with torch.no_grad():
            expected = model(**batch).logits.softmax(-1)[0].tolist()
        assert ours["probabilities"] == pytest.approx(expected, abs=1e-4)


def test_a_run_ends_with_scores_beside_its_start_and_baselines(tmp_path: Path) -> None:
    rows = write_labelled(tmp_path / "rows.jsonl", 200)
    test = write_labelled(tmp_path / "test.jsonl", 50)
    recipe = classification(
        rows, None,
        {"data.test": [{"path": str(test), "label": "label", "capability": "kind"}], "data.leakage.action": "report"},
    )  # fmt: skip
    training = Training(recipe, Options(runs=tmp_path / "runs"))
    for _ in training:
        pass
    run = training.run
    (scores,) = [entry.event for entry in run.ledger().entries if isinstance(entry.event, Scores)]
    assert (scores.split, scores.rows, scores.metric) == ("test", 50, "f1")
    said = [json.loads(line) for line in (run.path / "predictions" / "test.jsonl").read_text().splitlines()]
    given = [json.loads(line) for line in test.read_text().splitlines()]
    assert [row["id"] for row in said] == [
        hashlib.sha256(row["text"].encode()).hexdigest()[:16] for row in given
    ]
    assert [row["capability"] for row in said] == [row["kind"] for row in given]
    truth, predicted = (np.array([row[key] for row in said]).argmax(1) for key in ("labels", "probabilities"))
    assert scores.systems["after"]["f1"][0] == pytest.approx(f1_score(truth, predicted, average="macro"))
    (constant,) = scores.systems.keys() - {"after", "before", "TF-IDF + logistic regression"}
    assert constant.startswith("always ") and constant.endswith(" (majority class)")
    assert scores.distinct == len(set(predicted.tolist()))
    assert all(low <= value <= high for each in scores.systems.values() for value, low, high in each.values())
    assert sum(values["rows"] for values in scores.capabilities.values()) == 50
    assert np.sum(scores.confusion) == 50
    report = (run.path / "report" / "report.md").read_text()
    assert "On 50 test rows" in report and "| before training |" in report


def test_a_single_held_out_row_is_reported_as_noise(tmp_path: Path) -> None:
    training = Training(classification(rows_of(tmp_path, GOOD[:9]), None), Options(runs=tmp_path / "runs"))
    for _ in training:
        pass
    events = [entry.event for entry in training.run.ledger().entries]
    (scores,) = [event for event in events if isinstance(event, Scores)]
    assert scores.rows == 2 or all(np.isnan(gain[1:]).all() for gain in scores.gains.values())
    assert not [event for event in events if isinstance(event, Finding) and event.what == "report failed"]
    report = (training.run.path / "report" / "report.md").read_text()
    assert "within the noise" in report and "without a test set these rows also chose the best" in report


def test_a_metric_of_ones_own_chooses_the_best_and_scores_are_told(tmp_path: Path) -> None:
    recipe = classification(write_labelled(tmp_path / "rows.jsonl", 60), None, {"evaluate.metric": "mine"})
    changes = {"evaluate.min_improvement": 0.1, "evaluate.patience": 9}
    seen: list[int] = []

    def mine(model: torch.nn.Module, batches: Any) -> float:
        seen.append(sum(len(batch.classes) for batch in batches))
        return float(len(seen))

    options = Options(runs=tmp_path / "runs", metrics={"mine": mine})
    training = Training(with_changes(recipe, changes), options)
    for _ in training:
        pass
    (scores,) = [entry.event for entry in training.run.ledger().entries if isinstance(entry.event, Scores)]
    assert seen[0] == 2 and set(seen[1:]) == {12}  # tried on two rows before the first step
    assert scores.metric == "f1" and training.run.best["metric"] == "mine"
    assert scores.step == training.run.best["step"]


def test_validation_loss_is_told_without_smoothing_and_weights(tmp_path: Path) -> None:
    rows, told = write_labelled(tmp_path / "rows.jsonl", 60), []
    for loss in ({}, {"label_smoothing": 0.3, "class_weights": "balanced", "focal_gamma": 1.0}):
        recipe = classification(rows, None, {"loss": loss, "train.steps": 1})
        training = Training(recipe, Options(runs=tmp_path / "runs"))
        for _ in training:
            pass
        told.append(
            next(
                entry.event for entry in training.run.ledger().entries if isinstance(entry.event, Evaluation)
            )
        )
        assert (summarize(training.run)["gap"] is None) == bool(loss)
    assert told[0].loss == told[1].loss


def test_a_margin_within_the_noise_is_said_with_both_figures(tmp_path: Path) -> None:
    rows = write_labelled(tmp_path / "rows.jsonl", 60)
    recipe = classification(rows, None, {"evaluate.min_improvement": 0.001, "evaluate.patience": 2})
    training = Training(recipe, Options(runs=tmp_path / "runs"))
    for _ in training:
        pass
    found = [entry.event for entry in training.run.ledger().entries if isinstance(entry.event, Finding)]
    (noise,) = [finding for finding in found if finding.what == "improvement within the noise"]
    assert "0.001" in noise.evidence and "standard error of f1 is 0." in noise.evidence


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
def test_losses_are_those_of_torch(smoothing: float, weighted: bool) -> None:
    torch.manual_seed(1)
    logits, truth = torch.randn(9, 4), torch.randint(0, 4, (9,))
    weights = torch.tensor([0.5, 2.0, 1.0, 3.0]) if weighted else None
    classes = torch.nn.functional.one_hot(truth, 4).float()
    loss, targets = Classification(False, weights, smoothing).loss_of(logits, classes)
    expected = torch.nn.functional.cross_entropy(logits, truth, weight=weights, label_smoothing=smoothing)
    assert torch.allclose(loss / targets, expected)
    several = torch.rand(9, 4).round()
    loss, targets = Classification(True, weights).loss_of(logits, several)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, several, pos_weight=weights)
    assert torch.allclose(loss / targets, expected)


def test_balanced_weights_are_those_of_scikit_learn_and_1_for_a_label_without_rows() -> None:
    truth = np.array([0, 0, 0, 2, 2, 3])
    texts = Texts(np.zeros(12, dtype=np.int64), np.arange(0, 14, 2), np.ones(6, dtype=np.int64), None, 0)
    columns = {"labels": np.eye(5, dtype=np.uint8)[truth], "seconds": np.zeros(6, dtype=np.int64)}
    split = take_labelled(texts, np.arange(6), columns, 8)
    weights = Classification.of(Loss(class_weights="balanced"), split, multi=False).weights
    expected = compute_class_weight("balanced", classes=np.unique(truth), y=truth)
    assert weights is not None and weights[[0, 2, 3]].tolist() == pytest.approx(expected.tolist())
    assert weights[[1, 4]].tolist() == [1.0, 1.0]


def test_focal_loss_is_its_equation() -> None:
    logits, classes = torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    p = float(logits.softmax(1)[0, 0])
    loss, _ = Classification(False, focal_gamma=2.0).loss_of(logits, classes)
    assert float(loss) == pytest.approx(-((1 - p) ** 2) * np.log(p), rel=1e-5)
    s = float(torch.sigmoid(logits[0, 0]))
    loss, _ = Classification(True, focal_gamma=2.0).loss_of(logits[:, :1], classes[:, :1])
    assert float(loss) == pytest.approx(-((1 - s) ** 2) * np.log(s), rel=1e-5)


def rows_of(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


GOOD = [{"text": f"text {index}", "label": "yes" if index % 2 else "no", "other": "b"} for index in range(20)]


@pytest.mark.parametrize(
    ("rows", "changes", "said"),
    [
        ([{"text": "a"}, *GOOD], {}, r"rows.jsonl:1 has no label field 'label'; its fields are: 'text'"),
        ([{"text": "a", "label": 1.5}, *GOOD], {}, r"rows.jsonl:1: label is 1.5; expected a name or whole number"),
        ([{"text": "a", "label": None}, *GOOD], {}, r"rows.jsonl:1: label is null"),
        ([{**row, "label": "yes"} for row in GOOD], {}, r"all training rows have one label \(yes\)"),
        ([{**GOOD[0], "other": " "}, *GOOD], {"data.train.0.pair": "other"}, r"rows.jsonl:1: 'other', a side of"),
        ([{**GOOD[0], "text": " "}, *GOOD], {"data.train.0.pair": "other"}, r"rows.jsonl:1: 'text', a side of"),
        (GOOD, {"evaluate.metric": "perplexity"}, r'evaluate.metric is "perplexity"; this run knows accuracy, f1'),
        (GOOD, {"evaluate.metric": "bleu"}, r'evaluate.metric is "bleu"; this run knows accuracy, f1'),
        (GOOD, {"data.train.0.label": None}, r"has no label; name the JSONL field"),
        (GOOD, {"model.kind": "decoder"}, r"needs kind = .encoder., or model.from"),
        (GOOD, {"train.seq_len": 2}, r"train.seq_len 2 .* 2 special tokens .*at least 3"),
        (GOOD, {"train.seq_len": 4, "data.train.0.pair": "other"}, r"train.seq_len 4 .* 3 special tokens .*at least 5"),
        (GOOD, {"train.seq_len": 3, "data.too_long": "refuse"}, r"than train.seq_len 3: 16 \(.*rows.jsonl:"),
        (GOOD, {"train.seq_len": 3, "data.too_long": "drop"}, r"all 16 rows of data.train have more"),
        (GOOD, {"data.clean": {"too_short": "drop", "min_characters": 500}}, r"all 20 documents of data.train are"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(
    rows: list[dict[str, Any]], changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(EtudeError, match=said) as caught:
        make_plan(classification(rows_of(tmp_path, rows), None, changes))
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("field", "count"), [("label", "10,009"), ("kind", "1,001")])
def test_a_label_field_of_numbers_that_count_rows_is_refused(field: str, count: str, tmp_path: Path) -> None:
    rows = [{"text": f"text {index}", "label": index, "kind": index % 1001} for index in range(10_009)]
    changes = {"data.validation": "none", "evaluate.metric": "loss", "data.train.0.label": field}
    with pytest.raises(
        EtudeError, match=rf"label = '{field}' has {count} names in 10,009 training rows.*right label"
    ):
        prepare(classification(rows_of(tmp_path, rows), None, changes))


def test_rows_that_are_too_long_are_left_out_as_asked(tmp_path: Path) -> None:
    path = rows_of(tmp_path, [{**GOOD[0], "text": "total " * 40}, *GOOD[1:]])
    changes = {"data.validation": "none", "evaluate.metric": "loss", "data.too_long": "drop"}
    corpus = prepare(classification(path, None, changes))
    assert len(corpus.train) == 19 and len(corpus.capabilities["train"]) == 19
    train = corpus.summary["train"]
    assert (train["documents"], train["truncated"], train["dropped"]) == (19, 0, 1)
    assert train["dropped_rows"] == [f"{path}:1"]
    assert len(prepare(classification(path, None, {**changes, "data.too_long": "cut"})).train) == 20


def test_texts_with_different_labels_are_counted_and_named(tmp_path: Path) -> None:
    rows = [*GOOD, {**GOOD[3], "label": "no"}, GOOD[4]]
    summary = make_plan(classification(rows_of(tmp_path, rows), None)).corpus.summary
    assert summary["same_text_other_labels"] == 2
    assert summary["same_text_other_labels_rows"].count("rows.jsonl:") == 2
    assert "rows.jsonl:4," in summary["same_text_other_labels_rows"]


def test_a_label_only_in_test_is_refused_by_row(tmp_path: Path) -> None:
    test = tmp_path / "test.jsonl"
    test.write_text(json.dumps({"text": "new one", "label": "maybe"}) + "\n")
    changes = {"data.test": [{"path": str(test), "label": "label"}]}
    with pytest.raises(
        EtudeError, match=r"test.jsonl:1 has label 'maybe', which no training row has; those are no, yes"
    ):
        make_plan(classification(rows_of(tmp_path, GOOD), None, changes))


def test_a_text_longer_than_the_encoder_reads_is_refused(tmp_path: Path) -> None:
    base = write_encoder(tmp_path / "base")
    with pytest.raises(EtudeError, match=r"train.seq_len is 500, but .* reads 128 tokens at most"):
        make_plan(classification(rows_of(tmp_path, GOOD), base, {"train.seq_len": 500}))
