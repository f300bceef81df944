"""Other sources of emotion learn what labels already say: action units, text and the mood of a voice.

Shapes (legend for this file): N rows, M query tokens, D emotion width

Loss: mean square distance between the latents of a source and those that the label encoder gives for the same emotion;
with ``contrast``, symmetric InfoNCE between the sources' mean latents of a batch's rows as well (temperature 0.07).
Labels span few directions, and encoders that learn from them alone tell most action units apart by nothing: with
``readable``, latents of faces that show any units must tell which, and text must say of such a face what units say.
The label encoder, the learnable embeddings and their attention stay as they are, and with them all that the denoiser
understands. Where text is read by a frozen sentence-T5, batches are drawn from sentences that the grammar wrote about
random emotions, and each says what the lexicon reads in it. Every random choice is a function of (seed, sample, step).
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from moee_core.audio.emotion_ear import EmotionEar, described
from moee_core.emotion.action_units import ACTION_UNITS
from moee_core.emotion.condition import EmotionCondition
from moee_core.emotion.free_text import understand
from moee_core.emotion.frozen import FROZEN_TEXT, FrozenEncoders
from moee_core.emotion.instructions import instruction
from moee_core.emotion.sentence_t5 import load_sentence_t5
from moee_core.emotion.stand_ins import mood_of
from moee_core.emotion.vocabulary import LABELS
from moee_core.motion.expression import MAX_UNIT, detector_units, expression
from moee_core.systems.moee import MoEESystem
from moee_core.weights.emo_talker import EMBEDDED, load_emo_talker
from training import parallel
from training.config import ConfigError, SourcesStage, TrainConfig
from training.data.motion_clips import Take, prepare_takes
from training.emotalker_config import MotionDataConfig
from training.loop import Stage

log = logging.getLogger(__name__)

TEMPERATURE = 0.07
KINDS = {"neutral": 0.1, "single": 0.45, "compound": 0.2, "blend": 0.15, "contempt": 0.1}
FACES = 256
"""Faces with units in a batch; a reading is fitted on one half of them and asked about the other."""
RIDGE = 10.0
"""What a fitted reading costs: latents that move by less than sqrt(RIDGE / number of faces) a unit tell nothing."""
MANNERS = 3
"""Times that every training voice is heard, each time in another manner."""
TRAINED = ("encoders.action_units.", "encoders.text.", "encoders.audio.", ".modality.", "text_encoder.")


def make_stage(config: TrainConfig, system: MoEESystem) -> Stage:
    """Also puts the ear into the system."""
    settings = config.stages.sources
    known = system.emotion_to_latents.encoders
    texts = _texts(config, system)
    if "action_units" not in known and system.text_encoder is None and texts is None and system.ear is None:
        raise ConfigError(
            "stage sources: this model takes labels alone; set system.emotion.action_units, or text_width with text = "
            '"words", or audio_width with audio = "ear"'
        )
    voices = _hear(config, system.ear) if system.ear is not None else None

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        rows = parallel.share(list(range(settings.batch_size)))
        rng = np.random.default_rng([config.seed, 11, step, rows[0]])
        sentences = None if texts is None else rng.integers(0, len(texts[1]), len(rows))
        vectors = random_emotions(rng, len(rows)) if texts is None else texts[1][sentences]
        with torch.no_grad():
            wanted = system.emotion_to_latents({"label": _there(vectors, config)})
        found: dict[str, Tensor] = {}
        if "action_units" in known:
            units = _there(detector_units(expression(vectors)), config)
            found["action_units"] = system.emotion_to_latents({"action_units": units})
        if system.text_encoder is not None:
            features = _there(np.pad(vectors, ((0, 0), (0, len(ACTION_UNITS)))), config)
            found["text"] = system.emotion_to_latents({"text": system.text_encoder(features)})
        if texts is not None:
            found["text"] = system.emotion_to_latents({"text": _there(texts[0][sentences], config)})
        distances = {name: (latents - wanted).square().mean() for name, latents in found.items()}
        if settings.contrast and found:
            distances["contrast"] = settings.contrast * contrast([*found.values(), wanted])
        if settings.readable and found:
            faces = random_faces(np.random.default_rng([config.seed, 13, step, rows[0]]), FACES)
            distances |= _telling(system, faces, settings.readable, config)
        if voices is not None:
            moods, said = voices
            drawn = rng.integers(0, len(moods), len(rows))
            with torch.no_grad():
                meant = system.emotion_to_latents({"label": _there(said[drawn], config)})
            heard = system.emotion_to_latents({"audio": _there(moods[drawn], config)})
            distances["audio"] = (heard - meant).square().mean()
        total = torch.stack(list(distances.values())).sum()
        return total, {name: float(value.detach()) for name, value in distances.items()}

    named = [(name, p) for name, p in system.named_parameters() if any(part in f".{name}" for part in TRAINED)]
    return Stage(name="sources", module=system, trainable=named, loss=loss, settings=settings)


def random_faces(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Emotion vectors (count, 8) and units beside them (count, 20); half of the faces show no emotion."""
    from training.face_world.performance import random_units

    vectors = random_emotions(rng, count)
    vectors[rng.random(count) < 0.5] = np.eye(len(LABELS), dtype=np.float32)[0]
    return vectors, np.stack([random_units(rng) for _ in range(count)])


