"""Int8: values computed by hand, layers found by name, layers at fault found, refusals."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("onnxruntime", reason="ONNX is not installed")
pytest.importorskip("onnxscript", reason="ONNX is not installed")

from evosearch.data.images import Images, StoredPixels
from evosearch.data.splits import SearchSplit
from evosearch.errors import InputError
from evosearch.export.formats import write_onnx
from evosearch.export.layerlosses import layer_losses
from evosearch.export.onnxfile import OnnxNetwork
from evosearch.export.quantizing import Quantizable, quantizable, quantize
from evosearch.models.weights import weights_digest
from evosearch.tasks.classification import CLASSIFICATION
from tests.export.onnxfiles import pointwise, write_chain
from tests.surgery.networks import randomized


class Net(nn.Module):
    """A convolution with BatchNorm, one that int8 does not take, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.up = nn.ConvTranspose2d(4, 3, 2, stride=2)
        self.head = nn.Linear(3, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.up(self.stem(images)).mean((2, 3)))


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return randomized(Net())


@pytest.fixture(scope="module")
def ready(net: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Quantizable:
    folder = tmp_path_factory.mktemp("onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_onnx(net, (1, 4, 4), folder / "model.onnx")
    return quantizable(folder / "model.onnx", folder / "ready.onnx")


def images(count: int = 8) -> Tensor:
    return torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def outputs(path: Path, batch: Tensor) -> Tensor:
    return OnnxNetwork(path, threads=1)(batch)


def test_a_convolution_gives_what_int8_by_hand_gives(tmp_path: Path) -> None:
    source = write_chain(tmp_path / "a.onnx", {"one": pointwise((1.27,), (-0.635,))})
    ready = quantizable(source, tmp_path / "b.onnx")
    ends = torch.tensor([0.0, 2.55]).reshape(2, 1, 1, 1)
    quantize(ready, tmp_path / "c.onnx", [ends])
    found = outputs(tmp_path / "c.onnx", torch.full((1, 1, 1, 1), 1.2378))
    # Images from 0 to 2.55 in 255 steps of 0.01: 1.2378 becomes 124 of them, 1.24. Weights are 127
    # steps of 0.01 and -127 of 0.005, as each channel has a scale of its own. What comes out lies
    # between -1.61925 and 3.2385, in steps of 0.01905: 1.5748 is 82.67 of them, so 83, and -0.7874
    # is -41.33 of them, so -41.
    assert found.flatten().tolist() == pytest.approx([83 * 0.01905, -41 * 0.01905], abs=1e-6)
    beyond = outputs(tmp_path / "c.onnx", torch.full((1, 1, 1, 1), 9.0))
    assert beyond.flatten().tolist() == pytest.approx([3.2385, -1.61925], abs=1e-6)


def test_layers_have_the_names_of_their_modules(ready: Quantizable) -> None:
    assert [(layer.module, layer.operator) for layer in ready.layers] == [
        ("stem.0", "Conv"),
        ("head", "Gemm"),
    ]
    assert list(map(str, ready.others)) == ["up (ConvTranspose)"]


class Mix(nn.Module):
    """A product and a sum, which ONNX Runtime makes one operator of."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix, self.shift = nn.Parameter(torch.eye(4)), nn.Parameter(torch.ones(4))

    def forward(self, rows: Tensor) -> Tensor:
        return rows @ self.matrix + self.shift


class Tokens(nn.Module):
    """Layers whose weights lose their names in the file: they are transposed on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        self.mix, self.turn = Mix(), nn.Parameter(torch.eye(4))

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.block(self.block(images.flatten(1, 2)))
        return self.mix(tokens.mean(1)) @ self.turn


def test_layers_on_rows_of_tokens_have_the_names_of_their_modules(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_onnx(randomized(Tokens()), (1, 4, 4), tmp_path / "model.onnx")
    found = quantizable(tmp_path / "model.onnx", tmp_path / "ready.onnx")
    *layers, last = found.layers
    assert [own.module for own in layers] == ["block.0", "block.2", "block.0", "block.2", "mix"]
    assert found.matching(["block.*"]) == ("block.0", "block.2")
    assert last.module == last.node  # of no module's weights, and called in none


def test_batchnorm_is_folded_and_the_prepared_file_computes_the_same(
    net: nn.Module, ready: Quantizable
) -> None:
    import onnx

    operators = {node.op_type for node in onnx.load(ready.path).graph.node}
    assert "Conv" in operators
    assert "BatchNormalization" not in operators
    with torch.no_grad():
        expected = net(images())
    torch.testing.assert_close(outputs(ready.path, images()), expected, rtol=1e-4, atol=1e-5)


def test_what_is_kept_in_float_has_float_weights(
    net: nn.Module, ready: Quantizable, tmp_path: Path
) -> None:
    import onnx

    kept = {}
    for name, keep in (("all", ()), ("some", ("stem.0",))):
        path = tmp_path / f"{name}.onnx"
        quantize(ready, path, [images()], keep=keep)
        graph = onnx.load(path).graph
        bytes_ = {tensor.name for tensor in graph.initializer if tensor.data_type == 3}
        kept[name] = {layer.module for layer in ready.layers} - {
            name.removesuffix(".weight_quantized") for name in bytes_
        }
        assert any(node.op_type == "ConvTranspose" for node in graph.node)
    assert kept == {"all": set(), "some": {"stem.0"}}
    with torch.no_grad():
        expected = net(images())
    found = outputs(tmp_path / "all.onnx", images())
    assert 0 < float((found - expected).abs().max()) < 0.05 * float(expected.abs().max())


def test_patterns_name_layers_and_a_wrong_one_is_refused_with_the_nearest(
    ready: Quantizable,
) -> None:
    assert ready.matching(()) == ()
    assert ready.matching(["head", "stem.*"]) == ("stem.0", "head")
    message = r"--keep-float: pattern 'haed' matches no layer that int8 takes; the nearest .* head"
    with pytest.raises(InputError, match=message):
        ready.matching(["stem.0", "haed"])


def test_nothing_to_quantize_is_refused_by_the_names_of_operators(
    ready: Quantizable, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="2 kept in float and ConvTranspose"):
        quantize(ready, tmp_path / "c.onnx", [images()], keep=ready.modules)
    source = write_chain(tmp_path / "a.onnx", {"up": pointwise((1.0,))}, "ConvTranspose")
    other = quantizable(source, tmp_path / "b.onnx")
    with pytest.raises(InputError, match=r"int8 takes Conv, Gemm, MatMul, .* are ConvTranspose$"):
        quantize(other, tmp_path / "c.onnx", [torch.ones(2, 1, 1, 1)])
    assert not (tmp_path / "c.onnx").exists()


def test_an_opset_without_scales_for_channels_is_refused(tmp_path: Path) -> None:
    source = write_chain(tmp_path / "a.onnx", {"one": pointwise((1.0,))}, opset=11)
    with pytest.raises(InputError, match=r"a\.onnx: of ONNX opset 11; .* needs opset 13"):
        quantizable(source, tmp_path / "b.onnx")


def test_what_the_quantizer_says_is_one_line(tmp_path: Path, ready: Quantizable) -> None:
    with pytest.raises(InputError, match="quantizer fails on this network") as caught:
        quantize(ready, tmp_path / "c.onnx", [torch.ones(2, 3, 4, 4)])
    assert "\n" not in str(caught.value)


def test_a_file_is_told_apart_by_its_bytes(ready: Quantizable, tmp_path: Path) -> None:
    digests = set()
    for name, keep in (("a", ()), ("b", ()), ("c", ("head",))):
        quantize(ready, tmp_path / name, [images()], keep=keep)
        digests.add(weights_digest(OnnxNetwork(tmp_path / name, threads=1)))
    assert len(digests) == 2


def test_the_layer_that_loses_is_found(tmp_path: Path) -> None:
    """The first reads a signal of ±1 beside one of 1000, which takes all steps of its input."""
    layers = {
        "first": pointwise((1.0, 0.0), (-1.0, 0.0)),
        "second": pointwise((1.0, 0.0), (0.0, 1.0)),
    }
    source = write_chain(tmp_path / "a.onnx", layers)
    ready = quantizable(source, tmp_path / "b.onnx")
    signal = torch.linspace(-1, 1, 40)
    pixels = torch.stack([signal, torch.full_like(signal, 1000.0)], 1)[:, :, None, None]
    split = SearchSplit(
        images=Images(pixels=StoredPixels(pixels.numpy()), positions=np.arange(40)),
        labels=(signal < 0).long(),
        indices=torch.arange(40),
    )
    flat = replace(CLASSIFICATION, output=lambda output: output.flatten(1))
    told: list[str] = []
    found = layer_losses(ready, ready.modules, [pixels], split, flat, 1, told.append)
    assert [own.module for own in found] == ["first", "second"]
    # Without its signal it gives the same logits for all: half of the images are lost.
    assert found[0].metric == pytest.approx(0.5)
    assert found[1].metric == 0.0
    assert abs(found[1].loss) < 0.01 < found[0].loss
    assert told[-1] == "layers that lose in int8: 2 of 2 layers"
