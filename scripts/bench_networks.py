"""Traces and proves timm's networks by name, and cuts each to half of its FLOPs.

Each network is built without weights and handled in a process of its own: its groups are found and
proven, one mask at half of its FLOPs is drawn at random over equal widths, and the compact network
is compared with the masked one in float64, under random parameters, and counted. One JSON line a
network, as it is done; a network that has a line is not measured again.

    .venv/bin/python scripts/bench_networks.py measure [NAME ...] --results FILE
    .venv/bin/python scripts/bench_networks.py page --results FILE
"""

import argparse
import json
import multiprocessing
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from evosearch.errors import InfeasibleBudget
from evosearch.models.copying import copied
from evosearch.space.budget import Budget
from evosearch.surgery.compaction import compact, masked
from evosearch.surgery.counting import count_macs
from evosearch.surgery.discovery import Discovery, GroupRules, discover
from evosearch.surgery.randomizing import randomize

SIDES = {
    "resnet18": 64,
    "resnet26d": 64,
    "resnetv2_50": 64,
    "resnext50_32x4d": 64,
    "seresnet50": 64,
    "ecaresnet26t": 64,
    "skresnet18": 64,
    "res2net50_26w_4s": 64,
    "resnest14d": 64,
    "resnetblur18": 64,
    "gcresnext26ts": 64,
    "regnetx_002": 64,
    "regnety_002": 64,
    "regnetz_b16": 64,
    "gernet_s": 64,
    "densenet121": 64,
    "dla34": 64,
    "dpn48b": 64,
    "vgg11_bn": 64,
    "inception_v3": 96,
    "inception_v4": 96,
    "legacy_xception": 96,
    "mobilenetv2_050": 64,
    "mobilenetv3_small_050": 64,
    "mobilenetv4_conv_small": 64,
    "mobileone_s0": 64,
    "efficientnet_b0": 64,
    "efficientnetv2_rw_t": 64,
    "tf_efficientnet_lite0": 64,
    "mixnet_s": 64,
    "mnasnet_small": 64,
    "fbnetc_100": 64,
    "hardcorenas_a": 64,
    "tinynet_e": 64,
    "lcnet_035": 64,
    "rexnet_100": 64,
    "ghostnet_050": 64,
    "hrnet_w18_small": 64,
    "repvgg_a0": 64,
    "repvit_m0_9": 64,
    "convnext_atto": 64,
    "convnextv2_atto": 64,
    "cspresnet50": 64,
    "cspdarknet53": 64,
    "darknet53": 64,
    "nf_resnet26": 64,
    "selecsls42": 64,
    "ese_vovnet19b_dw": 64,
    "hgnetv2_b0": 64,
    "starnet_s1": 64,
    "edgenext_xx_small": 64,
    "fastvit_t8": 64,
    "poolformer_s12": 64,
}
"""Name -> sides of the images."""
LIMIT = 600
"""Seconds after which a network is given up."""


def outputs(model: nn.Module, example: tuple[Any, ...]) -> Tensor:
    """Returns all that a model gives, in one row."""
    with torch.no_grad():
        return torch.cat([leaf.flatten() for leaf in pytree.tree_leaves(model(*example))])


