"""Proof that the channel groups of a model are right, on the user's own model."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from evosearch.calling import Example, arguments, call
from evosearch.models.copying import copied
from evosearch.models.modes import training_structure
from evosearch.seeding import Stream, generator, integer
from evosearch.space.mask import ChannelGroup, Mask, Member
from evosearch.space.space import FrozenGroup
from evosearch.surgery.compaction import compact, dropped_readers, masked
from evosearch.surgery.randomizing import randomize
from evosearch.surgery.rerunning import Rerun
from evosearch.surgery.tracing.export import Trace, failure
from evosearch.surgery.tracing.walk import Layer

TOLERANCE = 1e-9
"""Largest relative difference between the compacted and the masked network, in float64."""
MOVES = 1e-3
"""Smallest relative change of the output by which dropping channels counts as real."""
ATTEMPTS = 4
"""Parts of a group that are dropped in turn until one moves the output."""
JOINT_MASKS = 6
"""Masks over all groups together, after each was proven alone: the smallest, then random ones."""


@dataclass(frozen=True, kw_only=True)
class GroupProof:
    """What was measured when one group lost about half of its channels.

    Attributes:
        group: its name.
        error: relative difference of the compacted and the masked network's outputs.
        effect: relative difference of the masked and the whole network's outputs.
    """

    group: str
    error: float
    effect: float

    @property
    def failure(self) -> str | None:
        """Why the group is unproven; None where it is proven."""
        if self.error == math.inf:
            return "proof failed: the compacted network does not run, or its outputs' sizes differ"
        if not self.error <= TOLERANCE:
            return f"proof failed: compacted and masked network differ by {self.error:.1e}"
        if not self.effect > MOVES:
            return f"unproven: dropping channels moves the output by only {self.effect:.1e}"
        return None


@dataclass(frozen=True, kw_only=True)
class Proof:
    """The groups that hold, what was measured on each, and those that are frozen."""

    groups: tuple[ChannelGroup, ...]
    measured: tuple[GroupProof, ...]
    frozen: tuple[FrozenGroup, ...]


def prove(checker: "Checker", trace: Trace) -> Proof:
    """Checks every group alone, then masks over all of them together.

    A group that fails, alone or together with others, is frozen and named.
    """
    proven: list[ChannelGroup] = []
    frozen: list[FrozenGroup] = []

    def freeze(group: ChannelGroup, reason: str) -> None:
        frozen.append(FrozenGroup(name=group.name, size=group.size, reason=reason))

    layers = (*trace.layers, *trace.training_layers)
    for group in trace.groups:
        if group.size == 1:
            freeze(group, "a single channel")
        elif (reason := checker.alone(group, layers).failure) is not None:
            freeze(group, reason)
        else:
            proven.append(group)

    for round_ in range(JOINT_MASKS):
        while proven and (error := checker.together(proven, layers, round_)) > TOLERANCE:
            culprit = checker.bisect(proven, layers, round_)
            proven.remove(culprit)
            freeze(
                culprit, f"proof failed together with other groups: outputs differ by {error:.1e}"
            )
    return Proof(
        groups=tuple(proven),
        measured=tuple(checker.alone(group, layers) for group in proven),
        frozen=tuple(frozen),
    )


@final
class Checker:
    """Compares compacted networks with masked ones, on a copy that hides no error.

    The copy is in float64, with unit-gain random parameters and random BatchNorm statistics:
    trained weights can hide an error (a LayerScale of 1e-6 does).
    """

    def __init__(
        self, model: nn.Module, example: Example, seed: int, *, training: bool = False
    ) -> None:
        """Draws the copy's parameters.

        Args:
            model: not changed.
            example: its arguments; other values of the same shapes are drawn.
            seed: of all draws.
            training: whether the parts of the model that only training reads are compared too.

        Raises:
            TracingError: the model cannot be copied, or does not run in float64.
        """
        try:
            self.model = copied(model).to(device="cpu", dtype=torch.float64).eval()
        except Exception as error:
            raise failure(model, "cannot be copied", error) from error
        self._seed = seed
        random = torch.Generator().manual_seed(integer(seed, Stream.PROOF, "parameters"))

        def draw(leaf: Any) -> Any:
            if isinstance(leaf, Tensor) and leaf.is_floating_point():
                return torch.randn(leaf.shape, generator=random, dtype=torch.float64)
            return leaf.cpu() if isinstance(leaf, Tensor) else leaf

        self.example = pytree.tree_map(draw, arguments(self.model, example))
        try:
            randomize(self.model, self.example, random)
            with Rerun(self.model) as run:
                self._whole = self._output(self.model)
        except Exception as error:
            raise failure(model, "does not run in float64, as its proof must", error) from error
        self._calls = run.calls
        self._training = training  # compared where two runs give the same: random code may not
        if training:
            one, other = self._outputs(self.model), self._outputs(self.model)
            self._training = torch.equal(one[1], other[1])
        self._proofs: dict[tuple[str, tuple[Member, ...]], GroupProof] = {}

    def _output(self, model: nn.Module) -> Tensor:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes that do not fit: the outputs tell
            leaves = pytree.tree_leaves(call(model, self.example))
            return torch.cat([leaf.flatten() for leaf in leaves if isinstance(leaf, Tensor)])

    def compacted(self, groups: Sequence[ChannelGroup], mask: Mask) -> nn.Module:
        """Returns the copy without the channels that a mask drops; it shares other tensors."""
        return compact(self.model, groups, mask, share=True)

    def _compare(
        self,
        groups: Sequence[ChannelGroup],
        layers: Sequence[Layer],
        mask: Mask,
        *,
        reusing: bool = False,
    ) -> tuple[float, float]:
        """Returns the relative error of compaction under a mask, and the mask's effect.

        Args:
            groups: that the mask is over.
            layers: all that read channels.
            mask: what stays.
            reusing: whether a convolution is computed once for networks in which it has the same
                weights and inputs. The masked network is the whole one up to the first layer that
                reads what is dropped. The compact one is the masked one up to the first layer
                that it has less of, and again behind the last, where nothing but rounding tells
                inputs apart: at unit gains that stays rounding. Anything more is followed to the
                outputs, and decided there.
        """
        parameters = dict(self.model.named_parameters(remove_duplicate=False))
        zeroed = [parameters[name] for name, _, _ in dropped_readers(groups, layers, mask)]
        before = self._calls if reusing else ()
        run = Rerun(self.model, before, zeroed, keeping=reusing)
        with masked(self.model, groups, layers, mask) as reference, run:
            expected = self._outputs(reference)
        effect = _relative(expected[0], self._whole)
        try:
            network = self.compacted(groups, mask)
            with Rerun(self.model, run.calls, zeroed, keeping=False):
                actual = self._outputs(network)
        except Exception:  # whatever the user's code raises: the sizes do not fit
            return math.inf, effect
        return max(map(_relative, actual, expected)), effect

    def _outputs(self, model: nn.Module) -> list[Tensor]:
        """Returns a network's output, and in training where that is compared too."""
        outputs = [self._output(model)]
        if self._training:
            with training_structure(model):
                outputs.append(self._output(model))
        return outputs

    def alone(self, group: ChannelGroup, layers: Sequence[Layer]) -> GroupProof:
        """Returns what dropping a part of a group does; measured once.

        A few channels may be without effect by chance (dead behind their ReLU): then others are
        dropped.
        """
        key = (group.name, group.members)
        if key not in self._proofs:
            error = effect = 0.0
            for attempt in range(ATTEMPTS):
                error_here, effect = self._compare(
                    [group], layers, self.some(group, attempt), reusing=True
                )
                error = max(error, error_here)
                if error > TOLERANCE or effect > MOVES:
                    break
            self._proofs[key] = GroupProof(group=group.name, error=error, effect=effect)
        return self._proofs[key]

    def together(
        self, groups: Sequence[ChannelGroup], layers: Sequence[Layer], round_: int
    ) -> float:
        """Returns the relative error of compaction under a mask over all groups."""
        return self._compare(groups, layers, self._joint_mask(groups, round_))[0]

    def bisect(
        self, groups: Sequence[ChannelGroup], layers: Sequence[Layer], round_: int
    ) -> ChannelGroup:
        """Returns the group whose addition to those before it first breaks the equality."""
        mask = self._joint_mask(groups, round_)
        low, high = 0, len(groups)  # groups[:low] holds, groups[:high] fails
        while high - low > 1:
            middle = (low + high) // 2
            if self._compare(groups[:middle], layers, mask)[0] > TOLERANCE:
                high = middle
            else:
                low = middle
        return groups[high - 1]

    def some(self, group: ChannelGroup, attempt: int = 0) -> Mask:
        """Returns the mask under which a group is checked alone.

        About half of its channels stay: an odd number, since a size that is fixed in the code may
        happen to fit half a width. Of those tried in turn the last one keeps a single channel.
        """
        rng = generator(self._seed, Stream.PROOF, f"alone {attempt}", group.name)
        kept = (group.size // 4) * 2 + 1 if attempt < ATTEMPTS - 1 else 1
        return Mask({group.name: rng.permutation(group.size) < kept})

    def _joint_mask(self, groups: Sequence[ChannelGroup], round_: int) -> Mask:
        """Returns a mask of random legal widths, or the smallest ones in round 0."""
        bits = {}
        for group in groups:
            rng = generator(self._seed, Stream.PROOF, f"joint {round_}", group.name)
            widths = group.legal_widths()
            kept = rng.choice(widths[:-1] or widths) if round_ else widths[0]
            bits[group.name] = rng.permutation(group.size) < kept
        return Mask(bits)


def _relative(actual: Tensor, expected: Tensor) -> float:
    """Returns the largest difference as a share of the largest value; infinite where undefined."""
    if actual.shape != expected.shape:
        return math.inf
    scale = float(expected.abs().max())
    difference = float((actual - expected).abs().max())
    if difference == 0:
        return 0.0
    return difference / scale if scale > 0 and math.isfinite(difference) else math.inf
