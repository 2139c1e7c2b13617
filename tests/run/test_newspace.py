"""Space files that are written for a model: short, checked later, and refused by what differs."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from evosearch.errors import InputError
from evosearch.models.build import build_model
from evosearch.run.newspace import write_space
from evosearch.run.spacefile import Traced, load_space_file
from evosearch.run.subject import discover_space
from evosearch.space.space import SearchSpace
from evosearch.space.text import space_to_toml

SCREENS = 60
"""Lines that a person reviews at a glance or two."""
NET = """\
from torch import nn
def make():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3),
    )
"""


@dataclass(frozen=True, kw_only=True)
class Written:
    """A space file, and the space of its model."""

    path: Path
    space: SearchSpace


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("written")
    (folder / "net.py").write_text(NET)
    path = folder / "space.toml"
    return Written(path=path, space=write_space(path, "net.py:make", ["1x8x8"]))


def test_a_written_file_is_short_and_says_what_was_found(written: Written) -> None:
    text = written.path.read_text()
    assert len(text.splitlines()) < SCREENS
    assert "input = [1, 8, 8]\n" in text
    assert "# weights = " in text
    file = load_space_file(written.path)
    assert (file.model.build, file.model.weights, file.data.name) == ("net.py:make", None, "fake")
    # Multiply-accumulates: 6 x 6 places of 9 x 4 weights, 4 x 4 of 9 x 4 x 6, and 6 x 3.
    assert file.traced == Traced(
        digest=written.space.digest,
        groups=2,
        channels=4 + 6,
        flops=2 * (36 * 36 + 16 * 216 + 18),
        params=36 + 4 + 216 + 6 + 18 + 3,
    )
    file.traced.require(written.space)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"groups": 3}, "groups 3 then, 2 now (evo"),
        ({"flops": 1_000_000}, "flops 1,000,000 then, 9,540 now (evo"),
        ({"channels": 12, "params": 300}, "channels 12 then, 10 now; params 300 then, 283 now (e"),
        ({}, "as many groups, channels, FLOPs and params, but other members or costs of them"),
    ],
)
def test_a_changed_model_is_refused_by_what_differs(
    written: Written, changed: dict[str, int], said: str
) -> None:
    before = Traced.of(written.space).model_copy(update={"digest": "0" * 16, **changed})
    with pytest.raises(InputError) as refused:
        before.require(written.space)
    message = str(refused.value)
    assert message.startswith(f"[traced] no longer holds: {said}")
    assert "\n" not in message


def test_a_file_that_holds_the_whole_space_is_read_too(written: Written, tmp_path: Path) -> None:
    """As the `space.toml` of a run does."""
    path = tmp_path / "space.toml"
    path.write_text(space_to_toml(written.space))
    file = load_space_file(path)
    assert file.traced == Traced(digest=written.space.digest)
    file.traced.require(written.space)
    first, *rest = written.space.groups
    other = replace(written.space, groups=(replace(first, multiple_of=2), *rest))
    with pytest.raises(InputError, match=f"digest {written.space.digest} then, {other.digest} no"):
        file.traced.require(other)


def test_what_was_written_describes_the_model_that_is_built_from_it(written: Written) -> None:
    file = load_space_file(written.path)
    model = build_model(file.model, written.path.parent)
    assert discover_space(file, model).space.digest == written.space.digest
    assert written.space.reference["model"]["build"] == "net.py:make"


def test_several_inputs_are_listed(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "class Two(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.a, self.b = nn.Conv2d(1, 4, 3), nn.Conv2d(2, 4, 3)\n"
        "        self.head = nn.Linear(4, 2)\n"
        "    def forward(self, x, y):\n"
        "        return self.head((self.a(x) + self.b(y)).mean((2, 3)))\n"
    )
    write_space(tmp_path / "two.toml", "net.py:Two", ["1x8x8", "2x8x8"])
    assert "input = [[1, 8, 8], [2, 8, 8]]\n" in (tmp_path / "two.toml").read_text()
    assert load_space_file(tmp_path / "two.toml").model.input == ((1, 8, 8), (2, 8, 8))


def test_a_model_that_says_what_it_was_trained_on_needs_no_input(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        NET + "def told():\n    net = make()\n"
        "    net.pretrained_cfg = dict(input_size=(1, 8, 8), mean=(0.5,), std=(0.25,))\n"
        "    return net\n"
    )
    path = tmp_path / "space.toml"
    write_space(path, "net.py:told", None)
    file = load_space_file(path)
    assert (file.model.input, file.data.mean, file.data.std) == ((1, 8, 8), (0.5,), (0.25,))
    with pytest.raises(InputError, match=r"^give --input, the shape of one image"):
        write_space(tmp_path / "other.toml", "net.py:make", None)