def half(model: nn.Module, example: tuple[Any, ...], found: Discovery) -> dict[str, Any]:
    """Cuts a model to half of its FLOPs; returns how far that is from the masked model."""
    space, rng = found.space, np.random.default_rng(0)
    budget = Budget.exactly(macs=space.base_cost.macs // 2)
    scores = {group.name: rng.random(group.size) for group in space.groups}
    try:
        mask = space.top_channels(space.fit_widths(space.full_widths, budget), scores)
    except InfeasibleBudget as error:
        return {"failed": f"no candidate at half the FLOPs: {error}"}
    own = copied(model).double().eval()
    doubles = tuple(tensor.double() for tensor in example)
    randomize(own, doubles, torch.Generator().manual_seed(1))
    small = compact(own, space.groups, mask)
    with masked(own, space.groups, found.layers, mask) as reference:
        expected = outputs(reference, doubles)
    error = (outputs(small, doubles) - expected).abs().max() / expected.abs().max()
    cost = space.cost(mask)
    return {
        "macs": cost.macs / space.base_cost.macs,
        "error": float(error),
        "counted": count_macs(small, doubles) == cost.macs,
    }


def row(name: str) -> dict[str, Any]:
    """Returns what is found in one network."""
    side = SIDES[name]
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name, pretrained=False)
    example = (torch.randn(2, 3, side, side),)
    began = time.process_time()
    found = discover(model, example, GroupRules(), seed=0)
    seconds = time.process_time() - began
    own, doubles = copied(model).double().eval(), (example[0].double(),)
    outputs(own, doubles)
    began = time.process_time()
    outputs(own, doubles)
    forward = time.process_time() - began
    frozen: Counter[str] = Counter()
    for part in found.space.frozen:
        frozen[part.reason] += part.size
    return {
        "name": name,
        "side": side,
        "groups": len(found.space.groups),
        "share": found.space.prunable_share,
        "frozen": dict(frozen),
        "seconds": seconds,
        "forward": forward,
        **half(model, example, found),
    }


def write(name: str, results: Path) -> None:
    """Appends one network's line."""
    torch.set_num_threads(1)
    try:
        line = row(name)
    except Exception as error:  # whatever comes of a network is its line
        line = {"name": name, "failed": f"{type(error).__name__}: {error}"}
    append(line, results)


def append(line: dict[str, Any], results: Path) -> None:
    """Appends a line."""
    with results.open("a") as file:
        file.write(json.dumps(line) + "\n")


def rows(results: Path) -> dict[str, dict[str, Any]]:
    """Returns the lines written so far, by name."""
    if not results.exists():
        return {}
    return {line["name"]: line for line in map(json.loads, results.read_text().splitlines())}


def measure(names: list[str], results: Path) -> None:
    """Measures the networks that have no line yet."""
    fork = multiprocessing.get_context("fork")
    for name in names or SIDES:
        if name in rows(results):
            continue
        process = fork.Process(target=write, args=(name, results))
        process.start()
        process.join(LIMIT)
        if process.is_alive():
            process.kill()
            process.join()
        if name not in rows(results):
            with results.open("a") as file:
                file.write(
                    json.dumps({"name": name, "failed": f"ended, or {LIMIT} s over"}) + "\n"
                )
        print(rows(results)[name], flush=True)


def page(results: Path) -> str:
    """Returns the lines as a Markdown table."""
    lines = [
        "| network | side | groups | share | proof, in forward passes | CPU seconds |"
        " candidate: MACs, difference | frozen, with channels |",
        "|---|--:|--:|--:|--:|--:|---|---|",
    ]
    for line in rows(results).values():
        if "groups" not in line:
            lines.append(f"| {line['name']} | | | | | | | {line['failed']} |")
            continue
        frozen = "; ".join(
            f"{reason} ({count})"
            for reason, count in line["frozen"].items()
            if reason != "network output"
        )
        candidate = line.get("failed") or (
            f"{line['macs']:.2f}, {line['error']:.0e}{'' if line['counted'] else ', MACs differ'}"
        )
        lines.append(
            f"| {line['name']} | {line['side']} | {line['groups']} | {line['share']:.3f}"
            f" | {line['seconds'] / line['forward']:.0f} | {line['seconds']:.1f}"
            f" | {candidate} | {frozen} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("measure", "page"))
    parser.add_argument("names", nargs="*", metavar="NAME", help="of SIDES; all by default")
    parser.add_argument("--results", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.what == "measure":
        measure(arguments.names, arguments.results)
    else:
        print(page(arguments.results))


if __name__ == "__main__":
    main()
