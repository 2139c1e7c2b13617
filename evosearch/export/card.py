"""The card of an artifact: its networks' measurements as JSON, and all of it in Markdown."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from evosearch.errors import InputError
from evosearch.export.hubcard import details, front_matter, purpose
from evosearch.export.quantized import Quantized
from evosearch.space.cost import Cost, format_time
from evosearch.space.mask import Mask
from evosearch.space.resources import RESOURCES
from evosearch.study.accuracy_certificate import CONFIDENCE, ConfirmedDrop, ConfirmedNetwork
from evosearch.study.networks import NamedNetwork
from evosearch.study.runtimecost import Energy, RuntimeCost, format_energy
from evosearch.study.scores import Score
from evosearch.study.timing import Timing
from evosearch.study.trial import Evaluation

PLAN, CARD, CARD_TEXT = "plan.json", "card.json", "README.md"


def network_json(network: NamedNetwork, base: Cost) -> dict[str, Any]:
    """Returns a network as a card has it, its sizes also as shares of the base's."""
    known = [r for r in RESOURCES.values() if r.of(base) and r.of(network.cost)]
    return {
        "name": network.name,
        **{r.key: r.to_json(network.cost) for r in known},
        "activations": network.cost.activations,
        "ratios": {name: x for name, x in network.cost.relative_to(base).items() if x},
        "search": asdict(network.search),
        **({} if network.test is None else {"test": asdict(network.test)}),
    }


def network_from_card(entry: Mapping[str, Any], mask: Mask) -> NamedNetwork:
    """Reads what `network_json` wrote; how long its evaluation took is not on a card.

    Args:
        entry: of the network.
        mask: its channels.
    """
    return NamedNetwork(
        name=entry["name"],
        mask=mask,
        cost=_cost(entry),
        evaluation=Evaluation(score=Score(**entry["search"]), seconds=0.0),
        test=Score(**entry["test"]) if "test" in entry else None,
    )


def _cost(entry: Mapping[str, Any]) -> Cost:
    amounts = {r.name: r.from_json(entry[r.key]) for r in RESOURCES.values() if r.key in entry}
    return Cost(**{"activations": entry["activations"], **amounts})


def runtime_costs(card: Mapping[str, Any]) -> tuple[RuntimeCost, ...]:
    """Returns what a card says of what its network costs to run.

    Raises:
        KeyError, TypeError: it is malformed.
    """
    # Cards of earlier versions have one runtime, without energy.
    older = [card["latency"]] if card.get("latency") is not None else []
    return tuple(RuntimeCost.from_json(own) for own in (*older, *card.get("runtimes", ())))


def with_runtime_cost(card: Mapping[str, Any], cost: RuntimeCost) -> dict[str, Any]:
    """Returns a card that says what its network costs in one more runtime.

    What was measured alike before, it replaces.
    """
    others = [own for own in runtime_costs(card) if not own.is_of_same(cost)]
    rest = {name: value for name, value in card.items() if name != "latency"}
    return {**rest, "runtimes": [own.to_json() for own in (*others, cost)]}


def card_markdown(card: Mapping[str, Any]) -> str:
    """Returns a card as Markdown, with metadata for hubs; what it does not say is left out.

    Raises:
        InputError: what it says is malformed.
    """
    try:
        return front_matter(card) + "\n".join(_lines(card)) + "\n"
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"malformed card ({error!r})") from error


