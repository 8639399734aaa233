"""Embeddings and labels as the public client gets them, against transformers and the predictions of runs."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import torch
from tokenizers import Tokenizer

from etude.report.history import read_history
from etude.run import run_recipe
from etude.start import Options
from tests.bases import write_encoder, write_labelled, write_qwen2, write_t5
from tests.recipes import classification
from tests.serve.serving import Served, serving

TEXTS = [f"def add_{at}(left, right):\n    return left + {at}\n" * (1 + at % 3) for at in range(40)]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Path]]:
    folder = write_encoder(tmp_path_factory.mktemp("encoder"))
    with serving(folder) as found:
        yield found, folder
    assert not found.faults


def expected(folder: Path, kind: str, pooling: str) -> np.ndarray:
    """Vectors of length 1 by transformers, a text at a time."""
    import transformers

    model: Any = getattr(transformers, kind).from_pretrained(folder).eval()
    tokenizer, rows = Tokenizer.from_file(str(folder / "tokenizer.json")), []
    for text in TEXTS:
        with torch.no_grad():
            states = model(input_ids=torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0]
        row = states[-1] if pooling == "last" else states.mean(dim=0)
        rows.append((row / row.norm()).numpy())
    return np.stack(rows)


def ask(served: Served, texts: Any, **more: Any) -> np.ndarray:
    found = served.client().embeddings.create(model=served.name, input=texts, **more)
    assert [each.index for each in found.data] == list(range(len(found.data)))
    return np.array([each.embedding for each in found.data], dtype=np.float32)


def test_an_encoder_gives_the_mean_of_its_real_tokens_in_either_form_and_however_many_ask(
    encoder: tuple[Served, Path],
) -> None:
    served, folder = encoder
    truth = expected(folder, "RobertaModel", "mean")
    assert ask(served, TEXTS) == pytest.approx(truth, abs=1e-5)  # base64, as the client asks by itself
    assert (ask(served, TEXTS, encoding_format="float") == ask(served, TEXTS)).all()
    with ThreadPoolExecutor(20) as pool:
        alone = np.concatenate(list(pool.map(lambda text: ask(served, text), TEXTS)))
    assert alone == pytest.approx(truth, abs=1e-5)
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXTS[0]).ids
    assert ask(served, ids) == pytest.approx(truth[:1], abs=1e-5)
    told = served.client().models.list().data[0].model_extra
    assert told is not None and told["pooling"] == "mean"


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_a_decoder_pools_its_states_as_it_was_asked(pooling: Any, tmp_path: Path) -> None:
    folder = write_qwen2(tmp_path / "base")
    with serving(folder, pooling=pooling) as served:
        assert ask(served, TEXTS) == pytest.approx(expected(folder, "Qwen2Model", pooling), abs=1e-5)
        assert served.client().completions.create(model=served.name, prompt="total", max_tokens=1).choices


def test_an_encoder_decoder_gives_vectors_of_its_encoder(tmp_path: Path) -> None:
    folder = write_t5(tmp_path / "base")
    with serving(folder) as served:
        assert ask(served, TEXTS) == pytest.approx(expected(folder, "T5EncoderModel", "mean"), abs=1e-5)


def test_long_texts_are_refused_or_cut_where_that_is_asked(encoder: tuple[Served, Path]) -> None:
    served, _ = encoder
    long = "value = total\n" * 200
    with pytest.raises(openai.BadRequestError, match="the model reads 128 here"):
        ask(served, long)
    cut = served.client().embeddings.create(
        model=served.name, input=long, extra_body={"truncate_prompt_tokens": -1}
    )
    assert cut.usage.prompt_tokens == 128
    for wrong, message in (
        ({"input": []}, "give 1 to 2,048"),
        ({"input": [[1, 999_999]]}, "an id that is no token"),
        ({"input": "x", "dimensions": 8}, "dimensions has no effect"),
        ({"input": "x", "encoding_format": "int8"}, "encoding_format"),
        ({"input": ["x"] * 2049}, "input has 2,049 texts"),
        ({"input": [1.5]}, "input"),
    ):
        status, answer = served.post("/embeddings", wrong)
        assert status == 400 and message in answer["error"]["message"]
    for path in ("/completions", "/chat/completions", "/classify"):
        body = {"prompt": "x"} if path == "/completions" else {"input": "x"}
        body = {"messages": [{"role": "user", "content": "x"}]} if "chat" in path else body
        status, answer = served.post(path, body)
        assert status == 400 and "use /v1/embeddings" in answer["error"]["message"]


@pytest.mark.parametrize("multi", [False, True])
def test_a_classifier_says_what_its_run_predicted(multi: bool, tmp_path: Path) -> None:
    rows = write_labelled(tmp_path / "rows.jsonl", 60, multi=multi)
    held_out = write_labelled(tmp_path / "held.jsonl", 30, multi=multi)
    changes = {
        "data.validation": [{"path": str(held_out), "label": "label"}],
        "data.leakage.action": "report",
    }
    recipe = classification(rows, write_encoder(tmp_path / "base"), changes)
    run = run_recipe(recipe, Options(runs=tmp_path / "runs")).run
    kept = [json.loads(line) for line in (run.path / "predictions" / "validation.jsonl").open()]
    given = [json.loads(line)["text"] for line in held_out.open()]
    wanted = np.array([row["probabilities"] for row in kept])
    step = read_history(run).scores[-1].step
    with serving(f"{run.name}@step-{step}", tmp_path / "runs") as served:
        status, answer = served.post("/classify", {"model": served.name, "input": given})
        assert status == 200
        probabilities = np.array([each["probs"] for each in answer["data"]])
        assert probabilities == pytest.approx(wanted, abs=1e-6)
        names = answer["labels"]
        for each in answer["data"]:
            said = [name for name, share in zip(names, each["probs"]) if share >= 0.5]
            assert each["label"] == (said if multi else names[int(np.argmax(each["probs"]))])
            assert each["num_classes"] == len(names) == 3
        status, answer = served.post("/embeddings", {"input": "total"})
        assert status == 400 and "use /v1/classify" in answer["error"]["message"]
        status, answer = served.post("/classify", {"input": [["total", "left"], "total"]})
        assert status == 200 and len(answer["data"]) == 2
        # An address without /v1, as other servers have it.
        url = served.url.removesuffix("/v1")
        assert (
            httpx.post(f"{url}/classify", json={"input": "total"}, headers=served.headers).status_code == 200
        )


def test_texts_that_take_too_long_are_told_so(encoder: tuple[Served, Path]) -> None:
    with serving(encoder[1], seconds=0.0) as hurried:
        status, answer = hurried.post("/embeddings", {"input": "total"})
        assert status == 504 and "ask for fewer texts" in answer["error"]["message"]
