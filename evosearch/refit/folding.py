"""BatchNorm folded into the layers before it, for networks that are only scored."""

from collections import Counter
from collections.abc import Sequence

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from evosearch.surgery.tracing.walk import Layer

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def fold_batchnorms(network: nn.Module, layers: Sequence[Layer]) -> None:
    """Multiplies every BatchNorm that alone reads a layer into that layer, in place.

    What the network computes in evaluation mode stays the same but for rounding. A folded
    BatchNorm's module becomes an `nn.Identity`, so the result is for scoring only.

    Args:
        network: the traced network, or one compacted from it, with running statistics.
        layers: the layers of the traced network. Those that are called twice, or whose BatchNorm
            is, stay as they are; so do transposed convolutions.
    """
    calls = Counter(name for layer in layers for name in (layer.module, layer.norm))
    for layer in layers:
        if layer.norm is None or calls[layer.module] > 1 or calls[layer.norm] > 1:
            continue
        module, norm = network.get_submodule(layer.module), network.get_submodule(layer.norm)
        # A subclass may compute something else.
        plain = type(module) in _LAYERS and type(norm) in _NORMS
        if not plain or not isinstance(module, _LAYERS) or not isinstance(norm, _NORMS):
            continue
        if norm.running_mean is None or norm.running_var is None:
            continue
        fuse = fuse_linear_bn_weights if isinstance(module, nn.Linear) else fuse_conv_bn_weights
        statistics = norm.running_mean, norm.running_var, norm.eps
        module.weight, module.bias = fuse(
            module.weight, module.bias, *statistics, norm.weight, norm.bias
        )
        owner, _, leaf = layer.norm.rpartition(".")
        setattr(network.get_submodule(owner), leaf, nn.Identity())
