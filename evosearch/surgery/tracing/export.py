"""Exported graphs of a model, and the channel groups, frozen channels and layers in them.

The one rule: a convolution or linear layer writes fresh labels and reads
others; an elementwise sum or product unites labels position by position; operators that move
elements carry the labels along; what the rules do not know is frozen, with its name as reason.
"""

import logging
import warnings
from collections import Counter
from collections.abc import Mapping
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from evosearch.calling import Example, arguments
from evosearch.errors import TracingError
from evosearch.models.copying import copied
from evosearch.models.modes import evaluating, training_structure
from evosearch.space.mask import ChannelGroup
from evosearch.space.space import FrozenGroup
from evosearch.surgery.tracing import (
    rules_layers,
    rules_operators,
    rules_products,
    rules_reshape,
    rules_sizes,
)
from evosearch.surgery.tracing.graph import EVALUATION, TRAINING, Graph
from evosearch.surgery.tracing.grouping import Grouping, group_channels
from evosearch.surgery.tracing.layer import Layer as Layer
from evosearch.surgery.tracing.layer import Product
from evosearch.surgery.tracing.walk import Walk

RULES = {
    **rules_operators.RULES,
    **rules_sizes.RULES,
    **rules_reshape.RULES,
    **rules_products.RULES,
    **rules_layers.RULES,
}
"""Operator name -> what it does to labels."""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """What tracing found, before proof.

    Attributes:
        groups: prunable groups in network order.
        frozen: channels that stay, with reasons, by the module that writes them.
        layers: every call of a convolution or linear layer, in execution order.
        training_layers: those of the training graph, where there is one.
        products: of two activations, and fixed filters, in execution order.
    """

    groups: tuple[ChannelGroup, ...]
    frozen: tuple[FrozenGroup, ...]
    layers: tuple[Layer, ...]
    training_layers: tuple[Layer, ...] = ()
    products: tuple[Product, ...] = ()


def trace(model: nn.Module, example: Example) -> Trace:
    """Finds the channel groups of a model, taking the loosest reading of every operator.

    Args:
        model: in any mode; it is not changed.
        example: its arguments, batched, with a batch of at least 2.

    Raises:
        TracingError: `torch.export` cannot export the model.
    """
    return Export(model, example).read({}).trace


@final
@dataclass(frozen=True, kw_only=True)
class Reading:
    """What one reading of every choice makes of a model's graphs."""

    walk: Walk
    grouping: Grouping

    @property
    def trace(self) -> Trace:
        """Its groups, frozen channels and layers."""
        return Trace(
            groups=self.grouping.groups,
            frozen=self.grouping.frozen,
            layers=tuple(self.walk.layers[EVALUATION]),
            training_layers=tuple(self.walk.layers.get(TRAINING, ())),
            products=self.grouping.products,
        )

    @cached_property
    def open_choices(self) -> dict[str, frozenset[str]]:
        """The choices that could be stricter, and the groups whose channels each ties or cuts."""
        group_of = {
            root: name for name, roots in self.grouping.roots.items() for root in roots.tolist()
        }
        return {
            name: frozenset(
                group_of[root]
                for part in choice.touched
                for root in torch.unique(self.walk.labels.roots(part)).tolist()
                if root in group_of
            )
            for name, choice in self.walk.choices.items()
            if not choice.strict
        }


