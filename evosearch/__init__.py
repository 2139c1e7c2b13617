"""Channel selection for CNN pruning as combinatorial search.

::

    run = evosearch.search("space.toml", flops="30%..70%", trials=100)
    evosearch.finetune(run, at="flops=50%")

`evosearch.api` lists what there is; every command of the command line has a function of its own.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evosearch.api import *  # noqa: F403

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Returns what `evosearch.api` lists, once it is asked for: `import evosearch` is light."""
    if name == "__all__" or not name.startswith("_"):
        api = import_module("evosearch.api")
        if name == "__all__" or name in api.__all__:
            return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__getattr__("__all__"), *(name for name in globals() if name[:2] == "__")])
