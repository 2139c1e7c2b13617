"""Small networks around one operator each; see `networks.Case`."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from tests.surgery.networks import Case, Net, conv, head


def between(run: Any, *, stem: int = 8, into: int | None = None, **modules: Any) -> Any:
    """Returns a builder: a stem, `run(net, x)`, a convolution that reads it, and a classifier."""

    def build() -> nn.Module:
        def forward(net: Any, x: Tensor) -> Tensor:
            return net.head(net.after(run(net, net.stem(x).relu())).relu())

        made = {name: make() if callable(make) else make for name, make in modules.items()}
        return Net(
            forward,
            stem=conv(3, stem),
            **made,
            after=conv(stem if into is None else into, 6),
            head=head(6),
        )

    return build


AFTER = {"after": 6}


def shuffle_by_view(net: Any, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, -1, h, w)


def pixel_shuffle_by_view(net: Any, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    x = x.view(n, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3)
    return x.reshape(n, c // 4, 2 * h, 2 * w)


def two_ways(split: Any) -> Any:
    """The parts of the channels go into convolutions of their own, in reverse."""

    def run(net: Any, x: Tensor) -> Tensor:
        parts = split(x)
        return torch.cat([net.right(parts[1]), net.left(parts[0])], 1)

    return run


def split_network(split: Any, stem: int, left: int, right: int) -> Any:
    return between(
        two_ways(split),
        stem=stem,
        into=9,
        left=lambda: conv(left, 4),
        right=lambda: conv(right, 5),
    )


class Blur(nn.Module):
    """A fixed filter on each channel, with as many groups as an attribute says."""

    def __init__(self, channels: int, across: int = 1) -> None:
        super().__init__()
        self.channels = channels // across
        shape = (channels, across, 3, 3)
        self.register_buffer("filter", torch.full(shape, 1 / 9), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.filter, stride=2, groups=self.channels)


class OwnBlur(Blur):
    """The same, with as many groups as channels come."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.filter, stride=2, groups=x.shape[1])


def split_by_attributes(split: Any, stem: int, left: int, right: int, **sizes: Any) -> Any:
    """The same, with lengths that the module keeps."""
    return between(
        lambda net, x: two_ways(lambda channels: split(net, channels))(net, x),
        stem=stem,
        into=9,
        left=lambda: conv(left, 4),
        right=lambda: conv(right, 5),
        **sizes,
    )


SPLIT = {"left": 4, "right": 5, **AFTER}


def shortcut(pad: Any) -> Any:
    """A convolution from 4 to 8 channels beside a padded shortcut."""

    def run(net: Any, x: Tensor) -> Tensor:
        y = net.wide(x)
        return (y + pad(x, y)).relu()

    return between(run, stem=4, into=8, wide=lambda: conv(4, 8))


def buffer_scale() -> nn.Module:
    net = between(lambda net, x: x * net.gain + net.shift)()
    net.register_buffer("gain", torch.ones(1, 8, 1, 1))
    net.register_buffer("shift", torch.ones(8, 1, 1), persistent=False)
    return net


def frozen_batch_norm(net: Any, x: Tensor) -> Tensor:
    scale = net.weight.reshape(1, -1, 1, 1) * (net.spread.reshape(1, -1, 1, 1) ** 2 + 0.1).rsqrt()
    return x * scale + (net.bias.reshape(1, -1, 1, 1) - net.mean.reshape(1, -1, 1, 1) * scale)


class ChannelsLast(nn.Module):
    """A ConvNeXt block: LayerNorm over channels, then two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 8)
        self.norm = nn.LayerNorm(8)
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)
        self.scale = nn.Parameter(torch.full((8, 1, 1), 1e-6))
        self.head = head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.down(F.gelu(self.up(self.norm(x.permute(0, 2, 3, 1)))))
        return self.head(x + self.scale * y.permute(0, 3, 1, 2))


class Attention(nn.Module):
    """A Transformer layer over the pixels of a feature map, with a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.tokens = conv(3, 6), conv(6, 8)
        self.place = nn.Parameter(torch.zeros(1, 17, 8))
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(F.avg_pool2d(self.stem(x).relu(), 2)).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.place
        return self.head(self.layer(x)[:, 0])


