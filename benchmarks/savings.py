"""What the embedded model's speed by choice costs and gives: every option beside the steps it starts from.

    python training/evaluation_set.py SET --first 670
    python benchmarks/savings.py SET --people 15 --report savings.json

The speeds are CPU seconds for a second of video on one thread: clips of 4 s, the options in turns, the least of three
rounds, in one process. Quality is ``python -m moee_core evaluate SET --portraits mixed`` of the same people and seed
for each of them. Options that are measured already stand in the report and are not measured again.

The model's own mode is one step, in which nothing is left to save; the options are for models that take more, so they
are measured against eight steps. ``carry pictures`` decodes, clamps and encodes the frames that one window hands to
the next, as a Hallo base does and this model does not: what ``carry_latents`` leaves out.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from moee_core.pipeline import SamplingSettings
    from moee_core.systems.moee import MoEESystem

ROOT = Path(__file__).resolve().parents[1]
SECONDS, ROUNDS = 4, 3
STEPS = 8
OPTIONS: dict[str, dict[str, Any]] = {
    "1 step, the model's own": {"steps": 1},
    "1 step, carry pictures": {"steps": 1, "pictures": True},
    "8 steps": {},
    "8 steps, carry pictures": {"pictures": True},
    "8 steps, dpmpp_2m": {"solver": "dpmpp_2m"},
    "4 steps": {"steps": 4},
    "4 steps, dpmpp_2m": {"steps": 4, "solver": "dpmpp_2m"},
    "2 steps": {"steps": 2},
    "2 steps, dpmpp_2m": {"steps": 2, "solver": "dpmpp_2m"},
    "8 steps, guidance 0 to 0.5": {"guidance_until": 0.5},
    "8 steps, guidance 0.25 to 1": {"guidance_from": 0.25},
    "8 steps, no guidance": {"unguided": True},
    "8 steps, reuse 2": {"reuse": 2},
    "8 steps, reuse 4": {"reuse": 4},
    "8 steps, compiled": {"compiled": True},
}


class ThroughPictures(nn.Module):
    """A reference net to which carried frames come decoded, clamped and encoded again; a portrait comes alone."""

    def __init__(self, system: MoEESystem):
        super().__init__()
        self.net, self.autoencoder = system.reference_net, system.autoencoder

    def forward(self, latent_NZhw: Tensor) -> Any:
        if len(latent_NZhw) > 1:
            latent_NZhw = self.autoencoder.encode(self.autoencoder.decode(latent_NZhw).clamp(-1, 1))
        return self.net(latent_NZhw)


def arranged(
    system: MoEESystem,
    own: dict[str, float],
    *,
    steps: int = STEPS,
    pictures: bool = False,
    unguided: bool = False,
    compiled: bool = False,
    **savings: Any,
) -> tuple[MoEESystem, SamplingSettings]:
    """The model and the settings of an option."""
    from moee_core.diffusion.sampler import Savings
    from moee_core.pipeline import SamplingSettings

    scales = dict.fromkeys(("emotion_guidance", "audio_guidance"), 1.0) if unguided else {}
    settings = SamplingSettings(**(own | {"num_inference_steps": steps} | scales), savings=Savings(**savings))
    if pictures or compiled:
        system = copy.copy(system)
        system._modules = dict(system._modules)
    if pictures:
        system.reference_net = ThroughPictures(system)  # type: ignore[assignment]
    if compiled:
        system.denoiser = copy.deepcopy(system.denoiser)
        system.denoiser.compile()
    return system, settings


def clip(system: MoEESystem, settings: SamplingSettings) -> float:
    """CPU seconds for a second of video."""
    from moee_core.audio.read import Waveform
    from moee_core.emotion.timeline import parse_emotion
    from moee_core.pipeline import animate

    numbers = np.random.default_rng(0)
    portrait = numbers.integers(0, 256, (system.config.image_size,) * 2 + (3,), dtype=np.uint8)
    samples = (0.1 * numbers.standard_normal((1, SECONDS * 16_000))).astype(np.float32)
    began = time.process_time()
    for _ in animate(system, portrait, Waveform(samples=samples, sample_rate=16_000), parse_emotion("happy"), settings):
        pass
    return (time.process_time() - began) / SECONDS


def row(name: str, told: dict[str, Any]) -> str:
    quality, strength = told.get("model"), told.get("intensity")
    cells = f"{name:30}{told['cpu_per_second']:8.2f}"
    if quality is None or strength is None:
        return cells
    for condition in ("neutral", "contradicting"):
        cells += "".join(f"{quality[condition][key]:8.3f}" for key in ("mouth", "gain", "emotion", "flicker", "psnr"))
    return cells + f"{strength['spearman']:8.3f}{strength['strength_at_1']:8.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python benchmarks/savings.py", description="Speed by choice, measured.")
    parser.add_argument("set", type=Path, help="a folder written by training/evaluation_set.py")
    parser.add_argument("--people", type=int, default=15, help="measure the first so many people (default 15)")
    parser.add_argument("--report", type=Path, required=True, help="a JSON file; what stands in it is kept")
    parser.add_argument("--only", nargs="+", choices=list(OPTIONS), default=list(OPTIONS), metavar="NAME")
    parser.add_argument("--speed", action="store_true", help="measure the speeds (again) and nothing else")
    given = parser.parse_args()

    from moee_core.metrics.evaluate import evaluate_folder, model_maker
    from moee_core.weights.checkpoint import load_system

    torch.set_num_threads(1)
    system, info = load_system(ROOT / "moee_core" / "assets" / "embedded.safetensors")
    own: dict[str, Any] = dict(info.sampling or {})
    told: dict[str, Any] = json.loads(given.report.read_text()) if given.report.exists() else {}

    def keep() -> None:
        given.report.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")

    if given.speed or any("cpu_per_second" not in told.get(name, {}) for name in given.only):
        arms = {name: arranged(system, own, **OPTIONS[name]) for name in given.only}
        for arm in arms.values():
            clip(*arm)
        rounds = [{name: clip(*arm) for name, arm in arms.items()} for _ in range(ROUNDS)]
        for name in arms:
            told.setdefault(name, {})["cpu_per_second"] = min(one[name] for one in rounds)
        keep()
    for name in given.only:
        if not given.speed and "model" not in told[name] and not OPTIONS[name].get("compiled"):
            arm = arranged(system, own, **OPTIONS[name])
            figures = evaluate_folder(model_maker(*arm), given.set, {}, people=given.people, mixed_portraits=True)
            told[name] |= {key: figures[key] for key in ("people", "model", "intensity")}
            keep()
        print(row(name, told[name]), flush=True)


if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # instead of this folder, so that moee_core is found
    main()