@final
class Export:
    """A model's exported graphs, to be walked as often as there are readings to try.

    Attributes:
        program: the model in eval mode.
        training: whether there is a graph of training as well. It is there for parameters that
            nothing reads in eval mode (auxiliary heads), and has the modules that hold others in
            training mode, but dropout and normalization as in evaluation.
    """

    def __init__(self, model: nn.Module, example: Example, images: int | None = None) -> None:
        """Exports the model.

        Args:
            model: not changed.
            example: its arguments, batched.
            images: that the example is of; None: as many as it has rows.

        Raises:
            TracingError: the model cannot be copied, or `torch.export` cannot export it.
        """
        try:
            # Export runs the model's code, which may leave symbolic tensors in its attributes.
            model = copied(model)
        except Exception as error:
            raise failure(model, "cannot be copied", error) from error
        try:
            with evaluating(model):
                self.program = export_program(model, example)
        except Exception as error:
            raise untraced(model, error) from error
        images = batch_size(example) if images is None else images
        self._graphs = [_graph(EVALUATION, self.program, model, images)]
        read = {node.name for node in self.program.graph.nodes if node.users}
        if not read.issuperset(self.program.graph_signature.inputs_to_parameters):
            # Where training does not run on this example, there is nothing to keep in step.
            with suppress(Exception), training_structure(model):
                program = export_program(model, example)
                self._graphs.append(_graph(TRAINING, program, model, images))
        self.training = len(self._graphs) > 1

    def read(self, readings: Mapping[str, int]) -> Reading:
        """Walks the graphs.

        Args:
            readings: name of a choice -> which reading to take; the loosest where none is given.
        """
        walk = Walk(RULES, readings)
        for graph in self._graphs:
            walk.follow(graph)
        return Reading(walk=walk, grouping=group_channels(walk))

    def inputs(self, model: nn.Module, example: Example) -> list[Any]:
        """Returns what the placeholders of the evaluation graph stand for, in order.

        Args:
            model: of the same structure as the exported one.
            example: its arguments.
        """
        tensors, sources = _tensors(model), self._graphs[0].sources
        constants = self.program.graph_signature.inputs_to_lifted_tensor_constants
        leaves = iter(pytree.tree_leaves(arguments(model, example)))
        result = []
        for node in self.program.graph.find_nodes(op="placeholder"):
            if node.name in sources:
                result.append(tensors[sources[node.name]])
            elif node.name in constants:
                result.append(self.program.constants[constants[node.name]])
            else:
                result.append(next(leaves))
        return result


def export_program(model: nn.Module, example: Example) -> torch.export.ExportedProgram:
    """Returns the exported graph of a model as it is, with gradients; nothing is printed.

    Args:
        model: its code is run, so that modules may keep tensors of the call.
        example: its arguments, batched.
    """
    # What torch says on the way is for its developers; an error carries the reason.
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            torch.enable_grad(),
            warnings.catch_warnings(),
            redirect_stderr(StringIO()),
        ):
            warnings.simplefilter("ignore")
            args, kwargs = arguments(model, example)
            return torch.export.export(model, args, kwargs, strict=False)
    finally:
        logging.disable(disabled)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    return tensors | dict(model.named_buffers(remove_duplicate=False))


def _graph(
    name: str, program: torch.export.ExportedProgram, model: nn.Module, images: int
) -> Graph:
    signature, tensors = program.graph_signature, _tensors(model)
    first_name: dict[int, str] = {}  # a shared parameter has many
    for tensor_name, tensor in tensors.items():
        first_name.setdefault(id(tensor), tensor_name)
    return Graph(
        name=name,
        graph=program.graph,
        sources={
            placeholder: first_name[id(tensors[tensor_name])]
            for placeholder, tensor_name in (
                signature.inputs_to_parameters | signature.inputs_to_buffers
            ).items()
        },
        shapes={name: tuple(tensor.shape) for name, tensor in tensors.items()},
        attributes={name: _sizes(module) for name, module in model.named_modules()},
        buffers=frozenset(
            first_name[id(tensors[name])] for name in signature.inputs_to_buffers.values()
        ),
        constants=frozenset(signature.inputs_to_lifted_tensor_constants),
        batch=images,
        norms=_norms_called_once(program, model),
    )


def _sizes(module: nn.Module) -> dict[str, int | tuple[int, ...]]:
    """Returns the integers that a module keeps, and its lists and tuples of them."""
    found: dict[str, int | tuple[int, ...]] = {}
    for name, value in vars(module).items():
        if type(value) is int:
            found[name] = value
        elif type(value) in (list, tuple) and value and all(type(one) is int for one in value):
            found[name] = tuple(value)
    return found


def _norms_called_once(program: torch.export.ExportedProgram, model: nn.Module) -> frozenset[str]:
    calls = Counter(
        Walk.module(node) for node in program.graph.nodes if "batch_norm" in str(node.target)
    )
    return frozenset(
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and calls[name] == 1
    )


def failure(model: nn.Module, what: str, error: Exception) -> TracingError:
    """Returns one clear line about an error in a user's model."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    name = model._get_name()  # type: ignore[no-untyped-call]
    return TracingError(f"{name} {what}: {lines[0]}")


def untraced(model: nn.Module, error: Exception) -> TracingError:
    """Returns one clear line about a model whose code `torch.export` cannot follow."""
    line = failure(model, "cannot be traced by torch.export", error)
    return TracingError(f"{line}; where a part of it can, name that in [model] part")


def batch_size(example: Example) -> int:
    """Returns the number of images in a model's arguments.

    Raises:
        TracingError: there is no tensor among them.
    """
    for leaf in pytree.tree_leaves(example):
        if isinstance(leaf, Tensor) and leaf.ndim:
            return leaf.shape[0]
    raise TracingError("the example input holds no tensor")
