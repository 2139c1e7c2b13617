"""Peaks of memory against hand counts, and against a run that watches what is alive."""

from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from evosearch.surgery.compaction import compact
from evosearch.surgery.discovery import GroupRules, discover
from tests.surgery.cases import CASES, discovered, random_masks

QUICK = ("residual", "concat", "depthwise", "shuffle_view", "chunk", "parameters", "vit", "swin")
"""Networks that every run of the tests looks at."""

CODE_MAKES_TENSORS = ("constant_by_width", "zeros_by_width")
"""Networks whose code makes tensors of the sizes of others: those count as in the whole one."""


class Watch(TorchDispatchMode):
    """Adds up the bytes of all storages that are alive, whatever made them."""

    def __init__(self, weights: list[Tensor], inputs: list[Tensor]) -> None:
        super().__init__()
        self._held = {tensor.untyped_storage()._cdata for tensor in weights}
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.inside = 0
        self._note(inputs)

    def _note(self, tensors: list[Tensor]) -> None:
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage._cdata not in self._held:
                self._alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.inside = max(self.inside, self.alive())

    def alive(self) -> int:
        self._alive = {k: own for k, own in self._alive.items() if not own[0].expired()}
        return sum(size for _, size in self._alive.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self._note([x for x in pytree.tree_leaves(result) if isinstance(x, Tensor)])
        return result


def peaks(model: nn.Module, example: tuple[Any, ...]) -> tuple[int, int]:
    """Runs a model's exported graph; every value goes after its last reader, the input too.

    Returns:
        The most bytes that are alive once an operator is done, and at any moment, also inside.
    """
    with torch.no_grad():
        program = torch.export.export(model, example)
        graph = program.graph
        placeholders = list(graph.find_nodes(op="placeholder"))
        images = set(program.graph_signature.user_inputs)
        tensors = {**program.state_dict, **program.constants}
        names = {
            **program.graph_signature.inputs_to_parameters,
            **program.graph_signature.inputs_to_buffers,
            **program.graph_signature.inputs_to_lifted_tensor_constants,
        }
        leaves = iter(pytree.tree_leaves(example))
        values: dict[fx.Node, Any] = {}
        for node in placeholders:
            if node.name in images:
                leaf = next(leaves)
                values[node] = leaf.clone() if isinstance(leaf, Tensor) else leaf
            else:
                values[node] = tensors[names[node.name]]
        last = {read: node for node in graph.nodes for read in node.all_input_nodes}
        inputs = [v for n, v in values.items() if n.name in images and isinstance(v, Tensor)]
        with Watch(list(tensors.values()), inputs) as watch:
            del inputs
            peak = 0
            for node in graph.nodes:
                if node.op == "call_function":
                    args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
                    values[node] = node.target(*args, **kwargs)
                    del args, kwargs
                elif node.op == "get_attr":
                    values[node] = getattr(program.graph_module, str(node.target))
                peak = max(peak, watch.alive())
                for read in {node, *node.all_input_nodes}:
                    if node.op != "output" and last.get(read, node) is node:
                        del values[read]
        return peak, watch.inside


CALLED = [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in sorted(CASES)
]


@pytest.mark.parametrize("name", CALLED)
def test_the_form_equals_a_run_that_watches_storages(name: str) -> None:
    found = discovered(name)
    space = found.discovery.space
    image = pytree.tree_map(lambda x: x[:1] if isinstance(x, Tensor) else x, found.example)
    for mask in random_masks(space, 2)[1:]:
        small = compact(found.model, space.groups, mask)
        seen, inside = peaks(small.eval(), image)
        assert seen <= inside
        if name in CODE_MAKES_TENSORS:
            assert seen < space.cost(mask).memory < 1.3 * seen
        else:
            assert space.cost(mask).memory == seen


def test_a_chain_by_hand() -> None:
    """At its peak the second convolution reads the first one's output and writes its own."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
    )
    space = discover(model, (torch.randn(2, 3, 8, 8),), GroupRules(), seed=0).space
    # A position of the two convolutions and of the second ReLU, which makes a copy.
    for a, b, most in ((4, 6, 6 + 6), (4, 2, 4 + 3), (4, 3, 4 + 3), (1, 3, 3 + 3), (2, 1, 3 + 2)):
        assert space.cost_of_widths([a, b]).memory == 4 * 64 * most, (a, b)


def test_a_residual_stays_alive_beside_its_branch() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(1, 4, 1)
            self.inner = nn.Conv2d(4, 8, 1)
            self.back = nn.Conv2d(8, 4, 1)
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            x = x + self.back(self.inner(x).relu())
            return self.head(x.mean((2, 3)))

    space = discover(Block(), (torch.randn(2, 1, 5, 5),), GroupRules(), seed=0).space
    assert list(space.sizes) == ["stem", "inner"]
    for stream, inner in ((4, 8), (4, 1), (2, 3), (1, 8)):
        # At ReLU: the stream, and both sides of it; at the sum: the stream, the branch, the sum.
        most = max(stream + 2 * inner, stream + inner + stream, 3 * stream)
        assert space.cost_of_widths([stream, inner]).memory == 4 * 25 * most


def test_only_points_that_can_be_the_largest_are_kept() -> None:
    space = discovered("plain").discovery.space
    widths = torch.cartesian_prod(*(torch.arange(1, n + 1) for n in space.sizes.values())).numpy()
    values = space.forms["memory"].values(widths)
    assert set(values.argmax(axis=1)) == set(range(values.shape[1]))
