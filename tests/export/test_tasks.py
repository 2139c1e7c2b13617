"""A compact network of any task goes on training without evosearch, as it would have here."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from evosearch.errors import EvosearchError
from evosearch.export.artifact import Artifact
from evosearch.models.copying import copied
from evosearch.objects import MODEL, given
from evosearch.space.mask import Mask
from evosearch.surgery.compaction import compact
from evosearch.surgery.discovery import GroupRules, discover

TASKS = ("classification", "segmentation", "detection", "regression", "own")
NETS = '''
import torch
from torch import nn
from torch.nn import functional

def unit(inputs, outputs, stride=1):
    conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())

class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.body = unit(3, 8), unit(8, 8)
        self.head = nn.Linear(8, 4)
    def forward(self, x):
        x = self.stem(x)
        return self.head((x + self.body(x)).mean((2, 3)))

class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.top, self.deep, self.up = unit(3, 6), unit(6, 10, 2), unit(16, 8)
        self.head = nn.Conv2d(8, 3, 1)
    def forward(self, x):
        top = self.top(x)
        deep = functional.interpolate(self.deep(top), scale_factor=2)
        return {"out": self.head(self.up(torch.cat([top, deep], 1)))}

class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(unit(3, 8, 2), unit(8, 12, 2))
        self.classes, self.sides = nn.Conv2d(12, 2, 1), nn.Conv2d(12, 4, 1)
    def forward(self, x):
        x = self.body(x)
        return {"classes": self.classes(x), "sides": self.sides(x).exp()}

class Regressor(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(unit(3, 8), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 1))
    def forward(self, x):
        return self.head(self.body(x).amax((2, 3)))[:, 0]

class Twins(nn.Module):
    """A task of one's own: two outputs, which are to agree."""
    def __init__(self):
        super().__init__()
        self.stem, self.left, self.right = unit(3, 8), unit(8, 6), unit(8, 6)
        self.heads = nn.ModuleList([nn.Linear(6, 3), nn.Linear(6, 3)])
    def forward(self, x):
        x = self.stem(x)
        sides = (self.left(x), self.right(x))
        return tuple(head(y.mean((2, 3))) for head, y in zip(self.heads, sides))

def boxes(output):
    return ((output["classes"] - 1) ** 2).mean() + (output["sides"] - 2).abs().mean()

def pixels(output):
    return functional.cross_entropy(output["out"], torch.arange(8).expand(6, 8, 8) % 3)

def agreement(output):
    return functional.mse_loss(*output) + functional.cross_entropy(output[0], torch.arange(6) % 3)

TASKS = {
    "classification": (Classifier, lambda y: functional.cross_entropy(y, torch.arange(6) % 4)),
    "segmentation": (UNet, pixels),
    "detection": (Detector, boxes),
    "regression": (Regressor, lambda y: functional.mse_loss(y, torch.linspace(-1, 1, 6))),
    "own": (Twins, agreement),
}

def train(network, loss):
    """Returns the losses before and after a step."""
    torch.manual_seed(1)
    images = torch.randn(6, 3, 8, 8)
    optimizer = torch.optim.SGD(network.train().parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(2):
        value = loss(network(images))
        optimizer.zero_grad()
        value.backward()
        if not all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters()):
            raise SystemExit("a parameter without a gradient")
        optimizer.step()
        losses.append(value.item())
    return losses
'''
"""What a user has: a file that needs torch alone."""
LATER = """
import json, sys
sys.modules["evosearch"] = None
folder, *names = sys.argv[1:]
sys.path[:0] = [folder, f"{folder}/{names[0]}"]
import torch
torch.set_num_threads(1)
import nets
from load import rebuild
found = {}
for name in names:
    make, loss = nets.TASKS[name]
    found[name] = nets.train(rebuild(make(), f"{folder}/{name}"), loss)
assert not [name for name in sys.modules if name.startswith("evosearch.")]
print(json.dumps(found))
"""
"""A later program: of evosearch it has the exported folders alone."""


def halved(model: nn.Module) -> tuple[nn.Module, Mask]:
    """Returns the network that keeps every other channel of each group."""
    example = (torch.randn(2, 3, 8, 8),)
    space = discover(model.eval(), example, GroupRules(), 0).space
    mask = Mask({name: np.arange(size) % 2 == 0 for name, size in space.sizes.items()})
    assert mask.widths
    return compact(model, space.groups, mask).eval(), mask


def saved(folder: Path, model: nn.Module, network: nn.Module, mask: Mask) -> Artifact:
    """Returns the artifact of a network that was cut from an object."""
    with given({MODEL: lambda: copied(model)}):
        return Artifact.save(
            folder,
            network=network,
            base=model,
            mask=mask,
            model_section={"build": MODEL, "input": [3, 8, 8], "weights": "built"},
            card={"plan": folder.name, "networks": []},
        )


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    file = tmp_path_factory.mktemp("nets") / "nets.py"
    file.write_text(NETS)
    spec = importlib.util.spec_from_file_location("tests_export_nets", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_network_of_every_task_trains_on_in_a_process_without_evosearch(
    nets: ModuleType, tmp_path: Path
) -> None:
    expected: dict[str, Any] = {}
    for name in TASKS:
        make, loss = nets.TASKS[name]
        torch.manual_seed(0)
        model = make()
        network, mask = halved(model)
        saved(tmp_path / f"{name}-saved", model, network, mask).export(tmp_path / name)
        expected[name] = nets.train(network, loss)
        assert expected[name][1] != expected[name][0]
    (tmp_path / "nets.py").write_text(NETS)
    done = subprocess.run(
        [sys.executable, "-c", LATER, tmp_path, *TASKS],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for name in TASKS:
        assert found[name] == pytest.approx(expected[name], rel=1e-5)


def test_what_a_copy_of_the_object_does_not_compute_is_not_saved(
    nets: ModuleType, tmp_path: Path
) -> None:
    """The network was given another forward pass, which no artifact holds."""
    model = nets.Classifier()
    network, mask = halved(model)
    network.body[2] = nn.Tanh()
    with pytest.raises(
        EvosearchError, match="loaded into a copy of the model, its outputs differ"
    ):
        saved(tmp_path / "one", model, network, mask)
    assert not (tmp_path / "one").exists()
