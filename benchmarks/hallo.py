"""What Hallo's network costs on a device: time, share of the device's rate, memory; beside its authors' code if given.

    python benchmarks/hallo.py                                        # this CPU, small sizes, under a minute
    python benchmarks/hallo.py --device cuda --dtype float16          # a graphics card, full size, 512 x 512
    python benchmarks/hallo.py --device cuda --dtype float16 --authors PATH --packages PATH

Weights are random: the work is the same. ``hallo_step.py`` says where the authors' code and its packages are from, and
is the finer measure of a step on a CPU.

A step is one of denoising with guidance, all its branches; "once a window" is all else but decoding. Seconds are of
the clock on the wall, with the device waited for, the median of ``--steps`` after two that warm up; the two sides take
turns. A rate is the operations that ``hallo_flops.py`` counts over the seconds; its share is of a square matrix product
in the same type, measured in the same run. Memory on a graphics card is what PyTorch held at most, of the networks and
of what they compute: "plain" with all networks there, "offloaded" with each brought when it is needed and taken away
after. On a CPU it is not measured here: ``hallo_step.py`` does.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.hallo_flops import count
from benchmarks.hallo_sides import AUDIO_WIDTH, HALF_WIDTHS, Size, authors, ours
from moee_core.networks.masked_audio import SpeechRegions
from moee_core.ops import Build
from moee_core.systems.hallo import HalloPortrait, HalloSystem

STEPS_OF_A_WINDOW, FPS, WARM = 40, 25, 2
PRODUCT = {"cpu": 2048, "cuda": 8192}
"""Rows and columns of the matrices by whose product a device's rate is measured."""


class Device:
    """Seconds and memory of work on a device."""

    def __init__(self, size: Size):
        self.size, self.cuda = size, size.device != "cpu"

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], Any]) -> float:
        self.wait()
        began = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - began

    def median(self, work: Callable[[], Any], times: int) -> float:
        for _ in range(WARM):
            work()
        return statistics.median(self.seconds(work) for _ in range(times))

    def rate(self) -> float:
        """T operations a second of a square matrix product."""
        rows = PRODUCT["cuda" if self.cuda else "cpu"]
        one = torch.randn(rows, rows, device=self.size.device).to(getattr(torch, self.size.dtype))
        return 2 * rows**3 / self.median(lambda: one @ one, 10) / 1e12

    def empty(self) -> None:
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def held(self) -> float | None:
        """GB at most since ``empty``."""
        return torch.cuda.max_memory_allocated() / 1e9 if self.cuda else None


class Window:
    """One window from picture and speech to pictures, part by part. ``offload``: every network waits in main memory."""

    def __init__(self, size: Size, offload: bool = False):
        self.size, self.offload = size, offload
        kind = {"dtype": getattr(torch, size.dtype), "device": "cpu" if offload else size.device}
        self.system = HalloSystem(size.config(), Build(**kind)).eval().requires_grad_(False)

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, device=self.size.device).to(getattr(torch, self.size.dtype))

    def on(self, work: Callable[[], Any], *networks: nn.Module) -> Any:
        """``work`` with these networks on the device."""
        if self.offload:
            for network in networks:
                network.to(self.size.device)
        result = work()
        if self.offload:
            for network in networks:
                network.to("cpu")
        return result

    @torch.no_grad()
    def run(self, device: Device, steps: int) -> dict[str, float]:
        """Seconds by part, decoding as the library does it: a few frames at a time."""
        size, system = self.size, self.system
        side, latent = size.side, size.latent
        maps = SpeechRegions.of(torch.rand(1, 3, latent, latent, device=size.device), levels=4)
        around = (system.identity_projector, system.face_locator, system.audio_projector)
        made: dict[str, Any] = {}

        def portrait() -> None:
            given = (self.normal(1, 3, side, side), self.normal(1, 512), torch.ones(1, 3, side, side), maps)
            made["portrait"] = system.portrait(*given)

        def encode() -> None:
            made["motion"] = system.autoencoder.encode(self.normal(size.carried, 3, side, side))

        def once() -> None:
            one: HalloPortrait = made["portrait"]
            audio = system.audio_projector(self.normal(size.frames, 5, 12, AUDIO_WIDTH))
            made["branches"] = system.branches(one, made["motion"], audio)

        def step() -> None:
            one: HalloPortrait = made["portrait"]
            for branch, added in zip(made["branches"], (one.located_1Dhw, None), strict=True):
                system.denoiser(
                    self.normal(size.frames, 4, latent, latent),
                    torch.tensor([749], device=size.device),
                    frames=size.frames,
                    reference=branch,
                    added_NCHW=added,
                )

        def decode() -> None:
            for some in self.normal(size.frames, 4, latent, latent).split(4):
                system.autoencoder.decode(some)

        networks = (system.reference_net, system.denoiser, *around)
        self.on(portrait, system.autoencoder, *around)
        told = {"encoding the carried frames": self.on(lambda: device.seconds(encode), system.autoencoder)}
        told["once a window"] = self.on(lambda: device.seconds(once), *networks)
        told["step"] = self.on(lambda: device.median(step, steps), system.denoiser)
        told["decoding"] = self.on(lambda: device.seconds(decode), system.autoencoder)
        return told