def _lines(card: Mapping[str, Any]) -> Iterator[str]:
    yield f"# {card.get('plan', 'compact network')}"
    yield ""
    yield from purpose(card)
    yield "Scores are in percent, with their 95 % intervals."
    yield ""
    networks = card.get("networks", ())
    resources = [r for r in RESOURCES.values() if any(r.key in entry for entry in networks)]
    names = [f"{r.heading}{' of one image' if r.name == 'macs' else ''}" for r in resources]
    splits = [s for s in ("search", "test") if not networks or s in networks[0]]
    metric = Score(**networks[0][splits[0]]).metric if networks and splits else ""
    heads = ["network", *names, *(f"{split} {metric}" for split in splits)]
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for entry in networks:
        sizes = [
            f"{r.shown(r.from_json(entry[r.key]))} ({entry['ratios'][r.name]:.1%})"
            if r.key in entry
            else "not known"
            for r in resources
        ]
        scores = [Score(**entry[split]).accuracy_text for split in splits]
        yield f"| {' | '.join([entry['name'], *sizes, *scores])} |"
    yield ""
    exported = card.get("export")
    yield from _runtimes(runtime_costs(card), None if exported is None else exported["file"])
    yield from details(card)
    if card.get("certificate"):
        yield f"- Before fine-tuning: {card['certificate']}."
    if card.get("confirmed"):
        trained = card.get("best_epoch") is not None
        yield f"- {'Fine-tuned, it' if trained else 'It'} {_confirmed(card['confirmed'])}."
    if exported is not None:
        yield (
            f"- Exported as {exported['format']} ({exported['file']}): outputs differ from the"
            f" PyTorch network's by at most {exported['largest_difference']:.1e}, of outputs up to"
            f" {exported['largest_output']:.1e}, on batches of"
            f" {' and '.join(map(str, exported['batches_checked']))}."
        )
        if "quantized" in exported:
            yield from Quantized.from_json(exported["quantized"]).lines()
    training = card.get("training")
    if training is not None:
        penalties = ", ".join(training["prune"]["penalties"]) or "no penalties"
        yield (
            f"- Trained under a budget by {training['prune']['recipe']}, with {penalties}:"
            f" {training['image_macs']:.3g} image-MACs forward and backward,"
            f" {training['share']:.1%} of one training of the whole network"
            f"{', after that' if training['prune']['weights'] == 'base' else ''};"
            f" {training['trainings']} in {training['seconds']:.1f} s."
        )
    elif "strategy" in card:
        yield (
            f"- Search: {card['strategy']}, seed {card.get('seed')}, space digest"
            f" `{card.get('space_digest')}`."
        )
    if "nonzero_macs" in card:
        nonzero, macs = card["nonzero_macs"], _cost(networks[-1]).macs
        yield (
            f"- Kernels {card['finetune']['kernels']}: {nonzero:,} of the {macs:,} MACs of one"
            f" image ({nonzero / macs:.1%}) are of weights other than zero. FLOPs are counted with"
            " the zeros: only what skips them gains by them."
        )
    for note in card.get("notes", ()):
        yield f"- {_capital(note)}."
    environment = card.get("environment")
    if environment:
        yield (
            f"- Made with evosearch {environment['evosearch']}, torch {environment['torch']},"
            f" Python {environment['python']}, on {environment['processor']}."
        )


def _runtimes(costs: Sequence[RuntimeCost], file: str | None) -> Iterator[str]:
    """Yields a table of time and energy, the network beside the base network.

    Args:
        costs: what was measured, of the artifact's network.
        file: that was exported from it; None is the artifact itself.
    """
    if not costs:
        return
    counters = dict.fromkeys(cost.energy.covers for cost in costs if cost.energy is not None)
    yield "## What it costs to run"
    yield ""
    if file is not None:
        yield f"Of the network that {file} was made from, not of that file."
    yield "Measured in turn with the base network: medians, with their 95 % intervals."
    for covers in counters:
        yield f"Energy is what a counter of the hardware counted: {covers}."
    yield ""
    parts = ["base network", "this network", "share"]
    heads = [f"time of a batch, {part}" for part in parts]
    heads += [f"energy of an image, {part}" for part in parts] if counters else []
    yield f"| {' | '.join(['measured in', *heads])} |"
    yield f"|{'---|' * (1 + len(heads))}"
    for cost in costs:
        timing, energy = cost.timing, cost.energy
        cells = _in_turn(timing, timing.base_seconds, timing.seconds, _time)
        if energy is not None:
            cells += _in_turn(energy, energy.base_joules, energy.joules, format_energy)
        elif counters:
            cells += ["not read"] * 3
        yield f"| {' | '.join([str(cost.conditions), *cells])} |"
    yield ""


def _time(seconds: float) -> str:
    return format_time(1e12 * seconds)


def _in_turn(
    of: Timing | Energy, base: float, own: float, text: Callable[[float], str]
) -> list[str]:
    """Returns the cells of what was measured in turn: base network, this network, share."""
    interval = f"{of.ratio_low:.1%} to {of.ratio_high:.1%}, {of.rounds} rounds"
    return [
        text(base),
        f"{text(own)} ({text(of.low)} to {text(of.high)})",
        f"{of.ratio:.1%} ({interval})",
    ]


def _confirmed(entry: Mapping[str, Any]) -> str:
    if "drop" in entry:
        return str(ConfirmedNetwork.of_record(entry))
    # Cards of earlier versions have the drop alone, and do not say what else was claimed.
    return f"{ConfirmedDrop(**entry)} ({CONFIDENCE:.0%} confidence)"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
