"""A saved network loaded in a fresh process, where it must give the outputs kept beside it.

A process that has seen the network may hold what was not saved: a tensor, a size, an attribute
that some earlier call set. One that has not seen it is what a user starts.
"""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from evosearch.callables import one_line
from evosearch.errors import EvosearchError
from evosearch.export.card import PLAN
from evosearch.export.rebuild import OtherNetworkError, rebuild
from evosearch.files import write_json
from evosearch.models.build import ModelConfig, build_model
from evosearch.objects import is_object
from evosearch.processes import ProcessError, run_fresh

_ANSWER = "answer.json"


def verify_reload(folder: Path, space_folder: Path) -> None:
    """Loads a saved network in a fresh process, and compares its outputs with those kept.

    A network that is cut from an object of this process is loaded here, into a copy of the object:
    no other process has it.

    Args:
        folder: holds the plan, the weights and the outputs.
        space_folder: where the space file lies that names the network's builder.

    Raises:
        EvosearchError: the saved network cannot be loaded or run, or its outputs are others.
    """
    if is_object(str(_plan(folder)["model"]["build"])):
        _require_none(_problem(folder, space_folder), "into a copy of the model")
        return
    with TemporaryDirectory() as exchange:
        arguments = (folder.resolve(), space_folder.resolve(), exchange, torch.get_num_threads())
        try:
            run_fresh("-m", "evosearch.export.reloading", *arguments, importing=True)
            problem = json.loads(Path(exchange, _ANSWER).read_text(encoding="utf-8"))["problem"]
        except ProcessError as error:
            problem = str(error)
    _require_none(problem, "in a fresh process")


def main() -> None:
    """Loads and compares: the other end of `verify_reload`."""
    folder, space_folder, exchange = map(Path, sys.argv[1:4])
    torch.set_num_threads(int(sys.argv[4]))
    write_json(exchange / _ANSWER, {"problem": _problem(folder, space_folder)})


def _problem(folder: Path, space_folder: Path) -> str | None:
    """Returns what is wrong with a saved network, loaded in this process."""
    try:
        # The saved network has weights of its own.
        config = ModelConfig.model_validate({**_plan(folder)["model"], "weights": None})
        rebuild(build_model(config, space_folder), folder)
    except OtherNetworkError as error:
        return str(error)
    except Exception as error:  # whatever the user's code raises
        return f"it fails: {one_line(error)}"
    return None


def _plan(folder: Path) -> dict[str, Any]:
    plan: dict[str, Any] = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    return plan


def _require_none(problem: str | None, loaded: str) -> None:
    if problem is not None:
        raise EvosearchError(
            f"the network cannot be saved: loaded {loaded}, {problem}; expected all that it"
            " computes with to be parameters, buffers and sizes of its modules"
        )


if __name__ == "__main__":
    main()
