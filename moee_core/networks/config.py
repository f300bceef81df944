"""One configuration for the whole SD-1.5 family: the embedded model and the full size differ only in numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..diffusion.schedule import BETA_SCHEDULES
from ..emotion.latents import EmotionToLatentsConfig
from ..experts.mixture import GATE_POOLS, GATE_PRIORS, GLOBAL_GATES, LOCAL_GATES

AUDIO_LAYOUTS = ("plain", "masked")
MOTION_LAYOUTS = ("plain", "animatediff")
MOTION_LEVELS = ("attention", "all")
LATER = "later"
"""Metadata of a setting that came after the first release: a configuration file holds it only where it is not at its
default, so that files of models without it stay as they were."""


def _positive(config: Any, *names: str) -> None:
    """Raises ``ValueError`` unless each of these settings is a number above 0, or a tuple of such numbers."""
    for name in names:
        value = getattr(config, name)
        if not value or not all(one > 0 for one in (value if isinstance(value, tuple) else (value,))):
            raise ValueError(f"{type(config).__name__}.{name} must be above 0, got {value!r}")


def _later(default: str) -> Any:
    return field(default=default, metadata={LATER: True})


@dataclass(frozen=True, kw_only=True)
class PortraitUNetConfig:
    """Sizes of ReferenceNet and denoiser. The defaults are Stable Diffusion 1.5's (MoEE, Hallo).

    Widths are channels, ``heads`` a count at every level, ``motion_frames`` the k frames carried over from the
    previous window. ``expert_multiple`` widens the attention of every expert: 1 expert of 6 has the parameters of 6
    experts of 1. ``grid`` is the latent side the reference anchor's statistics were measured at.

    Hallo's network is ``audio_layout="masked"`` (three cross-attentions: around the face, on it, on the lips) with
    ``motion_layout="animatediff"`` (motion modules at every level, and carried frames normed as any frame is).
    ``motion_levels`` says which of those run: the ones at levels with attention, as Hallo was trained, or all of them,
    as AnimateDiff was.
    """

    latent_channels: int = 4
    block_widths: tuple[int, ...] = (320, 640, 1280, 1280)
    attention_levels: tuple[bool, ...] = (True, True, True, False)
    layers_per_block: int = 2
    heads: int = 8
    norm_groups: int = 32
    ff_multiple: int = 4
    identity_width: int = 768
    audio_width: int = 768
    audio_time_embedding: bool = False
    emotion_width: int = 768
    experts: int = 6
    local_gate: str = "output"
    gate_pool: str = "clip"
    gate_context: bool = False
    gate_prior: str = "blend"
    global_gate: str = "softmax"
    expert_multiple: int = 1
    motion_frames: int = 2
    motion_attentions: int = 2
    motion_ff_multiple: int = 4
    anchor: bool = False
    grid: int = 64
    beta_schedule: str = "linear"
    zero_snr: bool = True
    prediction_type: str = "v_prediction"
    audio_layout: str = _later("plain")
    motion_layout: str = _later("plain")
    motion_levels: str = _later("attention")

    def __post_init__(self) -> None:
        for name in (
            "latent_channels",
            "layers_per_block",
            "heads",
            "norm_groups",
            "experts",
            "expert_multiple",
            "grid",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"PortraitUNetConfig.{name} must be at least 1, got {getattr(self, name)}")
        if not any(self.attention_levels):
            raise ValueError("PortraitUNetConfig.attention_levels must switch on at least one level")
        if len(self.block_widths) != len(self.attention_levels):
            raise ValueError(
                f"block_widths has {len(self.block_widths)} levels, attention_levels {len(self.attention_levels)}"
            )
        for width in self.block_widths:
            if width % self.norm_groups or width % self.heads:
                raise ValueError(
                    f"block width {width} must be a multiple of norm_groups {self.norm_groups} and heads {self.heads}"
                )
        for name, value, allowed in (
            ("local_gate", self.local_gate, LOCAL_GATES),
            ("gate_pool", self.gate_pool, GATE_POOLS),
            ("gate_prior", self.gate_prior, GATE_PRIORS),
            ("global_gate", self.global_gate, GLOBAL_GATES),
            ("beta_schedule", self.beta_schedule, BETA_SCHEDULES),
            ("prediction_type", self.prediction_type, ("v_prediction", "epsilon")),
            ("audio_layout", self.audio_layout, AUDIO_LAYOUTS),
            ("motion_layout", self.motion_layout, MOTION_LAYOUTS),
            ("motion_levels", self.motion_levels, MOTION_LEVELS),
        ):
            if value not in allowed:
                raise ValueError(f"PortraitUNetConfig.{name} must be one of {', '.join(allowed)}; got {value!r}")
        if self.motion_levels == "all" and self.motion_layout != "animatediff":
            raise ValueError("motion_levels 'all' needs motion_layout 'animatediff': the plain one has no more modules")
        if self.anchor and self.prediction_type != "v_prediction":
            raise ValueError("the reference anchor is defined for v_prediction only")
        if self.zero_snr and self.prediction_type == "epsilon":
            raise ValueError("zero terminal SNR needs v_prediction: at the last time-step epsilon says nothing of x_0")

    @property
    def time_width(self) -> int:
        return 4 * self.block_widths[0]


@dataclass(frozen=True, kw_only=True)
class AudioConfig:
    """The audio side: features per video frame (``layers`` x ``width``), a window of frames, tokens for attention."""

    layers: int = 12
    width: int = 768
    margin: int = 2
    hidden: int = 512
    tokens: int = 32
    token_width: int = 768
    encoder: str = "wav2vec2"


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """Patch-linear autoencoder with convolutional refinement; ``widths`` at 1/8, 1/4 and 1/2 of the picture."""

    latent_channels: int = 16
    patch: int = 8
    widths: tuple[int, int, int] = (96, 64, 32)
    encoder_width: int = 64


@dataclass(frozen=True, kw_only=True)
class SystemConfig:
    """Everything that defines a MoEE checkpoint."""

    unet: PortraitUNetConfig
    emotion: EmotionToLatentsConfig
    audio: AudioConfig
    autoencoder: AutoencoderConfig
    image_size: int = 512
    fps: float = 25.0
    window_frames: int = 14


@dataclass(frozen=True, kw_only=True)
class AutoencoderKLConfig:
    """Stable Diffusion 1.5's autoencoder. ``scaling`` brings its latents to about unit variance."""

    latent_channels: int = 4
    block_widths: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_groups: int = 32
    scaling: float = 0.18215

    def __post_init__(self) -> None:
        _positive(self, "latent_channels", "block_widths", "layers_per_block", "norm_groups", "scaling")
        for width in self.block_widths:
            if width % self.norm_groups:
                raise ValueError(f"block width {width} must be a multiple of norm_groups {self.norm_groups}")

    @property
    def patch(self) -> int:
        """Pixels a side of one latent."""
        return 2 ** (len(self.block_widths) - 1)


