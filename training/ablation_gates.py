"""What experts and gates are worth: ``python -m training.ablation_gates CONFIG SET OUT [--seeds 3] [--people 8]``.

CONFIG is a training configuration whose ``start_from`` is a finished model: its six experts become one by their mean,
and every arm grows its own experts and gates from there, everything else frozen, with equal steps, data and number of
trained parameters (but for the gates that an arm lacks). SET is an evaluation set (``training/evaluation_set.py``).

Figures of a run, gates open as in use:
    single, several   loss of held-out clips of one emotion, and of two (MoEE Eq. 6 and 7 as in training)
    label             share of clips in which the emotion asked for is read
    both              share of trained compounds whose two parts show at half or more of a true render
    weaker            part of the true render that a compound's weaker sign shows, mean
    g, s              mean global gate of the expert asked for, and its local gate, by emotion
A finished run is not repeated. The table compares each arm with the first, seed by seed: mean difference and 95 %
interval (Student's t).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moee_core.audio.read import Waveform
from moee_core.emotion.condition import parse_blend
from moee_core.emotion.source import as_source
from moee_core.emotion.vocabulary import EXPERTS
from moee_core.errors import MoEEError
from moee_core.experts.view import GateRecorder
from moee_core.metrics.evaluate import load_people, model_maker
from moee_core.metrics.sources import measure_sources
from moee_core.ops import Build, plain_attention, torch_attention
from moee_core.pipeline import SamplingSettings
from moee_core.systems.moee import MoEESystem
from moee_core.weights.checkpoint import load_system
from training.config import TrainConfig, load_config
from training.data.clips import ClipCache, prepare_clips
from training.data.latents import LatentClips, prepare_latents
from training.loop import run_stage
from training.run import set_up_logging, settle_precision
from training.stages import moee
from training.stages.diffusion import DiffusionTask, ReferenceChoice

log = logging.getLogger(__name__)

ARMS: dict[str, dict[str, Any]] = {
    "six_output": {"local_gate": "output"},
    "six_query": {"local_gate": "query"},
    "six_no_local": {"local_gate": "off"},
    "six_no_global": {"global_gate": "off"},
    "one_equal": {"experts": 1, "expert_multiple": 6},
}
FIGURES = ("single", "several", "label", "both", "weaker")
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Student's t of the 95 % interval, by number of seeds."""
CHECKED = 3
"""Windows that are measured of every held-out clip."""


