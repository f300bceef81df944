"""A DICE-Talk training run, from takes and clips to the file: embedder, then UNet, bank and objective.

The folder, the command and the way to continue are those of ``run.py``; a stage that finished is not run again. The
autoencoder, the speech encoder and the ear are those of ``system.around``, and no part of the file.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import math
import random
from pathlib import Path

import numpy as np
import torch
from torch import nn

from moee_core.motion.coefficients import UNITS
from moee_core.ops import Build, plain_attention, torch_attention
from moee_core.systems.dice_talk import DiceConfig, DiceTalkSystem
from moee_core.systems.moee import MoEESystem
from moee_core.weights.checkpoint import load_system
from moee_core.weights.dice_file import EMBEDDED_AROUND, inspect_dice_file, load_dice_file, save_dice_file
from training import parallel
from training.config import ConfigError
from training.data import prior_files
from training.data.clips import prepare_clips
from training.data.dice_clips import prepare_dice_clips
from training.data.latents import prepare_latents
from training.data.motion_clips import prepare_takes
from training.data.prior_clips import Scene, scenes_of
from training.data.prior_files import load_scenes
from training.dice_config import STAGES, DiceTrain
from training.loop import Stage, run_stage
from training.run import claim, claim_files, set_up_logging, settle_precision, tensorboard
from training.stages.dice_denoiser import denoiser_stage
from training.stages.dice_embedder import embedder_stage, name_priors

log = logging.getLogger(__name__)

LEAST_CHANGE = 1e-3
UNTRAINED_SCALE = 0.5
"""The unit of changes of a model whose UNet has not seen any."""
ONE_STEP = {"num_inference_steps": 1, "reference_guidance": 1.0, "audio_guidance": 1.0, "emotion_guidance": 1.0}
"""How what is trained mostly at the largest noise is best sampled."""
EMOTION = ("bank.", ".adapters.1.")
"""Names of all that carries emotion behind the embedder."""


def run(config: DiceTrain, stop_after: str | None = None) -> Path:
    """Train; return the path of the last file written: ``model.safetensors``, or that of ``stop_after``."""
    if stop_after is not None and stop_after not in STAGES:
        raise ConfigError(f"{config.name} has no stage {stop_after}; its stages are: {', '.join(STAGES)}")
    folder = Path(config.runs) / config.name
    config = settle_precision(config, folder)
    claim(folder, config)
    given = {"start_from": Path(config.start_from), "files": Path(config.files) / prior_files.NAME}
    claim_files(folder, {name: path for name, path in given.items() if getattr(config, name)})
    _prepare(config, draws=bool(config.stages.denoiser.iterations) and stop_after != "embedder")
    parallel.launch(config.processes, functools.partial(_work, config, folder, stop_after))
    return folder / (f"{stop_after}.safetensors" if stop_after else "model.safetensors")


def _prepare(config: DiceTrain, draws: bool) -> None:
    """What takes long and is kept, and what a user may have got wrong, before any process is started: each would make
    it too, and say so less well."""
    cache, around = Path(config.cache), load_around(config)
    assert around.ear is not None  # load_around asked for it
    if config.files:
        load_scenes(config.files, around.ear, config.system.embedder.coefficients)
    if config.system.embedder.coefficients != len(UNITS):
        if draws:
            raise ConfigError(
                f"the denoiser's clips are read as {len(UNITS)} action units, system.embedder.coefficients is "
                f"{config.system.embedder.coefficients}; set stages.denoiser.iterations to 0"
            )
    elif config.stages.embedder.iterations or draws:
        for split in ("train", "tune"):
            prepare_takes(config.takes, config.data_seed, cache, split)
    if draws:
        clips = prepare_clips(config.data, config.data_seed, cache)
        prepare_latents(clips, around.autoencoder, around.speech_encoder)


def _work(config: DiceTrain, folder: Path, stop_after: str | None) -> None:
    """What every process does."""
    if parallel.size() > 1:
        set_up_logging(quiet=parallel.rank() > 0)
    elif config.threads:
        torch.set_num_threads(config.threads)
    random.seed(config.seed)
    np.random.seed(config.seed)  # libraries only; everything of ours draws from explicit generators
    torch.manual_seed(config.seed)
    around = load_around(config)
    writer = tensorboard(folder) if parallel.rank() == 0 else None
    for number, name in enumerate(STAGES):
        path = folder / f"{name}.safetensors"
        parallel.barrier()
        if path.exists():
            log.info("stage %s: finished before", name)
        else:
            if number == 0:
                system = start(config, around)
            else:
                system = _load(config, folder / f"{STAGES[number - 1]}.safetensors")
            if name == "denoiser" and config.stages.denoiser.iterations and not config.start_from:
                # the unit of changes is the clips', which the embedder alone has no need of
                scale = measured_scale(config, around)
                system.config = dataclasses.replace(system.config, change_scale=scale)
            _stage(name, config, folder, system, around, writer)
        if name == stop_after:
            return
    if parallel.rank() == 0:
        system = _load(config, folder / f"{STAGES[-1]}.safetensors")
        save_dice_file(folder / "model.safetensors", system, metadata=metadata(config))
        log.info("done: %s", folder / "model.safetensors")


def _stage(
    name: str, config: DiceTrain, folder: Path, system: DiceTalkSystem, around: MoEESystem, writer: object | None
) -> None:
    system.to(config.device)
    if getattr(config.stages, name).iterations:
        stage = _made(name, config, system, around)
        figures = run_stage(stage, folder, writer)
        log.info("stage %s: %s", name, "  ".join(f"{k} {v:.4f}" for k, v in figures.items()))
    if parallel.rank() == 0:
        if name == "embedder" and config.stages.embedder.iterations:
            assert around.ear is not None  # load_around asked for it
            name_priors(system.eval(), around.ear, _scenes(config, around, "train"))
        save_dice_file(folder / f"{name}.safetensors", system.cpu(), dtype=torch.float32, metadata={"stage": name})
        (folder / "state.pt").unlink(missing_ok=True)
    parallel.barrier()


def _made(name: str, config: DiceTrain, system: DiceTalkSystem, around: MoEESystem) -> Stage:
    cache = Path(config.cache)
    if name == "embedder":
        assert around.ear is not None  # load_around asked for it
        train, tune = (_scenes(config, around, split) for split in ("train", "tune"))
        return embedder_stage(config, system, around.ear, train, tune)
    scenes = _scenes(config, around, "train")
    clips = None
    for turn in range(parallel.size()):  # one after the other: the first writes what the others read
        if turn == parallel.rank():
            prepared = prepare_clips(config.data, config.data_seed, cache)
            clips = prepare_dice_clips(prepared, around, system.embedder, scenes, config.seed)
        parallel.barrier()
    assert clips is not None  # every rank had its turn
    for module in system.unet.modules():  # a fifth faster, measured on a CPU with AVX2
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return denoiser_stage(config, system, around.autoencoder.to(config.device), clips)


HELD_OUT = 10
"""Of files that are trained on alone, every so many persons are held out; clips, where there are fewer persons."""


def _scenes(config: DiceTrain, around: MoEESystem, split: str) -> list[Scene]:
    """Takes of the face world, and files beside them; files alone where the embedder reads other coefficients."""
    assert around.ear is not None  # load_around asked for it
    width = config.system.embedder.coefficients
    own = load_scenes(config.files, around.ear, width) if config.files else []
    if width != len(UNITS):
        if not own:
            raise ConfigError(
                f"the face world's takes have {len(UNITS)} coefficients, system.embedder.coefficients is {width}; name "
                "a folder of coefficient files as `files`"
            )
        speakers = list(dict.fromkeys(scene.speaker for scene in own))
        if len(speakers) >= HELD_OUT:
            held = set(speakers[HELD_OUT - 1 :: HELD_OUT])
            return [scene for scene in own if (scene.speaker in held) == (split == "tune")]
        return [scene for number, scene in enumerate(own, 1) if (number % HELD_OUT == 0) == (split == "tune")]
    takes = prepare_takes(config.takes, config.data_seed, Path(config.cache), split)
    scenes = scenes_of(takes, split, around.ear, config.takes.wide_speech if split == "train" else "")
    if split == "train":
        after = 1 + max(scene.group for scene in scenes)
        scenes += [dataclasses.replace(scene, group=after + scene.group) for scene in own]
    return scenes


def load_around(config: DiceTrain) -> MoEESystem:
    """The model whose autoencoder, speech encoder and ear are worked with, frozen."""
    around, _ = load_system(config.system.around or EMBEDDED_AROUND, _build(config))
    if around.ear is None:
        raise ConfigError(
            "system.around: this model has no ear for the mood of a voice, which the embedder listens with"
        )
    return around.eval().requires_grad_(False)


def load_embedded() -> MoEESystem:
    """The model that ships, which a small DICE-Talk works with."""
    return load_system(EMBEDDED_AROUND)[0].eval().requires_grad_(False)


def start(config: DiceTrain, around: MoEESystem) -> DiceTalkSystem:
    """The networks before any training: PyTorch's defaults from the seed; the UNet answers 0, which is the portrait.
    What ``start_from`` names goes on instead, in its own unit of changes."""
    before = load_dice_file(config.start_from, _build(config)) if config.start_from else None
    scale = UNTRAINED_SCALE if before is None else before.config.change_scale
    system = DiceTalkSystem(system_config(config, around, scale), _build(config))
    generator = torch.Generator().manual_seed(config.seed)
    with torch.no_grad():
        for module in system.modules():
            if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
                bound = 1 / math.sqrt(module.weight[0].numel())
                module.weight.uniform_(-bound, bound, generator=generator)
                if module.bias is not None:
                    module.bias.uniform_(-bound, bound, generator=generator)
            elif isinstance(module, nn.Embedding):
                module.weight.zero_()
        # priors and codes in one space, as in the paper, which has no layer between them
        nn.init.orthogonal_(system.bank.to_code.weight, generator=generator)
        system.bank.to_code.bias.zero_()
        system.bank.dictionary.codes.weight.normal_(0, 0.5, generator=generator)
        system.embedder.absent.weight.normal_(0, 0.5, generator=generator)
        system.embedder.kind.weight.normal_(0, 0.5, generator=generator)
        for last in (system.unet.conv_out, system.face_locator.conv_out):
            last.weight.zero_()
            last.bias.zero_()
    if before is not None:
        taken = before.state_dict()
        if config.fresh_emotion:
            taken = {key: value for key, value in taken.items() if not any(part in key for part in EMOTION)}
        fresh = system.state_dict()
        unlike = [key for key, value in taken.items() if key not in fresh or fresh[key].shape != value.shape]
        if unlike:
            raise ConfigError(
                f"start_from: {config.start_from} has other sizes than [system], the first in {min(unlike)}"
            )
        system.load_state_dict({**fresh, **taken})
    return system


def measured_scale(config: DiceTrain, around: MoEESystem) -> float:
    """How much latents of the clips differ from their portrait's, root mean square."""
    clips = prepare_clips(config.data, config.data_seed, Path(config.cache))
    changed = prepare_latents(clips, around.autoencoder, around.speech_encoder).change_std
    return round(max(LEAST_CHANGE, float(changed.square().mean().sqrt())), 4)


