"""Runs of networks that are traced in part, and of networks of several inputs."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

import evosearch
from evosearch.callables import resolve_callable
from evosearch.calling import call
from evosearch.errors import InputError
from evosearch.latency.meter import Meter
from evosearch.latency.model import LatencyConfig
from evosearch.models.build import ModelConfig, build_model
from evosearch.objects import MODEL, given
from evosearch.run.identity import identify_model
from evosearch.run.spacefile import load_space_file
from evosearch.run.subject import discover_space, example_input
from evosearch.study.identity import Part
from tests.readmes import code_blocks
from tests.toys import IDENTITY

NETS = '''
import torch
from torch import nn

def layers(inputs, outputs):
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]

class Spots(nn.Module):
    """Looks at the brightest spots of each image, however many these are."""
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(*layers(1, 8), *layers(8, 8))
        self.head = nn.Linear(8, 2)

    def forward(self, image):
        rows = []
        for maps in self.backbone(image).flatten(2):
            peak = float(maps.detach().amax())
            level = 0.5 * peak if peak > 0 else peak
            rows.append(self.head(maps[:, maps.amax(0) >= level].mean(1)))
        return torch.stack(rows)

class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.eyes = nn.Sequential(*layers(1, 6), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.mixed = nn.Linear(6 + 3, 8)
        self.last = nn.Linear(8, 2)

    def forward(self, image, *, weather):
        both = torch.cat([self.eyes(image), weather], 1)
        return self.last(self.mixed(both).relu())

class Dicts(Pair):
    def forward(self, batch):
        return super().forward(batch["image"], weather=batch["weather"])
'''
SPOTS = """
[model]
build = "nets.py:Spots"
input = [1, 8, 8]
part = "backbone"
"""
PAIR = """
[model]
build = "nets.py:Pair"
input = { image = [1, 8, 8], weather = [3] }
"""
REST = """
[data]
name = "my_pairs.py:load"
calibration = 16
search = 24

[train]
epochs = 8
batch_size = 16
lr = 0.05

[search]
device = "cpu"

[finetune]
epochs = 1
lr = 0.01
"""


def write_space(folder: Path, kind: str, rest: str = REST) -> Path:
    (folder / "nets.py").write_text(NETS)
    (folder / "my_pairs.py").write_text(code_blocks("data", "python")[1])
    rng = np.random.default_rng(0)
    for name, count in (("train", 90), ("test", 20)):
        labels = np.arange(count) % 2
        images = rng.integers(0, 128, (count, 1, 8, 8))
        images[:, :, 2:5, 2:5] += 100 * labels[:, None, None, None]
        np.save(folder / f"{name}_images.npy", images.astype(np.uint8))
        weather = rng.normal(size=(count, 3)) + labels[:, None]
        np.save(folder / f"{name}_weather.npy", weather.astype(np.float32))
        np.save(folder / f"{name}_labels.npy", labels)
    rest = rest.replace("[data]", f'[data]\nroot = "{folder}"')
    if kind == "spots":
        code = (
            (folder / "my_pairs.py")
            .read_text()
            .replace('{"image": images, "weather": weather}', "images")
        )
        (folder / "my_pairs.py").write_text(code)
    path = folder / "space.toml"
    path.write_text(
        {"spots": SPOTS, "pair": PAIR, "dicts": PAIR.replace("Pair", "Dicts")}[kind] + rest
    )
    return path


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["spots", "pair", "dicts"])
def test_a_network_is_searched_resumed_finished_and_loaded(kind: str, tmp_path: Path) -> None:
    space = write_space(tmp_path, kind)
    groups = {"spots": {"backbone.0": 8}, "pair": {"eyes.0": 6, "mixed": 8}}
    sizes = evosearch.inspect(space).discovery.space.sizes
    assert sizes == groups["spots" if kind == "spots" else "pair"]
    budget = "80%" if kind == "spots" else "60%"
    run = evosearch.search(space, flops=budget, trials=4, seed=0, out=tmp_path / "run")
    assert run.study.header.base.search.accuracy > 0.7
    more = evosearch.resume(tmp_path / "run", trials=6)
    assert len(more.study.trials) == 6
    done = evosearch.finetune(tmp_path / "run", epochs=1)
    file = load_space_file(space)
    network = done.artifact.load(lambda: build_model(file.model, tmp_path))
    with torch.no_grad():
        assert call(network, example_input(file.model)).shape == (2, 2)
    assert sum(p.numel() for p in network.parameters()) < more.study.header.base_cost.params
    copy = evosearch.export_artifact(done.artifact.folder, to=tmp_path / "copy", space=space)
    assert (copy.path / "calling.py").is_file()
    with pytest.raises(InputError, match=r"one image tensor|of a whole network's graph, which"):
        evosearch.export_artifact(
            done.artifact.folder, to=tmp_path / "graph", space=space, format="pt2"
        )


@pytest.mark.slow
@pytest.mark.parametrize("build", ["recalibrated", "elastic"])
def test_several_inputs_reach_elastic_weights_and_criteria(build: str, tmp_path: Path) -> None:
    rest = REST.replace('device = "cpu"', 'device = "cpu"\ncriterion = "taylor"').replace(
        "[finetune]", f'[search.evaluator]\nbuild = "{build}"\n[finetune]\nattention = 10.0'
    )
    extra = "[elastic]\nepochs = 1\n" if build == "elastic" else ""
    space = write_space(tmp_path, "pair", rest + extra)
    run = evosearch.search(space, flops="60%", trials=3, seed=0, out=tmp_path / "run", anyway=True)
    assert len(run.study.trials) == 3


@pytest.mark.parametrize("runtime", ["eager", "exported"])
@pytest.mark.parametrize("kind", ["pair", "dicts"])
def test_several_inputs_are_timed(runtime: str, kind: str, tmp_path: Path) -> None:
    file = load_space_file(write_space(tmp_path, kind))
    model = build_model(file.model, tmp_path)
    discovery = discover_space(file, model)
    config = LatencyConfig(runtime=runtime, batch=2)

    def meter(config: LatencyConfig) -> Meter:
        return Meter(
            model=model,
            section=file.model,
            discovery=discovery,
            identity=IDENTITY,
            config=config,
            device="cpu",
        )

    timing = meter(config).time(discovery.space.full_mask(), seconds=0.0)
    assert 0 < timing.low <= timing.seconds <= timing.high
    with pytest.raises(InputError, match=r"'onnxruntime' runs networks of one image tensor; "):
        meter(config.model_copy(update={"runtime": "onnxruntime"}))


def test_the_code_outside_a_part_is_in_its_identity(tmp_path: Path) -> None:
    space = write_space(tmp_path, "spots")

    def graph(**changes: object) -> str:
        config = load_space_file(space).model.model_copy(update=changes)
        model = build_model(config, tmp_path)
        return identify_model(config, tmp_path, model, example_input(config)).parts[Part.GRAPH]

    first = graph()
    assert first == graph()
    assert first != graph(part="backbone.3")
    edited = NETS.replace("0.5 * peak", "0.75 * peak")
    (tmp_path / "nets.py").write_text(edited)
    assert first != graph()


class Scaled(torch.nn.Module):
    """A part, and what is done with its outputs."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.body = torch.nn.Conv2d(1, 4, 1)
        self.scale = scale

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.body(images).mean((2, 3)) * self.scale


