"""Channel selection for CNN pruning as combinatorial search.

::

    run = evosearch.search("space.toml", flops="30%..70%", trials=100)
    evosearch.finetune(run.folder, at="flops=50%")

`evosearch.api` lists what there is; every command of the command line has a function of its own.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evosearch.api import (
        Callbacks,
        Run,
        compare,
        export_artifact,
        finetune,
        inspect,
        list_criteria,
        list_recipes,
        load_artifact,
        load_run,
        new_space,
        pareto,
        profile,
        resume,
        search,
        train,
        write_report,
    )

__version__ = "0.1.0"
__all__ = [
    "Callbacks",
    "Run",
    "compare",
    "export_artifact",
    "finetune",
    "inspect",
    "list_criteria",
    "list_recipes",
    "load_artifact",
    "load_run",
    "new_space",
    "pareto",
    "profile",
    "resume",
    "search",
    "train",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Imports the functions above when one is asked for: `import evosearch` itself is light."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("evosearch.api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
