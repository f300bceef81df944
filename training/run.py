"""One training run from first to last stage: data, stages in order, one safetensors file per finished stage.

A run lives in ``RUNS/NAME``: configuration, log, training state, validation pictures, a file per stage and, at the
end, ``model.safetensors``. Started again it continues where it stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
import random
import sys
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from moee_core.networks.config import SystemConfig
from moee_core.ops import Build, plain_attention, torch_attention
from moee_core.systems.moee import MoEESystem
from moee_core.weights.checkpoint import inspect_checkpoint, load_system, save_system
from training import parallel
from training.config import ConfigError, TrainConfig, from_table, to_dict
from training.data.clips import ClipCache, prepare_clips
from training.data.latents import LatentClips, prepare_latents
from training.loop import Stage, run_stage
from training.precision import faster_precision
from training.stages import audio, autoencoder, decoder, moee, sources

log = logging.getLogger(__name__)

Config = TypeVar("Config", bound=Any)
"""A frozen dataclass with ``precision`` and ``device``."""

STAGES = ("autoencoder", "audio", "reference", "experts", "gates", "sources", "decoder")
REFINING = ("sources", "decoder")
"""Stages that go on with a finished model as it is."""


def run(config: TrainConfig, stop_after: str | None = None) -> Path:
    """Train; return the path of the last file written: ``model.safetensors``, or that of ``stop_after``."""
    folder = Path(config.runs) / config.name
    config = settle_precision(config, folder)
    claim(folder, config)
    if config.processes == 1:
        _work(config, folder, stop_after)
    else:
        prepare_clips(config.data, config.seed, Path(config.cache))
        parallel.launch(config.processes, functools.partial(_work, config, folder, stop_after))
    return folder / (f"{stop_after}.safetensors" if stop_after else "model.safetensors")


def _work(config: TrainConfig, folder: Path, stop_after: str | None) -> None:
    """What every process does."""
    if parallel.size() > 1:
        set_up_logging(quiet=parallel.rank() > 0)
    elif config.threads:
        torch.set_num_threads(config.threads)
    random.seed(config.seed)
    np.random.seed(config.seed)  # libraries only; everything of ours draws from explicit generators
    torch.manual_seed(config.seed)
    runner = _Runner(config, folder)
    for name in STAGES:
        runner.stage(name)
        if name == stop_after:
            return
    if parallel.rank() == 0:
        system, info = load_system(folder / f"{STAGES[-1]}.safetensors")
        final = folder / "model.safetensors"
        save_system(final, system, metadata=_metadata(config, info.metadata), dtype=torch.float32)
        log.info("done: %s", final)


def set_up_logging(quiet: bool = False) -> None:
    """Progress on standard output, with the time of day."""
    level = logging.WARNING if quiet else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)


def settle_precision(config: Config, folder: Path) -> Config:
    """``auto`` becomes what the run in ``folder`` began with or, in a new run, what this machine is faster with. Raises
    ``ConfigError`` for a device that is not here."""
    try:
        torch.zeros(1, device=config.device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device {config.device!r} cannot be used here ({str(error).splitlines()[0]}); set device to cpu"
        ) from error
    if config.precision != "auto":
        return config
    path = folder / "config.json"
    if path.exists():
        precision = json.loads(path.read_text(encoding="utf-8")).get("precision", "fp32")
    else:
        precision = faster_precision(config.device)
        log.info("precision: %s is faster on this machine", precision)
    return dataclasses.replace(config, precision=precision)


def claim(folder: Path, config: Any) -> None:
    """A run folder belongs to one configuration; only lengths and places may change when it is continued."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.json"
    wanted = _fixed(to_dict(config))
    if path.exists():
        begun = _fixed(_with_defaults(config, json.loads(path.read_text(encoding="utf-8"))))
        unlike = sorted(key for key in {*begun, *wanted} if begun.get(key) != wanted.get(key))
        if unlike:
            raise ConfigError(
                f"{folder} holds a run with other settings ({', '.join(unlike)}); change `name`, or delete the folder"
            )
        return
    path.write_text(json.dumps(to_dict(config), indent=1), encoding="utf-8")


def claim_files(folder: Path, files: dict[str, Path]) -> None:
    """A run goes on with the files it was begun with, wherever they are now: setting -> file. One that is not there is
    left to who needs it."""
    path = folder / "files.json"
    begun = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name, file in files.items():
        if file.is_file():
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            if begun.setdefault(name, digest) != digest:
                raise ConfigError(
                    f"{folder} began with another `{name}`, {file} holds something else now; set it back, change "
                    "`name`, or delete the folder"
                )
    for name in begun.keys() - files.keys():
        raise ConfigError(f"{folder} began with `{name}`, which is empty now; set it back, or change `name`")
    if begun:
        path.write_text(json.dumps(begun, indent=1), encoding="utf-8")


def _with_defaults(config: Any, table: dict) -> dict:
    """What an earlier version wrote, with settings that have come since at their defaults."""
    try:
        return to_dict(from_table(type(config), table, ""))
    except ConfigError:
        return table


FIXED = ("seed", "data_seed", "system", "data", "takes", "fresh_emotion", "precision")
"""What a run was begun with and is continued with, where its system has it. Files count by their contents."""


def _fixed(table: dict) -> dict:
    return {key: value for key, value in table.items() if key in FIXED}