def side_by_side(device: Device, size: Size, steps: int, folder: str | None) -> dict[str, list[float]]:
    """Seconds of each step of both, in turns."""
    sides = {"ours": ours(size)} | ({"authors": authors(folder, size)} if folder else {})
    conditions = {name: prepare() for name, (prepare, _) in sides.items()}
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(WARM + steps):
        for name, (_, step) in sides.items():
            seconds = device.seconds(lambda step=step, name=name: step(conditions[name]))
            if turn >= WARM:
                taken[name].append(seconds)
    return taken


def measured(size: Size, steps: int, folder: str | None, whole: bool) -> dict[str, Any]:
    device = Device(size)
    tera = count(size.config(), size.side)
    told: dict[str, Any] = {"rate of a matrix product, T/s": device.rate()}
    device.empty()
    parts = Window(size).run(device, steps)
    told |= {f"seconds, {name}": seconds for name, seconds in parts.items()}
    window = STEPS_OF_A_WINDOW * parts["step"] + sum(value for name, value in parts.items() if name != "step")
    told[f"seconds, window of {STEPS_OF_A_WINDOW} steps"] = window
    told["seconds, for a second of video"] = window * FPS / size.frames
    told["T operations, step"] = tera["step"]
    told["rate of a step, T/s"] = tera["step"] / parts["step"]
    told["share of the rate"] = told["rate of a step, T/s"] / told["rate of a matrix product, T/s"]
    if device.cuda:
        told["GB, plain"] = device.held()
        if whole:
            device.empty()
            Window(size, offload=True).run(device, 1)
            told["GB, offloaded"] = device.held()
        device.empty()
    if folder:
        taken = side_by_side(device, size, steps, folder)
        for name, seconds in taken.items():
            told[f"seconds, step, {name} in turns"] = statistics.median(seconds)
        told["ours / authors"] = statistics.median(taken["ours"]) / statistics.median(taken["authors"])
    return told


def main() -> None:
    parser = argparse.ArgumentParser(prog="python benchmarks/hallo.py", description="What Hallo's network costs.")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--dtype", nargs="+", default=["float32"], choices=("float32", "float16", "bfloat16"))
    parser.add_argument("--side", type=int, help="pixels a side (default 128 on a CPU, 512 on a graphics card)")
    parser.add_argument("--steps", type=int, default=3, help="steps measured (default 3)")
    parser.add_argument("--authors", metavar="PATH", help="a clone of the authors' code, to be measured too")
    parser.add_argument("--packages", metavar="PATH", help="a folder with the packages that it needs")
    parser.add_argument("--json", type=Path, help="also write the figures as JSON")
    given = parser.parse_args()
    if given.packages:
        sys.path.insert(0, given.packages)
    cpu = given.device == "cpu"
    report = {}
    print(f"{torch.cuda.get_device_name(given.device) if not cpu else f'CPU, {torch.get_num_threads()} threads'}")
    for dtype in given.dtype:
        common = {"device": given.device, "dtype": dtype}
        small = Size(side=given.side or 128, frames=4, widths=HALF_WIDTHS, **common)
        size = small if cpu else Size(side=given.side or 512, **common)
        print(f"\n{dtype}, widths {size.widths}, {size.side} x {size.side}, {size.frames} + {size.carried} frames")
        report[dtype] = measured(size, given.steps, given.authors, whole=not cpu)
        for name, value in report[dtype].items():
            print(f"{name:40}{value:12.4g}", flush=True)
    if given.json:
        given.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
