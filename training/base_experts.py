"""Train MoEE's emotion experts on a Hallo base (``training/configs/base_experts.toml``), from videos of the user's own.

Nothing of the base learns: its experts are silent at first, and those learn whose emotions the clips show (MoEE stage
2a). The gates stay open and equal, so that the blend that is asked for decides; Emotion-to-Latents stays as it starts,
the same for everyone, so that an expert's file is all that has to be passed on.

Loss: the velocity's squared error (MoEE Eq. 6) weighted by min(SNR, 5) / (SNR + 1), as the base was trained (Hang et
al. 2023). A sample's portrait is a picture of a neutral clip of the same person with probability ``neutral_reference``,
else one of the clip itself, ``apart`` frames away where it is long enough.

The outcome is a file for every emotion, with its preview and an evaluation card: the error on held-out clips of that
emotion with the experts and without them.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from moee_core.audio.wav2vec2 import load_wav2vec2
from moee_core.diffusion.schedule import TRAIN_STEPS, alpha_sigma, alphas_cumprod
from moee_core.emotion.vocabulary import EXPERTS
from moee_core.experts.file import card_text, expert_deltas, load_expert, preview_text, save_expert
from moee_core.networks.blocks import ResnetBlock, SpatialTransformer
from moee_core.networks.masked_audio import MaskedAudioAttention
from moee_core.networks.motion import MotionModule
from moee_core.networks.reference_net import ReferenceFeatures
from moee_core.ops import Build, plain_attention, torch_attention
from moee_core.systems.hallo import HalloPortrait, HalloSampling, HalloSystem
from moee_core.video.frames import contact_sheet, write_image
from moee_core.weights.hallo import base_content, load_hallo_base
from training.config import ConfigError, StageConfig
from training.data.emotion_clips import EmotionClip, EmotionClips
from training.loop import Stage, run_stage
from training.own_expert import claim_base
from training.run import claim, settle_precision, tensorboard

log = logging.getLogger(__name__)

KIND = "base_experts"
SNR_LIMIT = 5.0
HELD_OUT = 10
"""Every so many-th clip of an emotion is held out, where there are at least two."""
CHECKED = 8
"""Windows by which an emotion's card is measured."""
PREVIEW_STEPS = 10


@dataclass(frozen=True, kw_only=True)
class BaseData:
    """``clips``: a folder with ``clips.csv`` (``training/data/emotion_clips.py``). ``image_size`` 0: the base's own."""

    clips: str
    image_size: int = 0


@dataclass(frozen=True, kw_only=True)
class BaseStage(StageConfig):
    """``window``: frames of a training window. ``motion_drop``: how often the portrait stands for the frames before, as
    in a first window. ``save_memory``: blocks are computed again on the way back instead of kept, which is slower."""

    iterations: int = 4000
    batch_size: int = 1
    window: int = 14
    learning_rate: float = 1e-4
    neutral_reference: float = 0.5
    apart: int = 30
    motion_drop: float = 0.3
    save_memory: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window < 1:
            raise ValueError(f"window must be at least 1 frame, got {self.window}")


