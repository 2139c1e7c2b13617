import pytest

from evosearch.errors import InputError
from evosearch.export.card import card_markdown

SCORE = {"loss": 0.1, "loss_se": 0.01, "accuracy": 1.0, "accuracy_se": 0.0, "images": 350}
CARD = {
    "plan": "trial 17",
    "strategy": "rates",
    "seed": 3,
    "space_digest": "abcd",
    "networks": [
        {
            "name": "trial 17, distilled",
            "flops": 400_000,
            "params": 20_000,
            "ratios": {"macs": 0.4, "params": 0.5},
            "search": SCORE,
            "test": SCORE,
        }
    ],
    "latency": {
        "timing": {
            "seconds": 0.03, "low": 0.029, "high": 0.031, "ratio": 0.5, "ratio_low": 0.48,
            "ratio_high": 0.52, "base_seconds": 0.06, "rounds": 15,
        },
        "conditions": {
            "device": "abacus", "runtime": "eager", "batch": 64, "threads": 2,
            "versions": {"torch": "2.15"},
        },
    },
    "certificate": "latency budget of 60.0% certified",
    "export": {
        "format": "onnx", "file": "model.onnx", "largest_difference": 1.7e-6,
        "largest_output": 12.5, "batches_checked": [1, 7],
    },
    "notes": ["search accuracy is optimistic"],
    "environment": {"evosearch": "1", "torch": "2.15", "python": "3.12", "processor": "abacus"},
}  # fmt: skip


def test_a_card_says_all_that_was_measured() -> None:
    text = card_markdown(CARD)
    for part in (
        "# trial 17",
        "| trial 17, distilled | 400K (40.0%) | 20K (50.0%) | 100.00 (98.9 to 100.0) | 100.00 (98",
        "30 ms, 50.0% of the base network's 60 ms (95 % interval 48.0% to 52.0%, 15 rounds)",
        "eager, batch 64, 2 threads, torch 2.15, on abacus",
        "- Before fine-tuning: latency budget of 60.0% certified.",
        "differ from the PyTorch network's by at most 1.7e-06",
        "on batches of 1 and 7",
        "Search: rates, seed 3, space digest `abcd`",
        "- Search accuracy is optimistic.",
        "Made with evosearch 1, torch 2.15",
    ):
        assert part in text, part


def test_a_bare_card_has_a_title() -> None:
    assert card_markdown({"plan": "trial 1"}).startswith("# trial 1\n")


@pytest.mark.parametrize("card", [{"networks": [{}]}, {"latency": 3}, {"export": {}}])
def test_a_malformed_card_is_one_line(card: dict[str, object]) -> None:
    with pytest.raises(InputError, match="malformed card"):
        card_markdown(card)
