"""Static quantization to int8 of an ONNX file, by ONNX Runtime's own quantizer.

Weights have a scale for each output channel and are signed; activations have one scale for all and
are unsigned, from the least to the greatest value that the calibration images give. The file keeps
float operators between pairs of QuantizeLinear and DequantizeLinear (QDQ), which a runtime fuses
(Jacob et al. 2018, arXiv 1712.05877; onnxruntime.ai/docs, "Quantize ONNX models").
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, final

from torch import Tensor

from evosearch.callables import one_line
from evosearch.errors import InputError
from evosearch.export.onnxfile import OnnxLayer, onnx_layers

INT8 = "int8"
OPERATORS = ("Conv", "Gemm", "MatMul")
"""What is computed in int8: convolutions and matrix products."""
OPSET = 13
"""Of ONNX, the first whose DequantizeLinear has a scale for each channel."""


@final
@dataclass(frozen=True, kw_only=True)
class Quantizable:
    """An ONNX file that is ready for the quantizer: shapes inferred, BatchNorm folded.

    Attributes:
        path: of the file.
        layers: that int8 takes.
        others: that stay in float, as int8 takes convolutions and matrix products only.
    """

    path: Path
    layers: tuple[OnnxLayer, ...]
    others: tuple[OnnxLayer, ...]

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules of the layers that int8 takes, in order."""
        return tuple(dict.fromkeys(layer.module for layer in self.layers))

    def matching(self, patterns: Sequence[str]) -> tuple[str, ...]:
        """Returns the modules that patterns (`*`, `?`, `[...]`) name, in order.

        Raises:
            InputError: a pattern matches none; names the nearest.
        """
        for pattern in patterns:
            if not any(fnmatchcase(module, pattern) for module in self.modules):
                near = get_close_matches(pattern, self.modules, n=3, cutoff=0.4)
                names = ", ".join(near or self.modules[:3])
                raise InputError(
                    f"--keep-float: pattern {pattern!r} matches no layer that int8 takes; the"
                    f" nearest are {names}"
                )
        return tuple(m for m in self.modules if any(fnmatchcase(m, p) for p in patterns))


def quantizable(source: Path, target: Path) -> Quantizable:
    """Prepares an ONNX file of a float network for the quantizer.

    Args:
        source: of the float network.
        target: the prepared file, which computes the same.

    Raises:
        InputError: the file is of an opset that the quantizer does not take per channel.
    """
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    opset = next(o.version for o in onnx.load(source).opset_import if o.domain in ("", "ai.onnx"))
    if opset < OPSET:
        raise InputError(
            f"{source.name}: of ONNX opset {opset}; int8 with a scale for each channel needs"
            f" opset {OPSET} or later"
        )
    quant_pre_process(source, target, skip_symbolic_shape=True)
    found = onnx_layers(target, source)
    return Quantizable(
        path=target,
        layers=tuple(layer for layer in found if layer.operator in OPERATORS),
        others=tuple(layer for layer in found if layer.operator not in OPERATORS),
    )


def quantize(
    found: Quantizable, target: Path, images: Iterable[Tensor], *, keep: Sequence[str] = ()
) -> None:
    """Writes the int8 network of a file.

    Args:
        found: the float network.
        target: the new file.
        images: batches that the ranges of activations are measured on, as the network takes them.
        keep: modules that stay in float.

    Raises:
        InputError: nothing is left to quantize, or the quantizer fails; names the operators.
    """
    from onnxruntime import quantization

    nodes = [layer.node for layer in found.layers if layer.module not in keep]
    if not nodes:
        other = ", ".join(sorted({layer.operator for layer in found.others})) or "no others"
        kept = f"{len(found.layers)} kept in float and " if found.layers else ""
        raise InputError(
            f"nothing to quantize: int8 takes {', '.join(OPERATORS)}, and the layers here are"
            f" {kept}{other}"
        )
    try:
        quantization.quantize_static(
            found.path,
            target,
            _Reader(images),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(OPERATORS),
            nodes_to_quantize=nodes,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
    except Exception as error:  # whatever the quantizer raises
        raise InputError(
            f"ONNX Runtime's quantizer fails on this network ({one_line(error)}); keep the layer"
            " at fault in float with --keep-float, or all of it without --quantize"
        ) from error


@final
class _Reader:
    """Hands batches to the quantizer, which asks for one after the other."""

    def __init__(self, images: Iterable[Tensor]) -> None:
        self._batches: Iterator[Tensor] = iter(images)

    def get_next(self) -> dict[str, Any] | None:
        """Returns the next input of the network, None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch.numpy()}