@dataclass(frozen=True, kw_only=True)
class BaseTrain:
    """The whole file, with ``system_kind = "base_experts"``. ``start_from``: a converted base. ``speech_encoder``: a
    folder with wav2vec2-base-960h. The texts go into the files as they are."""

    name: str
    system_kind: str
    start_from: str
    speech_encoder: str
    data: BaseData
    seed: int = 0
    precision: str = "auto"
    device: str = "cpu"
    threads: int = 0
    cache: str = "cache"
    runs: str = "runs"
    author: str = ""
    note: str = ""
    licence: str = "unstated"
    data_licence: str = "unstated"
    stage: BaseStage = field(default_factory=BaseStage)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A window of a clip: ``clean`` (F, Z, h, w), what is read beside it, and ``emotion`` (F, 8) on the CPU."""

    clip: EmotionClip
    clean: Tensor
    portrait: HalloPortrait
    motion: Tensor
    audio: Tensor
    emotion: Tensor


class BaseTask:
    """Windows of clips and their loss over a base."""

    def __init__(self, config: BaseTrain, system: HalloSystem, clips: EmotionClips):
        self.config, self.system, self.clips = config, system, clips
        unet = system.config.unet
        self.table = alphas_cumprod(unet.beta_schedule, zero_snr=unet.zero_snr)
        self.device = torch.device(config.device)
        shown = [clips[number].emotion for number in range(len(clips))]
        short = [clips.entries[n].path.name for n, one in enumerate(shown) if len(one) <= self.lead]
        if short:
            raise ConfigError(f"{short[0]} is shorter than {self.lead + 1} frames; leave it out of the table")
        self.emotions = [
            EXPERTS[i] for i in range(len(EXPERTS)) if any(bool((one[:, 1 + i] > 0).any()) for one in shown)
        ]
        if not self.emotions:
            raise ConfigError("no clip shows an emotion that an expert serves; see `python -m moee_core emotions`")
        self.neutral = [n for n, one in enumerate(shown) if bool((one[:, 1:] == 0).all())]
        self.held: dict[str, list[int]] = {}
        for emotion in self.emotions:
            theirs = [n for n, one in enumerate(shown) if bool((one[:, 1 + EXPERTS.index(emotion)] > 0).any())]
            self.held[emotion] = theirs[HELD_OUT - 1 :: HELD_OUT] or theirs[1:][-1:]
        held = {number for numbers in self.held.values() for number in numbers}
        self.pool = [n for n in range(len(clips)) if n not in held and n not in self.neutral]
        for emotion in self.emotions:
            if not any(bool((shown[n][:, 1 + EXPERTS.index(emotion)] > 0).any()) for n in self.pool):
                raise ConfigError(f"every clip that shows {emotion} is held out to measure by; add another one of it")

    @property
    def lead(self) -> int:
        return self.system.config.unet.motion_frames

    @torch.no_grad()
    def sample(self, number: int, rng: np.random.Generator) -> Sample:
        stage, clip = self.config.stage, self.clips[number]
        count = len(clip.latents)
        window = min(stage.window, count - self.lead)
        start = int(rng.integers(self.lead, count - window + 1))
        latent = self._portrait(number, clip, start, window, rng)
        like = next(self.system.denoiser.parameters())
        portrait = self.read(clip, latent)
        motion = clip.latents[start - self.lead : start].to(like)
        if rng.random() < stage.motion_drop:
            motion = portrait.latent_1Zhw.expand_as(motion)
        frames = torch.arange(start, start + window)
        return Sample(
            clip=clip,
            clean=clip.latents[start : start + window].to(like),
            portrait=portrait,
            motion=motion,
            audio=self.system.audio_tokens(clip.features.to(like), frames),
            emotion=clip.emotion[start : start + window],
        )

    def _portrait(self, number: int, clip: EmotionClip, start: int, window: int, rng: np.random.Generator) -> Tensor:
        """(1, Z, h, w)."""
        named = bool(clip.person)
        others = [n for n in self.neutral if n != number and named and self.clips.entries[n].person == clip.person]
        if others and rng.random() < self.config.stage.neutral_reference:
            other = self.clips[others[int(rng.integers(len(others)))]].latents
            if other.shape[1:] == clip.latents.shape[1:]:
                return other[int(rng.integers(len(other)))][None]
        middle = start + window // 2
        away = [i for i in range(len(clip.latents)) if abs(i - middle) >= self.config.stage.apart]
        chosen = away[int(rng.integers(len(away)))] if away else int(rng.integers(len(clip.latents)))
        return clip.latents[chosen][None]

    @torch.no_grad()
    def read(self, clip: EmotionClip, latent_1Zhw: Tensor) -> HalloPortrait:
        """A portrait of nobody in particular, with the clip's face."""
        like = next(self.system.denoiser.parameters())
        nobody = torch.zeros(1, self.system.config.identity.width)
        picture = torch.zeros(clip.box.shape).to(like)  # seen through its latent alone
        regions = replace(clip.regions, levels=tuple(maps.to(like) for maps in clip.regions.levels))
        return self.system.portrait(picture, nobody, clip.box, regions, latent_1Zhw.to(like))

    def loss(self, one: Sample, time_step: int, noise: Tensor) -> Tensor:
        system, frames = self.system, len(one.clean)
        times = torch.full((1,), time_step, device=self.device)
        alpha, sigma = (value.view(1, 1, 1, 1) for value in alpha_sigma(times, self.table))
        noisy, target = alpha * one.clean + sigma * noise, alpha * noise - sigma * one.clean
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            with torch.no_grad():
                pictures = torch.cat([one.portrait.latent_1Zhw, one.motion])
                known = one.portrait.known_1KC
                features = system.reference_net(pictures, known.expand(len(pictures), -1, -1))
                context = system.emotion_context(one.emotion)
            reference = ReferenceFeatures(
                sites=tuple(x[:1] for x in features),
                latent=one.portrait.latent_1Zhw,
                motion=tuple(x[None, 1:] for x in features),
            )
            velocity = system.denoiser(
                noisy,
                times,
                frames=frames,
                reference=reference,
                audio_NSA=one.audio,
                emotion=context,
                identity_BKC=known,
                regions=one.portrait.regions.frames(frames),
                added_NCHW=one.portrait.located_1Dhw.expand(frames, -1, -1, -1),
            )
        ratio = (alpha / sigma).square()
        weight = ratio.clamp_max(SNR_LIMIT) / (ratio + 1)
        return (weight * (velocity.float() - target).square()).mean()


