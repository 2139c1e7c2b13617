"""The cost of one network, and amounts as people read them.

MACs are the multiply-accumulates of convolution, linear and attention products for one image;
FLOPs are twice that, as `torch.utils.flop_counter` counts them.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of one network for one image.

    Attributes:
        macs: multiply-accumulates.
        params: elements of all parameters (buffers do not count).
        activations: elements of the outputs of all convolution and linear layers.
        latency: predicted time of one batch, in picoseconds; 0 in a space without a latency model.
        memory: bytes of the activations that are alive at once, at most; the weights not counted.
        size: bytes of the file of its weights. Both are 0 in records of earlier versions.
    """

    macs: int
    params: int
    activations: int
    latency: int = 0
    memory: int = 0
    size: int = 0

    @property
    def flops(self) -> int:
        """Floating-point operations: twice the MACs."""
        return 2 * self.macs

    def relative_to(self, base: "Cost") -> dict[str, float]:
        """Returns each amount as a share of the same of `base`, where that has any."""
        return {
            name: own / vars(base)[name] for name, own in vars(self).items() if vars(base)[name]
        }


def format_time(picoseconds: float) -> str:
    """Returns a time with three significant digits and its unit, such as "3.52 ms"."""
    for unit, scale in (("s", 1e12), ("ms", 1e9)):
        if picoseconds >= scale * 0.9995:
            return f"{picoseconds / scale:.3g} {unit}"
    return f"{picoseconds / 1e6:.3g} us"


def format_bytes(count: float) -> str:
    """Returns a number of bytes with three significant digits and its unit, such as "2.05 MB"."""
    return f"{format_count(count).rstrip('GMK')} {format_count(count).lstrip('.0123456789')}B"


def format_count(count: float) -> str:
    """Returns a count with three significant digits and its SI prefix, such as "41.2M"."""
    for unit, scale in (("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if count >= scale * 0.9995:
            return (
                f"{count / scale:.3g}{unit}"
                if count < scale * 999.5
                else f"{count / scale:.0f}{unit}"
            )
    return f"{count:.0f}"
