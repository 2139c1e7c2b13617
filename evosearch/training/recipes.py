"""Recipes for training under a budget, each a row of settings with its source; and `[prune]`.

Usable without torch. A recipe is no code: what it sets is what a user can set in `[prune]`, where
any key takes the place of the recipe's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, final

from pydantic import BaseModel, ConfigDict, Field

from evosearch.errors import unknown_name


class PruneConfig(BaseModel):
    """How a network shrinks while it trains ([prune] in a space file).

    Attributes:
        recipe: the row of `evosearch recipes` that the other keys begin with.
        weights: what training begins with: "fresh" weights, or those of the "base" network, which
            is trained first where the space names none.
        pace: when how much is gone; a name, or a table of a name and settings.
        criterion: importance of the channels, scored anew at every cut.
        plan: which widths a budget gives: uniform, global, triangular or relative.
        floor: share of each group's channels that stays, at least.
        every: steps between cuts at least, or "epoch".
        regrow: share of each group's channels that gives way to others at a cut, at first; then
            nothing is taken out before three quarters of training, and it gets no faster.
        rounds: scorings at one cut; each but the last stops at a larger budget.
        drop: share of the cost that goes between two trainings, each of all epochs, of a network
            that is cut before it; the last is within the budget. 0 is one training, cut by `pace`.
        rewind: what each training after the first begins with: the weights of the "start", "fresh"
            ones, or those that it has ("keep"). Or a number: those that the first training had
            after so many epochs; with the learning rates of then, it has as many epochs fewer.
        layerwise: whether groups are cut one by one, the first first, each to its width in the
            plan for the whole budget, and in the network as cut and trained so far; then `pace`
            says how many are cut. The channels are those of highest "scores" by the criterion,
            or of the "genetic" algorithm on the two-step error. None cuts all together.
        images: calibration images that channels are scored on, at most.
        penalties: losses on the weights by name, each with its weight beside the task's loss.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str = "one_cycle"
    weights: Literal["fresh", "base"] = "fresh"
    pace: str | dict[str, Any] = "one_cycle"
    criterion: str = "l2"
    plan: str = "uniform"
    floor: float = Field(default=0.0, ge=0, lt=1)
    every: Annotated[int, Field(ge=1)] | Literal["epoch"] = 25
    regrow: float = Field(default=0.0, ge=0, lt=1)
    rounds: int = Field(default=1, ge=1)
    drop: float = Field(default=0.0, ge=0, le=1)
    layerwise: Literal["scores", "genetic"] | None = None
    rewind: Annotated[int, Field(ge=1, strict=True)] | Literal["start", "fresh", "keep"] = "start"
    images: int = Field(default=256, ge=2)
    penalties: dict[str, float] = Field(default_factory=dict)


