"""The card of an artifact: its networks' measurements as JSON, and all of it in Markdown."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from evosearch.errors import InputError
from evosearch.export.hubcard import details, front_matter, purpose
from evosearch.export.quantized import Quantized
from evosearch.space.cost import Cost
from evosearch.space.mask import Mask
from evosearch.space.resources import RESOURCES
from evosearch.study.accuracy_certificate import CONFIDENCE, ConfirmedDrop, ConfirmedNetwork
from evosearch.study.networks import NamedNetwork
from evosearch.study.scores import Score
from evosearch.study.timing import Conditions, Timing
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
    yield from details(card)
    latency = card.get("latency")
    if latency is not None:
        yield f"- Latency of a batch: {Timing(**latency['timing'])};"
        yield f"  {Conditions(**latency['conditions'])}."
    if card.get("certificate"):
        yield f"- Before fine-tuning: {card['certificate']}."
    if card.get("confirmed"):
        trained = card.get("best_epoch") is not None
        yield f"- {'Fine-tuned, it' if trained else 'It'} {_confirmed(card['confirmed'])}."
    exported = card.get("export")
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


def _confirmed(entry: Mapping[str, Any]) -> str:
    if "drop" in entry:
        return str(ConfirmedNetwork.of_record(entry))
    # Cards of earlier versions have the drop alone, and do not say what else was claimed.
    return f"{ConfirmedDrop(**entry)} ({CONFIDENCE:.0%} confidence)"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