@dataclass(frozen=True, kw_only=True)
class IdentityConfig:
    """From a face's embedding (``width`` numbers) to ``tokens`` tokens of the UNet's identity width."""

    width: int = 512
    tokens: int = 4

    def __post_init__(self) -> None:
        _positive(self, "width", "tokens")


FULL_SIZE = SystemConfig(
    unet=PortraitUNetConfig(), emotion=EmotionToLatentsConfig(), audio=AudioConfig(), autoencoder=AutoencoderConfig()
)
"""MoEE on Stable Diffusion 1.5, as the paper and Hallo's public numbers describe it (512 x 512, 14 + 2 frames)."""


@dataclass(frozen=True, kw_only=True)
class HalloConfig:
    """Everything that defines a Hallo base. ``locator_widths``: channels of the network that reads where the face is,
    at 1, 1/2, 1/4 and 1/8 of the picture."""

    unet: PortraitUNetConfig = PortraitUNetConfig(audio_layout="masked", motion_layout="animatediff")
    audio: AudioConfig = AudioConfig()
    autoencoder: AutoencoderKLConfig = AutoencoderKLConfig()
    identity: IdentityConfig = IdentityConfig()
    locator_widths: tuple[int, ...] = (16, 32, 64, 128)
    image_size: int = 512
    fps: float = 25.0
    window_frames: int = 16

    def __post_init__(self) -> None:
        _positive(self, "locator_widths", "image_size", "fps", "window_frames")
        layouts = (self.unet.audio_layout, self.unet.motion_layout)
        if layouts != ("masked", "animatediff"):
            raise ValueError(
                f"a Hallo base has audio_layout 'masked' and motion_layout 'animatediff', got {layouts[0]!r} and "
                f"{layouts[1]!r}"
            )
        if not 1 <= self.unet.motion_frames <= self.window_frames:
            raise ValueError(
                f"a window of {self.window_frames} frames must carry over 1 to {self.window_frames} of them, "
                f"motion_frames is {self.unet.motion_frames}"
            )
        if self.audio.token_width != self.unet.audio_width:
            raise ValueError(
                f"audio tokens are {self.audio.token_width} wide, the UNet's audio attention reads "
                f"{self.unet.audio_width}"
            )
        if self.autoencoder.latent_channels != self.unet.latent_channels:
            raise ValueError(
                f"the autoencoder's latents have {self.autoencoder.latent_channels} channels, the UNet's "
                f"{self.unet.latent_channels}"
            )
        if 2 ** (len(self.locator_widths) - 1) != self.autoencoder.patch:
            raise ValueError(
                f"locator_widths has {len(self.locator_widths)} sizes, the autoencoder's latents need "
                f"{len(self.autoencoder.block_widths)}"
            )


@dataclass(frozen=True, kw_only=True)
class VideoUNetConfig:
    """Sizes of the SVD family's UNet; the defaults are Stable Video Diffusion's, with DICE-Talk's two adapters (audio,
    emotion). ``ids``: numbers beside the time-step, each with waves of ``id_width``."""

    channels_in: int = 8
    channels_out: int = 4
    block_widths: tuple[int, ...] = (320, 640, 1280, 1280)
    attention_levels: tuple[bool, ...] = (True, True, True, False)
    layers_per_block: tuple[int, ...] = (2, 2, 2, 2)
    heads: tuple[int, ...] = (5, 10, 20, 20)
    context_width: int = 1024
    adapters: int = 2
    ids: int = 3
    id_width: int = 256
    norm_groups: int = 32

    def __post_init__(self) -> None:
        levels = len(self.block_widths)
        for name in ("attention_levels", "layers_per_block", "heads"):
            if len(getattr(self, name)) != levels:
                raise ValueError(
                    f"VideoUNetConfig.{name} is for {len(getattr(self, name))} levels, block_widths for {levels}"
                )
        _positive(self, "channels_in", "channels_out", "block_widths", "layers_per_block", "heads", "context_width")
        _positive(self, "ids", "id_width", "norm_groups")
        for width, heads in zip(self.block_widths, self.heads, strict=True):
            if width % heads or width % self.norm_groups:
                raise ValueError(f"a width of {width} cannot be split into {heads} heads and {self.norm_groups} groups")

    @property
    def time_width(self) -> int:
        return 4 * self.block_widths[0]
