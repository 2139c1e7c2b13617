"""The size of the file of a network's weights, as a sum of exact forms in the widths."""

import json
from collections.abc import Mapping, Sequence

import torch
from safetensors.torch import save
from torch import Tensor, nn

from evosearch.models.weights import TRANSIENT, tensors_of
from evosearch.space.costform import ByteTerm, Monomial
from evosearch.space.mask import ChannelGroup
from evosearch.surgery.counting import Extents

HEADER = "(header)"
"""The part of the file that names the tensors."""


def file_terms(model: nn.Module, groups: Sequence[ChannelGroup]) -> tuple[ByteTerm, ...]:
    """Returns the bytes of what `save_weights` writes of a network, by module.

    Parameters and buffers are exact. The header, which lists their names, shapes and places, is
    counted as it is of the whole network: that of a smaller one has fewer digits, so its file is
    smaller than said by some bytes, and never larger.

    Args:
        model: the whole network.
        groups: the channels that may go.
    """
    tensors, extents = tensors_of(model), Extents(groups, model)
    modules: dict[str, tuple[Monomial, ...]] = {}
    for name, tensor in tensors.items():
        own = extents.product(name, range(tensor.ndim), tensor.element_size())
        module = name.rpartition(".")[0]
        modules[module] = modules.get(module, ()) + own
    terms = [ByteTerm(name=module, bytes=own) for module, own in modules.items()]
    header = Monomial(_header_bytes(tensors, model))
    return (*terms, ByteTerm(name=HEADER, bytes=(header,)))


def _header_bytes(tensors: Mapping[str, Tensor], model: nn.Module) -> int:
    """Returns the length of the header, and of the number before it that says how long it is.

    The library that writes files lays tensors out by the size of their elements, then by name.
    """
    transient = sorted(tensors.keys() - model.state_dict().keys())
    content: dict[str, object] = {"__metadata__": {TRANSIENT: json.dumps(transient)}}
    place = 0
    for name, tensor in sorted(tensors.items(), key=lambda t: (-t[1].element_size(), t[0])):
        end = place + tensor.numel() * tensor.element_size()
        offsets = {"shape": list(tensor.shape), "data_offsets": [place, end]}
        content[name] = {"dtype": _code(tensor.dtype), **offsets}
        place = end
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    return 8 + -(-len(text.encode()) // 8) * 8


def _code(dtype: torch.dtype) -> str:
    """Returns what a file calls a type, such as "F32"."""
    header = save({"": torch.empty(0, dtype=dtype)})[8:]
    return str(json.loads(header)[""]["dtype"])
