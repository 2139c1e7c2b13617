"""The genetic algorithm that picks the channels of one group at a given width.

After Hu et al. 2018 (arXiv 1805.11394): binary chromosomes, Bernoulli initialisation, roulette
selection, crossover, mutation, elitism, and the two-step error `p' G p` as fitness. The paper
gives no sizes or rates, and does not say how the width is held; those are this project's, and
`GeneticConfig` names them.

DEAP holds the pieces together (toolbox, fitness, hall of fame, logbook). Its variation and
roulette draw from the global `random` and work on one individual at a time, so those are
written here on the whole population, a matrix, with an explicit generator.
"""

from dataclasses import dataclass
from typing import final

import numpy as np
from deap import base, tools
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from evosearch.space.knowledge import Array
from evosearch.space.mask import Bits
from evosearch.strategies.two_step import flip_deltas

FLIP_TEMPERATURE = 0.3
"""Of the roulette over channels, in mean magnitudes of the flip errors."""


class GeneticConfig(BaseModel):
    """Settings of the genetic algorithm of one group."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    population: int = Field(default=192, ge=4)
    """Chromosomes per generation."""
    generations: int = Field(default=1000, ge=1)
    """Most generations of one evolution."""
    patience: int = Field(default=40, ge=1)
    """Generations without a better chromosome after which it ends."""
    elite: int = Field(default=2, ge=1)
    """Best chromosomes ever, copied unchanged into each generation."""
    crossover: float = Field(default=0.9, ge=0, le=1)
    """Share of children with two parents."""
    mutation: float = Field(default=0.7, ge=0, le=1)
    """Share of children that are mutated."""
    further_swap: float = Field(default=0.3, ge=0, lt=1)
    """Chance that a mutated child is mutated once more, again and again."""
    informed: float = Field(default=0.5, ge=0, le=1)
    """Share of mutations that draw channels by roulette on their flip errors, not uniformly."""
    temperature: float = Field(default=0.5, gt=0)
    """Of the roulette over chromosomes, in standard deviations of the population's errors."""


class _Fitness(base.Fitness):  # type: ignore[misc]  # deap is untyped
    weights = (-1.0,)


@dataclass(frozen=True)
class _Chromosome:
    keep: Bits
    fitness: _Fitness

    def same_as(self, other: "_Chromosome") -> bool:
        return np.array_equal(self.keep, other.keep)


@final
@dataclass(frozen=True, kw_only=True)
class Evolved:
    """The outcome of an evolution.

    Attributes:
        keep: the best chromosome, `(channels,)`.
        error: its two-step error.
        logbook: DEAP's record: `generation`, `best` (ever) and `mean` error.
    """

    keep: Bits
    error: float
    logbook: tools.Logbook


def evolve(gram: Array, width: int, config: GeneticConfig, rng: np.random.Generator) -> Evolved:
    """Evolves the channels to keep in one group.

    Args:
        gram: the group's Gram matrix, `(channels, channels)`.
        width: number of channels that every chromosome keeps, from 1 to all.
        config: sizes and rates.
        rng: all draws come from it.
    """
    toolbox = base.Toolbox()
    toolbox.register("population", bernoulli, len(gram), width, config.population, rng)
    toolbox.register("evaluate", evaluate, gram)
    toolbox.register("select", roulette, config.temperature, rng)
    toolbox.register("mate", cross, config.crossover, width, rng)
    toolbox.register("mutate", mutate, gram, config, rng)
    hall = tools.HallOfFame(config.elite, similar=_Chromosome.same_as)
    logbook = tools.Logbook()

    population = toolbox.population()
    improved = 0
    for generation in range(config.generations):
        errors = toolbox.evaluate(population)
        best_before = _best_error(hall)
        # Only the best can enter the hall; DEAP compares individuals one by one.
        best = np.argsort(errors, kind="stable")[: config.elite]
        hall.update([_Chromosome(population[i], _Fitness((float(errors[i]),))) for i in best])
        logbook.record(generation=generation, best=_best_error(hall), mean=float(errors.mean()))
        if _best_error(hall) < best_before:
            improved = generation
        elif generation - improved >= config.patience:
            break
        children = config.population - len(hall)
        first, second = toolbox.select(population, errors, (2, children))
        offspring = toolbox.mutate(toolbox.mate(population[first], population[second]))
        population = np.concatenate([[elite.keep for elite in hall], offspring])
    return Evolved(keep=hall[0].keep, error=_best_error(hall), logbook=logbook)


