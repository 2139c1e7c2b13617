"""An exported model, as a walk reads it."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import fx

EVALUATION, TRAINING = "evaluation", "training"
"""Names of a model's graphs: as it is used, and with the parts that only training reads."""


@dataclass(frozen=True, kw_only=True)
class Graph:
    """An exported model.

    Attributes:
        name: tells it from other graphs of the same model.
        graph: its operators.
        sources: placeholder -> name of the parameter or buffer.
        shapes: of parameters and buffers, by name.
        attributes: integers that modules keep (`conv.groups`), and sequences of them, by module
            and name: sizes that no tensor may have.
        buffers: names of those sources that are no parameters.
        constants: placeholders of tensors that the code holds outside parameters and buffers.
        batch: images in the example.
        norms: the torch BatchNorms that it calls once: their statistics can be estimated anew.
    """

    name: str
    graph: fx.Graph
    sources: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    attributes: Mapping[str, Mapping[str, int | tuple[int, ...]]]
    buffers: frozenset[str]
    constants: frozenset[str]
    batch: int
    norms: frozenset[str]