def run_arm(
    config: TrainConfig, arm: str, seed: int, shared: MoEESystem, clips: LatentClips, cache: ClipCache, folder: Path
) -> MoEESystem:
    """Experts and gates of one arm, trained."""
    unet = dataclasses.replace(config.system.unet, **ARMS[arm])
    system = MoEESystem(dataclasses.replace(shared.config, unet=unet), _build(config))
    torch.manual_seed(seed)
    moee.grow_experts(shared, system, config.stages.experts.init, config.stages.gates.local_bias)
    seeded = dataclasses.replace(config, seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    for make in (moee.experts_stage, moee.gates_stage):
        stage = make(seeded, system, clips, cache.regions())
        run_stage(dataclasses.replace(stage, validate=None), folder)
        (folder / "state.pt").unlink(missing_ok=True)
    return system.eval().requires_grad_(False)


@torch.no_grad()
def held_out(config: TrainConfig, system: MoEESystem, clips: LatentClips, cache: ClipCache) -> dict[str, float]:
    """Losses on the clips no stage has seen, from a neutral portrait."""
    settings = config.stages.gates
    task = DiffusionTask(config, system, clips, cache.regions())
    weight = task.position_weight(settings)
    only, count = moee.clip_kinds(clips)
    losses: dict[str, list[float]] = {"single": [], "several": []}
    for number in range(len(clips) - task.held_out, len(clips)):
        kind = "single" if only[number] >= 0 else "several" if count[number] >= 2 else ""
        if not kind:
            continue
        for window in range(CHECKED):
            batch = task.batch(window, settings, [number], [ReferenceChoice(kind=0, masked=False)])
            losses[kind].append(float(task.loss(batch, settings, weight, gated=True)[0]))
    return {kind: float(np.mean(values)) for kind, values in losses.items()}


def measured(system: MoEESystem, people: Path, count: int) -> dict[str, float]:
    make: Any = model_maker(system, SamplingSettings(num_inference_steps=1))
    report = measure_sources(make, people, people=count, parts=("sources", "compounds"))
    trained = [row for row in report["compounds"].values() if row["trained"]]
    return {
        "label": report["sources"]["label"]["right"],
        "both": float(np.mean([row["both_at_half"] for row in trained])),
        "weaker": float(np.mean([row["weaker_part"] for row in trained])),
    }


def gate_figures(system: MoEESystem, people: Path) -> dict[str, dict[str, float]]:
    """Emotion -> mean g and s of its expert on the first person of the set."""
    person = load_people(people, 1)[0]
    make: Any = model_maker(system, SamplingSettings(num_inference_steps=1))
    waveform = Waveform(samples=person["neutral_samples"][None, :16000].astype(np.float32), sample_rate=16000)
    out = {}
    for index, name in enumerate(EXPERTS):
        column = index if system.config.unet.experts > 1 else 0
        with GateRecorder(system.denoiser) as recorder:
            make(person, waveform, as_source(parse_blend(name)))
        view = recorder.view()
        where = view.where[column]
        out[name] = {
            "g": round(float(view.called[column]), 4),
            "s_least": round(float(where.min()), 4),
            "s_most": round(float(where.max()), 4),
            "s_mean": round(float(where.mean()), 4),
        }
    return out


def table(rows: list[dict[str, Any]]) -> str:
    """Means by arm, and differences from the first arm with their intervals."""
    arms = [arm for arm in ARMS if any(row["arm"] == arm for row in rows)]
    lines = [f"{'arm':16}" + "".join(f"{name:>24}" for name in FIGURES)]
    first = {row["seed"]: row for row in rows if row["arm"] == arms[0]}
    for arm in arms:
        mine = {row["seed"]: row for row in rows if row["arm"] == arm}
        seeds = sorted(set(mine) & set(first))
        cells = ""
        for name in FIGURES:
            mean = float(np.mean([mine[seed][name] for seed in sorted(mine)]))
            cell = f"{mean:.3f}"
            if arm != arms[0] and len(seeds) in T_95:
                gaps = np.array([mine[seed][name] - first[seed][name] for seed in seeds])
                half = T_95[len(seeds)] * float(gaps.std(ddof=1)) / math.sqrt(len(seeds))
                cell += f" ({gaps.mean():+.3f} ± {half:.3f})"
            cells += f"{cell:>24}"
        lines.append(f"{arm:16}{cells}")
    return "\n".join(lines) + "\n"


def _build(config: TrainConfig) -> Build:
    return Build(attention=plain_attention if config.device == "cpu" else torch_attention)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compare readings of experts and gates, seed by seed.")
    parser.add_argument("config", help="a training configuration with start_from")
    parser.add_argument("set", type=Path, help="a folder written by training/evaluation_set.py")
    parser.add_argument("out", type=Path, help="where runs and figures go")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    options = parser.parse_args(arguments)
    set_up_logging()
    try:
        rows = compare(load_config(options.config), options)
    except MoEEError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(table(rows))
    return 0


def compare(config: TrainConfig, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row of figures per arm and seed, each also kept as ``OUT/ARM-SEED.json``."""
    options.out.mkdir(parents=True, exist_ok=True)
    config = settle_precision(config, options.out)
    previous, _ = load_system(Path(config.start_from), _build(config))
    unet = dataclasses.replace(previous.config.unet, experts=1)
    shared = MoEESystem(dataclasses.replace(previous.config, unet=unet), _build(config))
    moee.initialise(shared, None, config.seed)
    moee.start_from(previous, shared)
    cache = prepare_clips(config.data, config.seed, Path(config.cache))
    clips = prepare_latents(cache, shared.autoencoder, shared.speech_encoder)
    rows = []
    for seed in range(options.seeds):  # all arms of a seed before the next: a run that is cut short stays balanced
        for arm in options.arms:
            path = options.out / f"{arm}-{seed}.json"
            if not path.exists():
                system = run_arm(config, arm, seed, shared, clips, cache, options.out / f"{arm}-{seed}")
                row: dict[str, Any] = {"arm": arm, "seed": seed, **held_out(config, system, clips, cache)}
                row |= measured(system, options.set, options.people)
                row["gates"] = gate_figures(system, options.set)
                row["parameters"] = sum(
                    p.numel() for name, p in system.denoiser.named_parameters() if ".emotion.experts." in name
                )
                path.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
                log.info("%s, seed %d: %s", arm, seed, {name: round(row[name], 4) for name in FIGURES})
            rows.append(json.loads(path.read_text(encoding="utf-8")))
    return rows


if __name__ == "__main__":
    raise SystemExit(main())
