"""Stage 0: the autoencoder, from its closed-form linear start.

Shapes: pictures (N, 3, S, S) in [-1, 1]; patches (P, 192) of 8 x 8 x 3 in channel, row, column order.
Loss: L1 on pixels and on horizontal and vertical differences, eyes and mouth weighted; the latents get a little noise
so that the decoder forgives what the denoiser leaves.
"""

from __future__ import annotations

import logging

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from moee_core.networks.autoencoder import Autoencoder
from training import parallel
from training.config import AutoencoderStage, TrainConfig
from training.data.clips import ClipCache
from training.loop import Stage

log = logging.getLogger(__name__)


def pictures(frames: np.ndarray) -> Tensor:
    """(N, S, S, 3) uint8 -> (N, 3, S, S) float32 in [-1, 1]."""
    return torch.from_numpy(np.array(frames)).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def start_linear(autoencoder: Autoencoder, images_N3HW: Tensor) -> float:
    """Set both linear maps to the principal components of patches; return the PSNR of that code in dB.

    Latents come out with unit variance. The convolutional corrections start at zero.
    """
    config = autoencoder.config
    side, count = config.patch, config.latent_channels
    patches = F.unfold(images_N3HW, side, stride=side).transpose(1, 2).flatten(0, 1).double()
    mean = patches.mean(0)
    centred = patches - mean
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(patches))
    basis = vectors[:, -count:].flip(1)  # (192, Z), strongest first
    scale = values[-count:].flip(0).sqrt()
    encoder, decoder = autoencoder.encoder, autoencoder.decoder
    encoder.linear.weight.copy_((basis / scale).T.reshape(count, 3, side, side))
    encoder.linear.bias.copy_(-(mean @ (basis / scale)))
    decoder.linear.weight.copy_((basis * scale)[:, :, None, None])
    decoder.linear.bias.copy_(mean)
    for layer in (encoder.out, decoder.out):
        layer.weight.zero_()
        layer.bias.zero_()
    error = values[:-count].clamp_min(0).sum() / len(values)
    return float(10 * torch.log10(4 / error))


def psnr(autoencoder: Autoencoder, images_N3HW: Tensor) -> float:
    """Reconstruction, in dB over [-1, 1] pictures."""
    with torch.no_grad():
        out = autoencoder.decode(autoencoder.encode(images_N3HW)).clamp(-1, 1)
    return float(10 * torch.log10(4 / (out - images_N3HW).square().mean()))


def make_stage(config: TrainConfig, cache: ClipCache, autoencoder: Autoencoder, fresh: bool) -> Stage:
    """``fresh`` sets the linear start; a resumed run brings its own weights."""
    settings: AutoencoderStage = config.stages.autoencoder
    shards = cache.load("frames")
    clips, frames = config.data.clips, config.data.frames
    held_out = max(1, clips // 60)

    def fetch(numbers: np.ndarray, frame: np.ndarray) -> Tensor:
        rows = [shards[n // config.data.shard][n % config.data.shard, f] for n, f in zip(numbers, frame, strict=True)]
        return pictures(np.stack(rows))

    rng = np.random.default_rng([config.seed, 1])
    test = fetch(clips - 1 - np.arange(min(held_out, 48)), rng.integers(0, frames, min(held_out, 48)))
    if fresh:
        start = fetch(rng.integers(0, clips, settings.pca_frames), rng.integers(0, frames, settings.pca_frames))
        log.info("autoencoder: linear start reconstructs at %.2f dB", start_linear(autoencoder, start))
    regions = torch.from_numpy(cache.regions())
    weight = (0.7 + 1.6 * regions[0] + 1.2 * regions[1])[None, None]

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        draw = np.random.default_rng([config.seed, 2, step])
        numbers = parallel.share(draw.integers(0, clips - held_out, settings.batch_size).tolist())
        images = fetch(np.array(numbers), draw.integers(0, frames, len(numbers)))
        size = len(numbers)
        if draw.random() < 0.5:
            images = images.flip(-1)
        generator = torch.Generator().manual_seed(int(draw.integers(1 << 60)) + parallel.rank())
        with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"):
            latents = autoencoder.encode(images)
            noise = torch.randn(latents.shape, generator=generator) * torch.rand(size, 1, 1, 1, generator=generator)
            out = autoencoder.decode(latents + settings.latent_noise * noise).float()
        error = out - images
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        spread = (latents.float().square().mean(dim=(0, 2, 3)) - 1).square().mean()
        total = (error.abs() * weight).mean() + settings.edge_weight * edges + 0.01 * spread
        return total, {"psnr": psnr(autoencoder, test)} if step % 250 == 249 else {}

    return Stage(
        name="autoencoder",
        module=autoencoder,
        trainable=list(autoencoder.named_parameters()),
        loss=loss,
        settings=settings,
    )
