"""The steps of `evosearch/data/README.md`, followed as they are written."""

import re
import tomllib

import numpy as np
import pytest
import torch

from evosearch.data import sources, splits
from evosearch.data.config import DataConfig
from evosearch.data.sources import SOURCES
from tests.readmes import ROOT, code_blocks, edited, inline_code

PARTS = (("train", 120), ("val", 25), ("test", 15))


def test_images_of_your_own(tmp_path):
    (tmp_path / "my_data.py").write_text(code_blocks("data", "python")[0])
    (tmp_path / "stars").mkdir()
    rng = np.random.default_rng(0)
    pixels = {name: rng.integers(0, 256, (count, 9, 10), np.uint8) for name, count in PARTS}
    for name, images in pixels.items():
        np.save(tmp_path / "stars" / f"{name}_images.npy", images)
        np.save(tmp_path / "stars" / f"{name}_labels.npy", np.arange(len(images)) % 3)

    config = DataConfig(**tomllib.loads(code_blocks("data", "toml")[0])["data"])
    found = splits.load_search_data(config, tmp_path)
    test = splits.load_test_split(config, tmp_path)

    parts = (found.train, found.calibration, found.search, found.confirmation)
    assert [len(part) for part in parts] == [70, 20, 25, 30]
    assert len(test) == 15
    firsts = {"train": 0, "test": 120, "val": 135}
    for part, name in ((found.train, "train"), (found.search, "val"), (test, "test")):
        own = part.indices.numpy() - firsts[name]
        source = pixels[name]
        expected = (source[own][:, None, :8, :8].astype(np.float64) / 255 - 0.5) / 0.25
        np.testing.assert_allclose(part.images[:].numpy(), expected, atol=1e-6)
        assert part.labels.tolist() == (own % 3).tolist()


def test_a_source_that_ships(monkeypatch):
    table = "SOURCES: Mapping[str, Source] = {\n"
    function = code_blocks("data", "python")[2]
    row = inline_code("data", '"stripes"')
    shipped = edited(sources, (table, f"{function}\n\n{table}    {row}\n"))
    monkeypatch.setattr(splits, "load_pools", shipped.load_pools)

    config = DataConfig(name="stripes", calibration=50, search=100)
    found = splits.load_search_data(config)
    assert [len(part) for part in (found.train, found.calibration, found.search)] == [150, 50, 100]
    assert len(splits.load_test_split(config)) == 100
    rows = torch.arange(8.0) % 2
    for image, label in zip(found.search.images[:], found.search.labels, strict=True):
        lying = rows[:, None].expand(8, 8)
        assert torch.equal(image[0], lying.T if label else lying)
    with pytest.raises(sources.InputError, match="'stripes' takes no root"):
        splits.load_search_data(config.model_copy(update={"root": "x"}))


def test_the_readme_lists_every_source():
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "data" / "README.md").read_text(), re.MULTILINE)
    names = re.findall(r"`(\w+)`", " ".join(rows))
    assert sorted(names) == sorted(SOURCES)
