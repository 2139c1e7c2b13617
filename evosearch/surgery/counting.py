"""Costs of a network's layers as exact forms in the widths; torch's own counter is the oracle."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from evosearch.calling import Example, call
from evosearch.errors import TracingError
from evosearch.machine import torch_seeded
from evosearch.models.copying import copied
from evosearch.models.weights import tensors_of
from evosearch.space.costform import CostTerm, Monomial
from evosearch.space.mask import ChannelGroup
from evosearch.surgery.tracing.export import batch_size
from evosearch.surgery.tracing.layer import Layer, Product
from evosearch.surgery.tracing.parts import Scope


@dataclass(frozen=True)
class _Extent:
    """A number that is a constant plus the widths of groups, each so many times."""

    constant: int
    counts: tuple[tuple[str, int], ...]

    def monomials(self) -> tuple[Monomial, ...]:
        constant = (Monomial(self.constant),) if self.constant else ()
        return constant + tuple(Monomial(count, (group,)) for group, count in self.counts)


class Extents:
    """The extents of every dimension of every parameter and buffer under a choice of groups."""

    def __init__(self, groups: Sequence[ChannelGroup], model: nn.Module) -> None:
        """Notes which groups run along which dimensions of the whole model."""
        tensors = tensors_of(model)
        self._shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        self._counts: dict[tuple[str, int], list[tuple[str, int]]] = {}
        self._covered: dict[tuple[str, int], int] = {}
        for group in groups:
            for member in group.members:
                axis = (member.tensor, member.dim)
                count = len(member.positions) // group.size
                self._counts.setdefault(axis, []).append((group.name, count))
                self._covered[axis] = self._covered.get(axis, 0) + len(member.positions)
        members = {tensor for tensor, _ in self._counts}
        chosen: dict[int, str] = {}  # of several names the one that members have, or the first
        named = [name for name, _ in model.named_parameters(remove_duplicate=False)]
        for name in [*named, *tensors]:
            if id(tensors[name]) not in chosen or name in members:
                chosen[id(tensors[name])] = name
        self._chosen = {name: chosen[id(tensor)] for name, tensor in tensors.items()}
        self.names = tuple(dict.fromkeys(self._chosen[name] for name in named))

    def product(self, tensor: str, dims: Sequence[int], factor: int = 1) -> tuple[Monomial, ...]:
        """Returns `factor` times the sizes of some dimensions of a tensor, multiplied out."""
        result: tuple[Monomial, ...] = (Monomial(factor),)
        for dim in dims:
            axis = (self._chosen[tensor], dim)
            size = self._shapes[tensor][dim]
            extent = _Extent(size - self._covered.get(axis, 0), tuple(self._counts.get(axis, ())))
            result = tuple(
                Monomial(a.coefficient * b.coefficient, a.groups + b.groups)
                for a in result
                for b in extent.monomials()
            )
        return result

    def shape(self, tensor: str) -> tuple[int, ...]:
        """Returns the shape of a tensor of the whole network."""
        return self._shapes[tensor]


def cost_terms(
    model: nn.Module,
    example: Example,
    groups: Sequence[ChannelGroup],
    layers: Sequence[Layer],
    products: Sequence[Product] = (),
    scopes: Sequence[Scope] = (),
) -> tuple[CostTerm, ...]:
    """Returns the cost of every module as exact forms in the widths of `groups`.

    MACs that the counter sees and nothing explains are a constant term of their own, and so is
    what lies outside the parts, where these alone were traced.

    Args:
        model: not changed.
        example: its arguments, batched.
        groups: the channels that may go.
        layers: every call of a convolution or linear layer.
        products: of two activations; what they cost changes with the groups among `groups`.
        scopes: the parts that layers and products are of, where they are not the whole's.

    Raises:
        TracingError: layers and products account for more MACs than the counter sees.
    """
    extents = Extents(groups, model)
    macs: dict[str, tuple[Monomial, ...]] = {}
    outputs: dict[str, tuple[Monomial, ...]] = {}
    for layer in layers:
        dims = range(len(extents.shape(layer.weight)))
        macs[layer.module] = macs.get(layer.module, ()) + extents.product(
            layer.weight, dims, layer.positions
        )
        outputs[layer.module] = outputs.get(layer.module, ()) + extents.product(
            layer.weight, [layer.writes], layer.outputs
        )
    full = {group.name: group.size for group in groups}
    for product in products:
        counts = tuple((name, n) for name, n in product.by_group.items() if name in full)
        rest = product.macs - sum(n * full[name] for name, n in counts)
        found = _Extent(rest, counts).monomials()
        macs[product.module] = macs.get(product.module, ()) + found
    params: dict[str, tuple[Monomial, ...]] = {}
    for name in extents.names:
        module, dims = name.rpartition(".")[0], range(len(extents.shape(name)))
        params[module] = params.get(module, ()) + extents.product(name, dims)

    terms = [
        CostTerm(
            name=module,
            macs=macs.get(module, ()),
            params=params.get(module, ()),
            activations=outputs.get(module, ()),
        )
        for module in dict.fromkeys([*macs, *params])
    ]
    traced = sum(count_macs(s.model, s.example, s.images) for s in scopes)
    counted = count_macs(model, example)
    rest = (traced if scopes else counted) - sum(term.evaluate(full).macs for term in terms)
    if rest < 0:
        raise TracingError(f"the cost form exceeds the flop counter by {-rest} MACs")
    if rest:
        terms.append(CostTerm(name="(not in layers)", macs=(Monomial(rest),)))
    if scopes:
        terms.append(_outside(model, example, [s.part for s in scopes], counted - traced))
    return tuple(terms)


def _outside(model: nn.Module, example: Example, parts: Sequence[str], macs: int) -> CostTerm:
    """Returns what is constant of a network that only parts of were traced; its params are known.

    Its activations are the outputs of convolution and linear modules.
    """
    model = copied(model).eval()
    elements = 0

    def count(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        nonlocal elements
        elements += output.numel()

    for name, module in model.named_modules():
        inside = any(name == part or name.startswith(f"{part}.") for part in parts)
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear) and not inside:
            module.register_forward_hook(count)
    with torch.no_grad(), torch_seeded(0):
        call(model, example)
    return CostTerm(
        name="(outside the part)",
        macs=(Monomial(macs),),
        activations=(Monomial(elements // batch_size(example)),),
    )


def count_macs(model: nn.Module, example: Example, images: int | None = None) -> int:
    """Counts a model's multiply-accumulates for one image with `torch.utils.flop_counter`.

    Args:
        model: a copy is evaluated, in eval mode, with gradients enabled: attention is counted
            otherwise without them.
        example: batched arguments; the count is divided by the number of images.
        images: that the example is of; None: as many as it has rows.
    """
    model = copied(model).eval()  # running it may leave tensors with a graph in its attributes
    counter = FlopCounterMode(display=False)
    with torch.enable_grad(), torch_seeded(0), counter:
        call(model, example)
    return int(counter.get_total_flops()) // (2 * (images or batch_size(example)))
