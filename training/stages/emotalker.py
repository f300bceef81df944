"""EmoTalker's stages: the listener that stands in for HuBERT, motion VQ-VAE, cross-modal transformer, lip branch.

Shapes (legend for this file): B clips, F video frames, T = 2 F audio frames, N tokens, C face coefficients

Every batch depends on (seed, step, sample) only, so a killed run continues bit for bit; what learns without gradients
(the dictionary's codes and counts) is part of the module's state. Each stage trains one part and leaves the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moee_core.audio.emotion_ear import described, fast
from moee_core.audio.spectrogram import LIP_MEL
from moee_core.emotion.dictionary import code_use
from moee_core.networks.lip_branch import FRAMES
from moee_core.networks.motion_transformer import AUDIO_RATE, TokenStream
from moee_core.systems.emo_talker import EmoTalkerSystem
from training import parallel
from training.data.motion_clips import Take, TakeDraw
from training.emotalker_config import EmoTalkerTrain, LipStage, TransformerStage, VQStage
from training.loop import Stage

FIGURES_EVERY = 250
HELD_OUT = 64
"""Clips of the tuning split that figures are measured on."""

Place = tuple[Take, int]


@dataclass(frozen=True)
class Clips:
    """The takes of the two splits a training sees."""

    train: list[Take]
    tune: list[Take]


class _Batches:
    """Places of a step's batch, this process's share of them; and always the same held-out ones."""

    def __init__(self, config: EmoTalkerTrain, takes: Sequence[Take], purpose: int, frames: int | None = None):
        self.seed, self.purpose = config.seed, purpose
        self.draw = TakeDraw(list(takes), frames or config.data.frames)

    def places(self, step: int, size: int) -> list[tuple[Place, np.random.Generator]]:
        out = []
        for number in parallel.share(list(range(size))):
            rng = np.random.default_rng([self.seed, self.purpose, step, number])
            out.append((self.draw.draw(rng), rng))
        return out

    def fixed(self, size: int = HELD_OUT) -> list[Place]:
        rng = np.random.default_rng([self.seed, self.purpose])
        return [self.draw.draw(rng) for _ in range(size)]


def normalise(system: EmoTalkerSystem, takes: Sequence[Take], least_scale: float) -> None:
    """Set the VQ-VAE's mean and scale from training motion."""
    motion = torch.from_numpy(np.concatenate([take.motion for take in takes]))[:, system.face_columns]
    system.vqvae.mean.copy_(motion.mean(0))
    system.vqvae.scale.copy_(motion.std(0).clamp_min(least_scale))


def face_of(system: EmoTalkerSystem, places: Sequence[Place], frames: int) -> Tensor:
    """(B, F, C) of clips, on the system's device."""
    motion = np.stack([take.motion[first : first + frames] for take, first in places])
    return torch.from_numpy(motion)[..., system.face_columns].to(system.vqvae.mean.device)


def emotions_of(places: Sequence[Place], device: torch.device) -> Tensor:
    return torch.tensor([take.emotion for take, _ in places], device=device)


@torch.no_grad()
def heard_by(system: EmoTalkerSystem, places: Sequence[Place], frames: int) -> Tensor:
    """(B, T, A) emotion features of clips, as the voices are."""
    assert system.ear is not None  # the configuration asks for it
    context = system.ear.config.context
    voices = np.stack([take.heard(first, frames, context) for take, first in places])
    return system.ear(torch.from_numpy(voices).to(system.vqvae.mean.device))[:, context:-context]


