"""Training an encoder-decoder from pairs of texts to scores, against transformers and sacrebleu."""

import json
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
import torch

from etude.data.prepared import prepare
from etude.engine.cross_entropy import linear_cross_entropy
from etude.errors import EtudeError, InputError
from etude.evaluate.answers import greedy
from etude.evaluate.generate import generate
from etude.export import export, load_model, open_tokenizer
from etude.models.pretrained import inspect_model, load_pretrained
from etude.plan import make_plan
from etude.recipe.schema import Recipe
from etude.records.events import Scores
from etude.records.store import list_runs
from etude.report.history import read_history
from etude.report.summary import next_commands
from tests.bases import write_instructions, write_pairs, write_t5
from tests.programs import run_program
from tests.recipes import seq2seq
from tests.reference import train, train_plainly


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_are_those_of_transformers(gated: bool, smoothing: float, tmp_path: Path) -> None:
    base, rows = write_t5(tmp_path / "base", gated=gated), write_pairs(tmp_path / "rows.jsonl")
    recipe = seq2seq(rows, base, {"train.micro_batch_size": 4, "loss.label_smoothing": smoothing})
    _, ours = train(recipe, tmp_path / "runs")
    theirs = _train_in_transformers(recipe, base, smoothing)
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert ours[-1] < ours[0] - 0.05


