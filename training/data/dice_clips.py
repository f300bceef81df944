"""What DICE-Talk's denoiser is trained on: the cached clips as latents and features, with priors of their own faces.

Shapes (legend for this file): n clips, L frames, Z latent channels, h latent side, S picture side, P prior width
    units (n, L, 20) as the expression reader sees every frame; wholes: mean and variance (n, 3, P) of a clip's prior by
    its face, by its face and a voice, by a voice; moments (n, L, P) of the frames around each, by the face;
    label (n, L) class of emotion and level, -1 for what has none
    boxes (n, 1, S, S) uint8: 1 inside the face's box, a tenth larger than the face

The clips are spoken without a mood of their own. So one that shows a single emotion at one level is given the voice of
a take in that mood; to the others face and voice are the face alone. What takes long (reading every frame) is kept
beside the clips.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from moee_core.emotion.prior_embedder import PriorEmbedder
from moee_core.emotion.reference import read_units
from moee_core.systems.moee import MoEESystem
from moee_core.weights.checkpoint import state_hash
from moee_core.weights.expression_reader import load_expression_reader
from training.data.clips import ClipCache
from training.data.latents import prepare_latents
from training.data.prior_clips import Scene, class_of, voice_of

log = logging.getLogger(__name__)

GROWTH = 1.1
"""Of the face's box."""
AROUND = 2
"""Frames to either side whose expression is a moment's."""
LEVEL_EDGES = (0.6, 0.95)
"""Intensities from which an emotion counts as of the second and of the third level."""
AT_ONCE = 512
PURPOSE = 44


@dataclass(frozen=True, kw_only=True)
class DiceClips:
    """See the module's docstring; ``change_std`` (Z, h, h) as in ``LatentClips``, ``regions`` (2, S, S)."""

    latents: Tensor
    references: Tensor
    speech: Tensor
    viseme: Tensor
    label: Tensor
    boxes: Tensor
    change_std: Tensor
    regions: np.ndarray
    wholes: tuple[Tensor, Tensor]
    moments: tuple[Tensor, Tensor]

    def __len__(self) -> int:
        return len(self.latents)


def prepare_dice_clips(
    cache: ClipCache, around: MoEESystem, embedder: PriorEmbedder, scenes: Sequence[Scene], seed: int
) -> DiceClips:
    """``scenes``: takes whose voices the clips are given, by chance from ``seed``."""
    clips = prepare_latents(cache, around.autoencoder, around.speech_encoder)
    units = torch.from_numpy(read_faces(cache))
    label = labels_of(clips.emotion.numpy(), clips.units.numpy())
    faces, moments = embedded(embedder, units)
    wholes = with_voices(embedder, around, units, label[:, 0], faces, scenes, seed)
    return DiceClips(
        latents=clips.latents,
        references=clips.references,
        speech=clips.speech,
        viseme=clips.viseme,
        label=label,
        boxes=torch.from_numpy(face_boxes(cache)),
        change_std=clips.change_std,
        regions=cache.regions(),
        wholes=wholes,
        moments=moments,
    )


def read_faces(cache: ClipCache) -> np.ndarray:
    """(n, L, 20) units of every frame, by the reader that ships."""
    reader = load_expression_reader()
    path = cache.folder / f"read-{state_hash(reader.state_dict())}.npy"
    if not path.exists():
        log.info("reading the faces of %d clips", cache.config.clips)
        parts = []
        for frames in cache.load("frames"):
            flat = frames.reshape(-1, *frames.shape[2:])
            parts.append(read_units(reader, (np.array(frame) for frame in flat)).reshape(*frames.shape[:2], -1))
        _save(path, np.concatenate(parts))
    return np.load(path)


