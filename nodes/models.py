"""A file of weights as what ComfyUI has: a MODEL, the encoders around it, a VAE. MoEE checkpoints and Hallo bases.

Raises ``CheckpointError`` for files that are neither.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.latent_formats
import comfy.model_management as mm
import comfy.ops
import comfy.sd
import torch
from torch import Tensor, nn

from ..moee_core.audio.wav2vec2 import load_wav2vec2
from ..moee_core.emotion.latents import EmotionToLatents
from ..moee_core.errors import CheckpointError
from ..moee_core.networks.autoencoder import Autoencoder
from ..moee_core.networks.autoencoder_kl import AutoencoderKL
from ..moee_core.networks.config import HalloConfig, SystemConfig
from ..moee_core.networks.reference_net import ReferenceNet
from ..moee_core.ops import Build
from ..moee_core.systems.hallo import HalloSystem
from ..moee_core.systems.moee import make_audio_projector, make_ear, make_speech_encoder, make_text_encoder
from ..moee_core.weights.checkpoint import inspect_checkpoint, load_parts, read_header, state_hash
from ..moee_core.weights.hallo import ARCHITECTURE as BASE
from ..moee_core.weights.hallo import inspect_hallo_base, load_base_parts
from . import host
from .sockets import EncoderSet, HalloEncoders

BASE_SAMPLING = {"num_inference_steps": 40.0, "emotion_guidance": 1.0, "audio_guidance": 3.5, "noise_sharing": 0.0}
"""How Hallo's authors sample it."""


def is_base(path: str) -> bool:
    """Whether a file is a converted Hallo base. Raises ``CheckpointError`` for what is no safetensors file."""
    return read_header(path)[1].get("architecture") == BASE


def inspect(path: str) -> None:
    """Raises ``CheckpointError`` for a file that ``load`` could not load."""
    inspect_hallo_base(path) if is_base(path) else inspect_checkpoint(path)


def load(path: str, weight_dtype: str = "default", ear: str | None = None) -> tuple[Any, Any, Any]:
    """(MODEL, encoders, VAE) of a checkpoint, or of a converted Hallo base, which hears by the wav2vec 2.0 in the
    folder ``ear``."""
    if is_base(path):
        return _load_base(path, weight_dtype, ear)
    if ear is not None:
        raise CheckpointError(
            f"{Path(path).name} has a speech encoder of its own; set speech_encoder to none, it is for a Hallo base"
        )
    return _load_checkpoint(path, weight_dtype)


def _load_base(path: str, weight_dtype: str, ear: str | None) -> tuple[Any, HalloEncoders, Any]:
    parts, config, content = load_base_parts(path)
    formats = comfy.latent_formats.SD15(scale_factor=config.autoencoder.scaling)
    model = host.native_model(config.unet, parts["denoiser"], weight_dtype, latent_format=formats, content=content)
    offload = mm.text_encoder_offload_device()
    # kept as the file has them, which is half of float32's memory, and computed in the type of what they are given
    stored = next(iter(parts["reference_net"].values())).dtype
    build = Build(operations=comfy.ops.manual_cast, attention=host.attention, dtype=stored, device=offload)
    state = {
        f"{name}.{key}": value
        for name, part in parts.items()
        if name not in ("denoiser", "autoencoder")
        for key, value in part.items()
    }
    around = host.patcher_of(HalloSystem(config, build, whole=False), state, mm.get_torch_device(), offload)
    encoders = HalloEncoders(
        config=config,
        key=content,
        around=around,
        sampling=BASE_SAMPLING,
        ear=None if ear is None else load_wav2vec2(ear),
    )
    return model, encoders, BaseVAE(config, parts["autoencoder"])


def _load_checkpoint(path: str, weight_dtype: str) -> tuple[Any, EncoderSet, Any]:
    parts, info = load_parts(path)
    config = info.config
    model = host.native_model(config.unet, parts["denoiser"], weight_dtype)
    model.model.latent_format.latent_rgb_factors, model.model.latent_format.latent_rgb_factors_bias = preview_colours(
        parts["autoencoder"]
    )
    device, offload = mm.text_encoder_device(), mm.text_encoder_offload_device()
    dtype = torch.float32
    build = Build(operations=comfy.ops.manual_cast, attention=host.attention, dtype=dtype, device=offload)
    speech = nn.ModuleDict(
        {"encoder": make_speech_encoder(config.audio, build), "projector": make_audio_projector(config.audio, build)}
    )
    speech_state = {f"encoder.{key}": value for key, value in parts["speech_encoder"].items()}
    speech_state |= {f"projector.{key}": value for key, value in parts["audio_projector"].items()}
    encoders = EncoderSet(
        config=config,
        key=state_hash(parts["reference_net"]),
        reference_net=host.patcher_of(
            ReferenceNet(config.unet, build), host.cast(parts["reference_net"], dtype), mm.get_torch_device(), offload
        ),
        speech=host.patcher_of(speech, host.cast(speech_state, dtype), device, offload),
        emotion=host.patcher_of(*_emotion_networks(config, parts, build), device, offload),
        sampling=info.sampling,
        domain=info.domain,
    )
    return model, encoders, EmbeddedVAE(config, host.cast(parts["autoencoder"], torch.float32))