class Hearings:
    """What there is to hear in whole takes, computed once: the ear's statistics, untrained, and its fast contours."""

    def __init__(self, system: EmoTalkerSystem):
        assert system.ear is not None  # the configuration asks for it
        self.ear = system.ear
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def take(self, take: Take) -> tuple[Tensor, Tensor]:
        """(T, Q) statistics and (T, 3) contours of every frame, on the CPU."""
        if id(take) not in self._kept:
            context, pool = self.ear.config.context, self.ear.config.pool
            raw = torch.from_numpy(take.heard(0, len(take), context))[None]
            rows = (described(raw, pool)[0, context:-context], fast(raw)[0, context:-context])
            self._kept[id(take)] = rows[0].half(), rows[1].half()  # a thousand takes: half the memory
        statistics, contours = self._kept[id(take)]
        return statistics.float(), contours.float()

    @torch.no_grad()
    def clips(self, drawn: Sequence[tuple[Place, np.random.Generator]], frames: int, noise: float) -> Tensor:
        """(B, T, A) features of clips, each in the manner of another voice: its own, off by ``noise`` throughout."""
        rows, contours = [], []
        device = self.ear.mean.device
        for (take, first), rng in drawn:
            whole, quick = self.take(take)
            manner = torch.from_numpy(rng.normal(0.0, noise, whole.shape[1]).astype(np.float32))
            stretch = slice(2 * first, 2 * (first + frames))
            rows.append(self.ear.normalised(whole[stretch].to(device)) + manner.to(device))
            contours.append(quick[stretch].to(device))
        return torch.cat([self.ear.hear(torch.stack(rows)), torch.stack(contours)], dim=-1)


@torch.no_grad()
def unit_codes(system: EmoTalkerSystem) -> None:
    """Codes of root mean square 1 by used code, everything around them scaled along: the VQ-VAE stays what it is.

    Nothing in stage 1 says how large codes are, and the transformer's two losses depend on it.
    """
    vqvae = system.vqvae
    weight, counts = vqvae.dictionary.codes.weight, vqvae.dictionary.counts
    size = float(((weight.square().mean(1) * counts).sum() / counts.sum().clamp_min(1e-9)).sqrt())
    if size > 0:
        weight.div_(size)
        for parameter in vqvae.encoder.last.parameters():
            parameter.div_(size)
        vqvae.decoder.first.conv.weight.mul_(size)
        vqvae.emotion_head.weight.mul_(size)


def _parameters(system: EmoTalkerSystem, *prefixes: str) -> list[tuple[str, nn.Parameter]]:
    """Parameters under a prefix; codes that learn without gradients are not the optimiser's."""
    by_gradient = system.vqvae.dictionary.learns_by_gradient
    return [
        (name, parameter)
        for name, parameter in system.named_parameters()
        if name.startswith(prefixes) and (by_gradient or not name.startswith("vqvae.dictionary."))
    ]


def _due(step: int, iterations: int) -> bool:
    return step % FIGURES_EVERY == FIGURES_EVERY - 1 or step + 1 == iterations


def ear_stage(config: EmoTalkerTrain, system: EmoTalkerSystem, clips: Clips) -> Stage:
    """Emotion and level at every frame, from statistics that are blurred with noise."""
    assert system.ear is not None  # the configuration asks for it
    settings, frames, ear = config.stages.ear, config.data.frames, system.ear
    device = system.vqvae.mean.device
    train, tune = _Batches(config, clips.train, 31), _Batches(config, clips.tune, 32)
    hearings = Hearings(system)
    ear.set_range(torch.cat([hearings.take(take)[0] for take in clips.train]).to(device))

    @torch.no_grad()
    def figures() -> dict[str, float]:
        places = tune.fixed()
        logits = ear.emotion(heard_by(system, places, frames))
        right = logits.log_softmax(-1).mean(1).argmax(-1) == emotions_of(places, device)
        return {"heard": float(right.float().mean())}

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        rows, places = [], []
        for (take, first), rng in train.places(step, settings.batch_size):
            whole, _ = hearings.take(take)
            chosen = ear.normalised(whole[rng.integers(0, len(whole), settings.frames)].to(device))
            blur = rng.normal(0.0, settings.noise, chosen.shape).astype(np.float32)
            rows.append(chosen + torch.from_numpy(blur).to(device))
            places.append((take, first))
        heard = ear.hear(torch.stack(rows))
        wanted = emotions_of(places, device)[:, None].expand(-1, settings.frames)
        strength = torch.tensor([take.strength for take, _ in places], device=device)[:, None]
        total = F.cross_entropy(ear.emotion(heard).flatten(0, 1), wanted.flatten(), label_smoothing=settings.smoothing)
        total = total + settings.level_weight * (ear.level(heard) - strength).abs().mean()
        return total, figures() if _due(step, settings.iterations) else {}

    return Stage(name="ear", module=system, trainable=_parameters(system, "ear."), loss=loss, settings=settings)


