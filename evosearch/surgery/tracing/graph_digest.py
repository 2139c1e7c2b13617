"""A digest of a model's exported graphs: what it computes, but for the values of its weights."""

import hashlib
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, InputSpec
from torch.utils._pytree import TreeSpec, tree_leaves, tree_map_only

from evosearch.calling import Example, arguments
from evosearch.machine import torch_seeded
from evosearch.models.copying import copied
from evosearch.surgery.tracing.export import export_program, untraced
from evosearch.surgery.tracing.parts import scopes_of

_WEIGHTS = (InputKind.PARAMETER, InputKind.BUFFER)
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def graph_digest(model: nn.Module, example: Example, parts: Sequence[str] = ()) -> str:
    """Returns 32 hexadecimal digits that change with anything that a model does.

    They are those of the exported graphs of evaluation and of training: every operator in its
    place with its arguments, the name, shape and type of every weight and whether it is trained,
    the bytes of every other constant, and how outputs are put together. Nothing in them depends
    on the values of weights, on where the code lies and what its classes and variables are
    called, on the process or on the device. Versions of torch export in different ways.

    A model that cannot be exported in training mode is told apart by its evaluation alone. Of an
    operator of the user's own (`torch.library`) the name counts, not its code.

    Args:
        model: in any mode; it is not changed.
        example: its arguments, batched.
        parts: names of modules; the digest is then of their graphs alone, as the whole calls them.

    Raises:
        TracingError: `torch.export` cannot export the model, or a part.
        InputError: a part is none that can be traced.
    """
    digests = [_digest(scope.model, scope.example) for scope in scopes_of(model, example, parts)]
    return (
        digests[0] if not parts else hashlib.sha256("\n".join(digests).encode()).hexdigest()[:32]
    )


def _digest(model: nn.Module, example: Example) -> str:
    try:
        evaluation = _canonical(_exported(model, example, training=False))
    except Exception as error:
        raise untraced(model, error) from error
    try:
        training = _canonical(_exported(model, example, training=True))
    except Exception:
        training = "none"
    return hashlib.sha256(f"{evaluation}\n{training}".encode()).hexdigest()[:32]


def _exported(model: nn.Module, example: Example, *, training: bool) -> ExportedProgram:
    # A copy, as modules may keep tensors of a call. Seeded, as code may draw which way it goes.
    own = copied(model).cpu().train(training)
    own_example = tree_map_only(Tensor, Tensor.cpu, arguments(own, example))
    with torch_seeded(0), _others_seeded(0):
        return export_program(own, own_example)


@contextmanager
def _others_seeded(seed: int) -> Iterator[None]:
    """Seeds Python's and NumPy's global generators inside the block, and puts them back."""
    state, array_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(state)
        np.random.set_state(array_state)  # noqa: NPY002


def _canonical(program: ExportedProgram) -> str:
    """Returns a graph as text that two graphs share only if they compute the same."""
    labels: dict[fx.Node, str] = {}
    lines = []
    inputs = 0
    specs = program.graph_signature.input_specs
    placeholders = program.graph.find_nodes(op="placeholder")
    for node, spec in zip(placeholders, specs, strict=True):
        labels[node] = _input_label(program, spec, inputs)
        inputs += spec.kind == InputKind.USER_INPUT
        lines.append(f"{labels[node]}: {_shapes(node)}")
    # The order of weights is that in which a constructor makes them, and changes nothing.
    lines.sort()
    lines += _body(program.graph_module, labels)
    outputs = [f"{spec.kind.name} {spec.target}" for spec in program.graph_signature.output_specs]
    call = program.call_spec
    return "\n".join([*lines, *outputs, _structure(call.in_spec), _structure(call.out_spec)])


def _input_label(program: ExportedProgram, spec: InputSpec, number: int) -> str:
    if spec.kind == InputKind.USER_INPUT:
        fixed = f" {spec.arg.value!r}" if isinstance(spec.arg, ConstantArgument) else ""
        return f"input {number}{fixed}"
    if spec.kind in _WEIGHTS:
        trained = getattr(program.state_dict.get(spec.target), "requires_grad", False)
        return f"{spec.kind.name} {spec.target}{' trained' if trained else ''}"
    return _constant(program.constants[spec.target])


def _body(module: fx.GraphModule, labels: dict[fx.Node, str]) -> list[str]:
    """Returns a line for every operator of a graph, whose results are numbered."""
    lines: list[str] = []
    for node in module.graph.nodes:
        if node in labels:
            continue
        if node.op == "get_attr":
            labels[node] = _attribute(module, node.target)
            continue
        labels[node] = f"%{len(lines)}"
        operator = "argument" if node.op == "placeholder" else _target(node.target)
        arguments = [_text(value, labels) for value in (node.args, node.kwargs)]
        lines.append(f"{labels[node]} = {operator} {' '.join(arguments)}")
    return lines


def _attribute(module: fx.GraphModule, name: str) -> str:
    """Returns a constant of a graph, or a graph within it, such as one branch of `torch.cond`."""
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part)
    return "; ".join(_body(found, {})) if isinstance(found, fx.GraphModule) else _constant(found)


def _constant(value: Any) -> str:
    if not isinstance(value, Tensor):
        return _ADDRESS.sub("", repr(value))
    flat = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return f"constant {value.dtype} {tuple(value.shape)} {hashlib.sha256(flat).hexdigest()}"


def _target(target: Any) -> str:
    if isinstance(target, str | torch._ops.OperatorBase):
        return str(target)
    return f"{target.__module__}.{target.__qualname__}"


def _text(value: Any, labels: Mapping[fx.Node, str]) -> str:
    if isinstance(value, fx.Node):
        return labels[value]
    if isinstance(value, tuple | list):
        return f"[{', '.join(_text(entry, labels) for entry in value)}]"
    if isinstance(value, Mapping):
        entries = (f"{key}={_text(value[key], labels)}" for key in sorted(value))
        return f"{{{', '.join(entries)}}}"
    if isinstance(value, slice):
        return f"slice{_text([value.start, value.stop, value.step], labels)}"
    return _constant(value)


def _shapes(node: fx.Node) -> str:
    leaves = tree_leaves(node.meta.get("val"))
    return ", ".join(f"{v.dtype} {tuple(v.shape)}" for v in leaves if isinstance(v, Tensor))


def _structure(spec: TreeSpec | None) -> str:
    """Returns how arguments or outputs are nested, with the names of their entries."""
    if spec is None or spec.type is None:
        return "*"
    context = spec.context
    fields = getattr(context, "_fields", context)
    names = _ADDRESS.sub("", repr(fields)) if not isinstance(fields, type) else fields.__qualname__
    return f"{spec.type.__name__} {names} [{', '.join(map(_structure, spec.children()))}]"
