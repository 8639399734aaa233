import copy

import pytest
import torch
from torch import nn

from etude.engine.optim import Muon, Optimizer, group_parameters, orthogonalize
from etude.models.decoder import Decoder
from etude.recipe.schema import Optim
from tests.models.decoders import LLAMA

NO = torch.tensor(False)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Embedding(11, 8), nn.Linear(8, 8), nn.Linear(8, 16), nn.Linear(16, 8), nn.LayerNorm(8)
    )


def backward(model: nn.Module, scale: float = 1.0) -> None:
    torch.manual_seed(1)
    out = model(torch.randint(11, (4, 5)))
    ((out - torch.randn_like(out)).square().sum() * scale).backward()


def one_step(optimizer: Optimizer, divisor: float = 1.0, skipped: bool = False) -> None:
    optimizer.step(1e-2, grad_divisor=torch.tensor(divisor), skipped=torch.tensor(skipped))
    optimizer.zero_grad()


@pytest.mark.parametrize("kind", ["adamw", "adam"])
def test_three_steps_are_those_of_torch(kind: str) -> None:
    ours, theirs = network(), network()
    recipe = Optim(kind=kind, weight_decay=0.1)
    optimizer = Optimizer(ours, recipe)
    groups = group_parameters(theirs, recipe)
    reference = (torch.optim.AdamW if kind == "adamw" else torch.optim.Adam)(
        [{"params": groups.decayed, "weight_decay": 0.1}, {"params": groups.plain, "weight_decay": 0.0}],
        lr=1e-2, betas=(0.9, 0.95), eps=1e-8, fused=True,
    )  # fmt: skip
    for _ in range(3):
        backward(ours, scale=4.0)
        one_step(optimizer, divisor=4.0)
        backward(theirs)
        reference.step()
        reference.zero_grad()
    for mine, other in zip(ours.parameters(), theirs.parameters()):
        assert torch.equal(mine, other)
    expected = {
        f"{optimizer.names[mine]}/{key}": value
        for mine, other in zip(ours.parameters(), theirs.parameters())
        for key, value in reference.state[other].items()
    }
    assert optimizer.state().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in optimizer.state().items())


def test_muon_is_torch_muon_for_matrices() -> None:
    """torch orthogonalizes in bf16, so steps on well-conditioned gradients are compared in units of their
    size.
    """
    ours, theirs = network(), network()
    optimizer = Optimizer(ours, Optim(kind="muon", weight_decay=0.1))
    matrices = group_parameters(theirs, Optim(kind="muon")).matrices
    assert [tuple(matrix.shape) for matrix in matrices] == [(8, 8), (16, 8), (8, 16)]
    before = [matrix.detach().clone() for matrix in matrices]
    reference = torch.optim.Muon(
        matrices, lr=1e-2, weight_decay=0.1, momentum=0.95, nesterov=True, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(2):
        for mine, other in zip(ours.parameters(), theirs.parameters()):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        one_step(optimizer)
        reference.step()
        own = group_parameters(ours, Optim(kind="muon")).matrices
        for mine, other, start in zip(own, matrices, before):
            assert (mine - other).norm() < 0.03 * (other - start).norm()


def test_matrices_of_muon_take_their_share_of_the_rate_and_the_rest_all_of_it() -> None:
    shared, whole, half = network(), network(), network()
    for model, ratio, rate in ((shared, 0.5, 1e-2), (whole, 1.0, 1e-2), (half, 1.0, 5e-3)):
        optimizer = Optimizer(model, Optim(kind="muon", matrix_rate_ratio=ratio))
        torch.manual_seed(3)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step(rate, grad_divisor=torch.tensor(1.0), skipped=NO)
    matrices = {id(each) for each in group_parameters(shared, Optim(kind="muon")).matrices}
    for ours, plain, slow in zip(shared.parameters(), whole.parameters(), half.parameters()):
        assert not torch.equal(plain, slow)
        torch.testing.assert_close(ours, slow if id(ours) in matrices else plain, rtol=0, atol=0)


def test_orthogonalize_brings_all_singular_values_near_one_whatever_the_shape() -> None:
    torch.manual_seed(0)
    for shape in [(3, 8, 8), (2, 4, 12), (2, 12, 4)]:
        values = torch.linalg.svdvals(orthogonalize(torch.randn(shape)))
        assert values.min() > 0.6 and values.max() < 1.3


def test_an_update_has_the_root_mean_square_of_adamw() -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.zeros(64, 256))
    weight.grad = torch.randn(64, 256)
    muon = Muon([weight], momentum=0.0, weight_decay=0.0)
    muon.step(1.0, torch.tensor(1.0), NO)
    assert weight.square().mean().sqrt().item() == pytest.approx(0.2, rel=0.2)