def vqvae_stage(config: EmoTalkerTrain, system: EmoTalkerSystem, clips: Clips) -> Stage:
    """Stage 1. The codes start from the first batch and move while the loss is computed."""
    settings: VQStage = config.stages.vqvae
    frames, vqvae = config.data.frames, system.vqvae
    train, tune = _Batches(config, clips.train, 33), _Batches(config, clips.tune, 34)

    @torch.no_grad()
    def figures() -> dict[str, float]:
        places = tune.fixed()
        motion = face_of(system, places, frames)
        coded = vqvae(motion)
        use = code_use(coded.quantised.indices, config.system.vq.dictionary.codes)
        right = coded.emotion.argmax(-1) == emotions_of(places, motion.device)
        return {
            "error": float(((coded.motion - motion) / vqvae.scale).square().mean()),
            "perplexity": use.perplexity,
            "read": float(right.float().mean()),
        }

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        places = [place for place, _ in train.places(step, settings.batch_size)]
        motion = face_of(system, places, frames)
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        coded = vqvae(motion, learn=True, generator=generator)
        quantised = coded.quantised
        total = F.smooth_l1_loss(coded.motion / vqvae.scale, motion / vqvae.scale)
        total = total + settings.commitment * quantised.commitment
        if vqvae.dictionary.learns_by_gradient:
            total = total + quantised.codebook
        if step >= settings.emotion_from * settings.iterations:
            emotion = F.cross_entropy(coded.emotion, emotions_of(places, motion.device))
            total = total + settings.emotion_weight * emotion
        return total, figures() if _due(step, settings.iterations) else {}

    return Stage(name="vqvae", module=system, trainable=_parameters(system, "vqvae."), loss=loss, settings=settings)


