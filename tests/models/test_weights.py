import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from evosearch.errors import InputError
from evosearch.models.weights import load_state, load_weights, save_weights, weights_digest
from evosearch.models.zoo import cifar_resnet

SHARED = Path(__file__).parents[3] / "shared" / "weights"


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.Linear(3, 2))


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model_state_dict": {f"module.{name}": t for name, t in s.items()}},
    ],
)
def test_checkpoints_round_trip(tmp_path, wrap):
    torch.save(wrap(net(1).state_dict()), tmp_path / "net.pt")
    model = net(2)
    load_weights(model, tmp_path / "net.pt")
    assert weights_digest(model) == weights_digest(net(1))


def test_safetensors_round_trip(tmp_path):
    save_weights(net(1), tmp_path / "net.safetensors")
    model = net(2)
    load_weights(model, tmp_path / "net.safetensors")
    assert weights_digest(model) == weights_digest(net(1))
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]


def test_weights_are_as_open_as_other_files(tmp_path):
    (tmp_path / "other").touch()
    save_weights(net(1), tmp_path / "net.safetensors")
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert modes == {(tmp_path / "other").stat().st_mode}


def test_tied_weights_can_be_saved(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    save_weights(model, tmp_path / "net.safetensors")
    load_weights(model, tmp_path / "net.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("0.bias"), r"missing 0\.bias$"),
        (lambda s: s.update(extra=torch.zeros(1)), "unexpected extra$"),
        (
            lambda s: s.update({"0.weight": torch.zeros(4, 1, 1, 1)}),
            r"other shapes: 0\.weight \(4, 1, 1, 1\) for \(3, 1, 1, 1\)",
        ),
        (
            lambda s: s.update({f"m{i}": torch.zeros(1) for i in range(5)}),
            "unexpected m0, m1, m2 and 2 more",
        ),
    ],
)
def test_weights_that_do_not_fit(tmp_path, change, message):
    state = dict(net(1).state_dict())
    change(state)
    path = tmp_path / "net.safetensors"
    save_file(state, path)
    model = net(2)
    before = weights_digest(model)
    with pytest.raises(InputError, match=message) as caught:
        load_weights(model, path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert weights_digest(model) == before


@pytest.mark.parametrize("name", ["net.safetensors", "net.pt"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", b"\x80\x04K\x01."])
def test_broken_files(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=r"no weights file|no state dict") as caught:
        load_weights(net(), tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["net.safetensors", "net.pt"])
def test_a_cut_file(tmp_path, name):
    whole = tmp_path / name
    if name.endswith(".pt"):
        torch.save(net().state_dict(), whole)
    else:
        save_weights(net(), whole)
    whole.write_bytes(whole.read_bytes()[:-50])
    with pytest.raises(InputError, match="no weights file"):
        load_weights(net(), whole)


@pytest.mark.parametrize("write", [torch.save, lambda o, p: p.write_bytes(pickle.dumps(o))])
def test_a_pickle_is_refused_without_running_it(tmp_path, write):
    write({"0.weight": Trap(tmp_path / "ran")}, tmp_path / "net.pt")
    with pytest.raises(InputError, match="nothing but tensors"):
        load_weights(net(), tmp_path / "net.pt")
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_that_is_no_state_dict(tmp_path):
    torch.save([torch.zeros(2)], tmp_path / "net.pt")
    with pytest.raises(InputError, match="the keys state_dict, model_state_dict, model"):
        load_weights(net(), tmp_path / "net.pt")


def test_the_digest_sees_values_names_buffers_and_types():
    digests = {weights_digest(net(0)), weights_digest(net(1)), weights_digest(net(0).double())}
    changed = net(0)
    changed[1].running_mean[0] = 1
    renamed = nn.Sequential(nn.Identity(), *net(0))
    digests |= {weights_digest(changed), weights_digest(renamed)}
    assert len(digests) == 5
    assert weights_digest(net(0)) == weights_digest(net(0).train())


def test_the_digest_sees_buffers_that_no_state_dict_holds():
    def table(value, persistent=False):
        model = net(0)
        model.register_buffer("table", torch.tensor([value]), persistent=persistent)
        return weights_digest(model)

    assert table(1.0) == table(1.0)
    assert len({table(1.0), table(2.0), weights_digest(net(0))}) == 3
    assert table(1.0) == table(1.0, persistent=True)


class Grown(nn.Module):
    """Two buffers that a state dict leaves out; a pass makes one longer, and a third."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.register_buffer("rates", torch.zeros(3), persistent=False)
        self.register_buffer("table", torch.zeros(1), persistent=False)

    def forward(self, x):
        self.table = torch.arange(4.0)
        self.register_buffer("made", torch.ones(2), persistent=False)
        return x


def test_buffers_that_a_state_dict_leaves_out_are_saved(tmp_path):
    model, other = Grown(), Grown()
    model.rates.add_(2)
    model(torch.zeros(1))
    save_weights(model, tmp_path / "net.safetensors")
    assert weights_digest(other) != weights_digest(model)
    load_weights(other, tmp_path / "net.safetensors")
    assert other.rates.tolist() == [2, 2, 2]
    assert other.table.tolist() == [0, 1, 2, 3]
    assert not hasattr(other, "made")  # its own code will make it
    assert other.state_dict().keys() == {"weight"}


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared networks are not on this machine")
@pytest.mark.parametrize("depth", [20, 56])
def test_cifar_resnets_take_the_shared_weights(depth):
    path = SHARED / f"cifar10_jpeg_resnet{depth}.safetensors"
    model = cifar_resnet(depth)
    load_weights(model, path)
    assert torch.equal(model.linear.weight, load_file(path)["linear.weight"])
    assert torch.isfinite(model.eval()(torch.zeros(2, 3, 32, 32))).all()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_module_that_asks_for_its_version_is_loaded(suffix: str, tmp_path: Path) -> None:
    class Versioned(nn.Linear):
        _version = 2

        def _load_from_state_dict(self, state: Any, prefix: str, local: Any, *others: Any) -> None:
            if local.get("version") != 2:
                raise ValueError("version should be set")
            super()._load_from_state_dict(state, prefix, local, *others)

    model, again = Versioned(2, 3), Versioned(2, 3)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save(dict(model.state_dict()), path)
    else:
        save_weights(model, path)
    load_weights(again, path)
    assert torch.equal(again.weight, model.weight)


def test_a_state_that_is_not_whole_is_refused() -> None:
    with pytest.raises(RuntimeError, match="Missing key"):
        load_state(nn.Linear(2, 3), {"weight": torch.zeros(3, 2)})
