"""An EmoTalker training run, from the voices to the file: data, stages in order, one safetensors file per stage.

The folder, the command and the way to continue are those of ``run.py``; a stage that finished is not run again.
"""

from __future__ import annotations

import functools
import json
import logging
import math
import random
from pathlib import Path

import numpy as np
import torch
from torch import nn

from moee_core.ops import Build, plain_attention, torch_attention
from moee_core.systems.emo_talker import EmoTalkerSystem
from moee_core.weights.emo_talker import load_emo_talker, save_emo_talker
from training import parallel
from training.config import ConfigError
from training.data.motion_clips import prepare_takes
from training.emotalker_config import STAGES, EmoTalkerTrain
from training.loop import run_stage
from training.run import claim, set_up_logging, tensorboard
from training.stages import emotalker as stages

log = logging.getLogger(__name__)

MAKERS = {
    "ear": stages.ear_stage,
    "vqvae": stages.vqvae_stage,
    "transformer": stages.transformer_stage,
    "lip": stages.lip_stage,
}


def run(config: EmoTalkerTrain, stop_after: str | None = None) -> Path:
    """Train; return the path of the last file written: ``model.safetensors``, or that of ``stop_after``."""
    if stop_after is not None and stop_after not in STAGES:
        raise ConfigError(f"{config.name} has no stage {stop_after}; its stages are: {', '.join(STAGES)}")
    folder = Path(config.runs) / config.name
    claim(folder, config)
    for split in ("train", "tune"):  # before any process is started that would make them too
        prepare_takes(config.data, config.seed, Path(config.cache), split)
    parallel.launch(config.processes, functools.partial(_work, config, folder, stop_after))
    return folder / (f"{stop_after}.safetensors" if stop_after else "model.safetensors")


def _work(config: EmoTalkerTrain, folder: Path, stop_after: str | None) -> None:
    """What every process does."""
    if parallel.size() > 1:
        set_up_logging(quiet=parallel.rank() > 0)
    elif config.threads:
        torch.set_num_threads(config.threads)
    random.seed(config.seed)
    np.random.seed(config.seed)  # libraries only; everything of ours draws from explicit generators
    torch.manual_seed(config.seed)
    train, tune = (prepare_takes(config.data, config.seed, Path(config.cache), split) for split in ("train", "tune"))
    clips = stages.Clips(train, tune)
    writer = tensorboard(folder) if parallel.rank() == 0 else None
    for number, name in enumerate(STAGES):
        path = folder / f"{name}.safetensors"
        parallel.barrier()
        if path.exists():
            log.info("stage %s: finished before", name)
        else:
            system = (
                start(config, clips) if number == 0 else _load(config, folder / f"{STAGES[number - 1]}.safetensors")
            )
            if name == "transformer":
                stages.unit_codes(system)
            system.to(config.device)
            if getattr(config.stages, name).iterations:
                figures = run_stage(MAKERS[name](config, system, clips), folder, writer)
                log.info("stage %s: %s", name, "  ".join(f"{k} {v:.4f}" for k, v in figures.items()))
            if parallel.rank() == 0:
                save_emo_talker(path, system.cpu(), dtype=torch.float32, metadata={"stage": name})
                (folder / "state.pt").unlink(missing_ok=True)
            parallel.barrier()
        if name == stop_after:
            return
    if parallel.rank() == 0:
        system, _ = load_emo_talker(folder / f"{STAGES[-1]}.safetensors")
        save_emo_talker(folder / "model.safetensors", system, metadata=_metadata(config))
        log.info("done: %s", folder / "model.safetensors")


def start(config: EmoTalkerTrain, clips: stages.Clips) -> EmoTalkerSystem:
    """The networks before any training: PyTorch's defaults from the seed, the training motion's mean and scale."""
    system = EmoTalkerSystem(config.system.build(), _build(config))
    generator = torch.Generator().manual_seed(config.seed)
    with torch.no_grad():
        for module in system.modules():
            if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)):
                bound = 1 / math.sqrt(module.weight[0].numel())
                module.weight.uniform_(-bound, bound, generator=generator)
                if module.bias is not None:
                    module.bias.uniform_(-bound, bound, generator=generator)
        system.vqvae.dictionary.codes.weight.normal_(generator=generator)
        stages.normalise(system, clips.train, config.stages.vqvae.least_scale)
    return system


def _build(config: EmoTalkerTrain) -> Build:
    return Build(attention=plain_attention if config.device == "cpu" else torch_attention)


def _load(config: EmoTalkerTrain, path: Path) -> EmoTalkerSystem:
    return load_emo_talker(path, _build(config))[0]


def _metadata(config: EmoTalkerTrain) -> dict[str, str]:
    voices = "flite (CMU licence)" + (" and espeak-ng" if config.data.wide_speech else "")
    steps = {name: getattr(config.stages, name).iterations for name in STAGES}
    return {
        "trained": json.dumps({"name": config.name, "seed": config.seed, "iterations": steps}),
        "data_licence": f"procedural motion; speech synthesised with {voices}",
    }