def transformer_stage(config: EmoTalkerTrain, system: EmoTalkerSystem, clips: Clips) -> Stage:
    """Stage 2: teacher forcing, part of what is fed back the transformer's own."""
    settings: TransformerStage = config.stages.transformer
    frames, vqvae, transformer = config.data.frames, system.vqvae, system.transformer
    train, tune = _Batches(config, clips.train, 35), _Batches(config, clips.tune, 36)
    beginnings = round(config.system.transformer.time_period * AUDIO_RATE / config.system.transformer.frames_per_token)
    literal = config.system.transformer.time == "literal"
    hearings = Hearings(system)

    def tokens(motion: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            indices = vqvae.dictionary.nearest(vqvae.encode(motion))
            return vqvae.dictionary.codes(indices), indices

    @torch.no_grad()
    def figures() -> dict[str, float]:
        """Made by itself from the tuning voice alone: distance of its motion to the truth, and the emotion read."""
        places = tune.fixed()
        motion = face_of(system, places, frames)
        made = free_running(system, heard_by(system, places, frames), frames // config.system.vq.rate)
        right = vqvae.emotion(made).argmax(-1) == emotions_of(places, motion.device)
        error = (vqvae.decode(made) - motion) / vqvae.scale
        return {"error": float(error.square().mean()), "read": float(right.float().mean())}

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        drawn = train.places(step, settings.batch_size)
        places = [place for place, _ in drawn]
        motion = face_of(system, places, frames)
        quantised, indices = tokens(motion)
        audio = hearings.clips(drawn, frames, settings.voice_noise)
        first = torch.tensor([0 if literal else int(rng.integers(beginnings)) for _, rng in drawn])
        fed = quantised
        if settings.own:
            with torch.no_grad():
                own = transformer(audio, quantised, first)
            chosen = np.stack([rng.random(quantised.shape[1]) < settings.own for _, rng in drawn])
            fed = torch.where(torch.from_numpy(chosen)[..., None].to(own.device), own, quantised)
        out = transformer(audio, fed, first)
        scores = transformer.scores(out, vqvae.dictionary.codes.weight)
        code = F.cross_entropy(scores.flatten(0, 1), indices.flatten())
        total = F.mse_loss(out, quantised) + settings.code_weight * code
        return total, {**(figures() if _due(step, settings.iterations) else {}), "code": float(code.detach())}

    return Stage(
        name="transformer", module=system, trainable=_parameters(system, "transformer."), loss=loss, settings=settings
    )


@torch.no_grad()
def free_running(
    system: EmoTalkerSystem,
    audio_BTA: Tensor,
    count: int,
    choose: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """(B, count, D) tokens that the transformer makes from sound alone, many clips at once.

    ``choose`` is what to feed back for each (B, D); None feeds the output itself.
    """
    transformer, stream, made = system.transformer, TokenStream(), []
    before = transformer.start(audio_BTA)
    for number in range(count):
        begin, end = transformer.visible(number, audio_BTA.shape[1])
        out = transformer.step(stream, before, transformer.memory(audio_BTA[:, begin:end], begin))
        token = out if choose is None else choose(out)
        made.append(token)
        before = transformer.token_in(token)
    return torch.stack(made, dim=1)


def another_voice(mel_NKS: Tensor, warp_N: Tensor, tilt_N: Tensor) -> Tensor:
    """(N, bands, frames) log-mel windows as a longer or shorter vocal tract would have given them.

    Frequencies are multiplied by ``warp_N`` (vocal tract length perturbation, Jaitly and Hinton 2013); ``tilt_N`` is
    added at the highest band and taken away at the lowest.
    """
    bands = mel_NKS.shape[1]
    low, high = (2595.0 * math.log10(1.0 + hertz / 700.0) for hertz in (LIP_MEL.low, LIP_MEL.high))
    step = (high - low) / (bands + 1)
    hertz = 700.0 * (10.0 ** ((low + step * torch.arange(1, bands + 1)) / 2595.0) - 1.0)
    source = 2595.0 * torch.log10(1.0 + hertz / warp_N[:, None] / 700.0)
    place = ((source - low) / step - 1.0).clamp(0, bands - 1)
    below = place.floor().long().clamp(max=bands - 2)
    share = (place - below)[..., None]
    take = below[..., None].expand(-1, -1, mel_NKS.shape[2])
    moved = mel_NKS.gather(1, take) * (1 - share) + mel_NKS.gather(1, take + 1) * share
    return moved + (torch.linspace(-1, 1, bands) * tilt_N[:, None])[..., None]


def lip_stage(config: EmoTalkerTrain, system: EmoTalkerSystem, clips: Clips) -> Stage:
    """Stage 3: runs of five frames, with the true expression of each."""
    settings: LipStage = config.stages.lip
    train, tune = _Batches(config, clips.train, 37, FRAMES), _Batches(config, clips.tune, 38, FRAMES)
    lip_columns = system.lip_columns
    lid = system.face_columns.index(system.space.index["lidL"])
    device = system.vqvae.mean.device

    def predict(places: Sequence[Place], rest: np.ndarray, voices: np.ndarray | None = None) -> tuple[Tensor, Tensor]:
        mel = torch.cat([take.windows(first, FRAMES) for take, first in places])
        if voices is not None:
            mel = another_voice(mel, *torch.from_numpy(voices).float().repeat_interleave(FRAMES, dim=0).unbind(1))
        mel = mel.to(device)
        face = face_of(system, places, FRAMES).flatten(0, 1)
        truth = np.concatenate([take.motion[first : first + FRAMES][:, lip_columns] for take, first in places])
        rests = torch.from_numpy(rest).repeat_interleave(FRAMES, dim=0).to(device)
        return system.lips(mel, face, rests, face[:, lid]), torch.from_numpy(truth).to(device)

    @torch.no_grad()
    def figures() -> dict[str, float]:
        places = tune.fixed(200)
        out, truth = predict(places, np.zeros((len(places), len(lip_columns)), np.float32))
        pairs = zip(system.space.lip_names, out.T.cpu().numpy(), truth.T.cpu().numpy(), strict=True)
        return {name: float(np.corrcoef(a, b)[0, 1]) for name, a, b in pairs}

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        drawn = train.places(step, settings.batch_size)
        rest = np.zeros((len(drawn), len(lip_columns)), np.float32)
        voices = np.ones((len(drawn), 2), np.float32)
        for row, voice, ((take, _), rng) in zip(rest, voices, drawn, strict=True):
            if rng.random() < settings.rest:
                row[:] = take.motion[rng.integers(len(take)), lip_columns]
            voice[:] = math.exp(rng.uniform(-settings.warp, settings.warp)), rng.normal(0.0, settings.tilt)
        out, truth = predict([place for place, _ in drawn], rest, voices)
        return F.mse_loss(out, truth), figures() if _due(step, settings.iterations) else {}

    return Stage(name="lip", module=system, trainable=_parameters(system, "lip_branch."), loss=loss, settings=settings)
