import pytest

from evosearch.errors import InputError
from evosearch.export.card import card_markdown, runtime_costs, with_runtime_cost

SCORE = {"loss": 0.1, "loss_se": 0.01, "accuracy": 1.0, "accuracy_se": 0.0, "images": 350}
LATENCY = {
    "timing": {
        "seconds": 0.03, "low": 0.029, "high": 0.031, "ratio": 0.5, "ratio_low": 0.48,
        "ratio_high": 0.52, "base_seconds": 0.06, "rounds": 15,
    },
    "conditions": {
        "device": "abacus", "runtime": "eager", "batch": 64, "threads": 2,
        "versions": {"torch": "2.15"},
    },
}  # fmt: skip
ENERGY = {
    "joules": 0.0021, "low": 0.002, "high": 0.0025, "ratio": 0.6, "ratio_low": 0.57,
    "ratio_high": 0.66, "base_joules": 0.0035, "rounds": 11, "covers": "all that was eaten",
}  # fmt: skip
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
    "runtimes": [LATENCY],
    "certificate": "latency budget of 60.0% certified",
    "export": {
        "format": "onnx", "file": "model.onnx", "largest_difference": 1.7e-6,
        "largest_output": 12.5, "batches_checked": [1, 7],
    },
    "notes": ["search accuracy is optimistic"],
    "environment": {"evosearch": "1", "torch": "2.15", "python": "3.12", "processor": "abacus"},
}  # fmt: skip

ROW = (
    "| eager, batch 64, 2 threads, torch 2.15, on abacus | 60 ms | 30 ms (29 ms to 31 ms) |"
    " 50.0% (48.0% to 52.0%, 15 rounds) |"
)


def test_a_card_says_all_that_was_measured() -> None:
    text = card_markdown(CARD)
    for part in (
        "# trial 17",
        "| trial 17, distilled | 400K (40.0%) | 20K (50.0%) | 100.00 (98.9 to 100.0) | 100.00 (98",
        ROW,
        "- Before fine-tuning: latency budget of 60.0% certified.",
        "differ from the PyTorch network's by at most 1.7e-06",
        "on batches of 1 and 7",
        "Search: rates, seed 3, space digest `abcd`",
        "- Search accuracy is optimistic.",
        "Made with evosearch 1, torch 2.15",
    ):
        assert part in text, part


def test_energy_stands_beside_time_where_it_was_read() -> None:
    text = card_markdown({**CARD, "runtimes": [{**LATENCY, "energy": ENERGY}, LATENCY]})
    energy = "| 3.5 mJ | 2.1 mJ (2 mJ to 2.5 mJ) | 60.0% (57.0% to 66.0%, 11 rounds) |"
    assert f"{ROW[:-1]}{energy}\n" in text
    assert f"{ROW[:-1]}| not read | not read | not read |\n" in text
    assert text.count("\nEnergy is what a counter of the hardware counted: all that was") == 1
    assert "nergy" not in card_markdown(CARD)


def test_time_is_not_that_of_an_exported_file() -> None:
    line = "\nOf the network that model.onnx was made from, not of that file.\n"
    assert line in card_markdown(CARD)
    artifact = {key: value for key, value in CARD.items() if key != "export"}
    assert "not of that file" not in card_markdown(artifact)


def test_the_latency_of_an_older_card_is_one_runtime() -> None:
    rest = {key: value for key, value in CARD.items() if key != "runtimes"}
    older = {**rest, "latency": LATENCY}
    assert card_markdown(older) == card_markdown(CARD)
    (cost,) = runtime_costs(older)
    assert with_runtime_cost(older, cost) == {**rest, "runtimes": [LATENCY]}
    assert card_markdown({**rest, "latency": None}) == card_markdown({**rest, "runtimes": []})
    assert "What it costs to run" not in card_markdown(rest)


ABOUT = {
    "about": {
        "task": "classification", "build": "nets.py:make", "input": [[3, 32, 32]],
        "data": "cifar10", "images": {"train": 44000, "search": 5000, "confirmation": 0},
    },
    "kept": {"stem": [9, 16], "layer1.0.conv1": [3, 16]},
    "files": {"weights.safetensors": {"bytes": 81234, "sha256": "ab12"}},
}  # fmt: skip


def test_a_bare_card_has_a_title() -> None:
    assert "---\n# trial 1\n" in card_markdown({"plan": "trial 1"})


def test_a_card_says_what_it_is_for_and_how_it_is_loaded() -> None:
    trained = {"best_epoch": 2, "finetune": {"epochs": 3}}
    text = card_markdown({key: CARD[key] for key in CARD if key != "export"} | ABOUT | trained)
    for part in (
        "A smaller network for classification: `nets.py:make` without the channels",
        "## What was pruned: 20 of 32 channels",
        "| layer1.0.conv1 | 3 | 16 |",
        'network = rebuild(build_model(), ".").eval()',
        "a batch of 3x32x32",
        "- Data: cifar10; images: 44,000 train, 5,000 search.",
        "for 3 epochs, 132,000 images forward and backward",
        "- `weights.safetensors`: 81,234 bytes, SHA-256 `ab12`.",
    ):
        assert part in text, part
    assert "InferenceSession" in card_markdown({**CARD, **ABOUT})


def test_the_metadata_is_what_a_hub_reads() -> None:
    """The hub's own client is the oracle; it reads a text, and asks nobody."""
    hub = pytest.importorskip("huggingface_hub")
    loaded = hub.ModelCard(card_markdown({**CARD, **ABOUT}), ignore_metadata_errors=False)
    data = loaded.data
    assert (data.library_name, data.pipeline_tag) == ("onnx", "image-classification")
    assert data.license is None
    assert data.model_name == "trial 17"
    (result,) = data.eval_results
    assert (result.task_type, result.dataset_name) == ("image-classification", "cifar10")
    assert (result.metric_type, result.metric_value) == ("accuracy", 1.0)
    assert loaded.text.strip().startswith("# trial 17")
    own = hub.ModelCard(card_markdown({"plan": 'a "detector": é'}))
    assert own.data.library_name == "pytorch"
    assert own.data.eval_results is None


def test_a_resource_that_is_not_known_of_a_network_is_said_so() -> None:
    other = {**CARD["networks"][0], "memory_bytes": 2_050_000}
    other["ratios"] = {**other["ratios"], "memory": 0.25}
    text = card_markdown({**CARD, "networks": [other, CARD["networks"][0]]})
    assert "| 2.05 MB (25.0%) |" in text
    assert "| not known |" in text


@pytest.mark.parametrize(
    "card", [{"networks": [{}]}, {"latency": 3}, {"runtimes": [{}]}, {"export": {}}]
)
def test_a_malformed_card_is_one_line(card: dict[str, object]) -> None:
    with pytest.raises(InputError, match="malformed card"):
        card_markdown(card)
