"""A saved network loaded in a fresh process, and compared with the one that was measured.

A process that has seen the network may hold what was not saved: a tensor, a size, an attribute
that some earlier call set. One that has not seen it is what a user starts.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from evosearch.callables import one_line
from evosearch.errors import EvosearchError
from evosearch.export.rebuild import rebuild
from evosearch.files import write_json
from evosearch.machine import torch_seeded
from evosearch.models.build import ModelConfig, build_model
from evosearch.models.copying import copied

IMAGES = 3
"""Images in the batch that is compared."""
TOLERANCE = 1e-5
"""Largest difference of outputs allowed, as a share of the largest output."""
_BATCH, _ANSWER = "batch.safetensors", "answer.json"


def verify_reload(folder: Path, network: nn.Module, space_folder: Path) -> None:
    """Loads a saved network in a fresh process, and compares its outputs with the network's.

    Args:
        folder: holds the plan and the weights.
        network: what they must give, in eval mode; not changed.
        space_folder: where the space file lies that names the network's builder.

    Raises:
        EvosearchError: the saved network cannot be loaded or run, or its outputs are others.
    """
    config = _model_of(folder)
    random = torch.Generator().manual_seed(0)
    inputs = [torch.randn(IMAGES, *shape, generator=random) for shape in config.input_shapes]
    outputs = _outputs(copied(network).cpu(), inputs)
    with TemporaryDirectory() as exchange:
        batch = {f"input {i}": value for i, value in enumerate(inputs)}
        batch |= {f"output {i}": value for i, value in enumerate(outputs)}
        save_file(batch, Path(exchange, _BATCH))
        arguments = (folder.resolve(), space_folder.resolve(), exchange, torch.get_num_threads())
        done = subprocess.run(
            [sys.executable, "-m", "evosearch.export.reloading", *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            problem = (done.stderr.strip().splitlines() or ["it ended without a reason"])[-1]
        else:
            problem = json.loads(Path(exchange, _ANSWER).read_text(encoding="utf-8"))["problem"]
    if problem is not None:
        raise EvosearchError(
            f"the network cannot be saved: loaded in a fresh process, {problem}; expected all that"
            " it computes with to be parameters, buffers and sizes of its modules"
        )


def _model_of(folder: Path) -> ModelConfig:
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    # The saved network has weights of its own.
    return ModelConfig.model_validate({**plan["model"], "weights": None})


def _outputs(network: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
    # In float64, as float32 rounds otherwise where a network lies otherwise in memory.
    network, exact = network.double(), [value.double() for value in inputs]
    with torch.inference_mode(), torch_seeded(0):
        leaves = pytree.tree_leaves(network(*exact))
    return [leaf.clone().contiguous() for leaf in leaves if isinstance(leaf, Tensor)]


def _problem(found: list[Tensor], expected: list[Tensor]) -> str | None:
    """Returns what tells outputs from those that they must be; None where nothing does."""
    if not expected:
        return "it has no outputs that can be compared"
    shapes = [[tuple(value.shape) for value in values] for values in (found, expected)]
    if shapes[0] != shapes[1]:
        return f"it has outputs of the shapes {shapes[0]}, not {shapes[1]}"
    for ours, theirs in zip(found, expected, strict=True):
        if torch.equal(ours, theirs) or not theirs.numel():
            continue
        difference = float((ours.double() - theirs.double()).abs().max())
        largest = float(theirs.double().abs().max())
        if not difference <= TOLERANCE * largest:
            return f"its outputs differ by {difference:.1e}, of outputs up to {largest:.1e}"
    return None


def main() -> None:
    """Loads and compares: the other end of `verify_reload`."""
    folder, space_folder, exchange = map(Path, sys.argv[1:4])
    torch.set_num_threads(int(sys.argv[4]))
    batch = load_file(exchange / _BATCH)
    named: dict[str, list[Tensor]] = {"input": [], "output": []}
    for name in sorted(batch, key=lambda name: int(name.partition(" ")[2])):
        named[name.partition(" ")[0]].append(batch[name])
    answer: dict[str, Any]
    try:
        network = rebuild(build_model(_model_of(folder), space_folder), folder)
        answer = {"problem": _problem(_outputs(network, named["input"]), named["output"])}
    except Exception as error:  # whatever the user's code raises
        answer = {"problem": f"it fails: {one_line(error)}"}
    write_json(exchange / _ANSWER, answer)


if __name__ == "__main__":
    main()
