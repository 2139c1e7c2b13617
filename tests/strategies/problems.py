"""Random search problems without torch: spaces with quadratic costs, Gram matrices, curves."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from evosearch.space.budget import Bound, Budget
from evosearch.space.costform import ByteTerm, CostTerm, Monomial
from evosearch.space.knowledge import Array, Knowledge, SensitivityCurve
from evosearch.space.mask import Bits, ChannelGroup
from evosearch.space.space import SearchSpace
from evosearch.strategies.base import Problem, Strategy
from evosearch.study.scores import Score
from evosearch.study.trial import Evaluation, Proposal, Trial, TrialState


def chain(sizes: Sequence[int], *, multiple_of: int = 1, min_keep: int = 1) -> SearchSpace:
    """Returns a chain of layers, one of which has the same group on both sides.

    In memory are what a layer reads and what it gives, a byte each.
    """
    groups = tuple(
        ChannelGroup(f"g{i}", size, min_keep=min_keep, multiple_of=multiple_of)
        for i, size in enumerate(sizes)
    )
    terms = []
    for i in range(len(sizes) + 1):
        pixels = 4 ** (3 - 3 * i // (len(sizes) + 1))
        ends = tuple(f"g{j}" for j in (i - 1, i) if 0 <= j < len(sizes))
        terms.append(
            CostTerm(
                name=f"layer{i}",
                macs=(Monomial(9 * pixels, ends),),
                params=(Monomial(9, ends), Monomial(2, ends[-1:])),
                activations=(Monomial(pixels, ends[-1:]),),
            )
        )
    own = (f"g{len(sizes) // 2}",) * 2
    terms.append(
        CostTerm(name="own", macs=(Monomial(36, own), Monomial(50)), params=(Monomial(9, own),))
    )
    return SearchSpace(
        groups=groups,
        terms=tuple(terms),
        size=tuple(
            ByteTerm(
                name=term.name,
                bytes=tuple(Monomial(4 * m.coefficient, m.groups) for m in term.params),
            )
            for term in terms
        ),
        memory=tuple(
            ByteTerm(name=after.name, bytes=before.activations + after.activations)
            for before, after in pairwise(terms[:-1])
        ),
    )


def correlated_gram(rng: np.random.Generator, channels: int) -> Array:
    """Returns a Gram matrix like those of real activations: low rank, uneven, some positive."""
    rank = max(2, channels // 4)
    factor = rng.normal(size=(channels, rank)) / np.sqrt(np.arange(1, rank + 1))
    factor[:, 0] = np.abs(factor[:, 0])
    scale = np.exp(rng.normal(size=channels))
    gram = factor @ factor.T * np.sqrt(np.outer(scale, scale)) + np.diag(0.1 * scale)
    return np.asarray(gram / gram.sum())


def wishart_gram(rng: np.random.Generator, channels: int) -> Array:
    """Returns a Gram matrix of independent channels: many near-equal local optima."""
    factor = rng.normal(size=(channels, channels))
    gram = factor @ factor.T
    return np.asarray(gram / np.trace(gram))


def knowledge_of(space: SearchSpace, seed: int) -> Knowledge:
    """Returns random Gram matrices (with one cross block), scores and sensitivities."""
    rng = np.random.default_rng(seed)
    gram = {(g.name, g.name): correlated_gram(rng, g.size) for g in space.groups}
    first, second = space.groups[0], space.groups[1]
    gram[first.name, second.name] = 1e-3 * rng.normal(size=(first.size, second.size))
    sensitivity = {}
    for group in space.groups:
        widths = np.unique(
            np.array([max(1, group.size // 4), max(1, group.size // 2), group.size])
        )
        increase = rng.uniform(0.2, 2) * (1 - widths / group.size) ** 2
        sensitivity[group.name] = SensitivityCurve(widths=widths, loss_increase=increase)
    scores = {"l1": {g.name: rng.random(g.size) for g in space.groups}}
    means = {name: own / own.mean() for name, own in scores["l1"].items()}
    return Knowledge(gram=gram, scores=scores, comparable={"l1": means}, sensitivity=sensitivity)


def budget_of(space: SearchSpace, **shares: float | tuple[float, float]) -> Budget:
    """Returns a budget of shares of the base cost, never under the smallest reachable cost."""
    bounds = {}
    for name, share in shares.items():
        low, high = share if isinstance(share, tuple) else (share, share)
        least, base = getattr(space.smallest_cost, name), getattr(space.base_cost, name)
        bounds[name] = Bound(low=max(least, int(low * base)), high=max(least, int(high * base)))
    return Budget.of(**bounds)


def greedy_removal(gram: Array, width: int) -> Bits:
    """Returns what dropping the cheapest channel again and again keeps, from the definition."""
    keep = np.ones(len(gram), dtype=np.bool_)
    while keep.sum() > width:
        errors = []
        for channel in np.flatnonzero(keep):
            trial = keep.copy()
            trial[channel] = False
            errors.append(float((1.0 - trial) @ gram @ (1.0 - trial)))
        keep[np.flatnonzero(keep)[int(np.argmin(errors))]] = False
    return keep


def built(
    kind: type[Strategy],
    space: SearchSpace,
    budget: Budget,
    knowledge: Knowledge,
    *,
    seed: int = 0,
    **settings: object,
) -> Strategy:
    """Returns a strategy with some settings, before its first round."""
    config = kind.Config.model_validate(settings)
    return kind(Problem(space=space, budget=budget, knowledge=knowledge, config=config, seed=seed))


def evaluated(loss: float) -> Evaluation:
    return Evaluation(
        score=Score(loss=loss, loss_se=0.01, accuracy=0.5, accuracy_se=0.01, images=100),
        seconds=0.0,
    )


def outcome(
    space: SearchSpace, proposal: Proposal, number: int, generation: int, loss: float | None
) -> Trial:
    """Returns the trial of a proposal; failed where there is no loss."""
    return Trial(
        number=number,
        generation=generation,
        mask=proposal.mask,
        genome=proposal.genome,
        cost=space.cost(proposal.mask),
        state=TrialState.FAIL if loss is None else TrialState.COMPLETE,
        evaluation=None if loss is None else evaluated(loss),
        error="no loss" if loss is None else None,
    )
