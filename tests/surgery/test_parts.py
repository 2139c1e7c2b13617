"""Parts of a model: traced by themselves they have the groups that they have in the whole."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evosearch.calling import Arguments, call
from evosearch.errors import InputError, TracingError
from evosearch.space.cost import Cost
from evosearch.surgery.compaction import compact, masked
from evosearch.surgery.discovery import Discovery, GroupRules, discover
from evosearch.surgery.filesize import HEADER
from evosearch.surgery.tracing.graph_digest import graph_digest
from evosearch.surgery.tracing.parts import scopes_of
from tests.surgery.cases import CASES, random_masks, tensors

SHARED = ("residual", "shared_module", "auxiliary", "structured")
"""Networks that are traced whole and as a part."""


class Inside(nn.Module):
    """A network that does nothing but call another one."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.holder = nn.Module()
        self.holder.add_module("inner", inner)

    def forward(self, *inputs: Any) -> Any:
        return self.holder.get_submodule("inner")(*inputs)


def block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class Detector(nn.Module):
    """A backbone with two scales, a neck that adds them, and code that no graph has.

    How many boxes there are follows from what the head finds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict({"stem": block(3, 6), "deep": block(6, 8)})
        self.neck = Neck()
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, images: Tensor) -> list[Tensor]:
        shallow = self.backbone["stem"](images)
        deep = self.backbone["deep"](shallow)
        maps = self.head(self.neck({"deep": deep}, skip=shallow))
        return [own[:, own[0] > 0] if float(own.detach().amax()) > 0 else own for own in maps]


class Neck(nn.Module):
    """Takes a dict by place and a tensor by name."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = block(8, 5), block(6, 5)
        self.last = nn.Conv2d(5, 4, 3, padding=1)

    def forward(self, maps: dict[str, Tensor], *, skip: Tensor) -> Tensor:
        both: Tensor = self.last(self.first(maps["deep"]) + self.second(skip))
        return both


IMAGES = (torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)),)


def found(*parts: str, model: nn.Module | None = None) -> Discovery:
    torch.manual_seed(0)
    return discover((model or Detector()).eval(), IMAGES, GroupRules(), seed=3, parts=parts)


@pytest.mark.parametrize("name", SHARED)
def test_a_part_has_the_groups_and_costs_that_it_has_in_the_whole(name: str) -> None:
    case = CASES[name]
    model, example = Inside(case.model()).eval(), case.example()
    whole = discover(model, example, GroupRules(), seed=3)
    alone = discover(model, example, GroupRules(), seed=3, parts=["holder.inner"])
    assert alone.space.groups == whole.space.groups
    assert alone.space.frozen == whole.space.frozen
    assert alone.layers == whole.layers
    assert alone.proofs == whole.proofs
    for mask in random_masks(whole.space, 3):
        # What is alive outside a part is not known.
        assert alone.space.cost(mask) == replace(whole.space.cost(mask), memory=0)


def test_a_model_that_cannot_be_exported_is_cut_where_it_can() -> None:
    with pytest.raises(TracingError, match=r"; where a part of it can, name that in \[model\]"):
        found()
    discovery = found("neck")
    assert discovery.space.sizes == {"neck.first.0": 5}
    frozen = {part.name: part.reason for part in discovery.space.frozen}
    assert frozen == {"neck.last": "network output"}
    torch.manual_seed(0)
    model = Detector().eval()
    groups = discovery.space.groups
    for mask in random_masks(discovery.space, 3):
        with torch.no_grad(), masked(model, groups, discovery.layers, mask) as reference:
            expected = reference(*IMAGES)
        made = compact(model, groups, mask)(*IMAGES)
        assert [own.shape for own in made] == [own.shape for own in expected]
        for own, other in zip(made, expected, strict=True):
            torch.testing.assert_close(own, other)


def test_costs_by_hand() -> None:
    # At 64 positions: outside stem 6 x 3 x 9, deep 8 x 6 x 9 and head 4 x 2; in the neck
    # 5 x 8 x 9, 5 x 6 x 9 and 4 x 5 x 9.
    space = found("neck").space
    outside = 64 * (162 + 432 + 8)
    neck = 64 * (360 + 270 + 180)
    biases, norms = 4 + 2, 2 * (6 + 8 + 5 + 5)
    params = (outside + neck) // 64 + biases + norms
    assert replace(space.base_cost, size=0) == Cost(
        macs=outside + neck, params=params, activations=64 * (6 + 8 + 5 + 5 + 4 + 2)
    )
    (header,) = dict(space.parts("size"))[HEADER]
    # Each norm has as many statistics as weights, and a counter of batches.
    assert space.base_cost.size == 4 * (params + norms) + 4 * 8 + header.coefficient
    terms = {term.name: term.evaluate({}) for term in space.terms if "(" in term.name}
    assert terms == {
        "(outside the part)": Cost(macs=outside, params=0, activations=64 * (6 + 8 + 2))
    }
    # Two channels less in the sum of two convolutions, which one reads.
    narrow = space.top_channels(space.full_widths - 2, {"neck.first.0": torch.arange(5).numpy()})
    less = 2 * (72 + 54 + 36)
    cut = space.cost(narrow)
    assert cut.macs == space.base_cost.macs - 64 * less
    assert cut.params == space.base_cost.params - less - 2 * 4
    assert cut.activations == space.base_cost.activations - 64 * 2 * 2


