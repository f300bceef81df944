"""Our DICE-Talk and its authors' code with the same weights and the same inputs, made ready to draw the same clip.

Used by ``dice_step.py``, each side in a process of its own. A side is a function of the number of steps and of what is
called before the first of them and behind every one; it returns the clip's latents. Nothing of the authors' code or of
what it needs is kept here; ``dice_step.py`` says where both are from.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from moee_core.selfcheck import given, ruled

if TYPE_CHECKING:
    from moee_core.systems.dice_talk import DiceConditions

Drawn = Callable[[int, Callable[[], None]], Tensor]

HEAD = 64
"""Numbers of an attention head, as in the published network."""
LOCATOR_WIDTHS = (16, 32, 96, 256)
FPS, MOTION_BUCKET, EXPRESSION_BUCKET, SHIFT = 12.5, 8, 16, 7
REFERENCE_GUIDANCE, AUDIO_GUIDANCE = 3.0, 6.0


@dataclass(frozen=True, kw_only=True)
class Size:
    """What is computed: ``side`` pixels, a clip of ``frames`` and as many of padding, in windows as long."""

    side: int = 256
    frames: int = 12
    widths: tuple[int, ...] = (64, 128, 256, 256)
    context: int = 1024
    tokens: int = 32

    @property
    def heads(self) -> tuple[int, ...]:
        return tuple(width // HEAD for width in self.widths)


MEDIUM = Size()


def filled(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights by the names and shapes of the authors' code."""
    return {key: ruled(key, shape) for key, shape in shapes.items()}


