"""Cut points of a network: places where one value alone goes on to all that comes later."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from torch import Tensor, fx, nn
from torch.nn.modules.dropout import _DropoutNd

from evosearch.callables import one_line
from evosearch.errors import InputError
from evosearch.models.modes import in_mode


@final
@dataclass(frozen=True, kw_only=True)
class CutPoint:
    """A place in a network's graph where one value goes from what is before to what is after.

    Attributes:
        name: of that value in the graph.
        layers: names of the modules before it that have parameters, and of parameters that the
            code itself reads; none of them is used after it.
        modules: names of all modules that are called before it, and not after it.
    """

    name: str
    layers: tuple[str, ...]
    modules: tuple[str, ...]


@final
class Graph:
    """A network as a graph of the calls of its modules, cut in two at any of its cut points."""

    def __init__(self, model: nn.Module) -> None:
        """Follows the code of a network, once in evaluation mode and once in training mode.

        Args:
            model: shared with the graphs, whose modules are its own.

        Raises:
            InputError: its code branches on what it computes, so that it has no such graph.
        """
        self._model = model
        self._parts: dict[str, nn.Module | Tensor] = {
            **dict(model.named_modules(remove_duplicate=False)),
            **dict(model.named_parameters(remove_duplicate=False)),
            **dict(model.named_buffers(remove_duplicate=False)),
        }
        self._evaluating, self._training = (self._nodes(mode) for mode in (False, True))
        later = {point.name: point for point in self._found(self._training)}
        self.points = tuple(p for p in self._found(self._evaluating) if later.get(p.name) == p)
        """From the first to the last."""

    def before(self, point: CutPoint) -> fx.GraphModule:
        """Returns the part up to a point, with the model's modules, as in evaluation mode."""
        nodes = self._evaluating
        end = [node.name for node in nodes].index(point.name)
        return self._part(nodes[: end + 1])

    def after(self, point: CutPoint) -> fx.GraphModule:
        """Returns the part behind a point, with the model's modules, as in training mode."""
        nodes = self._training
        end = [node.name for node in nodes].index(point.name)
        return self._part(nodes[end + 1 :], nodes[end])

    def _nodes(self, training: bool) -> Sequence[fx.Node]:
        with in_mode(self._model, training=training):
            try:
                graph = fx.Tracer().trace(self._model)
            except Exception as error:  # whatever the code of a network raises
                raise InputError(
                    f"[train] freeze: this network's code cannot be followed call by call"
                    f" ({one_line(error)}); leave it out"
                ) from error
        return list(graph.nodes)

    def _part(self, nodes: Sequence[fx.Node], begin: fx.Node | None = None) -> fx.GraphModule:
        """Returns a network of some nodes, which read `begin` or the network's own inputs."""
        graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
        if begin is not None:
            copies[begin] = graph.placeholder(begin.name)
        for node in nodes:
            copies[node] = graph.node_copy(node, lambda read: copies[read])
        if nodes[-1].op != "output":
            graph.output(copies[nodes[-1]])
        return fx.GraphModule(self._model, graph)

    def _found(self, nodes: Sequence[fx.Node]) -> Iterator[CutPoint]:
        """Yields the places where one value alone is read later, and both parts have weights."""
        places = {node: number for number, node in enumerate(nodes)}
        last = [max((places[user] for user in node.users), default=-1) for node in nodes]
        for number, node in enumerate(nodes):
            live = [place for place in range(number + 1) if last[place] > number]
            if live != [number] or node.op in {"placeholder", "get_attr"}:
                continue
            before, after = self._used(nodes[: number + 1]), self._used(nodes[number + 1 :])
            own, rest = _weights(before.values()), _weights(after.values())
            if own and rest and not own & rest and not _states(before) & _states(after):
                layers = [name for name, part in before.items() if _weights([part])]
                modules = [n for n, part in before.items() if isinstance(part, nn.Module)]
                alone = [name for name in modules if name not in after]
                yield CutPoint(name=node.name, layers=tuple(layers), modules=tuple(alone))

    def _used(self, nodes: Sequence[fx.Node]) -> dict[str, nn.Module | Tensor]:
        """Returns the modules that nodes call and the tensors that they read, by name."""
        names = (str(node.target) for node in nodes if node.op in {"call_module", "get_attr"})
        return {name: self._parts[name] for name in names}


def _weights(parts: Iterable[nn.Module | Tensor]) -> set[int]:
    """Returns the identities of parameters."""
    owned = (p.parameters() if isinstance(p, nn.Module) else [p] for p in parts)
    return {id(weight) for own in owned for weight in own if isinstance(weight, nn.Parameter)}


def _states(parts: Mapping[str, nn.Module | Tensor]) -> set[int]:
    """Returns the identities of modules that do something else in training than out of it."""
    modules = (part for part in parts.values() if isinstance(part, nn.Module))
    return {id(m) for m in modules if isinstance(m, _DropoutNd) or any(True for _ in m.buffers())}