def run(config: BaseTrain) -> Path:
    """Train; return the folder with the experts' files. Started again it continues, and a finished run is left
    alone."""
    folder = Path(config.runs) / config.name
    config = settle_precision(config, folder)
    claim(folder, config)
    finished = folder / "experts"
    if finished.is_dir():
        log.info("finished before")
        return finished
    if config.threads:
        torch.set_num_threads(config.threads)
    build = Build(attention=plain_attention if config.device == "cpu" else torch_attention)
    system, _ = load_hallo_base(config.start_from, build)
    base = base_content(config.start_from)
    claim_base(folder, base)
    system.to(config.device).requires_grad_(False)
    ear = load_wav2vec2(config.speech_encoder).to(config.device)
    size = config.data.image_size or system.config.image_size
    clips = EmotionClips(Path(config.data.clips), Path(config.cache) / "emotion_clips", system, ear, base, size)
    task = BaseTask(config, system, clips)
    claim_table(folder, clips)
    experts = nn.ModuleDict({_flat(name): site.emotion.experts for name, site in system.denoiser.sites()})
    before = _states(system)
    if config.stage.save_memory:
        compute_again(system.denoiser)
    run_stage(_stage(config, task, experts), folder, tensorboard(folder))
    about = {"author": config.author, "note": config.note} if config.author or config.note else {}
    about |= {"licence": config.licence, "data_licence": config.data_licence, "name": config.name}
    made = folder / "experts.part"
    shutil.rmtree(made, ignore_errors=True)  # of a run that was stopped here
    made.mkdir()
    for emotion in task.emotions:
        card = _card(task, experts, emotion)
        log.info("%s, held-out clips: %s", emotion, card)
        path = made / f"{emotion}.safetensors"
        more = {"evaluation": card_text(card)}
        preview = made / f"{emotion}.png"
        if write_preview(task, emotion, preview):
            more["preview"] = preview_text(preview)
        save_expert(path, emotion, base, expert_deltas(_states(system), before, emotion), {**about, **more})
        load_expert(path)  # what was written can be read
    made.rename(finished)
    return finished


def claim_table(folder: Path, clips: EmotionClips) -> None:
    """A run belongs to its clips too: with others, what is held out would not be what was held out before."""
    path = folder / "clips.json"
    wanted = [[str(entry.path), entry.emotion, entry.person] for entry in clips.entries]
    if not path.exists():
        path.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
    elif json.loads(path.read_text(encoding="utf-8")) != wanted:
        raise ConfigError(
            f"{folder} began with another table of clips; set it back, change `name`, or delete the folder"
        )


def compute_again(network: nn.Module) -> None:
    """Keep nothing inside the network's blocks for the way back: they are computed again there."""
    for module in network.modules():
        if isinstance(module, ResnetBlock | SpatialTransformer | MaskedAudioAttention | MotionModule):
            module.forward = _again(module.forward)  # type: ignore[method-assign]