def _best_error(hall: tools.HallOfFame) -> float:
    return float(hall[0].fitness.values[0]) if len(hall) else float("inf")


def evaluate(gram: Array, population: Bits) -> Array:
    """Returns the two-step errors of `(population, channels)`, `(population,)`."""
    pruned = 1.0 - population
    return np.asarray(np.einsum("ij,ij->i", pruned @ gram, pruned))


def bernoulli(channels: int, width: int, size: int, rng: np.random.Generator) -> Bits:
    """Returns chromosomes of Bernoulli bits, with random ones flipped until each keeps `width`.

    Every bit is 1 with probability `width / channels`; the result is `(size, channels)`.
    """
    bits = rng.random((size, channels)) < width / channels
    return _highest(bits + rng.random(bits.shape), width)


def roulette(
    temperature: float,
    rng: np.random.Generator,
    population: Bits,
    errors: Array,
    shape: tuple[int, ...],
) -> NDArray[np.int64]:
    """Draws indices of parents with probability falling exponentially with their error.

    Of equal chromosomes only one takes part, so that a fit one cannot fill the population.

    Args:
        temperature: of the exponential, in standard deviations of the errors.
        rng: source of the draws.
        population: `(population, channels)`.
        errors: `(population,)`.
        shape: of the result.
    """
    spread = float(errors.std()) or 1.0
    fitness = np.zeros(len(errors))
    _, distinct = np.unique(np.packbits(population, axis=1), axis=0, return_index=True)
    fitness[distinct] = np.exp((errors.min() - errors[distinct]) / (temperature * spread))
    return rng.choice(len(errors), size=shape, p=fitness / fitness.sum())


def cross(rate: float, width: int, rng: np.random.Generator, first: Bits, second: Bits) -> Bits:
    """Returns children that keep what both parents keep, and as much more of what one keeps.

    Args:
        rate: share of children that are crossed; the others are copies of `first`.
        width: number of channels that parents and children keep.
        rng: source of the draws.
        first: parents, `(children, channels)`.
        second: their partners, likewise.
    """
    shared, either = first & second, first ^ second
    children = _highest(2.0 * shared + either * rng.random(first.shape), width)
    crossed = rng.random((len(first), 1)) < rate
    return np.asarray(np.where(crossed, children, first))


def mutate(gram: Array, config: GeneticConfig, rng: np.random.Generator, children: Bits) -> Bits:
    """Returns children of which some swap a kept channel for a dropped one.

    An informed swap draws both channels by roulette: the lower the error after flipping a
    channel, the likelier it is drawn. Any swap keeps the width.

    Args:
        gram: `(channels, channels)`.
        config: rates.
        rng: source of the draws.
        children: `(children, channels)`, of one width, smaller than the number of channels.
    """
    children = children.copy()
    rows = np.flatnonzero(rng.random(len(children)) < config.mutation)
    while rows.size:
        keep = children[rows]
        pruned = (~keep).astype(np.float64)
        flips = flip_deltas(gram, pruned, pruned @ gram)
        informed = rng.random((len(rows), 1)) < config.informed
        # Gumbel noise makes argmax a roulette.
        scale = FLIP_TEMPERATURE * np.abs(flips).mean(axis=1, keepdims=True)
        pull = np.where(informed & (scale > 0), 1 / np.where(scale > 0, scale, 1), 0)
        drawn = rng.gumbel(size=keep.shape) - pull * flips
        drop = np.argmax(np.where(keep, drawn, -np.inf), axis=1)
        drawn = rng.gumbel(size=keep.shape) - pull * (flips - 2 * gram[drop])
        restore = np.argmax(np.where(keep, -np.inf, drawn), axis=1)
        children[rows, drop], children[rows, restore] = False, True
        rows = rows[rng.random(len(rows)) < config.further_swap]
    return children


def _highest(keys: Array, width: int) -> Bits:
    """Returns bits that are set where a row's `width` highest keys are."""
    bits = np.zeros(keys.shape, dtype=np.bool_)
    chosen = np.argpartition(-keys, width - 1, axis=1)[:, :width]
    np.put_along_axis(bits, chosen, True, axis=1)
    return bits
