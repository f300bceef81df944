"""CPU seconds and memory of a denoising step of DICE-Talk, ours and its authors' code side by side.

    python benchmarks/dice_step.py                                               # ours alone
    python benchmarks/dice_step.py --authors FOLDER --packages FOLDER            # and theirs, in turns
    python benchmarks/dice_step.py --authors FOLDER --packages FOLDER --steps 6

``--authors`` is a clone of github.com/toto222/DICE-Talk (measured: a8a92b1), ``--packages`` a folder with what it needs
and this project does not (``pip install --target FOLDER --no-deps diffusers==0.29.0 transformers==4.43.2
tokenizers==0.19.1 huggingface_hub==0.23.4 accelerate==0.30.1``). Nothing of it is kept here.

Both sides: a network of 89.9 M parameters (widths 64, 128, 256, 256; contexts 1024 wide; 32 tokens of speech and 32 of
emotion) with the same weights, a clip of 12 frames of 256 x 256 and 12 of padding in windows of 12, three branches of
guidance, float32, one thread, a process of its own each, step by step in turns. The authors' side is their pipeline,
whose loop is stopped behind each step; a step is two windows. "above" is the most memory during the steps over that
just before the first; the parent process reads both while a child works. CPU seconds rise when a busy machine keeps
emptying the caches, on both sides: compare them within one run only.

Ends with 1 where the two clips' latents differ by more than ``AGREES`` of the largest.
"""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import gc
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.hallo_step import EVERY, resident

AGREES = 1e-3


def give_back() -> None:
    """To the system, what was used before the loop and is not needed any more: it would hide what the steps take."""
    gc.collect()
    library = ctypes.util.find_library("c")
    trim = getattr(ctypes.CDLL(library), "malloc_trim", None) if library else None
    if trim is not None:  # glibc's
        trim(0)


def child(folder: str | None, steps: int, result: str) -> None:
    """Draw the clip; before every step and behind the last, say how long the one before took and wait to be told to go
    on."""
    from benchmarks.dice_sides import MEDIUM, authors, ours

    answers = sys.stdout
    with redirect_stdout(sys.stderr):  # the authors' packages talk too
        draw = authors(folder, MEDIUM) if folder else ours(MEDIUM)
        begun, wall, first = time.process_time(), time.perf_counter(), True

        def behind_a_step() -> None:
            nonlocal begun, wall, first
            if first:
                give_back()
                first = False
            print(time.process_time() - begun, time.perf_counter() - wall, file=answers, flush=True)
            sys.stdin.readline()
            begun, wall = time.process_time(), time.perf_counter()

        np.save(result, draw(steps, behind_a_step).numpy())


# ---- the parent -----------------------------------------------------------------------------------------------------


class Side:
    """One side in a process of its own, which goes on when it is told to; CPU seconds and MiB of it."""

    def __init__(self, folder: str | None, packages: str | None, steps: int, result: Path):
        command = [sys.executable, __file__, "--child", str(result), "--steps", str(steps)]
        self.process = subprocess.Popen(
            command + (["--authors", folder] if folder else []),
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": packages if folder and packages else ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.result = result
        self.steps: list[float] = []
        self.wall: list[float] = []
        self.answer()
        self.before = self.peak = resident(self.process.pid)

    def step(self) -> None:
        self.go_on()
        seconds, wall, peak = self.answer()
        self.steps.append(seconds)
        self.wall.append(wall)
        self.peak = max(self.peak, peak)

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")

    def answer(self) -> tuple[float, float, float]:
        """(CPU seconds, seconds, most memory until it came)."""
        assert self.process.stdout is not None
        peak = resident(self.process.pid)
        while not select.select([self.process.stdout], [], [], EVERY)[0]:
            peak = max(peak, resident(self.process.pid))
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a measured process ended with {self.process.wait()}; its message stands above")
        seconds, wall = map(float, line.split())
        return seconds, wall, max(peak, resident(self.process.pid))

    def latents(self) -> np.ndarray:
        """Of the whole clip, when all steps are done."""
        self.go_on()
        if self.process.wait():
            raise SystemExit(f"a measured process ended with {self.process.returncode}; its message stands above")
        return np.load(self.result)


def main() -> int:
    parser = argparse.ArgumentParser(description="CPU seconds and memory of a denoising step of DICE-Talk.")
    parser.add_argument("--authors", metavar="FOLDER", help="a clone of the authors' code, to be measured too")
    parser.add_argument("--packages", metavar="FOLDER", help="a folder with the packages that it needs")
    parser.add_argument("--steps", type=int, default=4, help="steps of each side, in turns (default 4)")
    parser.add_argument("--child", metavar="FILE", help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.child:
        child(told.authors, told.steps, told.child)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        sides = {"ours": Side(None, None, told.steps, Path(folder, "ours.npy"))}
        if told.authors:
            sides["authors"] = Side(told.authors, told.packages, told.steps, Path(folder, "authors.npy"))
        for turn in range(told.steps):
            for side in sides.values():
                side.step()
            taken = "  ".join(f"{name} {side.steps[-1]:.2f} (wall {side.wall[-1]:.2f})" for name, side in sides.items())
            print(f"step {turn + 1}  CPU s: {taken}", flush=True)
        latents = [side.latents() for side in sides.values()]
    rows = []
    for name, side in sides.items():
        rows.append((statistics.median(side.steps), min(side.steps), side.peak - side.before))
        print(
            f"{name:8} CPU s a step: median {rows[-1][0]:.2f}, least {rows[-1][1]:.2f};"
            f" MiB: before the first step {side.before:.0f}, most {side.peak:.0f}, above {rows[-1][2]:.0f}"
        )
    if len(rows) == 1:
        return 0
    ratios = [mine / theirs for mine, theirs in zip(*rows, strict=True)]
    labels = ("median", "least", "above")
    print("ours / authors: " + ", ".join(f"{label} {x:.3f}" for label, x in zip(labels, ratios, strict=True)))
    differ = float(np.abs(latents[0] - latents[1]).max() / np.abs(latents[1]).max())
    print(f"latents behind {told.steps} steps: differ by {differ:.1e} of the largest (allowed {AGREES:.0e})")
    return 0 if differ <= AGREES else 1


if __name__ == "__main__":
    raise SystemExit(main())
