"""Mosaics of small real images: textures of any size, by class."""

from pathlib import Path

import numpy as np
from PIL import Image

TILE = 32
"""Pixels of an image in a mosaic, each way."""


def mosaics(images: Path, root: Path, counts: dict[str, int], size: int) -> None:
    """Writes mosaics of a folder's images, class by class, as `PART/CLASS/*.png`."""
    rng, across = np.random.default_rng(0), size // TILE
    classes = {path.name: sorted(path.iterdir()) for path in sorted((images / "train").iterdir())}
    names = list(classes)
    for part, count in counts.items():
        for number in range(count):
            name = names[number % len(names)]
            whole = Image.new("RGB", (across * TILE, across * TILE))
            for place, drawn in enumerate(rng.integers(len(classes[name]), size=across**2)):
                with Image.open(classes[name][drawn]) as tile:
                    where = (place % across * TILE, place // across * TILE)
                    whole.paste(tile.convert("RGB").resize((TILE, TILE)), where)
            folder = root / part / name
            folder.mkdir(parents=True, exist_ok=True)
            whole.save(folder / f"{number}.png")
