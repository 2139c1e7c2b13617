"""The bench for GPUs: it works where it is tried, and says so where there is none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).parent.parent / "scripts" / "bench_gpu.py"


def bench(work: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, "--work", work, *arguments],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_without_a_gpu_it_says_so_in_a_line(tmp_path: Path) -> None:
    pytest.importorskip("torch_pruning")
    done = bench(tmp_path)
    assert done.returncode == 2
    assert done.stdout.splitlines() == [
        "bench_gpu: torch sees no CUDA device here; --device cpu --tiny tries the bench"
    ]


@pytest.mark.slow
def test_every_line_is_measured_once(tmp_path: Path) -> None:
    pytest.importorskip("torch_pruning")
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        folder = tmp_path / "images" / "train" / name
        folder.mkdir(parents=True)
        for number in range(3):
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    work = tmp_path / "work"
    tiny = ["--device", "cpu", "--tiny", "--trials", "3", "--images", str(tmp_path / "images")]
    first = bench(work, *tiny)
    assert first.returncode == 0, first.stderr
    more = [*tiny, "--resnet56", str(work / "textures.toml"), "--seeds", "1"]
    second = bench(work, *more)
    assert second.returncode == 0, second.stderr
    rows = [json.loads(line) for line in (work / "rows.jsonl").read_text().splitlines()]
    keys = [(row["line"], row["number"]) for row in rows]
    assert len(set(keys)) == len(keys)  # what was measured is not measured again
    kinds = {line.partition(",")[0] for line, _ in keys}
    assert kinds == {"candidates", "training", "search", "resnet56"}
    (last,) = [row for row in rows if row["line"] == "resnet56"]
    assert last["test"].keys() == {"ours", "torch-pruning"}
    assert 0.25 <= last["macs"] <= 0.5
