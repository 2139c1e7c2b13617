"""The builders that an artifact may name: the networks that evosearch and torchvision ship."""

from pathlib import Path

import pytest

from evosearch.errors import InputError
from evosearch.export.artifact import Artifact
from evosearch.export.builder import named_builder, own_builder
from evosearch.models.build import ModelConfig


def naming(build: str, **kwargs: object) -> Artifact:
    model = {"build": build, "input": [3, 32, 32], "kwargs": kwargs}
    return Artifact(plan={"model": model}, card={}, folder=Path("artifact"))


@pytest.mark.parametrize(
    ("build", "kwargs", "network"),
    [
        ("evosearch.models.zoo:cifar_resnet", {"depth": 8}, "ResNet"),
        ("evosearch.evaluation.models:digits_resnet", {}, "ResNet"),
        ("torchvision:mobilenet_v2", {"weights": None, "width_mult": 0.25}, "MobileNetV2"),
        ("torchvision:lraspp_mobilenet_v3_large", {}, "LRASPP"),
    ],
)
def test_a_shipped_network_is_built(build: str, kwargs: dict[str, object], network: str) -> None:
    model = named_builder(naming(build, **kwargs), Path())()
    assert type(model).__name__ == network
    assert not model.training


@pytest.mark.parametrize(
    "build",
    [
        "os:system",
        "builtins:exec",
        "net.py:make",
        "torchvision.py:resnet18",
        "evosearch.models.zoo.py:digits_resnet",
        "torchvision:get_model",
        "torchvision:quantized_resnet18",
        "timm:resnet18",
        "torchvision:resnet",
        "torchvision:__getattr__",
        "torchvision.io:write_file",
        "torchvision.models.resnet:resnet18",
        "torchvision",
        "evosearch.models.zoo:final",
        "evosearch.models.zoo:nn",
        "evosearch.models.zoo:__class__",
        "evosearch.models.zoo:digits_resnet.__globals__",
        "evosearch.models.weights:load_weights",
        "evosearch.callables:resolve_callable",
        " torchvision:resnet18",
        "",
    ],
)
def test_anything_else_is_refused_by_name(build: str) -> None:
    with pytest.raises(InputError, match=r"--space FILE .* or --trust") as refused:
        named_builder(naming(build), Path())
    assert repr(build) in str(refused.value)


@pytest.mark.parametrize("trust", [False, True])
def test_an_object_has_no_builder_but_one_of_a_space_file(tmp_path: Path, trust: bool) -> None:
    artifact = naming("object:model")
    with pytest.raises(InputError, match="made from an object of a program; give --space"):
        named_builder(artifact, Path(), trust=trust)
    (tmp_path / "net.py").write_text("from torch import nn\nmake = nn.Flatten\n")
    config = ModelConfig(build="net.py:make", input=(3, 32, 32))
    assert type(own_builder(artifact, config, tmp_path / "space.toml")()).__name__ == "Flatten"
    with pytest.raises(InputError, match=r"\[model\] input is .1, 8, 8., but"):
        own_builder(artifact, config.model_copy(update={"input": (1, 8, 8)}), tmp_path / "s.toml")


@pytest.mark.parametrize("plan", [{}, {"model": None}, {"model": {"build": ["os", "system"]}}])
def test_a_plan_without_a_model_is_refused(plan: dict[str, object]) -> None:
    artifact = Artifact(plan=plan, card={}, folder=Path("artifact"))
    with pytest.raises(InputError, match=r"artifact/plan\.json: model"):
        named_builder(artifact, Path(), trust=True)
