"""The card of an artifact: its networks' measurements as JSON, and all of it in Markdown."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from evosearch.errors import InputError
from evosearch.space.cost import Cost, format_count
from evosearch.study.networks import NamedNetwork
from evosearch.study.timing import Conditions, Timing

CARD_TEXT = "card.md"


def network_json(network: NamedNetwork, base: Cost) -> dict[str, Any]:
    """Returns a finished network as a card has it, its sizes also as shares of the base's."""
    assert network.test is not None
    return {
        "name": network.name,
        "flops": network.cost.flops,
        "params": network.cost.params,
        "activations": network.cost.activations,
        "ratios": network.cost.relative_to(base),
        "search": asdict(network.search),
        "test": asdict(network.test),
    }


def card_markdown(card: Mapping[str, Any]) -> str:
    """Returns a card as Markdown; what a card does not say is left out.

    Raises:
        InputError: what it says is malformed.
    """
    try:
        return "\n".join(_lines(card)) + "\n"
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"malformed card ({error!r})") from error


def _lines(card: Mapping[str, Any]) -> Iterator[str]:
    yield f"# {card.get('plan', 'compact network')}"
    yield ""
    yield "Accuracies are in percent, ± one standard error over images."
    yield ""
    yield "| network | FLOPs of one image | params | search accuracy | test accuracy |"
    yield "|---|---|---|---|---|"
    for entry in card.get("networks", ()):
        sizes = [
            f"{format_count(entry[count])} ({entry['ratios'][ratio]:.1%})"
            for count, ratio in (("flops", "macs"), ("params", "params"))
        ]
        scores = [
            f"{100 * entry[split]['accuracy']:.2f} ± {100 * entry[split]['accuracy_se']:.2f}"
            for split in ("search", "test")
        ]
        yield f"| {' | '.join([entry['name'], *sizes, *scores])} |"
    yield ""
    latency = card.get("latency")
    if latency is not None:
        yield f"- Latency of a batch: {Timing(**latency['timing'])};"
        yield f"  {Conditions(**latency['conditions'])}."
        if latency.get("certificate"):
            yield f"- {_capital(latency['certificate'])}."
    exported = card.get("export")
    if exported is not None:
        yield (
            f"- Exported as {exported['format']} ({exported['file']}): outputs differ from the"
            f" PyTorch network's by at most {exported['largest_difference']:.1e}, of outputs up to"
            f" {exported['largest_output']:.1e}, on batches of"
            f" {' and '.join(map(str, exported['batches_checked']))}."
        )
    if "strategy" in card:
        yield (
            f"- Search: {card['strategy']}, seed {card.get('seed')}, space digest"
            f" `{card.get('space_digest')}`."
        )
    for note in card.get("notes", ()):
        yield f"- {_capital(note)}."
    environment = card.get("environment")
    if environment:
        yield (
            f"- Made with evosearch {environment['evosearch']}, torch {environment['torch']},"
            f" Python {environment['python']}, on {environment['processor']}."
        )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
