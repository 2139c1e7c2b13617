"""A slice: a compact network whose weights follow the whole network's."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from evosearch.space.mask import ChannelGroup, Mask
from evosearch.surgery.compaction import compact, dropped_positions, kept_positions


@final
class Slice:
    """The network of a mask on the weights that the whole network has at each call.

    Gradients of what it puts out go to the whole network's parameters, at the places that the
    slice was read from, and are zero at all others. BatchNorm normalises by the batch; the whole
    network's buffers are neither read nor changed.

    A slice can begin as a network with weights of its own: what it computes with is then those,
    plus what the whole network's have changed by since.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Iterable[ChannelGroup],
        mask: Mask,
        *,
        start: nn.Module | None = None,
        evaluating: Collection[str] = (),
    ) -> None:
        """Cuts the structure once.

        Args:
            model: the whole network; its parameters must stay the same tensors.
            groups: its channel groups.
            mask: the channels that stay.
            start: a compact network of the mask, which the slice begins as, and takes for its
                own; None is the whole network's part.
            evaluating: names of modules that stay in evaluation mode; not those inside them.
        """
        drops = dropped_positions(groups, mask)
        self._network = (compact(model, groups, mask) if start is None else start).train()
        for name in evaluating:
            self._network.get_submodule(name).training = False
        cuts = {
            id(parameter): drops[name]
            for name, parameter in model.named_parameters(remove_duplicate=False)
            if name in drops
        }
        self._read: dict[str, tuple[Tensor, Mapping[int, Tensor]]] = {
            name: (parameter, kept_positions(parameter, cuts.get(id(parameter), {})))
            for name, parameter in model.named_parameters()
        }
        # What the start's weights are apart from the whole network's, where they are; in their
        # own memory, which nothing else reads.
        self._apart: dict[str, Tensor] = {}
        if start is not None:
            own = self.weights()
            for name, parameter in start.named_parameters():
                begun, part = parameter.detach(), own[name].detach()
                if not torch.equal(begun, part):
                    self._apart[name] = begun.sub_(part)

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Returns what the slice puts out for its inputs, as the model does."""
        return functional_call(self._network, self.weights(), args, kwargs)

    @property
    def forward(self) -> Callable[..., Any]:
        """The forward pass of the model, by which `calling` tells how it takes its inputs."""
        return self._network.forward

    def weights(self) -> dict[str, Tensor]:
        """Returns the slice's parameters by name, as differentiable functions of the whole's."""
        found = {}
        for name, (tensor, kept) in self._read.items():
            for dim, positions in kept.items():
                tensor = torch.index_select(tensor, dim, positions)
            apart = self._apart.get(name)
            found[name] = tensor if apart is None else tensor + apart
        return found
