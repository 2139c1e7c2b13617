"""ONNX files made by hand, of layers whose weights are known."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Weights = Mapping[str, NDArray[np.float32]]


def write_chain(path: Path, layers: Weights, operator: str = "Conv", opset: int = 18) -> Path:
    """Writes a network of layers in a row, each with the weights of its name and no bias."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes, weights, read = [], [], "images"
    for number, (name, values) in enumerate(layers.items(), 1):
        gives = "outputs" if number == len(layers) else f"{name} gives"
        nodes.append(helper.make_node(operator, [read, f"{name}.weight"], [gives], name=name))
        weights.append(numpy_helper.from_array(values, f"{name}.weight"))
        read = gives
    shape = ["batch", next(iter(layers.values())).shape[1], 1, 1]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("outputs", TensorProto.FLOAT, None)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


def pointwise(*rows: tuple[float, ...]) -> NDArray[np.float32]:
    """Returns the weights of a 1x1 convolution, a row for each output."""
    return np.array(rows, dtype=np.float32)[:, :, None, None]