class Structured(nn.Module):
    """A dictionary in, a dictionary with a tuple out."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = conv(3, 6), conv(2, 6)
        self.body, self.out = conv(6, 7), conv(7, 4)
        self.head = head(7)

    def forward(self, images: dict[str, Tensor], weight: Tensor) -> dict[str, Any]:
        x = self.left(images["left"]) + weight * self.right(images["right"])
        x = self.body(x.relu()).relu()
        return {"maps": (self.out(x), x.mean((2, 3)).sum(1)), "scores": self.head(x)}


class Auxiliary(nn.Module):
    """A second classifier in the middle, in training only (GoogLeNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = conv(3, 8), conv(8, 6)
        self.head = head(6)
        self.side = nn.Sequential(conv(8, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), head(4))

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x).relu()
        scores = self.head(self.body(x).relu())
        return (scores, self.side(x)) if self.training else scores


def without_gradients(net: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        y = net.inner(x).relu()
    return x + net.outer(y)


def two_cuts(net: Any, x: Tensor) -> Tensor:
    """Halves that follow the width, and then a cut at a fixed place in what a layer wrote."""
    a, b = x.chunk(2, 1)
    y = net.middle(a * b.sigmoid()).relu()
    return torch.cat([net.left(y[:, :4]), net.right(y[:, 4:])], 1)


def reused_weight() -> nn.Module:
    net = between(
        lambda net, x: net.second(net.first(x).relu()).relu(),
        first=lambda: conv(8, 8),
        second=lambda: conv(8, 8),
    )()
    net.second.weight = net.first.weight
    return net


def spatial_attention(net: Any, x: Tensor) -> Tensor:
    return x * net.gate(x).sigmoid()


def selective(net: Any, x: Tensor) -> Tensor:
    """Two branches weighed by attention over the branches (SKNet)."""
    both = torch.stack([net.left(x), net.right(x)], 1)
    pooled = net.up(net.down(both.sum(1).mean((2, 3))).relu())
    weights = pooled.view(len(x), 2, -1).softmax(1)
    return (both * weights[..., None, None]).sum(1).relu()


WITH_GROUPS = {
    "grouped_positions": Case(
        build=between(
            lambda net, x: net.conv(x).relu(),
            stem=12,
            into=24,
            conv=lambda: conv(12, 24, groups=2),
        ),
        groups={"stem": 6, "conv": 12, **AFTER},
    ),
    "grouped_whole": Case(
        build=between(
            lambda net, x: net.conv(x).relu(),
            stem=16,
            into=24,
            conv=lambda: conv(16, 24, groups=8),
        ),
        groups={"stem": 8, **AFTER},
    ),
    "transposed": Case(
        build=between(
            lambda net, x: net.up(x).relu(),
            into=10,
            up=lambda: nn.ConvTranspose2d(8, 10, 3, stride=2, bias=False),
        ),
        groups={"stem": 8, "up": 10, **AFTER},
    ),
    "transposed_groups": Case(
        build=between(
            lambda net, x: net.up(x).relu(),
            into=12,
            up=lambda: nn.ConvTranspose2d(8, 12, 2, stride=2, groups=2),
        ),
        groups={"stem": 4, "up": 6, **AFTER},
    ),
    "transposed_depthwise": Case(
        build=between(
            lambda net, x: net.up(x).relu(),
            into=16,
            up=lambda: nn.ConvTranspose2d(8, 16, 2, stride=2, groups=8),
        ),
        groups={"stem": 8, **AFTER},
    ),
    "group_norm": Case(
        build=between(lambda net, x: net.norm(x), norm=lambda: nn.GroupNorm(4, 8)),
        groups={"stem": 4, **AFTER},
    ),
    "group_norm_plain": Case(
        build=between(lambda net, x: net.norm(x), norm=lambda: nn.GroupNorm(4, 8, affine=False)),
        groups={"stem": 4, **AFTER},
    ),
    "group_norm_over_all": Case(
        build=between(lambda net, x: net.norm(x), norm=lambda: nn.GroupNorm(1, 8)),
        groups=AFTER,
        frozen={"stem": "group_norm"},
    ),
}

THAT_FOLLOW = {
    "to_dtype": Case(  # whose export asserts what the tensor was
        build=between(lambda net, x: x.to(torch.float64).to(x.dtype)),
        groups={"stem": 8, **AFTER},
    ),
    "shuffle_view": Case(build=between(shuffle_by_view), groups={"stem": 4, **AFTER}),
    "shuffle_module": Case(
        build=between(lambda net, x: net.mix(x), mix=lambda: nn.ChannelShuffle(2)),
        groups={"stem": 4, **AFTER},
    ),
    "gated_halves": Case(
        build=between(lambda net, x: F.glu(x, 1), into=4), groups={"stem": 4, **AFTER}
    ),
    "chunk": Case(
        build=split_network(lambda x: x.chunk(2, 1), 8, 4, 4), groups={"stem": 4, **SPLIT}
    ),
    "tensor_split": Case(
        build=split_network(lambda x: x.tensor_split(2, 1), 8, 4, 4), groups={"stem": 4, **SPLIT}
    ),
    "split_by_width": Case(
        build=split_network(lambda x: x.split(x.shape[1] // 2, 1), 8, 4, 4),
        groups={"stem": 4, **SPLIT},
    ),
    "split_uneven_by_width": Case(
        build=split_network(lambda x: x.split([x.shape[1] // 4, 3 * x.shape[1] // 4], 1), 8, 2, 6),
        groups={"stem": 2, **SPLIT},
    ),
    "slices_by_width": Case(
        build=split_network(lambda x: (x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]), 8, 4, 4),
        groups={"stem": 4, **SPLIT},
    ),
    "every_other": Case(
        build=split_network(lambda x: (x[:, ::2], x[:, 1::2]), 8, 4, 4),
        groups={"stem": 4, **SPLIT},
    ),
    "pad_by_width": Case(
        build=shortcut(lambda x, y: F.pad(x, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))),
        groups={"stem": 4, "wide": 4, **AFTER},
    ),
    "zeros_by_width": Case(
        build=shortcut(
            lambda x, y: torch.cat(
                [x, torch.zeros(len(x), y.shape[1] - x.shape[1], *x.shape[2:])], 1
            )
        ),
        groups={"stem": 4, "wide": 4, **AFTER},
    ),
    "constant_by_width": Case(
        build=between(lambda net, x: x + torch.full((len(x), x.shape[1], 1, 1), 0.5)),
        groups={"stem": 8, **AFTER},
    ),
    "flip": Case(build=between(lambda net, x: x.flip(1)), groups={"stem": 8, **AFTER}),
    "sum_with_flip": Case(
        build=between(lambda net, x: x + x.flip(1)), groups={"stem": 4, **AFTER}
    ),
    "pixel_shuffle": Case(
        build=between(lambda net, x: F.pixel_shuffle(x, 2), stem=16, into=4),
        groups={"stem": 4, **AFTER},
    ),
    "pixel_shuffle_view": Case(
        build=between(pixel_shuffle_by_view, stem=16, into=4), groups={"stem": 4, **AFTER}
    ),
    "pixel_unshuffle": Case(
        build=between(lambda net, x: F.pixel_unshuffle(x, 2), stem=4, into=16),
        groups={"stem": 4, **AFTER},
    ),
    "broadcast": Case(
        build=between(
            lambda net, x: x * net.gate(x.amax((2, 3))).sigmoid()[:, :, None, None],
            gate=lambda: nn.Linear(8, 8),
        ),
        groups={"stem": 8, **AFTER},
    ),
    "spatial_attention": Case(
        build=between(spatial_attention, gate=lambda: conv(8, 1)),
        groups={"stem": 8, **AFTER},
        frozen={"gate": "mul broadcasts"},
    ),
    "spatial_attention_expanded": Case(
        build=between(lambda net, x: x * net.gate(x).expand_as(x), gate=lambda: conv(8, 1)),
        groups={"stem": 8, **AFTER},
        frozen={"gate": "broadcasts"},
    ),
    "parameters": Case(
        build=between(
            lambda net, x: x * net.scale.view(1, -1, 1, 1).exp() + net.shift * net.one,
            scale=lambda: nn.Parameter(torch.ones(8)),
            shift=lambda: nn.Parameter(torch.ones(1, 8, 1, 1)),
            one=lambda: nn.Parameter(torch.ones(1)),
        ),
        groups={"stem": 8, **AFTER},
    ),
    "buffers": Case(build=buffer_scale, groups={"stem": 8, **AFTER}),
    "frozen_batch_norm": Case(
        build=between(
            frozen_batch_norm,
            **{
                name: lambda: nn.Parameter(torch.ones(8))
                for name in ("weight", "bias", "mean", "spread")
            },
        ),
        groups={"stem": 8, **AFTER},
    ),
    "embedding_of_positions": Case(
        build=between(
            lambda net, x: x + net.place, place=lambda: nn.Parameter(torch.ones(1, 8, 8, 8))
        ),
        groups={"stem": 8, **AFTER},
    ),
    "instance_norm": Case(
        build=between(
            lambda net, x: net.tracked(net.plain(x)),
            plain=lambda: nn.InstanceNorm2d(8),
            tracked=lambda: nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
        ),
        groups={"stem": 8, **AFTER},
    ),
    "batch_norm_plain": Case(
        build=between(
            lambda net, x: net.norm(x),
            norm=lambda: nn.BatchNorm2d(8, affine=False, track_running_stats=False),
        ),
        groups={"stem": 8, **AFTER},
    ),
    "prelu": Case(
        build=between(
            lambda net, x: net.one(net.each(x - 1)), each=lambda: nn.PReLU(8), one=nn.PReLU
        ),
        groups={"stem": 8, **AFTER},
    ),
    "pooling": Case(
        build=between(
            lambda net, x: (
                F.interpolate(F.max_pool2d(x, 2), scale_factor=2)
                + F.interpolate(F.avg_pool2d(x, 2), size=(8, 8), mode="bilinear")
                + F.adaptive_max_pool2d(x, 1)
                + F.pad(x.mean(3, keepdim=True), (3, 4, 0, 0), mode="replicate")
                + F.pad(x[:, :, 2:6], (0, 0, 2, 2))
            )
        ),
        groups={"stem": 8, **AFTER},
    ),
    "softmax_over_pixels": Case(
        build=between(lambda net, x: x.flatten(2).softmax(-1).reshape(x.shape) * 64),
        groups={"stem": 8, **AFTER},
    ),
    "channels_last": Case(
        build=ChannelsLast, groups={"up": 12}, frozen={"stem": "layer_norm over channels"}
    ),
    "selective": Case(
        build=between(
            selective,
            left=lambda: conv(8, 6),
            right=lambda: conv(8, 6),
            into=6,
            down=lambda: nn.Linear(6, 4),
            up=lambda: nn.Linear(4, 12),
        ),
        groups={"stem": 8, "left": 6, "down": 4, **AFTER},
    ),
    "flatten_by_view": Case(
        build=lambda: Net(
            lambda net, x: net.last(net.first(x).relu().view(x.size(0), -1)),
            first=conv(3, 6),
            last=nn.Linear(6 * 64, 5),
        ),
        groups={"first": 6},
    ),
    "reused_weight": Case(build=reused_weight, groups={"stem": 8, **AFTER}),
    "attention": Case(
        build=Attention,
        groups={"stem": 6, "layer.self_attn": 2, "layer.linear1": 16},
        frozen={"tokens": "", "layer.self_attn.out_proj": "layer_norm over channels"},
    ),
    "auxiliary": Case(
        build=Auxiliary,
        groups={"stem": 8, "body": 6},
        frozen={"side.0": "read in training only"},
    ),
    "structured": Case(
        build=Structured,
        groups={"left": 6},
        frozen={"body": "sum over channels", "out": "network output"},
        shapes=((3, 8, 8), (2, 8, 8), (1, 1, 1)),
        arrange=lambda left, right, weight: ({"left": left, "right": right}, weight),
    ),
}

BY_ATTRIBUTES = {
    "blur": Case(
        build=between(lambda net, x: net.blur(x), blur=lambda: Blur(8)),
        groups={"stem": 8, **AFTER},
    ),
    "blur_of_any_width": Case(
        build=between(lambda net, x: net.blur(x), blur=lambda: OwnBlur(8)),
        groups={"stem": 8, **AFTER},
    ),
    "fixed_filter_over_channels": Case(
        build=between(lambda net, x: net.blur(x), blur=lambda: Blur(8, across=8)),
        groups=AFTER,
        frozen={"stem": "conv2d with a fixed weight over channels"},
    ),
    "split_by_attribute": Case(
        build=split_by_attributes(lambda net, x: x.split(net.width, 1), 12, 6, 6, width=6),
        groups={"stem": 6, **SPLIT},
    ),
    "split_by_attributes": Case(
        build=split_by_attributes(
            lambda net, x: x.split([net.few, net.many], 1), 14, 5, 9, few=5, many=9
        ),
        groups={"stem": 5, "stem#2": 9, **SPLIT},
    ),
    "split_by_half_an_attribute": Case(
        build=split_by_attributes(lambda net, x: x.split(net.width // 2, 1), 12, 6, 6, width=12),
        groups={"stem": 6, **SPLIT},
    ),
    "split_after_a_type": Case(  # which the exported graph holds: it runs in no other
        build=split_by_attributes(
            lambda net, x: x.to(net.left.weight.dtype).split([6, 10], 1), 16, 6, 10
        ),
        groups=SPLIT,
        frozen={"stem": "split_with_sizes with sizes fixed"},
    ),
    "split_by_list": Case(
        build=split_by_attributes(
            lambda net, x: x.split(net.parts, 1), 12, 6, 6, parts=[6, 6], depth=6
        ),
        groups={"stem": 6, "stem#2": 6, **SPLIT},
    ),
    "split_by_tuple": Case(
        build=split_by_attributes(lambda net, x: x.split(net.parts, 1), 14, 5, 9, parts=(5, 9)),
        groups={"stem": 5, "stem#2": 9, **SPLIT},
    ),
    "slices_by_attribute": Case(
        build=split_by_attributes(
            lambda net, x: (x[:, : net.few], x[:, net.few :]), 14, 5, 9, few=5
        ),
        groups={"stem": 5, "stem#2": 9, **SPLIT},
    ),
    "narrow_by_attribute": Case(
        build=split_by_attributes(lambda net, x: (x.narrow(1, 0, net.few), x), 14, 5, 14, few=5),
        groups={"stem": 5, "stem#2": 9, **SPLIT},
    ),
    "slices_beside_an_attribute": Case(  # that happens to hold what the code derives
        build=split_by_attributes(
            lambda net, x: (x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]), 8, 4, 4, depth=4
        ),
        groups={"stem": 4, **SPLIT},
    ),
    "split_beside_an_attribute": Case(  # that happens to hold what the code fixes
        build=split_by_attributes(lambda net, x: x.split([6, 10], 1), 16, 6, 10, few=6, many=10),
        groups=SPLIT,
        frozen={"stem": "split_with_sizes with sizes fixed"},
    ),
    "split_by_one_of_two_attributes": Case(
        build=split_by_attributes(
            lambda net, x: x.split([net.few, net.many], 1), 14, 5, 9, few=5, many=9, depth=5
        ),
        groups=SPLIT,
        frozen={"stem": "split_with_sizes with sizes fixed"},
    ),
}

THAT_ARE_FIXED = {
    "split_literal": Case(
        build=split_network(lambda x: x.split([6, 10], 1), 16, 6, 10),
        groups=SPLIT,
        frozen={"stem": "split_with_sizes with sizes fixed"},
    ),
    "split_in_sixes": Case(
        build=split_network(lambda x: x.split(6, 1)[1:], 16, 6, 4),
        groups={"stem": 4, **SPLIT},
        frozen={"stem": "split with sizes fixed"},
    ),
    "chunk_uneven": Case(
        build=split_network(lambda x: x.chunk(3, 1), 8, 3, 3),
        groups=SPLIT,
        frozen={"stem": "chunk with sizes fixed"},
    ),
    "slice_literal": Case(
        build=split_network(lambda x: (x[:, :8], x), 12, 8, 12),
        groups={"stem": 4, **SPLIT},
        frozen={"stem": "slice with sizes fixed"},
    ),
    "slice_from_the_end": Case(
        build=split_network(lambda x: (x[:, -8:], x), 12, 8, 12),
        groups={"stem": 4, **SPLIT},
        frozen={"stem": "slice with sizes fixed"},
    ),
    "narrow_literal": Case(
        build=split_network(lambda x: (x.narrow(1, 2, 6), x), 12, 6, 12),
        groups={"stem": 4, **SPLIT},
        frozen={"stem": "narrow with sizes fixed"},
    ),
    "select": Case(
        build=between(lambda net, x: x * x[:, 3:4].sigmoid() + x[:, 2, None]),
        groups={"stem": 4, **AFTER},
        frozen={"stem": "s"},
    ),
    "pad_literal": Case(
        build=shortcut(lambda x, y: F.pad(x, (0, 0, 0, 0, 2, 2))),
        groups={"stem": 4, **AFTER},
        frozen={"wide": "pad with sizes fixed"},
    ),
    "pad_negative": Case(
        build=between(lambda net, x: F.pad(x, (0, 0, 0, 0, -3, 0)), into=5),
        groups={"stem": 5, **AFTER},
        frozen={"stem": "pad with sizes fixed"},
    ),
    "view_literal": Case(
        build=between(lambda net, x: x.view(-1, 8, 64).view(-1, 8, 8, 8)),
        groups=AFTER,
        frozen={"stem": "view with sizes fixed"},
    ),
    "flatten_literal": Case(
        build=lambda: Net(
            lambda net, x: net.last(net.first(x).relu().view(-1, 6 * 64)),
            first=conv(3, 6),
            last=nn.Sequential(nn.Linear(6 * 64, 7), nn.ReLU(), nn.Linear(7, 5)),
        ),
        groups={"last.0": 7},
        frozen={"first": "view with sizes fixed"},
    ),
    "roll": Case(
        build=between(lambda net, x: x.roll(1, 2) + x.roll(1, 1)),
        groups=AFTER,
        frozen={"stem": "roll over channels"},
    ),
    "constant_literal": Case(
        build=between(lambda net, x: x * torch.arange(1.0, 9.0).view(8, 1, 1)),
        groups=AFTER,
        frozen={"stem": "mul with a constant of fixed size"},
    ),
    "two_cuts": Case(
        build=between(
            two_cuts,
            into=9,
            middle=lambda: conv(4, 8),
            left=lambda: conv(4, 4),
            right=lambda: conv(4, 5),
        ),
        groups={"stem": 4, "middle": 4, **SPLIT},
        frozen={"middle": "slice with sizes fixed"},
    ),
    "residual_with_the_input": Case(
        build=lambda: Net(
            lambda net, x: net.head(x + net.back(net.there(x).relu())),
            there=conv(3, 8),
            back=conv(8, 3),
            head=head(3),
        ),
        groups={"there": 8},
        frozen={"back": "network input"},
    ),
    "mean_over_channels": Case(
        build=between(
            lambda net, x: torch.cat([net.conv(x), x.mean(1, keepdim=True)], 1),
            into=6,
            conv=lambda: conv(8, 5),
        ),
        groups={"conv": 5, **AFTER},
        frozen={"stem": "mean over channels"},
    ),
    "weight_norm": Case(
        build=between(lambda net, x: net.normed(x).relu(), normed=lambda: weight_norm(conv(8, 8))),
        groups=AFTER,
        frozen={"stem": "conv2d with a computed weight"},
    ),
    "subgraph": Case(
        build=between(
            without_gradients, inner=lambda: conv(8, 5), outer=lambda: conv(5, 8), stem=8
        ),
        groups=AFTER,
        frozen={"stem": "wrap_with_set_grad_enabled"},
    ),
    "index": Case(
        build=between(lambda net, x: x[:, torch.arange(7, -1, -1)]),
        groups=AFTER,
        frozen={"stem": "index"},
    ),
}

OPERATORS = {**WITH_GROUPS, **THAT_FOLLOW, **BY_ATTRIBUTES, **THAT_ARE_FIXED}