def test_several_parts_are_traced_one_by_one_in_the_order_of_their_calls() -> None:
    both = found("neck", "backbone.deep")
    assert list(both.space.sizes) == ["neck.first.0"]
    assert [part.name for part in both.space.frozen] == ["backbone.deep.0", "neck.last"]
    costs = both.space.base_cost, found("neck").space.base_cost
    assert costs[0] == costs[1]


def test_a_part_is_handed_what_the_whole_model_calls_it_with() -> None:
    torch.manual_seed(0)
    model = Detector().train()
    (scope,) = scopes_of(model, IMAGES, ["neck"])
    model.eval()
    shallow = model.backbone["stem"](*IMAGES)
    expected = Arguments(({"deep": model.backbone["deep"](shallow)},), {"skip": shallow})
    for own, other in zip(tensors(scope.example), tensors(expected), strict=True):
        assert torch.equal(own, other)
    assert torch.equal(call(scope.model, scope.example), call(model.neck, expected))
    assert not any(module._forward_hooks for module in model.modules())


def test_the_digest_of_a_part_changes_with_it_and_its_name_alone() -> None:
    model = Detector().eval()
    digest = graph_digest(model, IMAGES, ["neck"])
    assert digest == graph_digest(Detector().eval(), IMAGES, ["neck"])
    assert digest != graph_digest(model, IMAGES, ["backbone.deep"])
    model.neck.last = nn.Conv2d(5, 4, 3, padding=1, padding_mode="reflect")
    assert digest != graph_digest(model, IMAGES, ["neck"])


class Odd(nn.Module):
    """Calls a part twice, one never, and reads the weights of others outside them."""

    def __init__(self) -> None:
        super().__init__()
        self.again, self.never, self.read = block(3, 3), block(3, 3), block(3, 3)
        self.inner = nn.Sequential(block(3, 3), block(3, 3))
        self.listed, self.folded, self.boxed = Unpacks(), block(3, 3), Unpacks()
        self.keeping = Keeping()

    def forward(self, images: Tensor) -> Tensor:
        images = self.again(self.again(self.read(images)))
        images = images * self.read[0].weight.sum() + self.inner[0](self.inner(images))
        folded = self.folded(images[:1])
        images = self.keeping(images) + self.keeping.kept.mean()
        return self.boxed(Box(self.listed([images]))) + folded.detach()


class Keeping(nn.Module):
    """Keeps what it computes on its way."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = block(3, 5), block(5, 3)

    def forward(self, images: Tensor) -> Tensor:
        self.kept: Tensor = self.first(images)
        found: Tensor = self.last(self.kept)
        return found


class Box:
    def __init__(self, images: Tensor) -> None:
        self.images = images


class Unpacks(nn.Module):
    def forward(self, images: Any) -> Tensor:
        found: Tensor = images.images if isinstance(images, Box) else images[0]
        return found


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (["againn"], r"^unknown \[model\] part 'againn': did you mean 'again'\?$"),
        (["again"], "'again': called 2 times in a forward pass; expected a module that"),
        (["never"], "'never': called 0 times in a forward pass; .*, such as one inside it$"),
        (["read"], "'read': its read.0.weight is read outside it as well, where channels would"),
        (["inner"], "'inner': its inner.0.0.weight is read outside it as well"),
        (["keeping"], "'keeping': its inner tensor is read outside it as well, where channels"),
        (["inner", "inner.1"], "'inner.1' is in 'inner', which is named as well; leave one of"),
        (["read", "read"], "'read' is in 'read', which is named as well"),
        (["boxed"], "'boxed': it is handed a Box; expected tensors, plain values, and nests"),
        (["folded"], "'folded': it is handed 1 rows for 2 images; expected as many rows for"),
        (["listed"], "nothing can be pruned: no layers found"),
    ],
)
def test_a_part_that_cannot_be_is_refused(parts: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        found(*parts, model=Odd())


def test_a_network_that_fails_says_why() -> None:
    with pytest.raises(InputError, match="the network fails on random inputs of the shapes in"):
        discover(Detector(), (torch.randn(2, 4, 8, 8),), GroupRules(), seed=3, parts=["neck"])
