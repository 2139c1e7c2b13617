"""Small networks with attention: whose heads are groups, and whose are not and why."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import SwinTransformer, VisionTransformer

from tests.surgery.networks import Case, Net, conv


def vision_transformer(side: int = 8) -> nn.Module:
    return VisionTransformer(
        image_size=side,
        patch_size=4,
        num_layers=1,
        num_heads=6,
        hidden_dim=12,
        mlp_dim=12,
        num_classes=5,
    )


def swin() -> nn.Module:
    """One block with whole windows, one with shifted ones."""
    return SwinTransformer(
        patch_size=[2, 2],
        embed_dim=8,
        depths=[2],
        num_heads=[4],
        window_size=[2, 2],
        mlp_ratio=1.5,
        stochastic_depth_prob=0.0,
        num_classes=5,
    )


class Block(nn.Module):
    """A residual block of attention with four heads, in its own code, behind a LayerNorm."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.attn_dim = 4, size, 4 * size
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * self.attn_dim)
        self.proj = nn.Linear(self.attn_dim, channels)

    def split(self, projected: Tensor) -> Tensor:
        """Returns queries, keys and values by head, `(3, images, heads, tokens, size)`."""
        return projected.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)

    def merge(self, found: Tensor) -> Tensor:
        return found.transpose(1, 2).reshape(len(found), -1, self.attn_dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(self.qkv(self.norm(x))).unbind(0)
        scores = (q @ k.transpose(-2, -1)) * self.head_dim**-0.5
        return x + self.proj(self.merge(scores.softmax(-1) @ v))


class OfTheEmbedding(Block):
    """Its heads share the channels that come in, as most code that is about has it."""

    def split(self, projected: Tensor) -> Tensor:
        images, tokens, _ = projected.shape
        shape = images, tokens, 3, self.num_heads, 16 // self.num_heads
        return projected.reshape(shape).permute(2, 0, 3, 1, 4)


class Fused(Block):
    """Splits heads after queries, keys and values, and leaves the rest to torch."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part.view(len(x), -1, self.num_heads, self.head_dim).transpose(1, 2)
            for part in self.qkv(self.norm(x)).chunk(3, -1)
        )
        return x + self.proj(self.merge(F.scaled_dot_product_attention(q, k, v)))


def with_block(kind: type[Block], channels: int = 16, size: int = 4) -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        x = net.block(net.patches(x).flatten(2).transpose(1, 2))
        return net.head(x.mean(1))

    return Net(
        run,
        patches=nn.Conv2d(3, channels, 4, 4),
        block=kind(channels, size),
        head=nn.Linear(channels, 5),
    )


def over_pixels(attend: Any, **options: Any) -> nn.Module:
    """Attention of torch over the pixels of a map, without a norm; `attend(net, tokens)`."""

    def run(net: Any, x: Tensor) -> Any:
        return attend(net, F.avg_pool2d(net.stem(x).relu(), 2).flatten(2).transpose(1, 2))

    return Net(
        run,
        stem=conv(3, 8),
        attention=nn.MultiheadAttention(8, 4, batch_first=True, **options),
        head=nn.Linear(8, 5),
        memory=nn.Linear(8, 6),
    )


def without_weights(net: Any, x: Tensor) -> Tensor:
    return net.head((x + net.attention(x, x, x)[0]).mean(1))


def with_weights(net: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    found, weights = net.attention(x, x, x)
    return net.head((x + found).mean(1)), weights


def of_a_memory(net: Any, x: Tensor) -> Tensor:
    memory = net.memory(x).relu()
    return net.head((x + net.attention(x, memory, memory, need_weights=False)[0]).mean(1))


def non_local(net: Any, x: Tensor) -> Tensor:
    """One head in the channels themselves."""
    x = net.stem(x).relu()
    q, k, v = (part(x).flatten(2) for part in (net.q, net.k, net.v))
    found = v @ (q.transpose(1, 2) @ k).softmax(-1).transpose(1, 2)
    return net.head((x + net.out(found.reshape(len(x), -1, *x.shape[2:]))).mean((2, 3)))


OVER = "layer_norm over channels"

ATTENTION = {
    "vit": Case(
        build=vision_transformer,
        groups={
            "encoder.layers.encoder_layer_0.self_attention": 6,
            "encoder.layers.encoder_layer_0.mlp.0": 12,
        },
        frozen={"conv_proj": OVER, "encoder.layers.encoder_layer_0.mlp.3": OVER},
    ),
    "swin": Case(
        build=swin,
        groups={
            f"features.1.{block}.{name}": size
            for block in (0, 1)
            for name, size in (("attn.qkv", 4), ("mlp.0", 12))
        },
        frozen={"features.0.0": OVER, "features.1.1.attn.proj": OVER},
    ),
    "heads": Case(
        build=lambda: with_block(Block), groups={"block.qkv": 4}, frozen={"block.proj": OVER}
    ),
    "heads_fused": Case(build=lambda: with_block(Fused), groups={"block.qkv": 4}),
    "heads_pixels": Case(
        build=lambda: over_pixels(without_weights), groups={"stem": 8, "attention": 4}
    ),
    "heads_whose_weights_are_read": Case(
        build=lambda: over_pixels(with_weights),
        groups={"stem": 8},
        frozen={"attention": "mean over channels"},
    ),
    "heads_of_a_memory": Case(
        build=lambda: over_pixels(of_a_memory, kdim=6, vdim=6),
        groups={"stem": 8, "attention": 4, "memory": 6},
    ),
    "one_head": Case(
        build=lambda: Net(
            non_local,
            stem=conv(3, 8),
            q=conv(8, 6, 1),
            k=conv(8, 6, 1),
            v=conv(8, 6, 1),
            out=conv(6, 8, 1),
            head=nn.Linear(8, 5),
        ),
        groups={"stem": 8, "v": 6},
        frozen={"q": "matmul over channels", "k": "matmul over channels"},
    ),
}
OUT_OF_SIGHT = ("heads_of_a_memory", "heads_pixels", "heads_whose_weights_are_read")
"""Those in which torch's attention itself, no linear module of it, reads channels that may go."""


def fixed_heads() -> nn.Module:
    """Heads whose code takes their size from the embedding, and a layer that can be cut."""
    net = with_block(OfTheEmbedding)
    net.head = nn.Sequential(nn.Linear(16, 7), nn.ReLU(), nn.Linear(7, 5))
    return net


ATTENTION["heads_of_fixed_size"] = Case(
    build=fixed_heads,
    groups={"head.0": 7},
    frozen={"block.qkv": "reshape with sizes fixed in the code"},
)