@torch.no_grad()
def embedded(embedder: PriorEmbedder, units_nLC: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Priors of whole clips and of every moment, from faces alone; on the CPU, wherever the embedder is."""
    length, device = units_nLC.shape[1], embedder.to_weight.weight.device
    padded = torch.cat(
        [units_nLC[:, :1].expand(-1, AROUND, -1), units_nLC, units_nLC[:, -1:].expand(-1, AROUND, -1)], dim=1
    )
    wholes, moments = [], []
    for start in range(0, len(units_nLC), AT_ONCE):
        found = embedder(units_nLC[start : start + AT_ONCE].to(device), None)
        wholes.append((found.mean_BD.cpu(), found.variance_BD.cpu()))
        near = padded[start : start + AT_ONCE].unfold(1, 2 * AROUND + 1, 1).transpose(2, 3)
        found = embedder(near.flatten(0, 1).to(device), None)
        parts = (found.mean_BD.cpu(), found.variance_BD.cpu())
        moments.append((parts[0].unflatten(0, (-1, length)), parts[1].unflatten(0, (-1, length))))
    means, variances = zip(*wholes, strict=True)
    moment_means, moment_variances = zip(*moments, strict=True)
    return (torch.cat(means), torch.cat(variances)), (torch.cat(moment_means), torch.cat(moment_variances))


@torch.no_grad()
def with_voices(
    embedder: PriorEmbedder,
    around: MoEESystem,
    units_nLC: Tensor,
    label_n: Tensor,
    faces: tuple[Tensor, Tensor],
    scenes: Sequence[Scene],
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Means and variances (n, 3, P): by the face, by face and voice, by the voice of a take of the same class."""
    assert around.ear is not None  # the runner asked for it
    of_class: dict[int, list[Scene]] = {}
    for scene in (one for one in scenes if one.known and one.voiced):
        of_class.setdefault(class_of(scene.emotion, scene.level), []).append(scene)
    means, variances = (part[:, None].repeat(1, 3, 1) for part in faces)
    length, device = units_nLC.shape[1], embedder.to_weight.weight.device
    for number in torch.nonzero(label_n >= 0)[:, 0].tolist():
        fitting = [scene for scene in of_class.get(int(label_n[number]), []) if len(scene) >= length]
        if not fitting:
            continue
        rng = np.random.default_rng([seed, PURPOSE, number])
        scene = fitting[rng.integers(len(fitting))]
        voice = voice_of(around.ear, scene, int(rng.integers(0, len(scene) - length + 1)), length)[None].to(device)
        for place, face in ((1, units_nLC[number][None].to(device)), (2, None)):
            found = embedder(face, voice)
            means[number, place], variances[number, place] = found.mean_BD[0].cpu(), found.variance_BD[0].cpu()
    return means, variances


def labels_of(emotion_nL8: np.ndarray, units_nLU: np.ndarray) -> Tensor:
    """(n, L): one emotion at one level through the whole clip, and no units beside it; everything else is -1."""
    out = np.full(emotion_nL8.shape[:2], -1)
    held = (np.ptp(emotion_nL8, axis=1) < 1e-6).all(axis=1) & (units_nLU == 0).all(axis=(1, 2))
    for number in np.flatnonzero(held):
        vector = emotion_nL8[number, 0, 1:]
        shown = np.flatnonzero(vector > 1e-6)
        if len(shown) == 0:
            out[number] = 0
        elif len(shown) == 1:
            level = 1 + int(np.searchsorted(LEVEL_EDGES, vector[shown[0]], side="right"))
            out[number] = class_of(int(shown[0]) + 1, level)
    return torch.from_numpy(out)


def face_boxes(cache: ClipCache) -> np.ndarray:
    """(n, 1, S, S) uint8."""
    path = cache.folder / "face_boxes.npy"
    if not path.exists():
        from training.face_world import performance as world
        from training.face_world.render import face_regions
        from training.face_world.splits import person

        size, state = cache.config.image_size, world.portrait_state(np.zeros(5, np.float32))
        out = np.zeros((cache.config.clips, 1, size, size), np.uint8)
        for number in range(cache.config.clips):
            x0, y0, x1, y1 = face_regions(person("train", number), state, size)["face"]
            out[number, 0] = box_mask((x0, y0, x1, y1), size)
        _save(path, out)
    return np.load(path)


def box_mask(box: tuple[float, float, float, float], size: int) -> np.ndarray:
    """(S, S) uint8."""
    x0, y0, x1, y1 = box
    wide, high = (x1 - x0) * (GROWTH - 1) / 2, (y1 - y0) * (GROWTH - 1) / 2
    out = np.zeros((size, size), np.uint8)
    out[max(0, round(y0 - high)) : round(y1 + high), max(0, round(x0 - wide)) : round(x1 + wide)] = 1
    return out


def _save(path: Path, array: np.ndarray) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp.npy")
    np.save(temporary, array)
    os.replace(temporary, path)