class Rectified(Scaled):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images).relu()


def test_the_code_outside_a_part_of_an_object_is_in_its_identity() -> None:
    def graph(model: torch.nn.Module) -> str:
        with given({MODEL: lambda: model}):
            config = ModelConfig(build=MODEL, input=(1, 4, 4), part="body")
            built = build_model(config)
            identity = identify_model(config, Path(), built, example_input(config))
        return identity.parts[Part.GRAPH]

    first = graph(Scaled(2.0))
    assert first == graph(Scaled(2.0))  # whatever its weights and mode
    assert len({first, graph(Scaled(3.0)), graph(Rectified(2.0))}) == 3


@pytest.mark.parametrize(
    ("kind", "old", "new", "message"),
    [
        ("spots", '"backbone"', '"backbon"', r"unknown \[model\] part 'backbon': did you mean"),
        (
            "spots",
            'part = "backbone"\n',
            "",
            "; where a part of it can, name that in",
        ),
        (
            "pair",
            "weather = [3]",
            "wind = [3]",
            "has names image, wind, but the .* of Pair",
        ),
        ("pair", "{ image = [1, 8, 8], weather = [3] }", "[[1, 8, 8]]", "has 1 inputs, but the"),
        (
            "pair",
            "calibration",
            'augment = ["flip"]\ncalibration',
            "mean, std, transforms and",
        ),
        ("pair", "weather = [3]", "weather = [4]", "cannot be traced|fails"),
    ],
)
def test_what_cannot_be_is_one_line_before_any_training(
    kind: str, old: str, new: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evosearch.run.subject.train_base", None)
    space = write_space(tmp_path, kind)
    assert old in space.read_text()
    space.write_text(space.read_text().replace(old, new))
    with pytest.raises(InputError, match=message) as error:
        evosearch.search(space, flops="60%", trials=1, out=tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_space_is_written_of_a_part_and_of_inputs_by_name(tmp_path: Path) -> None:
    write_space(tmp_path, "spots")
    for name, build, inputs, part, section in (
        (
            "spots",
            "nets.py:Spots",
            ["1x8x8"],
            ["backbone"],
            {"input": [1, 8, 8], "part": ["backbone"]},
        ),
        (
            "pair",
            "nets.py:Pair",
            ["image=1x8x8", "weather=3"],
            None,
            {"input": {"image": [1, 8, 8], "weather": [3]}},
        ),
    ):
        path = tmp_path / f"{name}_new.toml"
        evosearch.new_space(build, input=inputs, part=part, out=path)
        assert tomllib.loads(path.read_text())["model"] == {"build": build, **section}
    with pytest.raises(InputError, match="expected a name for each of several, such as image=3x"):
        evosearch.new_space("nets.py:Pair", input=["image=1x8x8", "3"], out=tmp_path / "x.toml")


@pytest.mark.slow
def test_objects_of_several_inputs_are_searched(tmp_path: Path) -> None:
    write_space(tmp_path, "pair")
    build = resolve_callable("nets.py:Pair", tmp_path, "build")
    load = resolve_callable("my_pairs.py:load", tmp_path, "load")
    data = load(tmp_path)
    run = evosearch.search(
        model=build(), **data, flops="60%", trials=2, seed=0, out=tmp_path / "run", anyway=True
    )
    assert {name: len(bits) for name, bits in run.study.header.base.mask.items()} == {
        "eyes.0": 6,
        "mixed": 8,
    }