@pytest.mark.parametrize("kind", ["adamw", "adam", "muon"])
def test_a_skipped_step_changes_no_weight_and_no_state(kind: str) -> None:
    model = network()
    optimizer = Optimizer(model, Optim(kind=kind))
    backward(model)
    one_step(optimizer)
    weights = copy.deepcopy(model.state_dict())
    state = {name: value.clone() for name, value in optimizer.state().items()}
    backward(model)
    for parameter in model.parameters():
        assert parameter.grad is not None
        parameter.grad[..., 0] = torch.nan
    one_step(optimizer, skipped=True)
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name]), name
    for name, value in optimizer.state().items():
        assert torch.equal(value, state[name]), name


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_state_saved_and_loaded_continues_bit_for_bit(kind: str) -> None:
    model = network()
    optimizer = Optimizer(model, Optim(kind=kind))
    backward(model)
    one_step(optimizer)
    twin = copy.deepcopy(model)
    other = Optimizer(twin, Optim(kind=kind))
    other.load_state({name: value.clone() for name, value in optimizer.state().items()})
    for each, under in ((model, optimizer), (twin, other)):
        backward(each)
        one_step(under)
    for mine, theirs in zip(model.parameters(), twin.parameters()):
        assert torch.equal(mine, theirs)


def test_a_parameter_without_a_state_begins_anew() -> None:
    model = network()
    optimizer = Optimizer(model, Optim())
    backward(model)
    one_step(optimizer)
    first = next(iter(optimizer.names.values()))
    rest = {name: value for name, value in optimizer.state().items() if not name.startswith(f"{first}/")}
    other = Optimizer(model, Optim())
    other.load_state(rest)
    assert other.state().keys() == rest.keys()
    backward(model)
    one_step(other)
    assert other.state().keys() == optimizer.state().keys()


@pytest.mark.parametrize("kind", ["adam", "adamw", "muon"])
def test_a_state_of_another_shape_dtype_or_sign_or_a_part_of_one_is_refused(kind: str) -> None:
    model = network()
    optimizer = Optimizer(model, Optim(kind=kind))
    backward(model)
    one_step(optimizer)
    state = optimizer.state()
    refused = {"nobody/exp_avg": torch.zeros(1), "nobody": torch.zeros(1)}
    for name, value in refused.items():
        with pytest.raises(ValueError, match="it has nobody"):
            Optimizer(model, Optim(kind=kind)).load_state({**state, name: value})
    for name, value in state.items():
        wrong = [
            value.double(),
            value.bfloat16(),
            value.long(),
            value.bool(),
            value[None],
            torch.full_like(value, torch.nan),
        ]
        if not name.endswith(("/exp_avg", "/momentum")):
            wrong.append(value - 2 * value.max() - 1)
        for other in wrong:
            with pytest.raises(ValueError, match=f"{name.replace('.', '[.]')} (is|holds)"):
                Optimizer(model, Optim(kind=kind)).load_state({**state, name: other})
        if not name.endswith("/momentum"):
            with pytest.raises(ValueError, match="it has no "):
                Optimizer(model, Optim(kind=kind)).load_state(
                    {key: each for key, each in state.items() if key != name}
                )


def test_muon_takes_the_layers_of_gpt2_too_and_no_head_of_a_classifier() -> None:
    from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

    config = GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2, num_labels=3)
    for model in (GPT2LMHeadModel(config), GPT2ForSequenceClassification(config)):
        groups = group_parameters(model, Optim(kind="muon"))
        assert [tuple(each.shape) for each in groups.matrices] == [(8, 24), (8, 8), (8, 32), (32, 8)]
        heads = [(3, 8)] if hasattr(model, "score") else []
        assert [tuple(each.shape) for each in groups.decayed] == [(11, 8), (8, 8), *heads]
    own = group_parameters(Decoder(LLAMA, labels=3), Optim(kind="muon"))
    assert (3, LLAMA.n_embd) in [tuple(each.shape) for each in own.decayed]


def test_decay_goes_to_what_has_two_dimensions_and_muon_leaves_the_embedding_alone() -> None:
    groups = group_parameters(network(), Optim(kind="muon"))
    assert {tuple(parameter.shape) for parameter in groups.decayed} == {(11, 8)}
    assert all(parameter.dim() == 1 for parameter in groups.plain)
