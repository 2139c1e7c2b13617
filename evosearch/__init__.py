"""Channel selection for CNN pruning as combinatorial search.

::

    run = evosearch.search("space.toml", flops="30%..70%", trials=100)
    evosearch.finetune(run.folder, at="flops=50%")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evosearch.api import Run, load_artifact, load_run, resume, search
    from evosearch.finetuning import finetune

__version__ = "0.1.0"
__all__ = ["Run", "finetune", "load_artifact", "load_run", "resume", "search"]


def __getattr__(name: str) -> Any:
    """Imports what is asked for when it is: `import evosearch` itself loads no torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    place = "evosearch.finetuning" if name == "finetune" else "evosearch.api"
    return getattr(import_module(place), name)