class _Runner:
    """Holds what the stages share, made when first needed."""

    def __init__(self, config: TrainConfig, folder: Path):
        self.config, self.folder = config, folder
        self._cache: ClipCache | None = None
        self._clips: LatentClips | None = None
        self._build = Build(attention=plain_attention if config.device == "cpu" else torch_attention)
        self._writer = tensorboard(folder) if parallel.rank() == 0 else None

    @property
    def cache(self) -> ClipCache:
        if self._cache is None:
            self._cache = prepare_clips(self.config.data, self.config.seed, Path(self.config.cache))
        return self._cache

    def clips(self, system: MoEESystem) -> LatentClips:
        if self._clips is None:
            if parallel.rank() == 0:
                threads = torch.get_num_threads()
                torch.set_num_threads(max(threads, parallel.size()))  # the others wait
                self._clips = prepare_latents(self.cache, system.autoencoder, system.speech_encoder)
                torch.set_num_threads(threads)
            parallel.barrier()  # the others read the files that the first one wrote
            if self._clips is None:
                self._clips = prepare_latents(self.cache, system.autoencoder, system.speech_encoder)
        return self._clips

    def stage(self, name: str) -> None:
        """Run one stage unless its file is there already."""
        path = self.folder / f"{name}.safetensors"
        parallel.barrier()
        if path.exists():
            log.info("stage %s: finished before", name)
            return
        system = self._start(name) if not self._taken_over(name) else self._previous()
        if getattr(self.config.stages, name).iterations:
            stage = self._make(name, system)
            figures = run_stage(stage, self.folder, self._writer)
            log.info("stage %s: %s", name, "  ".join(f"{k} {v:.4f}" for k, v in figures.items()))
        if parallel.rank() == 0:
            save_system(path, system.cpu(), dtype=torch.float32, metadata={"stage": name})
            (self.folder / "state.pt").unlink(missing_ok=True)
        parallel.barrier()

    def _taken_over(self, name: str) -> bool:
        """Whether the finished model goes on as it is, its experts apart: where only the refining stages are run."""
        stages = self.config.stages
        earlier = sum(getattr(stages, stage).iterations for stage in STAGES if stage not in REFINING)
        return bool(self.config.start_from) and not earlier and name not in REFINING

    def _previous(self) -> MoEESystem:
        system, _ = load_system(Path(self.config.start_from), self._build)
        wanted = self._system_config(experts=None)
        for part in ("unet", "audio", "autoencoder"):
            if getattr(system.config, part) != getattr(wanted, part):
                raise ConfigError(f"start_from: {self.config.start_from} has other sizes than [system.{part}]")
        if system.config.emotion == wanted.emotion:
            return system
        grown = MoEESystem(wanted, self._build)
        moee.initialise(grown, None, self.config.seed)
        moee.start_from(system, grown, merged=False)
        return grown

    def _start(self, name: str) -> MoEESystem:
        index = STAGES.index(name)
        shared = self._system_config(experts=1 if name in ("autoencoder", "audio", "reference") else None)
        if index == 0:
            system = MoEESystem(shared, self._build)
            moee.initialise(system, None, self.config.seed)
            if self.config.start_from:
                previous, _ = load_system(Path(self.config.start_from), self._build)
                moee.start_from(previous, system)
            return system
        system, _ = load_system(self.folder / f"{STAGES[index - 1]}.safetensors", self._build)
        if name == "experts":
            grown = MoEESystem(shared, self._build)
            moee.grow_experts(system, grown, self.config.stages.experts.init, self.config.stages.gates.local_bias)
            return grown
        if name == "reference" and not self.config.start_from:
            fresh = MoEESystem(shared, self._build)
            moee.initialise(fresh, self.clips(system), self.config.seed)
            fresh.autoencoder.load_state_dict(system.autoencoder.state_dict())
            fresh.speech_encoder.load_state_dict(system.speech_encoder.state_dict())
            return fresh
        return system

    def _system_config(self, experts: int | None) -> SystemConfig:
        config = self.config.system.build(self.config.data.image_size, self.config.stages.reference.window)
        if experts is None:
            return config
        return dataclasses.replace(config, unet=dataclasses.replace(config.unet, experts=experts))

    def _make(self, name: str, system: MoEESystem) -> Stage:
        config = self.config
        if name == "autoencoder":
            fresh = not (self.folder / "state.pt").exists()
            return autoencoder.make_stage(config, self.cache, system.autoencoder, fresh)
        if name == "audio":
            return audio.make_stage(config, system.speech_encoder)
        if name == "sources":
            return sources.make_stage(config, system.to(config.device))
        clips = self.clips(system)
        system.to(config.device)
        for network in (system.denoiser, system.reference_net):  # a fifth faster, measured on a CPU with AVX2
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        make = {
            "reference": moee.reference_stage,
            "experts": moee.experts_stage,
            "gates": moee.gates_stage,
        }
        if name == "decoder":
            return decoder.make_stage(config, system, clips, self.cache.regions(), self.cache.load("frames"))
        return make[name](config, system, clips, self.cache.regions())


def _metadata(config: TrainConfig, stage: dict[str, str]) -> dict[str, str]:
    steps = {name: getattr(config.stages, name).iterations for name in STAGES}
    trained: dict[str, object] = {"name": config.name, "seed": config.seed, "iterations": steps}
    if config.start_from:
        before = inspect_checkpoint(config.start_from).metadata.get("trained", "{}")
        trained["after"] = json.loads(before)
    speech = "flite (CMU licence)" + (" and espeak-ng" if config.data.wide_speech else "")
    return {
        "stage": stage.get("stage", ""),
        "trained": json.dumps(trained),
        "data_licence": f"procedural faces; speech synthesised with {speech}",
    }


def tensorboard(folder: Path) -> object | None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # optional: without it the run still writes log.jsonl
        return None
    return SummaryWriter(str(folder / "tensorboard"))
