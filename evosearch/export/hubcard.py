"""What a model hub asks of a card: its metadata, and how the network is loaded and used."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from evosearch.study.scores import Score

PIPELINES = {
    "classification": "image-classification",
    "segmentation": "image-segmentation",
    "detection": "object-detection",
}
"""Task of a space file -> what hubs call it; of others they have no name."""
COPY = """\
from load import rebuild            # beside the weights, once `evosearch export` wrote them
from my_model import build_model    # makes {build}, uncut; its weights do not matter

network = rebuild(build_model(), ".").eval()
outputs = network(images)           # {shape}"""
LOADING = {
    "onnx": """\
import onnxruntime

session = onnxruntime.InferenceSession("{file}")
(name,) = [part.name for part in session.get_inputs()]
outputs = session.run(None, {{name: images}})   # {shape}, float32""",
    "pt2": """\
import torch

network = torch.export.load("{file}").module()   # runs code: only of whom you trust
outputs = network(images)   # {shape}""",
}
"""Export format -> lines that load it, without evosearch; of others there are none."""


def front_matter(card: Mapping[str, Any]) -> str:
    """Returns the metadata of a card as YAML between dashes, in front of its text.

    Values are written as JSON, which YAML holds.
    """
    lines = [f"{key}: {json.dumps(value)}" for key, value in metadata(card).items()]
    return "\n".join(["---", *lines, "---", ""])


def metadata(card: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what hubs sort and filter by; a licence is for the owner of the network to add."""
    about, networks = card.get("about", {}), card.get("networks", ())
    pipeline = PIPELINES.get(about.get("task", ""))
    found: dict[str, Any] = {"library_name": "pytorch", "tags": ["evosearch", "channel-pruning"]}
    if card.get("export", {}).get("format") == "onnx":
        found["library_name"] = "onnx"
    if pipeline is None:
        return found
    found["pipeline_tag"] = pipeline
    if networks and "test" in networks[-1]:
        score = Score(**networks[-1]["test"])
        value = {"type": score.metric, "value": round(score.accuracy, 6), "name": "test"}
        data = {"name": about["data"], "type": about["data"], "split": "test"}
        result = {"task": {"type": pipeline}, "dataset": data, "metrics": [value]}
        found["model-index"] = [{"name": card.get("plan", "network"), "results": [result]}]
    return found


def purpose(card: Mapping[str, Any]) -> Iterator[str]:
    """Yields what the network is, and what it is for."""
    about = card.get("about")
    if about is None:
        return
    yield f"A smaller network for {about['task']}: `{about['build']}` without the channels that"
    yield f"are told below. It takes images of {_shape(about)}, prepared as those of"
    yield f"`{about['data']}` were for the whole network, and answers as that does."
    yield ""
    yield "It is meant for images like those that it was measured on; for others, measure first."
    yield "What the whole network does badly, or unfairly, this one does as well."
    yield ""


def details(card: Mapping[str, Any]) -> Iterator[str]:
    """Yields what was pruned, how the network is loaded, and which images and files are meant."""
    about, kept = card.get("about"), card.get("kept")
    exported = card.get("export", {})
    if kept:
        left, whole = (sum(pair[i] for pair in kept.values()) for i in (0, 1))
        yield f"## What was pruned: {whole - left:,} of {whole:,} channels"
        yield ""
        yield "| channel group | kept | of |"
        yield "|---|---|---|"
        for name, (own, size) in kept.items():
            yield f"| {name} | {own} | {size} |"
        yield ""
    if about is not None:
        lines = LOADING.get(exported.get("format", "")) if exported else COPY
        if lines is not None:
            yield "## Loading it, without evosearch"
            yield ""
            yield "```python"
            shape = f"a batch of {_shape(about)}"
            yield lines.format(build=about["build"], shape=shape, file=exported.get("file"))
            yield "```"
            yield ""
        images = ", ".join(f"{count:,} {name}" for name, count in about["images"].items() if count)
        yield f"- Data: {about['data']}; images: {images}."
        if card.get("best_epoch") is not None and "finetune" in card:
            epochs, each = card["finetune"]["epochs"], about["images"]["train"]
            yield (
                f"- Training after the search: distillation from the whole network for {epochs}"
                f" epochs, {epochs * each:,} images forward and backward, and as many forward"
                " through the whole network."
            )
    if "sha256" in exported:
        yield f"- `{exported['file']}`: SHA-256 `{exported['sha256']}`."
    elif not exported:
        for name, file in card.get("files", {}).items():
            yield f"- `{name}`: {file['bytes']:,} bytes, SHA-256 `{file['sha256']}`."


def _shape(about: Mapping[str, Any]) -> str:
    return " and ".join("x".join(map(str, shape)) for shape in about["input"])