def face(size: Size) -> Tensor:
    """(1, 3, H, W): 1 where the face is."""
    mask = torch.zeros(1, 3, size.side, size.side)
    mask[..., size.side // 4 : 3 * size.side // 4, size.side // 4 : 3 * size.side // 4] = 1
    return mask


def conditions(size: Size, located_1Chw: Tensor) -> DiceConditions:
    from moee_core.systems.dice_talk import DiceConditions

    latent = size.side // 8
    return DiceConditions(
        image_1D=given("image", 1, size.context),
        latent_1Zhw=given("latent", 1, 4, latent, latent),
        located_1Chw=located_1Chw,
        mask_1HW=face(size)[0, :1],
        audio_TSD=given("audio", size.frames, size.tokens, size.context),
        emotion_USD=given("emotion", 1, size.tokens, size.context),
        which_T=torch.zeros(size.frames, dtype=torch.long),
        silence_1SD=given("silence", 1, size.tokens, size.context),
        nothing_1SD=given("nothing", 1, size.tokens, size.context),
    )


def noise(size: Size) -> Tensor:
    """(T, Z, h, w) of the clip and its padding."""
    return given("noise", 2 * size.frames, 4, size.side // 8, size.side // 8)


def ours(size: Size) -> Drawn:
    from moee_core.emotion.bank import EmotionBankConfig
    from moee_core.networks.config import VideoUNetConfig
    from moee_core.systems.dice_talk import DiceConfig, DiceSampling, DiceTalkSystem
    from moee_core.weights.dice_talk import FILES

    unet = VideoUNetConfig(block_widths=size.widths, heads=size.heads, context_width=size.context)
    config = DiceConfig(
        unet=unet,
        bank=EmotionBankConfig(prior_width=8, hidden=8, tokens=1, width=size.context),  # tokens are given
        speech_hidden=8,
        locator_widths=LOCATOR_WIDTHS,
        window_frames=size.frames,
        fps=FPS,
        motion_bucket=MOTION_BUCKET,
        expression_bucket=EXPRESSION_BUCKET,
    )
    system = DiceTalkSystem(config).eval().requires_grad_(False)
    for part in ("unet", "face_locator"):
        network, names = getattr(system, part), FILES[part][1]
        places = {key: value.shape for key, value in network.state_dict().items()}
        theirs = {key: names.theirs(key) for key in places}
        # a mix factor is a number in their code and a table of one number here
        found = filled(
            {name: (1,) if name.endswith("mix_factor") else tuple(places[key]) for key, name in theirs.items()}
        )
        network.load_state_dict({key: found[name].view(places[key]) for key, name in theirs.items()})
    with torch.no_grad():
        read = conditions(size, system.face_locator(face(size)))
    start = noise(size)

    def draw(steps: int, behind_a_step: Callable[[], None]) -> Tensor:
        sampling = DiceSampling(
            steps=steps,
            reference_guidance=REFERENCE_GUIDANCE,
            audio_guidance=AUDIO_GUIDANCE,
            shift=SHIFT,
            padding=size.frames,
        )
        behind_a_step()
        return system.sample(read, start, sampling, lambda done, of: behind_a_step())

    return draw


class _Encoder(nn.Module):
    """In the place of a portrait's encoders, which are no part of a step: gives what is known already."""

    def __init__(self, embedding_1D: Tensor, latent_1Zhw: Tensor):
        super().__init__()
        self.kind = nn.Parameter(torch.zeros(()))
        self.config = SimpleNamespace(block_out_channels=(0, 0, 0, 0), force_upcast=False)
        self.dtype, self.device = self.kind.dtype, self.kind.device
        self.embedding_1D, self.latent_1Zhw = embedding_1D, latent_1Zhw

    def forward(self, picture: Tensor) -> SimpleNamespace:
        return SimpleNamespace(image_embeds=self.embedding_1D)

    def encode(self, picture: Tensor) -> SimpleNamespace:
        found = SimpleNamespace(mean=self.latent_1Zhw, mode=lambda: self.latent_1Zhw)
        return SimpleNamespace(latent_dist=found)


def authors(folder: str, size: Size) -> Drawn:
    """The authors' pipeline, with its own network, scheduler and loop."""
    sys.path.insert(0, folder)
    from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
    from src.models.audio_adapter.pose_guider import PoseGuider  # type: ignore[import-not-found]
    from src.models.base.unet_spatio_temporal_condition import (  # type: ignore[import-not-found]
        UNetSpatioTemporalConditionModel,
        add_ip_adapters,
    )
    from src.pipelines.pipeline_dicetalk import DicePipeline  # type: ignore[import-not-found]

    unet = UNetSpatioTemporalConditionModel(
        block_out_channels=size.widths,
        num_attention_heads=size.heads,
        cross_attention_dim=size.context,
        num_frames=size.frames,
    )
    add_ip_adapters(unet, [size.tokens] * 2, [1.0, 1.0])
    locator = PoseGuider(conditioning_embedding_channels=size.widths[0], block_out_channels=LOCATOR_WIDTHS)
    for network in (unet, locator):
        network.load_state_dict(filled({key: tuple(value.shape) for key, value in network.state_dict().items()}))
        network.eval().requires_grad_(False)
    scheduler = EulerDiscreteScheduler(  # Stable Video Diffusion's configuration file
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        interpolation_type="linear",
        num_train_timesteps=1000,
        prediction_type="v_prediction",
        sigma_max=700.0,
        sigma_min=0.002,
        steps_offset=1,
        timestep_spacing="leading",
        timestep_type="continuous",
        use_karras_sigmas=True,
    )
    read = conditions(size, torch.zeros(()))  # they locate the face themselves
    encoder = _Encoder(read.image_1D, read.latent_1Zhw)
    pipeline: Any = DicePipeline(
        unet=unet, image_encoder=encoder, vae=encoder, pose_guider=locator, scheduler=scheduler
    )
    picture, start = torch.zeros(1, 3, size.side, size.side), noise(size)
    frames = range(size.frames)

    def draw(steps: int, behind_a_step: Callable[[], None]) -> Tensor:
        @contextmanager
        def told(total: int) -> Iterator[SimpleNamespace]:
            """In the place of a bar that shows the steps."""
            behind_a_step()
            yield SimpleNamespace(update=behind_a_step)

        pipeline.progress_bar = told
        found = pipeline(
            picture,
            picture,
            [face(size)[0] for _ in frames],
            list(read.audio_TSD),
            [read.silence_1SD[0] for _ in frames],
            [read.emotion_USD[0] for _ in frames],
            [read.nothing_1SD[0] for _ in frames],
            height=size.side,
            width=size.side,
            num_frames=size.frames,
            num_inference_steps=steps,
            min_guidance_scale1=REFERENCE_GUIDANCE,
            max_guidance_scale1=REFERENCE_GUIDANCE,
            min_guidance_scale2=AUDIO_GUIDANCE,
            max_guidance_scale2=AUDIO_GUIDANCE,
            fps=FPS,
            motion_bucket_id=MOTION_BUCKET,
            motion_bucket_id_exp=EXPRESSION_BUCKET,
            noise_aug_strength=0.0,
            latents=start[None],
            output_type="latent",
            overlap=0,
            shift_offset=SHIFT,
            frames_per_batch=size.frames,
        )
        return found.frames[0, : size.frames]

    return draw
