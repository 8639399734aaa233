"""What kernels take inside is about what torch's own count says that they take."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd.profiler import profile

from etude.engine.precision import has_native_bf16
from etude.plan.workspace import workspace_of

CPU = torch.device("cpu")
ATEN = torch.ops.aten


def taken_by(work: Callable[[], object]) -> int:
    """The most bytes of tensors while a function is at work, with those that it makes."""
    with profile(profile_memory=True) as profiled:
        kept = work()
    events = [event for event in profiled.kineto_results.events() if event.name() == "[memory]"]
    total = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()
        most = max(most, total)
    del kept
    return most


@pytest.mark.skipif(not has_native_bf16(CPU), reason="this CPU multiplies no bf16")
@pytest.mark.parametrize("terms", [200, 512, 2048, 8000])
@pytest.mark.parametrize("rows", [64, 256, 400])
@pytest.mark.parametrize("columns", [96, 256])
def test_a_product_in_bf16_lays_out_its_factors(rows: int, terms: int, columns: int) -> None:
    left, right = (torch.zeros(shape, dtype=torch.bfloat16) for shape in ((rows, terms), (terms, columns)))
    turned = torch.zeros(terms, rows, dtype=torch.bfloat16).T
    out = torch.empty(rows, columns, dtype=torch.bfloat16)
    for factor in (left, turned):
        foreseen = workspace_of(CPU)(ATEN.mm.out, (factor, right))
        assert taken_by(lambda x=factor: torch.mm(x, right, out=out)) <= foreseen + 0.3e6
    assert workspace_of(CPU)(ATEN.mm.out, (left.float(), right.float())) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("length", "width"), [(64, 32), (200, 32), (577, 32)])
def test_attention_takes_the_scores_of_a_block(dtype: torch.dtype, length: int, width: int) -> None:
    if dtype == torch.bfloat16 and not has_native_bf16(CPU):
        pytest.skip("this CPU multiplies no bf16")
    q, k, v = (torch.zeros(2, 4, length, width, dtype=dtype) for _ in range(3))
    flash = ATEN._scaled_dot_product_flash_attention_for_cpu
    made: tuple[Tensor, Tensor] = flash(q, k, v, 0.0, True)
    results = sum(each.nbytes for each in made)
    foreseen = workspace_of(CPU)(flash.default, (q, k, v))
    assert taken_by(lambda: flash(q, k, v, 0.0, True)) - results == pytest.approx(foreseen, rel=0.1)


def test_a_cpu_copies_an_operand_of_another_dtype() -> None:
    half, full = torch.zeros(64, 100, dtype=torch.bfloat16), torch.zeros(64, 100)
    foreseen = workspace_of(CPU)(ATEN.add.Tensor, (full, half))
    assert foreseen == full.nbytes == taken_by(lambda: full + half) - full.nbytes
    assert workspace_of(torch.device("cuda"))(ATEN.add.Tensor, (full, half)) == 0