def system_config(config: DiceTrain, around: MoEESystem, scale: float) -> DiceConfig:
    """The embedded form: 25 frames a second, changes of the portrait, the encoders of ``around``."""
    tables, kind = config.system, around.config
    try:
        return DiceConfig(
            unet=tables.unet,
            bank=tables.bank,
            embedder=tables.embedder,
            named_priors=True,
            ear="embedded",
            picture="latent",
            change_scale=scale,
            speech_layers=kind.audio.layers,
            speech_width=kind.audio.width,
            speech_hidden=tables.speech_hidden,
            speech_frames=2 * kind.audio.margin + 1,
            speech_before=kind.audio.margin,
            speech_step=1,
            locator_widths=tables.locator_widths,
            window_frames=tables.window_frames,
            fps=kind.fps,
            latent_scale=1.0,
        )
    except ValueError as error:
        raise ConfigError(f"system: {error}") from error


def _build(config: DiceTrain) -> Build:
    return Build(attention=plain_attention if config.device == "cpu" else torch_attention)


def _load(config: DiceTrain, path: Path) -> DiceTalkSystem:
    return load_dice_file(path, _build(config))


def metadata(config: DiceTrain) -> dict[str, str]:
    voices = "flite (CMU licence)" + (" and espeak-ng" if config.takes.wide_speech or config.data.wide_speech else "")
    own = "; coefficient files of the trainer's own" if config.files else ""
    steps = {name: getattr(config.stages, name).iterations for name in STAGES}
    trained: dict[str, object] = {"name": config.name, "seed": config.seed, "iterations": steps}
    if config.start_from:
        trained["after"] = json.loads(inspect_dice_file(config.start_from)[1].get("trained", "{}"))
    return {
        "trained": json.dumps(trained),
        "sampling": json.dumps(ONE_STEP | {"noise_sharing": config.stages.denoiser.noise_sharing}),
        "data_licence": f"procedural faces; speech synthesised with {voices}{own}",
    }