def _telling(
    system: MoEESystem, faces: tuple[np.ndarray, np.ndarray], readable: float, config: TrainConfig
) -> dict[str, Tensor]:
    """Weighted shares of the units that cannot be read in the latents of each source, and the distance between what
    text and units say of the same face."""
    vectors, beside = faces
    shown = _there(np.clip(beside + expression(vectors), 0, MAX_UNIT), config)
    said: dict[str, Tensor] = {}
    if "action_units" in system.emotion_to_latents.encoders:
        units = _there(detector_units(shown.cpu().numpy()), config)
        said["action_units"] = system.emotion_to_latents({"action_units": units})
    if system.text_encoder is not None:
        features = _there(np.concatenate([vectors, detector_units(beside)], axis=1), config)
        said["text"] = system.emotion_to_latents({"text": system.text_encoder(features)})
    out = {f"{name} unread": readable * unread(latents, shown) for name, latents in said.items()}
    if len(said) == 2:
        out["text and units"] = (said["text"] - said["action_units"]).square().mean()
    return out


def unread(latents_NMD: Tensor, units_NU: Tensor) -> Tensor:
    """Share of the variance of the units (N, 20) in the second half of the rows that a linear reading of the latents,
    fitted on the first half, misses: 1 - R^2 of ridge regression, in its dual form."""
    x, half = latents_NMD.flatten(1), len(latents_NMD) // 2
    x = x - x[:half].mean(dim=0)
    mean = units_NU[:half].mean(dim=0)
    kernel = x @ x[:half].T
    ridge = RIDGE * torch.eye(half, device=x.device)
    weights = torch.linalg.solve(kernel[:half] + ridge, units_NU[:half] - mean)
    missed = units_NU[half:] - mean - kernel[half:] @ weights
    return missed.square().mean() / units_NU[half:].var(dim=0, unbiased=False).mean().clamp_min(1e-8)


def _there(values: np.ndarray, config: TrainConfig) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(config.device)


