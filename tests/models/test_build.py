import importlib
import sys

import pytest
import torch
from torch import nn

from evosearch.callables import resolve_callable
from evosearch.data.config import DataConfig
from evosearch.errors import InputError
from evosearch.machine import torch_seeded
from evosearch.models.build import ModelConfig, build_model
from evosearch.models.weights import save_weights
from evosearch.models.zoo import PaddedShortcut, cifar_resnet, digits_resnet
from evosearch.run import subject as base
from evosearch.run.spacefile import SpaceFile

DIGITS = "evosearch.models.zoo:digits_resnet"


def config(build=DIGITS, **changes):
    return ModelConfig(**({"build": build, "input": (1, 8, 8)} | changes))


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(
        "from torch import nn\n"
        "def net(width=3):\n    return nn.Conv2d(1, width, 1)\n"
        "def number():\n    return 7\n"
        "def fails():\n    raise KeyError('no such layer\\nand more')\n"
    )
    (tmp_path / "bad.py").write_text("import no_such_module\n")
    return tmp_path


# Building


def test_one_input_or_several():
    assert config().input_shapes == ((1, 8, 8),)
    assert config(input=[[1, 8, 8], [5]]).input_shapes == ((1, 8, 8), (5,))


def test_initial_weights_follow_the_seed_and_spare_the_global_generator():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, same, other = (build_model(config(), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first.conv1.weight, same.conv1.weight)
    assert not torch.equal(first.conv1.weight, other.conv1.weight)
    assert not first.training


def test_torch_seeded_puts_the_generator_back_after_an_error():
    before = torch.get_rng_state()

    def fail():
        with torch_seeded(1):
            torch.rand(1)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_file_beside_the_space(own):
    model = build_model(config("own.py:net", kwargs={"width": 5}), own)
    assert model.out_channels == 5


def test_files_of_one_name_in_two_folders_are_two_modules(own, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "own.py").write_text("from torch import nn\ndef net():\n    return nn.Linear(2, 2)\n")
    assert isinstance(build_model(config("own.py:net"), own), nn.Conv2d)
    assert isinstance(build_model(config("own.py:net"), other), nn.Linear)


def test_torchvision_by_name(tmp_path):
    model = build_model(
        config("torchvision:resnet18", input=[3, 32, 32], kwargs={"num_classes": 7}), tmp_path
    )
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 7)


def test_torchvision_in_its_submodules_without_the_weights_of_a_backbone(tmp_path, monkeypatch):
    def fetch(*_, **__):
        raise AssertionError("fetched")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", fetch)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    wanted = config(
        "torchvision:lraspp_mobilenet_v3_large", input=[3, 32, 32], kwargs={"num_classes": 3}
    )
    model = build_model(wanted, tmp_path)
    assert model(torch.zeros(1, 3, 32, 32))["out"].shape == (1, 3, 32, 32)


def test_timm_by_name(tmp_path):
    timm = pytest.importorskip("timm")
    wanted = config("timm:resnet10t", input=[3, 32, 32], kwargs={"num_classes": 7})
    model = build_model(wanted, tmp_path)
    assert isinstance(model, timm.models.ResNet)
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 7)


def test_an_absent_collection_says_how_to_install_it(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "timm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [])
    importlib.invalidate_caches()
    with pytest.raises(InputError, match=r"; scripts/setup timm installs it$"):
        build_model(config("timm:resnet10t"), tmp_path)


def test_weights_are_relative_to_the_folder(tmp_path):
    trained = build_model(config(), seed=1)
    save_weights(trained, tmp_path / "base.safetensors")
    loaded = build_model(config(weights="base.safetensors"), tmp_path, seed=2)
    assert torch.equal(loaded.linear.weight, trained.linear.weight)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"build": "digits_resnet"}, "expected 'module:callable'"),
        ({"build": "evosearch.nowhere:net"}, "cannot import .*No module named"),
        ({"build": "evosearch.models.zoo:digit_resnet"}, "did you mean 'digits_resnet'"),
        ({"build": "torchvision:resnet81"}, "did you mean 'resnet18'"),
        ({"build": "absent.py:net"}, "no file .*absent.py"),
        ({"build": "bad.py:net"}, "No module named 'no_such_module'"),
        ({"build": "own.py:number"}, "returned a int, expected a torch.nn.Module"),
        ({"build": "own.py:fails"}, "KeyError"),
        ({"kwargs": {"depth": 3}}, "TypeError: .*unexpected keyword argument 'depth'"),
        ({"build": "evosearch.models.zoo:cifar_resnet", "kwargs": {"depth": 21}}, "6n"),
        ({"weights": "absent.safetensors"}, "weights = .*: nothing at"),
    ],
)
def test_models_that_cannot_be_built(changes, message, own):
    with pytest.raises(InputError, match=message) as caught:
        build_model(config(**changes), own)
    assert "\n" not in str(caught.value)


def test_resolving_names_the_key(tmp_path):
    with pytest.raises(InputError, match=r"^\[data\] name = 'x'"):
        resolve_callable("x", tmp_path, "[data] name")


# Networks


def test_digits_resnet_has_a_stride_and_a_projection():
    model = digits_resnet(width=4, blocks=2)
    features = model.layer2(model.layer1(model.conv1(torch.zeros(2, 1, 8, 8))))
    assert features.shape == (2, 8, 4, 4)
    assert model.layer2[0].shortcut[0].kernel_size == (1, 1)
    assert isinstance(model.layer2[1].shortcut, nn.Identity)
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_padded_shortcut_by_hand():
    images = torch.arange(8.0).view(1, 2, 2, 2)
    output = PaddedShortcut(2, 1)(images)
    assert output.flatten().tolist() == [0, 0, 4, 0]


@pytest.mark.parametrize(("depth", "params"), [(20, 269_722), (56, 853_018)])
def test_cifar_resnets_have_the_parameters_of_the_paper(depth, params):
    """0.27 M and 0.85 M: He et al. 2016, table 6."""
    assert sum(p.numel() for p in cifar_resnet(depth).parameters()) == params


@pytest.mark.parametrize("depth", [2, 19, -4])
def test_cifar_resnet_depth(depth):
    with pytest.raises(InputError, match=r"6n \+ 2"):
        cifar_resnet(depth)


def test_a_network_that_is_built_trained_is_left_as_it_is(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "from evosearch.models.zoo import digits_resnet\n"
        "def trained():\n"
        "    model = digits_resnet(width=4)\n"
        "    with torch.no_grad():\n"
        "        model.linear.bias.fill_(7.0)\n"
        "    return model\n"
    )
    monkeypatch.setattr(base, "train_base", None)
    file = SpaceFile(
        model=ModelConfig(build="mine.py:trained", input=(1, 8, 8), weights="built"),
        data=DataConfig(name="digits", calibration=100, search=100),
    )
    subject = base.load_subject(file, tmp_path)
    assert subject.model.linear.bias.tolist() == [7.0] * 10
