"""Rows of shared prefixes: what each token sees in them, and losses and gradients against the plain layout."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.assemble import sharing_of
from etude.data.batch import Batch, NumpyBatch, find_targets, halves, with_row
from etude.engine.batch import to_device
from etude.evaluate.generate import generate
from etude.models.decoder import Decoder
from etude.models.families.table import family_of
from etude.models.lora import add_adapter, find_layers
from etude.objectives.causal import Causal
from etude.objectives.classification import Classification
from etude.own import Own
from etude.prefixes import Part, lay_row
from etude.recipe.model import Adapter
from etude.records.events import Attempt, Step
from tests.bases import write_instructions, write_qwen2
from tests.models.decoders import CONFIGS, LLAMA, random_decoder
from tests.recipes import finetuning
from tests.reference import train

CPU = torch.device("cpu")
ALWAYS = 2**30
# A family of samples grows from the sample of another, cut somewhere, and has tokens of its own behind that.
GROWN = st.lists(
    st.tuples(st.integers(0, 7), st.integers(0, 90), st.integers(0, 50), st.integers(0, 12)),
    min_size=1, max_size=8,
)  # fmt: skip


def grow(steps: list[tuple[int, int, int, int]], vocabulary: int = 97) -> NumpyBatch:
    """Samples with common prefixes, of which the last tokens are scored, and some before them."""
    draw = np.random.default_rng(len(steps))
    rows: list[np.ndarray[Any, Any]] = [draw.integers(0, vocabulary, 60)]
    labels: list[np.ndarray[Any, Any]] = [draw.integers(0, vocabulary, 60)]
    for parent, kept, own, gap in steps:
        row = np.r_[rows[parent % len(rows)][:kept], draw.integers(0, vocabulary, own)]
        rows.append(row if len(row) else rows[0])
        wanted = draw.integers(0, vocabulary, len(rows[-1]))
        wanted[: len(wanted) // 2] = -100
        wanted[:: gap + 2] = -100
        labels.append(wanted)
    lengths = tuple(map(len, rows))
    positions = np.concatenate([np.arange(length) for length in lengths])[None]
    tokens, flat = np.concatenate(rows)[None], np.concatenate(labels)[None]
    return find_targets(Batch(tokens=tokens, labels=flat, positions=positions, lengths=lengths))


def look_back(parts: tuple[Part, ...], queries: int) -> list[list[int]]:
    """The places of the row that each query sees."""
    seen: list[list[int]] = [[] for _ in range(queries)]
    for part in parts:
        for query in range(part.first, part.end):
            high = part.high - (part.end - 1 - query if part.is_causal else 0)
            assert bool(seen[query]) != part.is_causal, "the first part of a query is causal, and no other"
            seen[query] += range(part.low, high)
    return seen


@given(GROWN)
@settings(deadline=None, max_examples=60)
def test_each_token_sees_those_before_it_in_its_sample_once(steps: list[tuple[int, int, int, int]]) -> None:
    batch = grow(steps)
    tokens, lengths = batch.tokens[0], batch.lengths
    assert lengths is not None
    row = lay_row(tokens, lengths, batch.scored, ALWAYS)
    if row is None:
        return
    places = np.arange(row.size) if row.places is None else row.places
    found = np.arange(row.size) if row.found is None else row.found
    assert (tokens[places][found] == tokens).all() and row.computed == len(places) <= row.size
    before = {
        start + at: [*range(start, start + at + 1)]
        for start, length in zip(np.cumsum((0, *lengths)), lengths)
        for at in range(length)
    }
    if row.places is not None:
        seen = look_back(row.parts, row.computed)
        assert all(sorted(seen[found[token]]) == found[path].tolist() for token, path in before.items())
    if row.scored is not None:
        seen = look_back(row.last, len(row.scored))
        targets = np.arange(len(row.scored)) if row.targets is None else row.targets
        wanted = np.arange(row.size) if batch.scored is None else batch.scored
        for target, token in zip(targets, wanted):
            assert row.scored[target] == found[token]
            assert sorted(seen[target]) == found[before[token]].tolist()


def measure(model: Decoder, batch: NumpyBatch, kind: Any = Causal()) -> list[torch.Tensor]:  # noqa: B008
    """The loss, and the gradients of all that is trained."""
    model.zero_grad()
    loss, _ = kind.loss_sum(model, to_device(batch, CPU))
    loss.backward()
    return [loss.detach(), *(each.grad.clone() for each in model.parameters() if each.grad is not None)]


def assert_equal(found: list[torch.Tensor], expected: list[torch.Tensor], bound: float = 5e-6) -> None:
    """A gradient that is 0 but for rounding, as that of queries with one key, differs by 1e-6 of all of them at most."""
    assert len(found) == len(expected) > 1
    assert found[0].item() == pytest.approx(expected[0].item(), rel=1e-6)
    whole = sum(each.square().sum() for each in expected[1:]) ** 0.5
    for one, other in zip(found, expected):
        assert (one - other).norm() <= bound * torch.maximum(other.norm(), 0.2 * whole)


def adapted(kind: str, config: Any = LLAMA) -> Decoder:
    model = random_decoder(config)
    if kind != "full":
        recipe = Adapter(rank=3, alpha=6, dora=kind == "dora")
        add_adapter(model, {f"model.layers.{n}.self_attn.q_proj": recipe for n in range(2)}, 1)
        add_adapter(model, {f"model.layers.{n}.mlp.down_proj": recipe for n in range(3)}, 2)
        for layer in find_layers(model).values():
            torch.nn.init.normal_(layer.lora_B.weight, std=0.1)
            layer.requires_grad_(True)
            layer.weight.requires_grad_(False)
    return model.train()


@pytest.mark.parametrize("kind", ["full", "lora", "dora"])
@given(GROWN)
@settings(deadline=None, max_examples=12)
def test_losses_and_gradients_are_those_of_the_plain_layout(
    kind: str, steps: list[tuple[int, int, int, int]]
) -> None:
    model, batch = adapted(kind), grow(steps)
    expected = measure(model, batch)
    for share_up_to in (0, ALWAYS):
        assert_equal(measure(model, with_row(batch, share_up_to)), expected)


@st.composite
def odd_batches(draw: Any) -> NumpyBatch:
    """All rows equal, one row, rows that are prefixes of others, rows side by side; targets of any weight,
    all, few or none of them, inside of the prefix too.
    """
    form, count = draw(st.sampled_from(["grown", "equal", "nested", "square"])), draw(st.integers(1, 6))
    if form == "grown":
        batch = grow(draw(GROWN))
    else:
        row = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 97, draw(st.integers(2, 70)))
        lengths = draw(st.lists(st.integers(1, len(row)), min_size=count, max_size=count))
        rows = [row[:length] if form == "nested" else row.copy() for length in lengths]
        for other in rows[: count // 2] if form == "square" else ():
            other[draw(st.integers(0, len(row))) :] = draw(st.integers(0, 96))
        if form == "square":
            tokens = np.stack(rows)
            batch = Batch(tokens=tokens, labels=tokens)
        else:
            tokens, sizes = np.concatenate(rows)[None], tuple(map(len, rows))
            positions = np.concatenate([np.arange(size) for size in sizes])[None]
            batch = Batch(tokens=tokens, labels=tokens, positions=positions, lengths=sizes)
    chance = np.random.default_rng(draw(st.integers(0, 99)))
    is_target = chance.random(batch.labels.shape) < draw(st.sampled_from([0.05, 0.5, 1.0]))
    is_target.flat[draw(st.integers(0, is_target.size - 1))] = True
    weights = None
    if draw(st.booleans()):
        weights = chance.choice([0.0, 0.2, 1.0, 3.0], batch.labels.shape).astype(np.float32)
    labels = np.where(is_target, chance.integers(0, 97, batch.labels.shape), -100)
    return find_targets(replace(batch, labels=labels, weights=weights, scored=None))


ODD = {
    **CONFIGS, "long window": replace(LLAMA, qk_norm=True, sliding_window=50, full_layers=(1,)),
    "dropout": replace(LLAMA, dropout=0.1),
}  # fmt: skip


@given(odd_batches(), st.sampled_from(sorted(ODD)), st.sampled_from(["full", "lora", "dora"]), st.booleans())
@settings(deadline=None, max_examples=60)
def test_odd_batches_of_every_model_have_the_losses_and_gradients_of_the_plain_layout(
    batch: NumpyBatch, name: str, kind: str, recompute: bool
) -> None:
    """In halves, as after too little memory, too. Dropout is off: its masks are others in another layout."""
    model = adapted(kind, ODD[name])
    model.checkpoint_activations = recompute
    up_to = family_of(model).sharing(model, not model.config.dropout, False).up_to
    assert up_to is not None
    if model.config.dropout:
        model.eval()
    shared = with_row(batch, up_to)
    expected = measure(model, batch)
    assert_equal(measure(model, shared), expected)
    model.zero_grad()
    parts = [kind_sum(model, part) for part in halves(shared)]
    assert sum(parts) == pytest.approx(expected[0].item(), rel=1e-6, abs=1e-6)


def kind_sum(model: Decoder, batch: NumpyBatch) -> float:
    return Causal().loss_sum(model, to_device(batch, CPU))[0].item() if len(batch.labels) else 0.0


SHARED = [(0, 40, 9, 9), (0, 40, 20, 8), (2, 50, 5, 9), (2, 50, 9, 9), (2, 50, 0, 9), (0, 0, 12, 9)]


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_each_configuration_agrees_with_the_plain_layout_to_rounding(config: Any, recompute: bool) -> None:
    model, batch = random_decoder(config).train(), grow(SHARED)
    model.checkpoint_activations = recompute
    sharing = family_of(model).sharing(model, True, False)
    assert not sharing.why_not and sharing.up_to is not None
    window = config.sliding_window
    assert sharing.told == (f"shared, by samples of up to {window} tokens" if window else "shared")
    given_row = with_row(batch, sharing.up_to)
    assert given_row.row is not None and (given_row.row.places is None) == (config.sliding_window is not None)
    assert_equal(measure(model, given_row), measure(model, batch))


def test_rows_of_one_length_and_samples_of_several_models_are_computed_alike() -> None:
    draw = np.random.default_rng(0)
    tokens = draw.integers(0, 97, (4, 50))
    tokens[:, :30] = tokens[0, :30]
    labels = np.where(np.arange(50) < 40, -100, tokens)
    batch = find_targets(Batch(tokens=tokens, labels=labels))
    model = adapted("full")
    shared = with_row(batch, ALWAYS)
    assert shared.row is not None and shared.row.computed == 110
    for each in (shared, with_row(batch, 0)):
        assert_equal(measure(model, each), measure(model, batch))
    given_row = to_device(shared, CPU)
    twice = model(given_row.tokens.repeat(2, 1), row=given_row.row)
    assert twice.shape == (2, 40, 48)
    torch.testing.assert_close(twice[1], model(given_row.tokens, row=given_row.row)[0])


def test_a_classifier_computes_the_last_block_where_labels_are_scored() -> None:
    torch.manual_seed(0)
    model = Decoder(LLAMA, labels=3)
    model.init_weights(0)
    batch = replace(grow(SHARED), classes=np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2, 0]])
    shared = with_row(batch, ALWAYS)
    assert shared.row is not None and shared.row.scored is not None and len(shared.row.scored) == 7
    kind = Classification(multi=False)
    assert_equal(measure(model, shared, kind), measure(model, batch, kind))


def test_halves_of_a_batch_have_rows_of_their_own() -> None:
    batch = with_row(grow(SHARED), ALWAYS)
    parts = halves(batch)
    assert len(parts) == 2 and all(part.row is not None for part in parts)
    model = adapted("full")
    whole, each = measure(model, batch), [measure(model, part) for part in parts]
    torch.testing.assert_close(whole[0], each[0][0] + each[1][0])


def test_a_chain_of_two_thousand_prefixes_is_laid_out() -> None:
    tokens = np.concatenate([np.arange(length) for length in range(1, 2001, 10)])
    row = lay_row(tokens, range(1, 2001, 10), None, ALWAYS)
    assert row is not None and row.computed < 4000


def test_dropout_windows_and_compilation_keep_the_plain_layout() -> None:
    model = random_decoder(replace(LLAMA, dropout=0.1))
    sharing = family_of(model).sharing
    assert sharing(model, True, True).up_to == 0 and "dropout" in sharing(model, True, False).why_not
    assert sharing(model, False, True).up_to == ALWAYS, "evaluation drops nothing"
    assert sharing(random_decoder(CONFIGS["mistral"]), True, False).up_to == 5
    model = random_decoder(LLAMA)
    add_adapter(model, {"model.layers.0.self_attn.q_proj": Adapter(rank=2, dropout=0.1)}, 0)
    assert [sharing(model, True, alike).up_to for alike in (False, True)] == [0, ALWAYS]
    model.compile(backend="aot_eager")
    assert sharing(model, True, False) == (None, "the model is compiled")


def test_prompts_that_begin_alike_are_read_once_and_answered_as_if_alone() -> None:
    model = random_decoder(LLAMA).eval()
    system = np.random.default_rng(1).integers(0, 97, 40).tolist()
    prompts = [[*system, 5, 6], [*system, 7], [*system, 7], [8, 9]]
    read: list[int] = []
    watched = model.model.layers[0].register_forward_hook(lambda _, given, out: read.append(out.shape[1]))
    together = generate(model, prompts, max_tokens=9, end_ids=[])
    watched.remove()
    assert read[0] == 40 + 2 + 1 + 1 + 2, "the system prompt, and what differs"
    assert together == [generate(model, [each], max_tokens=9, end_ids=[])[0] for each in prompts]


def test_a_run_records_the_tokens_it_computes_and_has_the_losses_of_the_plain_layout(tmp_path: Path) -> None:
    base, rows = write_qwen2(tmp_path / "base"), write_instructions(tmp_path / "rows.jsonl")
    losses, ratios = {}, {}
    for asked in ("auto", "off"):
        sizes = {"train.global_batch_size": 16, "train.micro_batch_size": 8}
        changes = {"train.share_prefixes": asked, "adapter.rank": 4, **sizes}
        training, losses[asked] = train(finetuning(rows, base, changes), tmp_path / asked)
        events = [entry.event for entry in training.run.ledger().entries]
        (attempt,) = (event for event in events if isinstance(event, Attempt))
        expected = {"auto": "shared", "off": "not shared: train.share_prefixes is off"}
        assert attempt.prefixes == expected[asked]
        steps = [event for event in events if isinstance(event, Step)]
        ratios[asked] = sum(each.computed_tokens or each.tokens or 0 for each in steps) / sum(
            each.tokens or 0 for each in steps
        )
    assert losses["auto"] == pytest.approx(losses["off"], rel=1e-5)
    assert ratios["auto"] < 0.9 and ratios["off"] == 1.0


def test_a_loss_of_ones_own_reads_plain_batches(tmp_path: Path) -> None:
    base, rows = write_qwen2(tmp_path / "base"), write_instructions(tmp_path / "rows.jsonl")
    recipe = finetuning(rows, base)
    sharing = sharing_of(random_decoder(LLAMA), recipe, Own(loss=lambda model, batch: None))  # type: ignore[arg-type, return-value]
    assert sharing.up_to is None and "your own" in sharing.why_not
