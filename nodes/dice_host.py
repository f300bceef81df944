"""DICE-Talk's denoiser as a native MODEL: the SVD family's UNet under ComfyUI's samplers.

Shapes (legend for this file):
    F frames of a window, n guidance branches in one call, x (n F, Z, h, w), T frames of a clip, U emotions that differ,
    K tokens of width D

What is said of a frame is looked up by its number: ``moee_frames`` has one for each latent, and the host cuts them for
windows as it cuts the latents. Everything else is one object that a clip's branches are made of (``DiceRead``). Numbers
from T on are frames of padding, in which nobody speaks or feels.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_management as mm
import comfy.supported_models_base
import torch
from torch import Tensor

from ..moee_core.diffusion.anchor import from_change, to_change
from ..moee_core.networks.video_unet import VideoUNet
from ..moee_core.ops import Build
from ..moee_core.systems.dice_talk import DiceConfig
from . import host
from .kept import KEPT, Run, keep_over_runs

FRAMES, READ = "moee_frames", "moee_dice"
"""Names of the conditions."""
SIGMAS = {"sigma_min": 0.002, "sigma_max": 700.0, "sigma_data": 1.0}
"""Stable Video Diffusion's; see ``moee_core/diffusion/shifting.py``."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DiceClip:
    """What all branches of a clip are made of, on the CPU. ``emotion_UKD`` and, for each frame, which of them."""

    image_1D: Tensor
    latent_1Zhw: Tensor
    located_1Chw: Tensor
    mask_1HW: Tensor | None
    audio_TKD: Tensor
    emotion_UKD: Tensor
    emotion_T: Tensor
    silence_1KD: Tensor
    nothing_1KD: Tensor

    @property
    def frames(self) -> int:
        return len(self.audio_TKD)


@dataclass(frozen=True, kw_only=True, eq=False)
class DiceRead:
    """One branch of guidance: how much of a clip it knows."""

    clip: DiceClip
    picture: bool
    speech: bool
    emotion: bool

    @property
    def latent(self) -> Tensor:
        """By whose size the host reckons memory."""
        return self.clip.latent_1Zhw

    def tokens(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """(F, K, D) of speech and of emotion in some frames."""
        clip = self.clip
        spoken = (numbers >= 0) & (numbers < clip.frames)
        at = numbers.clamp(0, clip.frames - 1)

        def chosen(known: bool, rows: Tensor, none_1KD: Tensor) -> Tensor:
            if not known:
                return none_1KD.expand(len(numbers), -1, -1)
            return rows if bool(spoken.all()) else torch.where(spoken[:, None, None], rows, none_1KD)

        heard = clip.audio_TKD[at] if self.speech else clip.silence_1KD
        felt = clip.emotion_UKD[clip.emotion_T[at]] if self.emotion else clip.nothing_1KD
        return chosen(self.speech, heard, clip.silence_1KD), chosen(self.emotion, felt, clip.nothing_1KD)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Near:
    """What of a clip is the same in every call of a run, where the network computes."""

    image_1D: Tensor
    latent_1Zhw: Tensor
    located_1Chw: Tensor
    mask_1HW: Tensor | None
    ids_1K: Tensor


class VideoDenoiser(VideoUNet):
    """The UNet as ComfyUI calls it. Parameter names are the file's, so LoRA keys follow by themselves."""

    def __init__(
        self,
        *,
        dice: DiceConfig,
        operations: Any,
        dtype: torch.dtype | None = None,
        device: Any = None,
        **_unused: object,
    ):
        build = Build(operations=operations, attention=host.attention, dtype=dtype, device=device)
        super().__init__(dice.unet, build)
        self.dice, self.dtype = dice, dtype

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        control: object = None,
        transformer_options: dict | None = None,
        *,
        moee_frames: Tensor,
        moee_dice: list,
        **_others: Any,
    ) -> Tensor:
        options = transformer_options or {}
        read: DiceRead = moee_dice[0]  # one in all branches of a call: Shared.can_concat
        branches = len(options.get("cond_or_uncond", [0]))
        frames, rows = x.shape[0] // branches, x.shape[0]
        run: Run = options.get(KEPT) or Run(steady=False)
        near = run.of(read.clip, (x.dtype, x.device), lambda: self._near(read.clip, x))
        heard, felt = read.tokens(moee_frames.cpu())
        image, latent = near.image_1D, near.latent_1Zhw
        if not read.picture:
            image, latent = torch.zeros_like(image), torch.zeros_like(latent)
        kept = self.kept(image.expand(rows, -1)[:, None], [heard.to(x), felt.to(x)], frames)
        portrait, change = self.dice.latent_scale * near.latent_1Zhw, self.dice.change_scale
        seen, at = to_change(x, timesteps, portrait, change) if change else (x, timesteps)
        v = super().forward(
            torch.cat([seen.to(x), latent.expand(rows, -1, -1, -1)], dim=1),
            at,
            frames=frames,
            ids_BK=near.ids_1K.expand(branches, -1),
            kept=kept,
            mask_RHW=near.mask_1HW,
            added_NCHW=near.located_1Chw,
            options=options,
        )
        return from_change(v, x, timesteps, portrait, change) if change else v

    def _near(self, clip: DiceClip, like: Tensor) -> _Near:
        config = self.dice
        return _Near(
            image_1D=clip.image_1D.to(like),
            latent_1Zhw=clip.latent_1Zhw.to(like),
            located_1Chw=clip.located_1Chw.to(like),
            mask_1HW=None if clip.mask_1HW is None else clip.mask_1HW.to(like.device),
            ids_1K=torch.tensor([[config.fps, config.motion_bucket, config.expression_bucket]], device=like.device),
        )


