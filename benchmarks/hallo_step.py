"""CPU seconds and memory of a denoising step, of our Hallo network and of its authors' code side by side.

    python benchmarks/hallo_step.py                                   # ours alone
    python benchmarks/hallo_step.py --authors PATH --packages PATH    # and theirs, in turns

``--authors`` is a clone of github.com/fudan-generative-vision/hallo (measured: 8fd7c57), ``--packages`` a folder with
what it needs and this project does not (``pip install --target PATH --no-deps diffusers==0.27.2
huggingface_hub==0.23.4 transformers==4.40.2 tokenizers==0.19.1 accelerate==0.30.1``). Nothing of it is kept here.

Both sides: random weights of half the published width (160, 320, 640, 640), 8 + 2 frames of 256 x 256 with guidance,
float32, one thread, a process of its own each, step by step in turns. The authors' denoiser runs as their inference
script runs it: in training mode, with checkpointing switched on and without gradients. "grown" is the most memory
during the steps over that just before the first, "with what is kept" over that before the reference net ran; the
parent process reads both while the child works. CPU seconds rise by a fifth when a busy machine keeps emptying the
caches, on both sides: compare them within one run only.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.hallo_sides import HALF, authors, ours

MEBI = 1 << 20
EVERY = 0.005
"""Seconds between two looks at a child's memory."""


def child(folder: str | None) -> None:
    """Build, then do what the parent says."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)

    def timed(work: Callable[[], Any]) -> Any:
        begin, wall = time.process_time(), time.perf_counter()
        result = work()
        taken = {"seconds": time.process_time() - begin, "wall": time.perf_counter() - wall}
        print("@" + json.dumps(taken), flush=True)
        return result

    prepare, step = timed(lambda: authors(folder, HALF) if folder else ours(HALF))
    conditions: Any = None
    for told in sys.stdin:
        if told == "prepare\n":
            conditions = timed(prepare)
        else:
            timed(partial(step, conditions))


# ---- the parent -----------------------------------------------------------------------------------------------------


def resident(process: int) -> float:
    """MiB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MEBI


class Side:
    """One side in a process of its own, which does something when it is told to; MiB and CPU seconds of it."""

    def __init__(self, folder: str | None, packages: str | None):
        command = [sys.executable, __file__, "--child"] + (["--authors", folder] if folder else [])
        paths = packages if folder and packages else ""
        self.process = subprocess.Popen(
            command,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.answers = selectors.DefaultSelector()
        assert self.process.stdout is not None
        self.answers.register(self.process.stdout, selectors.EVENT_READ)
        self.answer()
        self.built = resident(self.process.pid)
        self.preparing, _, self.peak_preparing = self.tell("prepare")
        self.prepared = resident(self.process.pid)
        self.steps: list[float] = []
        self.wall: list[float] = []
        self.peak = self.prepared

    def step(self) -> None:
        seconds, wall, peak = self.tell("step")
        self.steps.append(seconds)
        self.wall.append(wall)
        self.peak = max(self.peak, peak)

    def tell(self, what: str) -> tuple[float, float, float]:
        """(CPU seconds, seconds, most memory while it was done)."""
        assert self.process.stdin is not None
        self.process.stdin.write(what + "\n")
        return self.answer()

    def answer(self) -> tuple[float, float, float]:
        assert self.process.stdout is not None
        peak = resident(self.process.pid)
        while True:
            if not self.answers.select(EVERY):
                peak = max(peak, resident(self.process.pid))
                continue
            line = self.process.stdout.readline()
            if not line:
                raise SystemExit(f"a measured process ended with {self.process.wait()}; its message stands above")
            if line.startswith("@"):  # the authors' packages talk too
                said = json.loads(line[1:])
                return said["seconds"], said["wall"], max(peak, resident(self.process.pid))

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU seconds and memory of a denoising step of Hallo's network.")
    parser.add_argument("--authors", metavar="PATH", help="a clone of the authors' code, to be measured too")
    parser.add_argument("--packages", metavar="PATH", help="a folder with the packages that it needs")
    parser.add_argument("--steps", type=int, default=4, help="steps of each side, in turns (default 4)")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.authors)
        return
    names = ["ours"] + (["authors"] if given.authors else [])
    sides = {name: Side(given.authors if name == "authors" else None, given.packages) for name in names}
    for turn in range(given.steps):
        for side in sides.values():
            side.step()
        taken = "  ".join(f"{name} {side.steps[-1]:.2f} (wall {side.wall[-1]:.2f})" for name, side in sides.items())
        print(f"step {turn + 1}  CPU s: {taken}", flush=True)
    rows = {}
    for name, side in sides.items():
        side.close()
        grown, kept = side.peak - side.prepared, max(side.peak, side.peak_preparing) - side.built
        rows[name] = (statistics.median(side.steps), min(side.steps), grown, kept)
        print(
            f"{name:8} CPU s a step: median {rows[name][0]:.2f}, least {rows[name][1]:.2f}; once a window"
            f" {side.preparing:.2f}\n         MiB: built {side.built:.0f}, before the first step {side.prepared:.0f},"
            f" grown {grown:.0f}, with what is kept {kept:.0f}"
        )
    if len(rows) == 2:
        ratios = [mine / theirs for mine, theirs in zip(rows["ours"], rows["authors"], strict=True)]
        labels = ("median", "least", "grown", "with what is kept")
        print("ours / authors: " + ", ".join(f"{label} {x:.3f}" for label, x in zip(labels, ratios, strict=True)))


if __name__ == "__main__":
    main()
