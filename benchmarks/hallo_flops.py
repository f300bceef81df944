"""Operations of a denoising step of Hallo's network, counted without computing anything.

    python benchmarks/hallo_flops.py                     # 512 x 512, 16 + 2 frames, guidance
    python benchmarks/hallo_flops.py --side 256 --half   # 256 x 256, half the widths, 8 + 2 frames

PyTorch's counter on tensors without data: a multiplication with its addition is two operations; matrix products,
convolutions and attention are counted, what runs number by number is not. Counted in the same way the authors' code
takes 53.95 T at 512 x 512. Work that is done once for a window or for a clip is printed beside the step, and what is
once for a window also as its share of one step of 40.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import hallo_sides
from moee_core.networks.config import HalloConfig
from moee_core.networks.masked_audio import SpeechRegions
from moee_core.ops import Build
from moee_core.systems.hallo import HalloPortrait, HalloSampling, HalloSystem

AUTHORS = 53.95
"""T a step of the authors' code at 512 x 512: 51.17 counted and 2.78 worked out for what cannot be counted."""
STEPS = 40
AS_PUBLISHED = HalloSampling()
FULL = HalloConfig()
HALF = hallo_sides.HALF.config()
COMPONENTS = {
    "residual blocks, resampling, first and last convolution": r"",
    "spatial attention, with the reference": r"\.spatial\..*attn1$",
    "identity": r"\.spatial\.transformer_blocks\.0$",
    "spatial feed-forward": r"\.spatial\..*\.ff$",
    "spatial projections": r"\.spatial$",
    "audio: attention within the frame": r"\.audio\.attn1$",
    "audio: attention to the speech": r"\.audio$",
    "audio: feed-forward": r"\.audio\.ff$",
    "audio: projections": r"\.audio\.proj_(in|out)$",
    "motion: attention": r"\.motion\.attentions$|\.motion$",
    "motion: feed-forward": r"\.motion\.ff$",
    "motion: projections": r"\.motion\.proj_(in|out)$",
    "emotion experts": r"\.emotion$",
}
"""Modules whose operations are counted under a name, less those of modules inside them that have a name of their own.
Layers folded into one another are counted where they are called: the identity's in its block, the speech's in
``audio``."""


def counted(work: Callable[[], Any], modules: dict[str, float] | None = None) -> tuple[float, Any]:
    """(T operations, what the work returned). ``modules`` takes the operations of every module by its name."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        result = work()
    if modules is not None:
        modules.update({name: sum(by.values()) / 1e12 for name, by in counter.get_flop_counts().items()})
    return counter.get_total_flops() / 1e12, result


def by_component(modules: dict[str, float]) -> dict[str, float]:
    """T operations of a step under each name of ``COMPONENTS``, whose sum is the whole."""
    named = {
        module: next(name for name, pattern in reversed(COMPONENTS.items()) if re.search(pattern, module))
        for module in modules
        if module == "PortraitUNet" or any(re.search(pattern, module) for pattern in COMPONENTS.values() if pattern)
    }
    found = dict.fromkeys(COMPONENTS, 0.0)
    for module, name in named.items():
        found[name] += modules[module]
        around = [other for other in named if module.startswith(f"{other}.")]
        if around:
            found[named[max(around, key=len)]] -= modules[module]
    return found


def count(
    config: HalloConfig = FULL,
    side: int = 512,
    sampling: HalloSampling = AS_PUBLISHED,
    modules: dict[str, float] | None = None,
) -> dict[str, float]:
    """T operations by part: ``step``, ``window ...`` and ``clip ...``. ``modules`` takes those of a step by module."""
    system = HalloSystem(config, Build(device="meta")).eval().requires_grad_(False)
    frames, carried, latent = config.window_frames, config.unet.motion_frames, side // system.autoencoder.config.patch

    def of(*shape: int) -> torch.Tensor:
        return torch.zeros(shape, device="meta")

    def portrait() -> HalloPortrait:
        maps = SpeechRegions.of(torch.ones(1, 3, latent, latent), levels=len(config.unet.block_widths))
        return system.portrait(of(1, 3, side, side), of(1, config.identity.width), of(1, 3, side, side), maps)

    parts: dict[str, float] = {}
    parts["clip: portrait, face, identity"], one = counted(portrait)
    parts["clip: reference net, keys, values, folded layers"], kept = counted(
        lambda: system.kept(one, frames, sampling)
    )
    one = replace(one, kept=kept)
    audio = config.audio
    tokens = of(frames, audio.tokens, audio.token_width)
    parts["window: encoding the carried pictures"], motion = counted(
        lambda: system.autoencoder.encode(of(carried, 3, side, side))
    )
    parts["window: speech to tokens"], _ = counted(
        lambda: system.audio_projector(of(frames, 2 * audio.margin + 1, audio.layers, audio.width))
    )
    parts["window: reference net, keys, values"], branches = counted(
        lambda: system.branches(one, motion, tokens, sampling)
    )

    def step() -> None:
        for branch, added in zip(branches, (one.located_1Dhw, None), strict=False):  # one branch without guidance
            system.denoiser(
                of(frames, config.unet.latent_channels, latent, latent),
                torch.zeros(1, device="meta"),
                frames=frames,
                reference=branch,
                added_NCHW=added,
            )

    parts["step"], _ = counted(step, modules)
    parts["window: decoding"], _ = counted(
        lambda: system.autoencoder.decode(of(frames, config.unet.latent_channels, latent, latent))
    )
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description="Count the operations of a denoising step of Hallo's network.")
    parser.add_argument("--side", type=int, default=512, help="pixels a side (default 512)")
    parser.add_argument("--half", action="store_true", help="half the widths and 8 + 2 frames")
    parser.add_argument("--exact", action="store_true", help="with hallo_exact")
    given = parser.parse_args()
    modules: dict[str, float] = {}
    parts = count(HALF if given.half else FULL, given.side, HalloSampling(hallo_exact=given.exact), modules)
    for name, tera in parts.items():
        share = f"   {tera / STEPS:8.3f} T of every one of {STEPS} steps" if name.startswith("window") else ""
        print(f"{tera:9.3f} T   {name}{share}")
    window = sum(tera for name, tera in parts.items() if name.startswith("window"))
    print(f"{parts['step'] + window / STEPS:9.3f} T   step with its share of the window's work")
    for name, tera in by_component(modules).items():
        print(f"{tera:9.3f} T   {100 * tera / parts['step']:5.1f} % of a step: {name}")
    if given.side == 512 and not given.half:
        print(f"{AUTHORS:9.3f} T   the authors' step, without theirs; ours is {parts['step'] / AUTHORS:.3f} of it")


if __name__ == "__main__":
    main()
