"""Weights, gradients and optimizer state in pieces: each rank holds some rows of every tensor.

A pass gathers the weights of one block at a time, and deals its gradients out again, by torch's FSDP2. In an
evaluation ranks go at their own pace: they gather in rounds the blocks that one of them asks for.
"""

import contextlib
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from etude.data.batch import NumpyBatch
from etude.engine.out_of_memory import is_out_of_memory
from etude.engine.tensor_files import Piece
from etude.engine.world import World
from etude.errors import InputError, ShortageError
from etude.models.lora import find_layers
from etude.models.weights import keeps_fp32

ENTRIES = ("remember", "advance")  # of blocks, beside `forward`
_OF_RANKS = re.compile(r"gloo|NCCL|[Cc]onnection|timed out|Timed out")


class Shards:
    """A model whose weights lie in pieces on the ranks of a run; one from the meta device is to be filled.

    pieces  the rows of this rank of each parameter, as parameters without a graph
    places  where they lie in the whole
    of      the piece of each parameter of the model
    spare   a micro-batch for a rank that has none while others make a pass
    dtype   that matrices of blocks are gathered in, as they are computed with; gradients are added up in fp32
    """

    def __init__(
        self, model: nn.Module, world: World, spare: NumpyBatch, dtype: torch.dtype = torch.float32
    ) -> None:
        self.world, self.spare = world, spare
        self._parts = _shard(model, world, dtype)
        self._blocks = [_groups_of(part) for part in self._parts[:-1]]
        self._sharded: dict[str, Any] = dict(model.named_parameters())
        self.pieces = {
            name: nn.Parameter(each.to_local().detach(), requires_grad=each.requires_grad)
            for name, each in self._sharded.items()
        }
        self.places = {
            name: Piece.of(tuple(each.shape), world.rank, world.size) for name, each in self._sharded.items()
        }
        self._names = {each: name for name, each in self._sharded.items()}
        self.of: dict[Tensor, nn.Parameter] = {
            each: self.pieces[name] for name, each in self._sharded.items()
        }
        self._shapes: dict[Tensor, tuple[int, ...]] = {
            each: self.places[name].shape for name, each in self.pieces.items()
        }

    def fill(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Take the rows of this rank of whole weights by name, which come one after another."""
        for name, whole in weights:
            self.put(name, whole)

    @torch.no_grad()
    def put(self, name: str, whole: Tensor) -> None:
        """Take the rows of this rank of a whole weight; of one in a file, no others are read."""
        place = self.places[name]
        self.pieces[name].copy_(whole[place.first : place.first + place.rows])

    def __enter__(self) -> "Shards":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def held(self, tensor: Tensor) -> Tensor:
        """The rows of this rank of a parameter of the model; a buffer, which all ranks hold, as it is."""
        return self.of.get(tensor, tensor)

    def place_of(self, tensor: Tensor) -> Piece | None:
        """The place of the rows of a parameter of the model; of a buffer None."""
        return self.places[self._names[tensor]] if tensor in self._names else None

    def place_of_state(self, name: str) -> Piece | None:
        """The place of the rows of `<parameter>/<state>` of the optimizer; of a count None."""
        parameter, _, state = name.rpartition("/")
        return None if state == "step" else self.places.get(parameter)

    def shape_of(self, piece: Tensor) -> tuple[int, ...]:
        """The shape of the whole parameter of a piece."""
        return self._shapes[piece]

    def passes(self, batches: Sequence[NumpyBatch]) -> Iterator[tuple[NumpyBatch, bool]]:
        """The micro-batches of this rank, and as many that do not count as another has more of them.

        All ranks gather and deal out in every pass, so all make equally many.
        """
        counts = torch.zeros(self.world.size, device=self.world.device)
        counts[self.world.rank] = len(batches)
        self.world.sum([counts])
        for each in batches:
            yield each, True
        for _ in range(int(counts.max()) - len(batches)):
            yield self.spare, False

    def begin_last(self) -> None:
        """Nothing: each pass deals its gradients out."""

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """Around the passes of a step. Raises: LostRankError; ShortageError without memory."""
        try:
            with self._exchanges():
                yield
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self.world.tell_shortage()  # the others wait for what this rank cannot do
            raise ShortageError(
                f"rank {self.world.rank} ran out of memory in a pass that all ranks make together; they go "
                "on from the last checkpoint, in smaller micro-batches"
            ) from None

    @contextlib.contextmanager
    def _exchanges(self) -> Iterator[None]:
        """Around what the ranks do together. Raises: LostRankError."""
        try:
            yield
        except Exception as error:
            is_of_ranks = isinstance(error, RuntimeError) and _OF_RANKS.search(str(error))
            if is_out_of_memory(error) or not (isinstance(error, dist.DistError) or is_of_ranks):
                raise
            raise self.world.lost(str(error).partition("\n")[0]) from error

    def take(self) -> None:
        """Bring the gradients of the passes to the pieces."""
        for name, each in self._sharded.items():
            if each.grad is not None:
                self.pieces[name].grad = each.grad.to_local()
                each.grad = None

    def finish(self) -> None:
        """Nothing: the gradients are added up."""

    def norm(self, grads: Sequence[Tensor]) -> Tensor:
        """The norm () of gradients of which each rank has a piece."""
        square = torch.stack(torch._foreach_norm(list(grads))).double().square().sum()
        self.world.sum([square])
        return square.sqrt().float()

    def is_any(self, flag: Tensor) -> Tensor:
        """True, bool (), if a flag () is on some rank."""
        count = flag.float()
        self.world.sum([count])
        return count > 0

    def by_matrix(self, stack: Tensor, rows: int, apply: Callable[[Tensor], Tensor]) -> Tensor:
        """Apply a function of whole matrices (m, rows, c) to pieces (n, r, c) of n matrices.

        They are dealt out: each rank gets the pieces of its share, and gives back what it made of them.
        """
        (count, mine, columns), size = stack.shape, self.world.size
        most, share = -(-rows // size), -(-count // size)
        sent = stack.new_zeros(size * share, most, columns)
        sent[:count, :mine] = stack
        held = _exchange(sent).view(size, share, most, columns)
        whole = held.transpose(0, 1).reshape(share, size * most, columns)[:, :rows]
        made = stack.new_zeros(share, size * most, columns)
        made[:, :rows] = apply(whole)
        back = _exchange(made.view(share, size, most, columns).transpose(0, 1).contiguous())
        return back.view(size * share, most, columns)[:count, :mine]

    @contextlib.contextmanager
    def gathered(self) -> Iterator[None]:
        """Around an evaluation: each rank uses the model as often as it likes, and all give it their rows.

        A rank that needs a block comes to a round, as does one that waits for others, and all gather the
        first block that one needs: so those that are behind catch up, and then all use the same blocks. What
        lies outside of blocks is whole meanwhile. All ranks come to the beginning and the end. Gradients
        inside are those of the rank, and are dropped.
        """
        self.world.wait()
        self._set_gathered(True)
        try:
            with self.world.waiting(self._take_part):
                yield
                self.world.wait()
        finally:
            self._set_gathered(False)

    def _take_part(self) -> None:
        """Wait until all ranks wait, and gather with them what they need meanwhile."""
        nothing = len(self._blocks)
        while self._go_round(nothing) != nothing:
            pass

    def _ask(self, number: int) -> None:
        """Come to rounds until a block is gathered."""
        while not all(group.is_unsharded for group in self._blocks[number]):
            self._go_round(number)

    def _go_round(self, needed: int) -> int:
        """Gather with all ranks the first block that one needs; returns its number. Raises: LostRankError."""
        self.world.meet()  # one may work alone for hours
        first = self.world.least(needed)
        if first < len(self._blocks):
            for group in self._blocks[first]:
                group.reshard()  # what a pass left that had no memory would not be gathered
                with self.joined(), torch.inference_mode(False):
                    type(group).unshard(group)
                    group.wait_for_unshard()
                if first != needed:
                    group.reshard()
        return first

    def reshard(self) -> None:
        """Let go of weights that are whole on this rank, if there are any."""
        for part in self._parts:
            part.reshard()

    def _set_gathered(self, is_gathered: bool) -> None:
        with self._exchanges():
            root = self._parts[-1]
            root.set_reshard_after_forward(False, recurse=False)
            root.set_reshard_after_backward(not is_gathered, recurse=False)
            root.set_requires_gradient_sync(not is_gathered)
            for number, group in ((n, group) for n, block in enumerate(self._blocks) for group in block):
                if is_gathered:
                    group.unshard = lambda async_op=False, number=number: self._ask(number)
                else:
                    del group.unshard
            if is_gathered:
                root.unshard()
                return
            for parameter in root.parameters():
                parameter.grad = None
            self.reshard()
            root.reset_iter_state()  # passes of one rank alone would change the order in which all gather


def is_in_pieces(tensor: Tensor) -> bool:
    """True for a DTensor, asked without its module, which loads sympy."""
    return hasattr(tensor, "to_local")


def held_rows(tensor: Tensor) -> tuple[Tensor, int]:
    """The rows of a parameter that this rank holds, and the place of the first; of a whole one all."""
    if not is_in_pieces(tensor):
        return tensor, 0
    sharded: Any = tensor
    mesh = sharded.device_mesh
    return sharded.to_local(), Piece.of(tuple(tensor.shape), mesh.get_local_rank(), mesh.size()).first


def parts_of(model: nn.Module) -> list[nn.Module]:
    """The modules whose weights are gathered together: the blocks and, last, the model with all else."""
    lists = [each for each in model.modules() if isinstance(each, nn.ModuleList)]
    # A table of a block, as the distances of T5, is read outside of it: such a block comes with the model.
    blocks = [each for blocks in lists for each in blocks if _has_weights(each) and not _has_table(each)]
    inner = {part for blocks in lists for each in blocks for part in each.modules() if part is not each}
    return [*(each for each in blocks if each not in inner), model]


def _shard(model: nn.Module, world: World, dtype: torch.dtype) -> list[Any]:
    """Deal out the rows of all parameters; returns the blocks and, last, the model.

    Raises: InputError if this torch, or the model, cannot.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

    if not hasattr(FSDPModule, "set_reduce_scatter_unused_params"):
        raise InputError(
            f'train.parallel = "shard" needs torch 2.13, this is {torch.__version__}; update it, or use '
            '"replicate"'
        )
    # It tells of views among a model's outputs; none is written to here.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module", UserWarning)
    mesh = init_device_mesh(world.device.type, (world.size,))
    parts: list[Any] = parts_of(model)
    try:
        for block in parts[:-1] if dtype != torch.float32 else ():
            _shard_in_half(block, mesh, dtype, world.device)
        for part in parts if dtype == torch.float32 else parts[-1:]:
            fully_shard(part, mesh=mesh)
    except (ValueError, AssertionError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:100]
        raise InputError(
            f'train.parallel: this model cannot be sharded ({reason}); use "replicate"'
        ) from None
    for part in parts:
        part.set_gradient_divide_factor(1.0)  # losses are summed
        part.set_force_sum_reduction_for_comms(True)
    for block, name in ((part, name) for part in parts[:-1] for name in ENTRIES if hasattr(part, name)):
        register_fsdp_forward_method(block, name)
    model.set_reduce_scatter_unused_params(True)  # type: ignore[operator]  # heads of tasks another rank has
    for layer in find_layers(model).values():
        base = layer.make_base()  # which holds its weight whole, beside the pieces
        base.weight = base.bias = None  # type: ignore[assignment]
    if any(each.is_meta for each in model.parameters()):
        model.to_empty(device=world.device)
    # So that no block takes itself for the root.
    model._get_fsdp_state()._lazy_init()  # type: ignore[operator]
    return parts


def is_gathered_in_half(name: str, parameter: Tensor, dtype: torch.dtype) -> bool:
    """True if a parameter of a block is gathered in `dtype`, which the model is computed in.

    These are the matrices that autocast casts: it would keep a copy of each for its gradients. What it
    leaves in fp32, as norms, is gathered as it is.
    """
    is_matrix = parameter.dim() > 1 and name.endswith("weight")
    return dtype != torch.float32 and is_matrix and not keeps_fp32(name, dtype)


def _shard_in_half(block: nn.Module, mesh: Any, dtype: torch.dtype, device: torch.device) -> None:
    """Deal out the rows of a block, whose matrices are gathered in `dtype` and all else as it is."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, OffloadPolicy, fully_shard
    from torch.distributed.fsdp._fully_shard._fsdp_common import FSDPMeshInfo
    from torch.distributed.fsdp._fully_shard._fsdp_param_group import FSDPParamGroup

    half = MixedPrecisionPolicy(dtype, torch.float32, cast_forward_inputs=False)
    named = list(block.named_parameters())
    others = [each for name, each in named if not is_gathered_in_half(name, each, dtype)]
    fully_shard(block, mesh=mesh, mp_policy=half, ignored_params=set(others))
    if not others:
        return
    for each in others:
        each.data = each.data if each.is_meta else each.data.to(device)
    # A group has one policy, and torch makes groups by their ranks only.
    place, modules = FSDPMeshInfo(mesh, shard_mesh_dim=0), (block,)
    whole = MixedPrecisionPolicy(cast_forward_inputs=False)
    group = FSDPParamGroup(
        others, modules, mesh_info=place, post_forward_mesh_info=place, device=device,
        shard_placement_fn=None, mp_policy=whole, offload_policy=OffloadPolicy(),
    )  # fmt: skip
    _groups_of(block).append(group)


def _groups_of(part: Any) -> list[Any]:
    """The parameters of a block, in the groups that torch gathers at once; none if it has no parameters."""
    groups: list[Any] = part._get_fsdp_state()._fsdp_param_groups
    return groups


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _has_table(module: nn.Module) -> bool:
    return any(isinstance(each, nn.Embedding) for each in module.modules())


def _exchange(sent: Tensor) -> Tensor:
    """Send the k-th of equal parts along the first dimension to rank k; returns what the ranks sent here."""
    received = torch.empty_like(sent)
    dist.all_to_all_single(received, sent)
    return received