class DiceModel(comfy.model_base.BaseModel):
    """BaseModel around ``VideoDenoiser``: conditions in, and the check that they belong to this latent."""

    def __init__(self, model_config: Any, device: Any = None):
        make = functools.partial(VideoDenoiser, dice=model_config.dice)
        kind = comfy.model_base.ModelType.V_PREDICTION_EDM
        super().__init__(model_config, kind, device=device, unet_model=make)

    def extra_conds(self, **given: Any) -> dict[str, comfy.conds.CONDRegular]:
        if FRAMES not in given or READ not in given:
            raise ValueError(
                "this MODEL needs portrait, speech and emotion in its conditioning; take positive, silent and negative "
                "from 'DICE-Talk Conditioning', not from a text encoder"
            )
        frames, wanted = given["noise"].shape[0], len(given[FRAMES])
        if frames != wanted:
            raise ValueError(
                f"the latent has {frames} frames and the conditioning {wanted}; take the latent from the same "
                "'DICE-Talk Conditioning' node"
            )
        latent, noise = given[READ].latent, given["noise"]
        if latent.shape[1:] != noise.shape[1:]:
            raise ValueError(
                f"the latent is {tuple(noise.shape[1:])} and the portrait's {tuple(latent.shape[1:])} (channels, "
                "height, width); take the latent from the same 'DICE-Talk Conditioning' node"
            )
        return {FRAMES: comfy.conds.CONDRegular(given[FRAMES]), READ: host.Shared(given[READ])}


class _DiceModelConfig(comfy.supported_models_base.BASE):
    """As the host describes a model."""

    unet_config: dict = {}  # noqa: RUF012  the host's own way to configure
    unet_extra_config: dict = {}  # noqa: RUF012

    def __init__(self, dice: DiceConfig, latent_format: Any):
        super().__init__({})
        self.dice, self.latent_format = dice, latent_format
        self.sampling_settings = dict(SIGMAS)
        self.latent_format.latent_channels = dice.unet.channels_out


def latent_format_of(config: DiceConfig) -> Any:
    """How the host scales latents and sketches previews: as Stable Diffusion 1.5, whose latents SVD's are."""
    if config.unet.channels_out == 4:
        return comfy.latent_formats.SD15(scale_factor=config.latent_scale)
    made = comfy.latent_formats.LatentFormat()
    made.scale_factor = config.latent_scale
    return made


def native_dice(config: DiceConfig, state: dict[str, Tensor], weight_dtype: str, content: str) -> Any:
    """The UNet's weights as a MODEL. ``content``: what the weights are."""
    load_device, offload = mm.get_torch_device(), mm.unet_offload_device()
    supported = [torch.float16, torch.bfloat16, torch.float32]
    dtype = host.WEIGHT_DTYPES.get(weight_dtype) or mm.unet_dtype(
        model_params=sum(value.numel() for value in state.values()), supported_dtypes=supported
    )
    described = _DiceModelConfig(config, latent_format_of(config))
    described.set_inference_dtype(dtype, mm.unet_manual_cast(dtype, load_device, supported))
    native = DiceModel(described, device=offload)
    patcher = host.patcher_class()(native, load_device=load_device, offload_device=offload)
    dynamic = bool(getattr(patcher, "is_dynamic", lambda: False)())
    native.diffusion_model.load_state_dict(host.cast(state, dtype), strict=True, assign=dynamic)
    patcher.model_options[host.CHECKPOINT] = content
    keep_over_runs(patcher)
    return patcher


def dice_config(model: Any) -> DiceConfig:
    """Of a MODEL. Raises ``ValueError`` for another kind."""
    found = getattr(model.model.diffusion_model, "dice", None)
    if not isinstance(found, DiceConfig):
        raise ValueError("this MODEL is not DICE-Talk's; connect the model output of Load DICE-Talk Model")
    return found