@final
@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One way to train under a budget.

    Attributes:
        about: what it does, in a line.
        source: the publication, and what is this program's own.
        costs: what it takes beside one training of a network that shrinks.
        settings: keys of `[prune]`; the rest are the defaults there.
    """

    about: str
    source: str
    costs: str
    settings: Mapping[str, Any]


RECIPES: dict[str, Recipe] = {
    "scratch": Recipe(
        about="uniform widths from fresh weights: what every other recipe has to beat",
        source="Liu et al. 2019 (rethinking the value of network pruning), arXiv 1810.05270",
        costs="nothing more: the small network trains from the first step",
        settings={"pace": "start", "criterion": "random", "plan": "uniform"},
    ),
    "one_cycle": Recipe(
        about="slow, fast, slow over the whole training; lowest L2 norms, uniform widths",
        source="Hubens et al. 2021, arXiv 2107.02086; on costs instead of weights ours",
        costs="norms at every cut",
        settings={"pace": "one_cycle", "criterion": "l2", "plan": "uniform"},
    ),
    "while_training": Recipe(
        about="evenly, once an epoch, until three quarters of training; lowest L1 norms",
        source="Roy et al. 2020, arXiv 2003.02800; the end before the last epoch ours",
        costs="norms once an epoch",
        settings={"pace": "linear", "criterion": "l1", "plan": "uniform", "every": "epoch"},
    ),
    "gradual": Recipe(
        about="fast first, slow at the end; lowest L1 norms of the whole network",
        source="Zhu and Gupta 2017, arXiv 1710.01878; channels and costs ours",
        costs="norms at every cut",
        settings={"pace": "cubic", "criterion": "l1", "plan": "global"},
    ),
    "granet": Recipe(
        about="as gradual, once an epoch; and what was cut comes back where the loss asks for it",
        source="Liu et al. 2021, arXiv 2106.10404; channels, costs, gradients of calibration"
        " images and the end at three quarters of training ours",
        costs="three quarters of training the whole network; norms and gradients once an epoch",
        settings={
            "pace": "cubic",
            "criterion": "l1",
            "plan": "global",
            "every": "epoch",
            "regrow": 0.5,
        },
    ),
    "play_and_prune": Recipe(
        about="as small as --accuracy-drop 1.0 leaves room, epoch by epoch; lowest L1 norms",
        source="Singh et al. 2019, arXiv 1905.04446, as remembered, not checked against the"
        " source; the weights of its penalties, and the drop on the search split, ours",
        costs="base training; epochs of ever smaller networks, and two penalties' sums a step",
        settings={
            "weights": "base",
            "pace": "slack",
            "criterion": "l1",
            "plan": "global",
            "every": "epoch",
            "penalties": {"lowest_l1": 1e-4, "orthogonality": 1e-4},
        },
    ),
    "snip": Recipe(
        about="before the first step, by the sensitivity of the loss to each channel",
        source="Lee et al. 2019, arXiv 1810.02340; channels ours",
        costs="one scoring of the whole network",
        settings={"pace": "start", "criterion": "snip", "plan": "global"},
    ),
    "synflow": Recipe(
        about="before the first step, by the flow through each channel; without data",
        source="Tanaka et al. 2020, arXiv 2006.05467; channels ours",
        costs="20 passes of one image",
        settings={"pace": "start", "criterion": "synflow", "plan": "global"},
    ),
    "drive": Recipe(
        about="after two epochs, in ten rounds of scoring and cutting",
        source="Saikumar and Varghese 2024, arXiv 2404.03687, by its abstract; the numbers ours",
        costs="two epochs of the whole network, ten scorings",
        settings={
            "pace": {"name": "at", "epoch": 2},
            "criterion": "drive",
            "plan": "global",
            "rounds": 10,
        },
    ),
    "epi": Recipe(
        about="all at once, when the widths that would be cut have settled",
        source="Shen et al. 2022, arXiv 2110.12007, by others' accounts; the last chance ours",
        costs="norms once an epoch",
        settings={"pace": "epi", "criterion": "l1", "plan": "global", "every": "epoch"},
    ),
    "at_a_glance": Recipe(
        about="all at once near the end of training, by one threshold on relative L1 norms",
        source="Salama et al. 2019, arXiv 1912.00200; the floor of a quarter of each group's"
        " channels, and three quarters of training as the end, ours",
        costs="three quarters of training the whole network",
        settings={
            "pace": {"name": "steps", "begin": 0.74, "end": 0.75, "steps": 1},
            "criterion": "relative_l1",
            "plan": "global",
            "floor": 0.25,
        },
    ),
    "dropneuron": Recipe(
        about="group lasso while it trains, then what is least in and out goes",
        source="Pan et al. 2016, arXiv 1606.07326; the end at half of training ours",
        costs="half a training of the whole network, and the penalty's sums at every step",
        settings={
            "pace": {"name": "steps", "begin": 0.5, "end": 0.51, "steps": 1},
            "criterion": "in_out_norm",
            "plan": "global",
            "penalties": {"group_lasso": 1e-4},
        },
    ),
    "imp": Recipe(
        about="train, cut a fifth by one threshold on L2 norms, rewind to the start, again",
        source="Frankle and Carbin 2019, arXiv 1803.03635; rewind = 2 goes back to epoch 2, as"
        " Frankle et al. 2020, arXiv 1912.05671; channels and costs ours",
        costs="a whole training for each fifth, and one more",
        settings={"drop": 0.2, "rewind": "start", "criterion": "l2", "plan": "global"},
    ),
    "dropnet": Recipe(
        about="train, cut a fifth by mean activations, rewind to the start, again",
        source="Tan and Motani 2020 (DropNet), ICML; costs instead of units ours",
        costs="a whole training for each fifth, and one more",
        settings={
            "drop": 0.2,
            "rewind": "start",
            "criterion": "mean_activation",
            "plan": "uniform",
        },
    ),
    "retrain": Recipe(
        about="train, cut all at once by one threshold on L1 norms, train that from fresh weights",
        source="Liu et al. 2019 (rethinking the value of network pruning), arXiv 1810.05270",
        costs="one training of the whole network, and one of the small one",
        settings={"drop": 1.0, "rewind": "fresh", "criterion": "l1", "plan": "global"},
    ),
    "ucp": Recipe(
        about="train with squeeze-and-excitation gates, cut by them, train it from fresh weights",
        source="Chang et al. 2020 (UCP), arXiv 2010.01251; one ratio for all stages ours",
        costs="one training of the whole network with its gates, and one of the small one",
        settings={"drop": 1.0, "rewind": "fresh", "criterion": "mseb", "plan": "uniform"},
    ),
    "consensus": Recipe(
        about="binary gates of each image learn to agree on what the budget bears; then one cut",
        source="Zhi et al. 2023, arXiv 2302.10798, by its abstract; losses, form and end ours",
        costs="half a training of the whole network with its gates",
        settings={
            "pace": {"name": "steps", "begin": 0.5, "end": 0.51, "steps": 1},
            "criterion": "consensus",
            "plan": "global",
        },
    ),
    "fisher": Recipe(
        about="evenly from trained weights, by the Fisher information of each channel",
        source="Liu et al. 2021, arXiv 2108.00708; several channels at a time ours",
        costs="base training, and gradients of the scored images at every cut",
        settings={
            "weights": "base",
            "pace": "linear",
            "criterion": "group_fisher",
            "plan": "global",
        },
    ),
    "layerwise": Recipe(
        about="group by group from trained weights, epochs between; channels by a genetic"
        " algorithm on the two-step error",
        source="Hu et al. 2018, arXiv 1805.11394, by others' accounts; widths by one threshold and"
        " the number of epochs ours",
        costs="base training, and the statistics of one group's readers at its cut",
        settings={
            "weights": "base",
            "pace": "linear",
            "criterion": "two_step",
            "plan": "global",
            "every": "epoch",
            "layerwise": "genetic",
        },
    ),
}
"""Every recipe by name."""


def recipe_of(name: str) -> Recipe:
    """Returns the recipe of a name.

    Raises:
        InputError: there is none; names the nearest that there is.
    """
    if name not in RECIPES:
        raise unknown_name("recipe", name, RECIPES)
    return RECIPES[name]


def resolved_settings(config: PruneConfig) -> PruneConfig:
    """Returns settings with those of their recipe where no others were given.

    Raises:
        InputError: there is no such recipe.
    """
    given = config.model_dump(exclude_unset=True)
    return PruneConfig(**{**recipe_of(config.recipe).settings, **given, "recipe": config.recipe})
