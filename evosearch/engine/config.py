"""The section `[search.evaluator]`: how candidates are built and scored."""

import torch
from pydantic import BaseModel, ConfigDict, Field

from evosearch.models.precision import Layout, Numerics, Precision, fastest_numerics
from evosearch.refit.building import Build


class EvaluatorConfig(BaseModel):
    """How candidates are scored.

    Attributes:
        batch_size: images per forward pass when scoring; by default 64 on a CPU, and 1024
            elsewhere.
        calibration_batch: images per forward pass when statistics are measured, at most: fewer
            where the network's feature maps are large.
        build: what makes a candidate of a compact network: "compensated" refits its weights and
            BatchNorm statistics, "recalibrated" its statistics alone, which is several times
            faster; the network that a search is for is compensated either way. "elastic" adds to
            refitted weights what one training before the search changed for many plans at once
            (`[elastic]`), where that has no more loss.
        build_images: calibration images that candidates are built on; fewer where the network's
            feature maps are large.
        rescale: whether the outputs of refitted layers are given the variances that they had,
            which the refit takes from them; behind a BatchNorm it makes no difference.
        precision: what candidates compute in: "bfloat16", "float32", or "auto" for the first
            where the device is faster with it.
        layout: of images and kernels in memory: "channels_last", "contiguous", or "auto" for the
            first. A run falls back from both where its base network does not work in them.
        recovery_images: train images of a short recovery, one epoch of distillation, before a
            candidate is scored; 0 is none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch_size: int | None = Field(default=None, ge=1)
    calibration_batch: int = Field(default=128, ge=2)
    build: Build = "compensated"
    build_images: int = Field(default=512, ge=2)
    rescale: bool = False
    precision: Precision = "auto"
    layout: Layout = "auto"
    recovery_images: int = Field(default=0, ge=0)

    def numerics(self, device: torch.device) -> Numerics:
        """Returns what candidates compute in on a device."""
        return fastest_numerics(device, precision=self.precision, layout=self.layout)
