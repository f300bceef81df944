"""Our Hallo network and its authors' code with random weights, made ready for the same denoising step.

Used by ``hallo_step.py`` (a CPU, each in a process of its own) and ``hallo.py`` (any device). Nothing of the authors'
code or of what it needs is kept here; ``hallo_step.py`` says where both are from.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moee_core.networks.config import HalloConfig

AUDIO_TOKENS, AUDIO_WIDTH = 32, 768
FULL_WIDTHS, HALF_WIDTHS = (320, 640, 1280, 1280), (160, 320, 640, 640)


@dataclass(frozen=True, kw_only=True)
class Size:
    """What is computed: ``side`` pixels, ``frames`` of a window, ``carried`` ones before it, the UNets' ``widths``."""

    side: int = 512
    frames: int = 16
    carried: int = 2
    widths: tuple[int, ...] = FULL_WIDTHS
    dtype: str = "float32"
    device: str = "cpu"

    @property
    def latent(self) -> int:
        return self.side // 8

    def config(self) -> HalloConfig:
        from moee_core.networks.config import HalloConfig

        full = HalloConfig()
        unet = replace(full.unet, block_widths=self.widths, motion_frames=self.carried)
        return replace(full, unet=unet, window_frames=self.frames, image_size=self.side)


HALF = Size(side=256, frames=8, widths=HALF_WIDTHS)


def ours(size: Size) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    """(all that is made once for a window, a step with it)."""
    import torch

    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from moee_core.networks.masked_audio import SpeechRegions
    from moee_core.ops import Build
    from moee_core.systems.hallo import HalloSystem

    kind = {"dtype": getattr(torch, size.dtype), "device": size.device}
    system = HalloSystem(size.config(), Build(**kind)).eval().requires_grad_(False)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=size.device).to(kind["dtype"])

    maps = SpeechRegions.of(torch.rand(1, 3, size.latent, size.latent, device=size.device), levels=4)
    with torch.no_grad():
        portrait = system.portrait(
            normal(1, 3, size.side, size.side).clamp(-1, 1),
            normal(1, 512),
            torch.ones(1, 3, size.side, size.side),
            maps,
        )
    audio = normal(size.frames, AUDIO_TOKENS, AUDIO_WIDTH)
    motion = normal(size.carried, 4, size.latent, size.latent)
    noise = normal(size.frames, 4, size.latent, size.latent)
    time_step = torch.tensor([749], device=size.device)
    del system.autoencoder, system.face_locator  # the other side has none in memory

    def prepare() -> Any:
        return system.branches(portrait, motion, audio)

    def step(branches: Any) -> Any:
        with torch.no_grad():
            return [
                system.denoiser(noise, time_step, frames=size.frames, reference=one, added_NCHW=added)
                for one, added in zip(branches, (portrait.located_1Dhw, None), strict=True)
            ]

    return prepare, step


def authors(folder: str, size: Size) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    """The same of the authors' code, run as their inference script runs it."""
    import torch

    sys.path.insert(0, folder)
    import diffusers  # type: ignore[import-not-found]  # looks for xformers itself, so before the next line

    assert diffusers
    for name in ("xformers", "xformers.ops"):  # imported by one file, and used on a graphics card only
        sys.modules.setdefault(name, types.ModuleType(name))
    from hallo.models.mutual_self_attention import ReferenceAttentionControl  # type: ignore[import-not-found]
    from hallo.models.unet_2d_condition import UNet2DConditionModel  # type: ignore[import-not-found]
    from hallo.models.unet_3d import UNet3DConditionModel  # type: ignore[import-not-found]

    sizes = {  # Stable Diffusion 1.5's configuration file, at other widths
        "sample_size": size.latent,
        "in_channels": 4,
        "block_out_channels": size.widths,
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
        "layers_per_block": 2,
        "out_channels": 4,
        "act_fn": "silu",
        "center_input_sample": False,
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-5,
        "norm_num_groups": 32,
    }
    flat = {
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    }
    reference = UNet2DConditionModel.from_config(sizes | flat)
    denoiser = UNet3DConditionModel.from_config(
        sizes,
        use_inflated_groupnorm=True,
        unet_use_cross_frame_attention=False,
        unet_use_temporal_attention=False,
        use_motion_module=True,
        use_audio_module=True,
        motion_module_mid_block=True,
        motion_module_type="Vanilla",
        motion_module_kwargs={
            "num_attention_heads": 8,
            "num_transformer_block": 1,
            "attention_block_types": ["Temporal_Self", "Temporal_Self"],
            "temporal_position_encoding": True,
            "temporal_position_encoding_max_len": 32,
            "temporal_attention_dim_div": 1,
        },
        audio_attention_dim=AUDIO_WIDTH,
        stack_enable_blocks_name=["up", "down", "mid"],
        stack_enable_blocks_depth=[0, 1, 2, 3],
    )
    kind = {"dtype": getattr(torch, size.dtype), "device": size.device}
    reference.to(**kind).eval().requires_grad_(False)
    denoiser.to(**kind).train().requires_grad_(False)
    reference.enable_gradient_checkpointing()
    denoiser.enable_gradient_checkpointing()
    settings = {"do_classifier_free_guidance": True, "batch_size": 1, "fusion_blocks": "full"}
    writer = ReferenceAttentionControl(reference, mode="write", **settings)
    reader = ReferenceAttentionControl(denoiser, mode="read", **settings)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=size.device).to(kind["dtype"])

    latent, frames = size.latent, size.frames
    pictures, tokens = normal(1 + size.carried, 4, latent, latent), normal(2, 4, 768)
    audio = normal(1, frames, AUDIO_TOKENS, AUDIO_WIDTH)
    audio = torch.cat([torch.zeros_like(audio), audio])
    located = normal(1, size.widths[0], frames, latent, latent)
    located = torch.cat([torch.zeros_like(located), located])
    noise = normal(1, 4, frames, latent, latent)
    masks = [normal(2 * frames, (latent >> level) ** 2).clamp(0, 1) for level in range(4)]

    def prepare() -> Any:
        with torch.no_grad():
            zero = torch.tensor(0, device=size.device)
            reference(pictures.repeat(2, 1, 1, 1), zero, encoder_hidden_states=tokens, return_dict=False)
            reader.update(writer)

    def step(_: Any) -> Any:
        with torch.no_grad():
            return denoiser(
                torch.cat([noise] * 2),
                torch.tensor(749, device=size.device),
                encoder_hidden_states=tokens,
                mask_cond_fea=located,
                full_mask=masks,
                face_mask=masks,
                lip_mask=masks,
                audio_embedding=audio,
                motion_scale=[1.0, 1.0, 1.0],
                return_dict=False,
            )[0]

    return prepare, step
