"""What the diffusion stages train on: clips as latents and speech features, kept in memory.

Shapes (legend for this file): N clips, L frames, Z latent channels, h latent side, T = L + 2 PAD, K layers, D width
    latents (N, L, Z, h, h) float16            references (N, 3, Z, h, h), masked (N, 3, Z, h, h): mouth greyed out
    speech (N, T, K, D) float16                emotion (N, L, 8), viseme (N, L, 4), units (N, L, 20) float32
Cached beside the clips under the hash of the autoencoder and speech encoder that made them.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from moee_core.audio.encoder import SpeechEncoder
from moee_core.networks.autoencoder import Autoencoder
from moee_core.weights.checkpoint import state_hash
from training.data.clips import ClipCache
from training.stages.autoencoder import pictures

log = logging.getLogger(__name__)

MASK_GROWTH = 1.3
"""The mouth box is enlarged by this before it is greyed out (papers: mouth box x 1.3)."""


@dataclass(frozen=True, kw_only=True)
class LatentClips:
    """See the module's docstring. ``change_std`` (Z, h, h): standard deviation of frame minus neutral portrait."""

    latents: Tensor
    references: Tensor
    masked: Tensor
    speech: Tensor
    emotion: Tensor
    viseme: Tensor
    units: Tensor
    change_std: Tensor

    def __len__(self) -> int:
        return len(self.latents)


@torch.no_grad()
def prepare_latents(cache: ClipCache, autoencoder: Autoencoder, encoder: SpeechEncoder) -> LatentClips:
    """Encode every clip once; a repeat reads the files."""
    key = state_hash(autoencoder.encoder.state_dict())
    latents, references, masked = _encoded(cache, autoencoder, key)
    speech = torch.cat([_heard(encoder, part) for part in cache.load("mel")])
    change = latents.float() - references[:, None, 0].float()
    count = min(len(change), 800)
    std = change[:: max(1, len(change) // count)].flatten(0, 1).square().mean(0).sqrt()
    return LatentClips(
        latents=latents,
        references=references,
        masked=masked,
        speech=speech,
        emotion=torch.from_numpy(cache.joined("emotion")),
        viseme=torch.from_numpy(cache.joined("viseme")),
        units=torch.from_numpy(cache.joined("units")),
        change_std=std,
    )


def _heard(encoder: SpeechEncoder, mels: np.ndarray) -> Tensor:
    """(N, 4 T, MELS) -> (N, T, K, D) float16, heard as in use."""
    return encoder.hear(torch.from_numpy(np.array(mels)).float()).half()


def _encoded(cache: ClipCache, autoencoder: Autoencoder, key: str) -> tuple[Tensor, Tensor, Tensor]:
    path = cache.folder / f"latents-{key}.npz"
    if not path.exists():
        log.info("encoding %d clips", cache.config.clips)
        parts: dict[str, list[np.ndarray]] = {"latents": [], "references": [], "masked": []}
        shards = zip(cache.load("frames"), cache.load("references"), cache.load("mouths"), strict=True)
        for frames, references, mouths in shards:
            parts["latents"].append(_encode(autoencoder, frames))
            parts["references"].append(_encode(autoencoder, references))
            parts["masked"].append(_encode(autoencoder, mask_mouths(np.array(references), mouths)))
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp.npz")
        joined = {name: np.concatenate(value) for name, value in parts.items()}
        np.savez(temporary, latents=joined["latents"], references=joined["references"], masked=joined["masked"])
        os.replace(temporary, path)
        for old in cache.folder.glob("latents-*.npz"):
            if old != path:
                old.unlink()  # latents of an earlier autoencoder; large and of no further use
    with np.load(path) as data:
        latents, references, masked = (torch.from_numpy(data[name]) for name in ("latents", "references", "masked"))
    return latents, references, masked


def _encode(autoencoder: Autoencoder, images: np.ndarray) -> np.ndarray:
    """(N, M, S, S, 3) uint8 -> (N, M, Z, h, h) float16."""
    flat = images.reshape(-1, *images.shape[2:])
    out = [autoencoder.encode(pictures(flat[i : i + 100])).half() for i in range(0, len(flat), 100)]
    joined = torch.cat(out)
    return joined.view(*images.shape[:2], *joined.shape[1:]).numpy()


def mask_mouths(references: np.ndarray, mouths: np.ndarray) -> np.ndarray:
    """Fill each reference's mouth box, enlarged, with mid grey (masked noisy emotion sampling, MoEE 4.2)."""
    size = references.shape[2]
    for clip, boxes in zip(references, mouths, strict=True):
        for image, (x0, y0, x1, y1) in zip(clip, boxes, strict=True):
            grow_x, grow_y = (MASK_GROWTH - 1) / 2 * (x1 - x0), (MASK_GROWTH - 1) / 2 * (y1 - y0)
            left, right = round(max(0, x0 - grow_x)), round(min(size, x1 + grow_x))
            top, bottom = round(max(0, y0 - grow_y)), round(min(size, y1 + grow_y))
            image[top:bottom, left:right] = 128
    return references
