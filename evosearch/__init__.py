"""Channel selection for CNN pruning as combinatorial search.

::

    run = evosearch.search("space.toml", flops="30%..70%", trials=100)
    evosearch.finetune(run.folder, at="flops=50%")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evosearch.api import Run, finetune, load_artifact, load_run, resume, search

__version__ = "0.1.0"
__all__ = ["Run", "finetune", "load_artifact", "load_run", "resume", "search"]


def __getattr__(name: str) -> Any:
    """Imports the functions above when one is asked for: `import evosearch` itself is light."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("evosearch.api"), name)
