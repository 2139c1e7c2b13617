"""evosearch from Python: a function for each command, with the same parameters.

============  ==========================================================================
`searching`   search and resume
`runs`        read a run and pick a network of it
`networks`    cut and fine-tune a network
`training`    train a base network, or one under a budget
`subjects`    what a call is about: a space file, or objects in its place
`spaces`      inspect a search space, profile it, write a new one
`fronts`      show the front of a run, compare those of several, write a page
`artifacts`   open a fine-tuned network, measure it in runtimes, and export it
`parameters`  what the parameters of these functions have in common
============  ==========================================================================

The command line takes its options from the signatures here, and their help from the `Args` of the
docstrings. Imported without torch: a function that needs it imports it when it is called.
"""

from evosearch.api.artifacts import export_artifact, load_artifact, measure_artifact
from evosearch.api.fronts import compare, pareto, write_report
from evosearch.api.networks import cut, finetune
from evosearch.api.runs import Run, load_run
from evosearch.api.searching import resume, search
from evosearch.api.spaces import inspect, list_criteria, list_recipes, new_space, profile
from evosearch.api.training import train
from evosearch.run.callbacks import Callbacks

__all__ = [
    "Callbacks",
    "Run",
    "compare",
    "cut",
    "export_artifact",
    "finetune",
    "inspect",
    "list_criteria",
    "list_recipes",
    "load_artifact",
    "load_run",
    "measure_artifact",
    "new_space",
    "pareto",
    "profile",
    "resume",
    "search",
    "train",
    "write_report",
]