def _again(forward: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *given, **named: checkpoint(forward, *given, use_reentrant=False, **named)


def _flat(name: str) -> str:
    return name.replace(".", "_")


def _states(system: HalloSystem) -> dict[str, Tensor]:
    """The experts' weights under the denoiser's keys, copied."""
    found = system.denoiser.state_dict()
    return {key: value.detach().cpu().clone() for key, value in found.items() if ".emotion.experts." in key}


def _stage(config: BaseTrain, task: BaseTask, experts: nn.ModuleDict) -> Stage:
    settings = config.stage
    wanted = {EXPERTS.index(emotion) for emotion in task.emotions}
    trainable = [pair for pair in experts.named_parameters() if int(pair[0].split(".")[1]) in wanted]

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        losses = []
        for index in range(settings.batch_size):
            rng = np.random.default_rng([config.seed, 21, step, index])
            one = task.sample(task.pool[int(rng.integers(len(task.pool)))], rng)
            generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
            noise = torch.randn(one.clean.shape, generator=generator).to(one.clean)
            losses.append(task.loss(one, int(rng.integers(TRAIN_STEPS)), noise))
        return torch.stack(losses).mean(), {}

    def validate(step: int, folder: Path) -> None:
        for emotion in task.emotions:
            write_preview(task, emotion, folder / f"{emotion}-{step:06d}.png")

    return Stage(name=KIND, module=experts, trainable=trainable, loss=loss, settings=settings, validate=validate)


@torch.no_grad()
def _card(task: BaseTask, experts: nn.ModuleDict, emotion: str) -> dict[str, object]:
    """Mean loss over windows of held-out clips of the emotion, with the experts and without them. Without a clip to
    hold out there is nothing to measure."""
    held = task.held[emotion]
    stage = task.config.stage
    card: dict[str, object] = {"emotion": emotion, "held_out_clips": len(held), "iterations": stage.iterations}
    if not held:
        return card
    last = [layer for one in experts.modules() for name, layer in one.named_children() if name == "to_out"]
    kept = [{key: value.clone() for key, value in layer.state_dict().items()} for layer in last]
    for word in ("with", "without"):
        if word == "without":
            for layer in last:
                for value in layer.state_dict().values():
                    value.zero_()
        losses = []
        for index in range(CHECKED):
            rng = np.random.default_rng([task.config.seed, 22, index])
            one = task.sample(held[index % len(held)], rng)
            noise = torch.randn(one.clean.shape, generator=torch.Generator().manual_seed(index)).to(one.clean)
            losses.append(float(task.loss(one, TRAIN_STEPS * (2 * index + 1) // (2 * CHECKED), noise)))
        card[f"loss_{word}"] = round(float(np.mean(losses)), 4)
    for layer, state in zip(last, kept, strict=True):
        layer.load_state_dict(state)
    return card


@torch.no_grad()
def write_preview(task: BaseTask, emotion: str, path: Path) -> bool:
    """A held-out clip's portrait, and the middle of a window of it without the emotion and with it."""
    numbers = task.held[emotion] or task.pool
    clip, system = task.clips[numbers[0]], task.system
    like = next(system.denoiser.parameters())
    frames = system.config.window_frames
    wanted = torch.arange(frames).clamp_max(len(clip.latents) - 1)
    portrait = task.read(clip, clip.latents[:1])
    noise = torch.randn((frames, *clip.latents.shape[1:]), generator=torch.Generator().manual_seed(0)).to(like)
    asked = torch.zeros(frames, 8)
    asked[:, 1 + EXPERTS.index(emotion)] = 1.0
    sampling = HalloSampling(num_inference_steps=PREVIEW_STEPS)
    audio = system.audio_tokens(clip.features.to(like), wanted)
    shown = [portrait.latent_1Zhw]
    for context in (None, system.emotion_context(asked)):
        made = system.sample_window(portrait, None, audio, noise, sampling, context)
        shown.append(made[frames // 2][None])
    pictures = system.autoencoder.decode(torch.cat(shown)).clamp(-1, 1)
    cells = ((pictures + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    write_image(path, contact_sheet(cells, 3))
    return True