def _train_in_transformers(recipe: Recipe, base: Path, smoothing: float) -> list[float]:
    """The same steps by batches that their collator pads, tokens from their tokenizer, smoothing
    from torch."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, DataCollatorForSeq2Seq

    tokenizer, model = (
        AutoTokenizer.from_pretrained(base),
        AutoModelForSeq2SeqLM.from_pretrained(base).train(),
    )
    tokenizer.pad_token = "<pad>"
    collate = DataCollatorForSeq2Seq(tokenizer, model)
    plan = make_plan(recipe)
    split, texts = plan.corpus.train, plan.corpus.examples_of["train"]

    def loss_of(ids: Any) -> torch.Tensor:
        rows = []
        for index in ids:
            source = tokenizer(texts[int(index)].prompt, truncation=True, max_length=24)
            target = tokenizer(text_target=texts[int(index)].reference, truncation=True, max_length=16)
            rows.append({**source, "labels": target["input_ids"]})
        batch = collate(rows)
        return torch.nn.functional.cross_entropy(
            model(**batch).logits.flatten(0, 1), batch["labels"].flatten(), label_smoothing=smoothing
        )

    return train_plainly(recipe, split, model.parameters(), loss_of)


def test_pairs_that_a_tokenizer_would_cut_on_the_left_are_refused(tmp_path: Path) -> None:
    base, rows = write_t5(tmp_path / "base"), write_pairs(tmp_path / "rows.jsonl")
    settings = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps({**settings, "truncation_side": "left"}))
    changes = {"train.seq_len": 8, "data.too_long": "cut"}
    with pytest.raises(
        InputError, match=r"cuts on the left .truncation_side., .* [0-9]+ rows have more tokens"
    ):
        prepare(seq2seq(rows, base, changes), tokenizer_folder=base)
    assert len(
        prepare(seq2seq(rows, base, {**changes, "data.too_long": "drop"}), tokenizer_folder=base).train
    )


def test_greedy_answers_are_those_of_transformers_whichever_rows_end_first(tmp_path: Path) -> None:
    from transformers import AutoModelForSeq2SeqLM

    base, rows = write_t5(tmp_path / "base"), write_pairs(tmp_path / "rows.jsonl")
    training, _ = train(
        seq2seq(rows, base, {"train.steps": 60, "evaluate.every_steps": 60}), tmp_path / "runs"
    )
    folder = training.run.checkpoints / training.run.best["checkpoint"]
    theirs = AutoModelForSeq2SeqLM.from_pretrained(folder)
    corpus = prepare(training.run.recipe, tokenizer_folder=base)
    prompts = [example.prompt_ids for example in corpus.examples_of["validation"]]
    ours = greedy(load_model(folder, dtype=torch.float32), corpus, prompts, 12)
    assert {part.stopped for part in ours} == {True, False} or len({len(part.ids) for part in ours}) > 1
    (scores,) = [entry.event for entry in training.run.ledger().entries if isinstance(entry.event, Scores)]
    baselines = ["most frequent target", "nearest neighbour", "copied source"]
    assert list(scores.systems) == ["after", "before", *baselines]
    end = corpus.tokenizer.eos_id
    for prompt, part in zip(prompts, ours):
        told = theirs.generate(
            torch.tensor([prompt]), do_sample=False, num_beams=1, max_new_tokens=12, eos_token_id=end
        )
        assert (
            told[0, 1:].tolist()[: len(part.ids) + 1] == (part.ids + [end] * part.stopped)[: len(told[0]) - 1]
        )


def test_a_run_ends_with_scores_beside_its_start_and_baselines(tmp_path: Path) -> None:
    rows, test = write_pairs(tmp_path / "rows.jsonl", 80), write_pairs(tmp_path / "test.jsonl", 30)
    source = {"path": str(test), "field": "source", "target": "target", "capability": "kind"}
    changes = {"data.test": [source], "data.leakage.action": "report", "evaluate.metric": "chrf"}
    training, _ = train(seq2seq(rows, None, changes), tmp_path / "runs")
    run = training.run
    (scores,) = [entry.event for entry in run.ledger().entries if isinstance(entry.event, Scores)]
    assert (scores.split, scores.rows, scores.metric) == ("test", 30, "chrf")
    said = [json.loads(line) for line in (run.path / "predictions" / "test.jsonl").read_text().splitlines()]
    given = [json.loads(line) for line in test.read_text().splitlines()]
    assert [row["reference"] for row in said] == [row["target"] for row in given]
    bleu = sacrebleu.corpus_bleu([row["answer"] for row in said], [[row["reference"] for row in said]]).score
    assert scores.systems["after"]["bleu"][0] == pytest.approx(bleu)
    copied = sacrebleu.corpus_chrf([row["source"] for row in given], [[row["target"] for row in given]]).score
    assert scores.systems["copied source"]["chrf"][0] == pytest.approx(copied)
    assert set(scores.systems) == {"after", "most frequent target", "nearest neighbour", "copied source"}
    assert scores.distinct == len({row["answer"] for row in said})
    assert sum(values["rows"] for values in scores.capabilities.values()) == 30
    ask = next_commands(read_history(run))[1]  # chat takes no encoder-decoder
    assert ask == f"etude generate {run.path} --prompt 'a source'"
    assert "On 30 test rows" in (run.path / "report" / "report.md").read_text()
    model = load_pretrained(
        inspect_model(run.checkpoints / run.best["checkpoint"]), dtype=torch.float32, dropout=0.0
    )[0]
    assert all(row["log_probability"] < 0 for row in said) and model is not None


def test_an_answer_is_as_likely_as_its_tokens_and_the_end_that_it_was_given(tmp_path: Path) -> None:
    from transformers import AutoModelForSeq2SeqLM

    base, rows = write_t5(tmp_path / "base"), write_pairs(tmp_path / "rows.jsonl")
    corpus, start = (
        prepare(seq2seq(rows, base), tokenizer_folder=base),
        AutoModelForSeq2SeqLM.from_pretrained(base),
    )
    prompt = torch.tensor([corpus.examples_of["validation"][0].prompt_ids])
    first = start.generate(prompt, do_sample=False, num_beams=1, max_new_tokens=1)[0, 1].item()
    (base / "generation_config.json").write_text(
        json.dumps(
            {"decoder_start_token_id": 0, "eos_token_id": [corpus.tokenizer.eos_id, first], "pad_token_id": 0}
        )
    )
    changes = {"train.steps": 1, "optim.learning_rate": 1e-9, "evaluate.every_steps": 1}
    training, _ = train(seq2seq(rows, base, changes), tmp_path / "runs")
    said = [json.loads(line) for line in (training.run.path / "predictions" / "validation.jsonl").open("rb")]
    assert first != corpus.tokenizer.eos_id and any(row["stopped"] and row["tokens"] == 1 for row in said)
    theirs = AutoModelForSeq2SeqLM.from_pretrained(
        training.run.checkpoints / training.run.best["checkpoint"]
    ).eval()
    for row, example in zip(said, corpus.examples_of["validation"]):
        if row["stopped"] and row["tokens"] == 1:
            start_id = torch.tensor([[theirs.config.decoder_start_token_id]])
            logits = theirs(input_ids=torch.tensor([example.prompt_ids]), decoder_input_ids=start_id).logits[
                0, 0
            ]
            assert row["log_probability"] == pytest.approx(logits.log_softmax(0)[first].item(), rel=1e-3)


def test_lines_within_an_answer_do_not_end_the_record_of_it(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    pairs = [{"source": f"a {index}", "target": f"b\u2028{index}\x85c"} for index in range(20)]
    rows.write_text("".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs))
    changes = {"train.steps": 2, "evaluate.answer_tokens": 4}
    training, _ = train(seq2seq(rows, write_t5(tmp_path / "base"), changes), tmp_path / "runs")
    (scores,) = [entry.event for entry in training.run.ledger().entries if isinstance(entry.event, Scores)]
    assert scores.rows == 4 and "before" in scores.systems


def test_two_ranks_share_the_answers_and_say_the_same(tmp_path: Path, cache: Path) -> None:
    base, rows = write_t5(tmp_path / "base"), write_pairs(tmp_path / "rows.jsonl", 60)
    changes = {
        "train.steps": 4, "evaluate.every_steps": 4, "checkpoint.every_steps": 4, "train.micro_batch_size": 4,
    }  # fmt: skip
    told = []
    for ranks in (1, 2):
        recipe = seq2seq(rows, base, {**changes, "train.devices": ranks})
        (tmp_path / "recipe.json").write_text(json.dumps(recipe.to_dict()))
        words = [tmp_path / "recipe.json", tmp_path / f"runs-{ranks}", "{}"]
        done = run_program("steered", words, cache, ranks=ranks)
        assert done.code == 0, done.err
        (run,) = list_runs(tmp_path / f"runs-{ranks}")
        lines = (run.path / "predictions" / "validation.jsonl").read_text("utf-8").splitlines()
        before = (run.path / "predictions" / "before-validation.jsonl").read_bytes()
        told.append((before, [json.loads(line) for line in lines]))
    (before, one), (again, two) = told
    assert before == again
    assert [row["answer"] for row in one] == [row["answer"] for row in two]
    assert [row["log_probability"] for row in two] == pytest.approx(
        [row["log_probability"] for row in one], rel=1e-4
    )


def test_no_secret_of_a_row_is_in_what_a_run_says(tmp_path: Path) -> None:
    key = "AK" + "IA" + "QW7ZTY5UPLKM3N2B"
    rows = write_pairs(tmp_path / "rows.jsonl", 20)
    rows.write_text(
        "".join(
            line.replace('"target": "', f'"target": "{key} ') + "\n" for line in rows.read_text().splitlines()
        )
    )
    changes = {"train.steps": 2, "evaluate.every_steps": 2, "train.target_len": 64}
    training, _ = train(seq2seq(rows, write_t5(tmp_path / "base"), changes), tmp_path / "runs")
    run = training.run
    said = [path for path in run.path.rglob("*") if path.suffix in (".jsonl", ".md", ".json", ".log")]
    assert {"validation.jsonl", "before-validation.jsonl", "report.md"} <= {path.name for path in said}
    texts = {path: path.read_text() for path in said if "checkpoints" not in path.parts}
    assert not [path for path, text in texts.items() if key in text]
    assert "<redacted: AWS access key id>" in texts[run.path / "predictions" / "validation.jsonl"]
    (scores,) = [entry.event for entry in run.ledger().entries if isinstance(entry.event, Scores)]
    assert any("the secrets in 4 references" in note for note in scores.notes)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_micro_batches_do_not_change_losses(size: int, tmp_path: Path) -> None:
    base, rows = write_t5(tmp_path / "base"), write_pairs(tmp_path / "rows.jsonl", 30)
    changes = {"train.steps": 4, "evaluate.answers": 0, "data.validation": "none"}
    _, whole = train(seq2seq(rows, base, changes), tmp_path / "whole")
    _, parts = train(seq2seq(rows, base, {**changes, "train.micro_batch_size": size}), tmp_path / "parts")
    assert parts == pytest.approx(whole, rel=1e-6)


def test_instructions_become_pairs_of_what_is_asked_and_the_last_answer(tmp_path: Path) -> None:
    rows = write_instructions(tmp_path / "rows.jsonl", 20)
    source = {"data.train": [{"path": str(rows)}], "data.validation": "none"}
    corpus = prepare(seq2seq(rows, None, source))
    first = json.loads(rows.read_text().splitlines()[0])
    assert corpus.examples_of["train"][0].reference == first["output"]
    assert corpus.examples_of["train"][0].prompt.startswith(first["instruction"][:10])


def test_a_trained_tokenizer_has_learnt_from_targets(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"source": f"text {index}", "target": "extraordinarily"} for index in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = prepare(seq2seq(path, None, {"data.validation": "none"}))
    assert len(corpus.tokenizer.encode("extraordinarily")) == 1


def test_what_is_shown_of_a_pair_is_its_target_as_scored(tmp_path: Path) -> None:
    from etude.cli.data import show_samples

    rows = write_pairs(tmp_path / "rows.jsonl", 20)
    (shown,) = show_samples(seq2seq(rows, None, {"data.validation": "none"}), 1)
    first = json.loads(rows.read_text().splitlines()[0])
    source, target = shown["parts"]
    assert (source["scored"], target["scored"]) == (False, True)
    assert first["source"] in source["text"] and first["target"] in target["text"]


def test_adapters_train_on_an_encoder_decoder_and_load_in_peft(tmp_path: Path) -> None:
    import peft
    from transformers import AutoModelForSeq2SeqLM

    base, rows = write_t5(tmp_path / "base"), write_pairs(tmp_path / "rows.jsonl")
    training, losses = train(
        seq2seq(rows, base, {"adapter": {"targets": ["q", "v", "wo"], "rank": 4}}), tmp_path
    )
    assert losses[-1] < losses[0]
    folder = training.run.checkpoints / training.run.best["checkpoint"]
    theirs = peft.PeftModel.from_pretrained(AutoModelForSeq2SeqLM.from_pretrained(base), folder).eval()
    ours = load_model(folder, dtype=torch.float32)
    sources, targets = torch.tensor([[5, 9, 30, 7]]), torch.tensor([[0, 8, 11]])
    hidden = ours(sources, targets, source_lengths=(4,), target_lengths=(3,))
    expected = theirs(input_ids=sources, decoder_input_ids=targets).logits
    assert torch.allclose(ours.head(hidden), expected, atol=1e-4)


def test_smoothed_and_biased_losses_and_gradients_are_those_of_torch() -> None:
    torch.manual_seed(2)
    hidden, weight, bias = (torch.randn(shape, requires_grad=True) for shape in ((700, 8), (33, 8), (33,)))
    labels = torch.randint(0, 33, (700,))
    loss = linear_cross_entropy(hidden, weight, labels, bias=bias, label_smoothing=0.1)
    ours = torch.autograd.grad(loss, (hidden, weight, bias))
    logits = hidden @ weight.T + bias
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="sum", label_smoothing=0.1)
    assert torch.allclose(loss, expected)
    for mine, theirs in zip(ours, torch.autograd.grad(expected, (hidden, weight, bias))):
        assert torch.allclose(mine, theirs, atol=1e-4)


GOOD = [{"source": f"text {index}", "target": f"{index} text"} for index in range(20)]


@pytest.mark.parametrize(
    ("rows", "changes", "said"),
    [
        ([{**GOOD[0], "target": " "}, *GOOD], {}, r"rows.jsonl:1: 'target', a side of the pair, is missing or empty"),
        ([{"target": "b"}, *GOOD], {}, r"rows.jsonl:1 has no field 'source'"),
        (GOOD, {"evaluate.metric": "f1"}, r'evaluate.metric is "f1"; this run knows bleu, chrf'),
        (GOOD, {"evaluate.metric": "bleu", "evaluate.answers": 0}, r"this run knows loss, perplexity; evaluate.answers = 20 measures it"),
        (GOOD, {"data.train.0.target": None}, r"rows.jsonl:1 has no target; name the JSONL field"),
        (GOOD, {"model.kind": "decoder"}, r'is "decoder", but train.objective = "seq2seq" needs'),
        (GOOD, {"train.objective": "causal"}, r'has target, which belongs to train.objective = "seq2seq"'),
        (GOOD, {"loss.focal_gamma": 2.0}, r'loss.focal_gamma.* has no meaning for train.objective = "seq2seq"'),
        (GOOD, {"data.too_long": "refuse", "train.target_len": 2}, r"rows with more tokens than .*: 16 \("),
        (GOOD, {"data.too_long": "drop", "train.seq_len": 2}, r"all 16 rows of data.train have more tokens than train.seq_len 2"),
        (GOOD, {"data.clean": {"too_short": "drop", "min_characters": 500}}, r"all 20 documents of data.train are"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(
    rows: list[dict[str, Any]], changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(EtudeError, match=said) as caught:
        make_plan(seq2seq(path, None, changes))
    assert caught.value.exit_code == 2
    assert not (tmp_path / "runs").exists()


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    from tests.bases import write_encoder

    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in GOOD))
    with pytest.raises(EtudeError, match=r"model_type is 'roberta'.*seq2seq takes T5, CodeT5"):
        make_plan(seq2seq(path, write_encoder(tmp_path / "base")))
    with pytest.raises(EtudeError, match="does not predict the next token"):
        inspect_model(write_t5(tmp_path / "t5"), "causal")


@pytest.mark.parametrize("said", [{"bos_token_id": 1}, {"decoder_start_token_id": None}], ids=str)
def test_an_export_answers_in_transformers_as_here(said: dict[str, Any], tmp_path: Path) -> None:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    base, rows = write_t5(tmp_path / "base"), write_pairs(tmp_path / "rows.jsonl")
    file = base / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | said))
    (base / "generation_config.json").unlink()
    training, _ = train(seq2seq(rows, base, {"train.steps": 2, "evaluate.answers": 0}), tmp_path / "runs")
    out = export(f"{training.run.path}@last", "hf", tmp_path / "out")
    theirs, encoded = (
        AutoModelForSeq2SeqLM.from_pretrained(out),
        AutoTokenizer.from_pretrained(out)("total value"),
    )
    unknown = list(range(len(AutoTokenizer.from_pretrained(out)), theirs.config.vocab_size))
    written = theirs.generate(
        torch.tensor([encoded["input_ids"]]), max_new_tokens=12, do_sample=False, suppress_tokens=unknown
    )
    model, tokenizer = load_model(out, dtype=torch.float32), open_tokenizer(out)
    (ours,) = generate(
        model,
        [encoded["input_ids"]],
        max_tokens=12,
        end_ids=[tokenizer.eos_id],
        vocab_size=tokenizer.vocab_size,
    )
    assert ours.ids == [token for token in written[0, 1:].tolist() if token not in [tokenizer.eos_id]]
    assert ours.ids


def test_other_tools_read_sources_as_they_were_trained_where_the_tokenizer_surrounds_nothing(
    tmp_path: Path,
) -> None:
    from transformers import AutoTokenizer

    recipe = seq2seq(
        write_pairs(tmp_path / "rows.jsonl"), None, {"train.steps": 1, "data.validation": "none"}
    )
    training, _ = train(recipe, tmp_path / "runs")
    tokenizer = AutoTokenizer.from_pretrained(next(training.run.checkpoints.glob("step-*")))
    split, rows = make_plan(recipe).corpus.train, (tmp_path / "rows.jsonl").read_text().splitlines()
    theirs = [tokenizer(json.loads(row)["source"])["input_ids"] for row in rows]
    assert theirs == [split.sample(index).tokens.tolist() for index in range(len(split))]
    assert (
        tokenizer.pad_token == "<pad>"
        and tokenizer.pad_token_id
        == json.loads((next(training.run.checkpoints.glob("step-*")) / "config.json").read_text())[
            "pad_token_id"
        ]
    )
