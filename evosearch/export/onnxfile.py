"""An ONNX file: its layers by the modules that they come from, and the network that it is."""

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

OPERATORS = ("Conv", "ConvTranspose", "Einsum", "GRU", "Gemm", "LSTM", "MatMul", "RNN")
"""What layers are computed by."""
_SCOPES = "pkg.torch.onnx.name_scopes"
"""Where torch's exporter keeps the names of the modules that an operator is called in."""
_FUSED = "/"
"""What ONNX Runtime puts after the name of an operator that it fuses another one into."""


@final
@dataclass(frozen=True, kw_only=True)
class OnnxLayer:
    """An operator that computes with weights, or the product of two matrices.

    Attributes:
        node: its name in the file.
        module: the PyTorch module whose weights it has, or that it is called in.
        operator: its ONNX operator, such as "Conv".
    """

    node: str
    module: str
    operator: str

    def __str__(self) -> str:
        return f"{self.module} ({self.operator})"


def onnx_layers(prepared: Path, source: Path) -> tuple[OnnxLayer, ...]:
    """Returns the layers of a prepared file, in the order of the graph.

    Args:
        prepared: by ONNX Runtime, which keeps the names of operators, and not where they are from.
        source: what torch's exporter wrote.
    """
    import onnx

    graph = onnx.load(prepared).graph
    weights = {tensor.name for tensor in graph.initializer if len(tensor.dims) > 1}
    scopes = {node.name: _scope(node) for node in onnx.load(source).graph.node}
    return tuple(
        OnnxLayer(
            node=node.name,
            module=_owner([name for name in node.input if name in weights])
            or scopes.get(node.name.partition(_FUSED)[0])
            or node.name,
            operator=node.op_type,
        )
        for node in graph.node
        if node.op_type in OPERATORS
    )


def _owner(weights: list[str]) -> str:
    """Returns the module that weights are of, where they kept their name.

    It comes before the scope: a folded BatchNorm leaves its own.
    """
    for name in weights:
        module, _, leaf = name.rpartition(".")
        if leaf.startswith("weight") and module:
            return module
    return ""


def _scope(node: Any) -> str:
    """Returns the module that an operator is called in; nothing for the whole network."""
    for entry in node.metadata_props:
        if entry.key == _SCOPES:
            # The last one is the operator's own name, the first one the whole network's.
            return str(([*ast.literal_eval(entry.value)][:-1] or [""])[-1])
    return ""


def open_session(path: Path, threads: int) -> Any:
    """Returns a session of ONNX Runtime on the CPU that runs a file.

    Args:
        path: of the file.
        threads: that it computes with.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@final
class OnnxNetwork(nn.Module):
    """An ONNX file as a network that can be scored as any other; its bytes are its weights."""

    file: Tensor

    def __init__(self, path: Path, threads: int) -> None:
        """Opens a file of one image tensor; see `open_session`."""
        super().__init__()
        self.session = open_session(path, threads)
        self.register_buffer("file", torch.from_numpy(np.fromfile(path, dtype=np.uint8)))

    def forward(self, images: Tensor) -> Tensor:
        """Returns the file's first output for a batch of images."""
        outputs = self.session.run(None, {"images": images.contiguous().numpy()})
        return torch.from_numpy(outputs[0])