def random_emotions(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 8) emotion vectors of the kinds that are trained, as often as ``KINDS`` says."""
    from training.face_world.performance import random_emotion

    kinds = rng.choice(list(KINDS), count, p=list(KINDS.values()))
    return np.stack([random_emotion(rng, str(kind)) for kind in kinds])


def sentences_of(vectors: np.ndarray, seed: int) -> list[str]:
    """What the grammar writes about each emotion, in wordings that depend on the seed."""
    conditions = (EmotionCondition(weights=tuple(zip(LABELS[1:], map(float, row[1:]), strict=True))) for row in vectors)
    return [instruction({}, emotion=emotion, seed=seed * 1_000_003 + i) for i, emotion in enumerate(conditions)]


def _texts(config: TrainConfig, system: MoEESystem) -> tuple[np.ndarray, np.ndarray] | None:
    """(texts, K) embeddings by the frozen encoder and (texts, 8) emotion vectors, for a model that reads by it."""
    settings, emotion = config.stages.sources, system.config.emotion
    if not emotion.text_width or emotion.text != FROZEN_TEXT:
        if settings.text_encoder:
            raise ConfigError(f"stages.sources.text_encoder: this model does not read by {FROZEN_TEXT}; leave it out")
        return None
    if not settings.text_encoder:
        raise ConfigError(
            f"stages.sources.text_encoder is empty, and this model reads text by {FROZEN_TEXT}; give the folder of "
            "one, or set system.emotion.text_width = 0"
        )
    encoder = load_sentence_t5(settings.text_encoder)
    FrozenEncoders(text=encoder).check(emotion)
    written = sentences_of(random_emotions(np.random.default_rng([config.seed, 12]), settings.texts), config.seed)
    meant = np.stack([understand(text).condition.vector() for text in written])
    different, which = np.unique(written, return_inverse=True)
    log.info("stage sources: %d sentences, %d of them different", len(written), len(different))
    return encoder.to(config.device)(different.tolist()).numpy()[which], meant


def contrast(latents: list[Tensor]) -> Tensor:
    """Mean symmetric InfoNCE over all pairs of sources; each (N, M, D), row i of each the same emotion."""
    flat = [F.normalize(part.mean(dim=1), dim=-1) for part in latents]
    rows = torch.arange(len(flat[0]), device=flat[0].device)
    losses = []
    for i, a in enumerate(flat):
        for b in flat[i + 1 :]:
            alike = a @ b.T / TEMPERATURE
            losses += [F.cross_entropy(alike, rows), F.cross_entropy(alike.T, rows)]
    return torch.stack(losses).mean()


def _hear(config: TrainConfig, ear: EmotionEar) -> tuple[np.ndarray, np.ndarray]:
    """Take over the ear, and what it thinks of the training voices: moods (N, 16), emotion vectors (N, 8)."""
    settings = config.stages.sources
    path = Path(settings.ear) if settings.ear else EMBEDDED
    if not path.exists():
        raise ConfigError(f"stages.sources.ear: {path} does not exist; train EmoTalker, or give its file")
    trained, _ = load_emo_talker(path)
    if trained.ear is None or trained.ear.config != ear.config:
        raise ConfigError(f"stages.sources.ear: {path} has no listener of the size this model takes")
    ear.load_state_dict(trained.ear.state_dict())
    data = MotionDataConfig(wide_speech=config.data.wide_speech, takes=settings.takes)
    if parallel.rank() == 0:
        prepare_takes(data, config.seed, Path(config.cache), "train")
    parallel.barrier()
    takes = prepare_takes(data, config.seed, Path(config.cache), "train")
    moods, said = voice_moods(trained.ear, takes, settings, config.seed)
    log.info("stage sources: heard %d voices", len(moods))
    return moods, said


@torch.no_grad()
def voice_moods(ear: EmotionEar, takes: list[Take], settings: SourcesStage, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The mood in the middle of every take, in several manners, and what was meant."""
    moods, said = [], []
    context = ear.config.context
    for number, take in enumerate(takes):
        raw = torch.from_numpy(take.heard(0, len(take), context))[None].float()
        plain = ear.normalised(described(raw, ear.config.pool))[:, context:-context]
        generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
        for _ in range(MANNERS):
            manner = torch.randn(plain.shape[-1], generator=generator) * settings.voice_noise
            heard = ear.hear(plain + manner)
            logits, level = ear.emotion_head(heard)[0], ear.level_head(heard)[0, :, 0]
            moods.append(mood_of(logits, level)[len(logits) // 2].numpy())
            vector = np.zeros(len(LABELS), np.float32)
            vector[take.emotion] = take.strength if take.emotion else 1.0
            vector[0] = 1 - vector[1:].sum()
            said.append(vector)
    return np.stack(moods), np.stack(said)