def _emotion_networks(
    config: SystemConfig, parts: dict[str, dict[str, Tensor]], build: Build
) -> tuple[nn.ModuleDict, dict[str, Tensor]]:
    """Emotion-to-Latents and whatever of text encoder and ear the checkpoint has: ``latents``, ``text``, ``ear``."""
    text, ear = make_text_encoder(config.emotion, build), make_ear(config.emotion, build)
    networks: dict[str, nn.Module] = {"latents": EmotionToLatents(config.emotion, build)}
    names = {"latents": "emotion_to_latents"}
    for name, network, part in (("text", text, "text_encoder"), ("ear", ear, "ear")):
        if network is not None:
            networks[name], names[name] = network, part
    state = {f"{name}.{key}": value for name, part in names.items() for key, value in parts[part].items()}
    return nn.ModuleDict(networks), host.cast(state, torch.float32)


def preview_colours(state: dict[str, Tensor]) -> tuple[list[list[float]], list[float]]:
    """Latent to RGB for previews: the mean colour of the patch that the decoder's linear part draws."""
    weight = state["decoder.linear.weight"].float()
    colours = weight.flatten(1).view(3, -1, weight.shape[1]).mean(dim=1)
    bias = state["decoder.linear.bias"].float().view(3, -1).mean(dim=1)
    return colours.T.tolist(), bias.tolist()


class _NetworkVAE(comfy.sd.VAE):
    """An autoencoder of ours as a native VAE. The host's own constructor only knows layouts of public models."""

    def __init__(
        self,
        make: Callable[[Build], nn.Module],
        state: dict[str, Tensor],
        *,
        patch: int,
        channels: int,
        bytes_per_pixel: tuple[int, int],
        dtype: torch.dtype,
    ):
        """``bytes_per_pixel`` of a picture that encoding and decoding take, for each byte of a number."""
        encode, decode = bytes_per_pixel
        self.memory_used_encode = lambda shape, dtype: encode * shape[2] * shape[3] * mm.dtype_size(dtype)
        self.memory_used_decode = lambda shape, dtype: (
            decode * shape[2] * shape[3] * patch * patch * mm.dtype_size(dtype)
        )
        self.downscale_ratio = self.upscale_ratio = patch
        self.latent_channels = channels
        self.latent_dim = 2
        self.output_channels = 3
        self.pad_channel_value = None
        self.process_input = lambda image: image * 2.0 - 1.0
        self.process_output = lambda image: image.add_(1.0).div_(2.0).clamp_(0.0, 1.0)
        self.working_dtypes = [dtype]
        self.disable_offload = self.not_video = self.handles_tiling = False
        self.size = self.downscale_index_formula = self.upscale_index_formula = None
        self.extra_1d_channel = self.format_encoded = None
        self.crop_input = True
        self.audio_sample_rate = 44100
        self.device, self.output_device = mm.vae_device(), mm.intermediate_device()
        self.vae_dtype = dtype
        offload = mm.vae_offload_device()
        self.first_stage_model = make(Build(operations=comfy.ops.manual_cast, dtype=dtype, device=offload))
        self.patcher = host.patcher_of(self.first_stage_model, host.cast(state, dtype), self.device, offload)
        self.model_size()


class EmbeddedVAE(_NetworkVAE):
    """The autoencoder of a MoEE checkpoint."""

    def __init__(self, config: SystemConfig, state: dict[str, Tensor]):
        sizes = config.autoencoder
        super().__init__(
            functools.partial(Autoencoder, sizes),
            state,
            patch=sizes.patch,
            channels=sizes.latent_channels,
            bytes_per_pixel=(900, 900),
            dtype=torch.float32,
        )


class _Unscaled(AutoencoderKL):
    """Latents as the host has them: its models scale them, not its VAEs."""

    def encode(self, x_N3HW: Tensor) -> Tensor:
        return super().encode(x_N3HW) / self.config.scaling

    def decode(self, z_NZhw: Tensor) -> Tensor:
        return super().decode(z_NZhw * self.config.scaling)


class BaseVAE(_NetworkVAE):
    """The autoencoder of a Hallo base. Stable Diffusion's, so any VAE of Stable Diffusion 1.5 can stand in for it."""

    def __init__(self, config: HalloConfig, state: dict[str, Tensor]):
        sizes = config.autoencoder
        super().__init__(
            functools.partial(_Unscaled, sizes),
            state,
            patch=sizes.patch,
            channels=sizes.latent_channels,
            bytes_per_pixel=(1767, 2178),  # the host's own figures for this network
            dtype=mm.vae_dtype(mm.vae_device(), [torch.bfloat16, torch.float32]),
        )
