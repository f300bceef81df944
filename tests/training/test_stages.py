"""The diffusion stages on clips made up here: their batches and losses, what each moves, and that each resumes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from moee_core.diffusion.schedule import alphas_cumprod
from moee_core.emotion.vocabulary import EXPERTS
from moee_core.motion.coefficients import UNITS
from moee_core.networks.config import PortraitUNetConfig, SystemConfig
from moee_core.systems.moee import MoEESystem
from training.config import (
    DecoderStage,
    DiffusionStage,
    ExpertsStage,
    GatesStage,
    StageConfig,
    StagesConfig,
    SystemTables,
    TrainConfig,
)
from training.data.clips import PAD
from training.data.latents import LatentClips
from training.loop import Stage, run_stage
from training.stages import decoder, moee
from training.stages.diffusion import Batch, DiffusionTask, ReferenceChoice, choose_reference, draw_start, draw_timestep

from ..fixtures.killed import KilledError, made, same, weights
from ..fixtures.tiny import TINY


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ---- clips made up here ---------------------------------------------------------------------

CLIPS, LENGTH, WINDOW = 24, 9, 4
QUICK: dict[str, Any] = {
    "batch_size": 2,
    "window": WINDOW,
    "iterations": 3,
    "save_every": 2,
    "validate_every": 100,
    "warmup": 1,
}


def emotion_of(kind: int) -> Tensor:
    """Clip ``kind``: 0 neutral, 1..6 one emotion, 7 two of them."""
    vector = torch.zeros(8)
    for index in {0: [0], 7: [1, 4]}.get(kind, [kind]):
        vector[index] = 1.0 / (2 if kind == 7 else 1)
    return vector


def clips_of(unet: PortraitUNetConfig, std: float = 0.3) -> LatentClips:
    """Frames that stray from the neutral portrait exactly as the reference anchor assumes."""
    z, h = unet.latent_channels, unet.grid
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    change_std = std * (0.5 + torch.rand(z, h, h, generator=generator))
    references = normal(CLIPS, 3, z, h, h)
    emotions = torch.stack([emotion_of(i % 8) for i in range(CLIPS)])
    return LatentClips(
        latents=references[:, :1] + change_std * normal(CLIPS, LENGTH, z, h, h),
        references=references,
        masked=references + 100.0,
        speech=normal(CLIPS, LENGTH + 2 * PAD, TINY.audio.layers, TINY.audio.width).half(),
        emotion=emotions[:, None].expand(-1, LENGTH, -1).contiguous(),
        viseme=torch.zeros(CLIPS, LENGTH, 4),
        units=torch.zeros(CLIPS, LENGTH, len(UNITS)),
        change_std=change_std,
    )


def frames_of() -> list[np.ndarray]:
    """Pictures of ``clips_of``, in two shards."""
    side = TINY.image_size
    pixels = np.random.default_rng(4).integers(0, 256, (CLIPS, LENGTH, side, side, 3)).astype(np.uint8)
    return [pixels[: CLIPS // 2], pixels[CLIPS // 2 :]]


def config_of(system: SystemConfig, **stages: StageConfig) -> TrainConfig:
    tables = SystemTables(unet=system.unet, emotion=system.emotion, audio=system.audio, autoencoder=system.autoencoder)
    return TrainConfig(name="x", system=tables, precision="fp32", seed=5, stages=StagesConfig(**stages))  # type: ignore[arg-type]


def fresh(experts: int = 6, clips: LatentClips | None = None) -> MoEESystem:
    system = MoEESystem(dataclasses.replace(TINY, unet=dataclasses.replace(TINY.unet, experts=experts)))
    moee.initialise(system, clips, 7)
    return system


REGIONS = np.zeros((2, 64, 64), np.float32)
REGIONS[0, 40:50, 24:40], REGIONS[1, 16:24, 16:48] = 1.0, 0.5


def task_of(settings: DiffusionStage) -> tuple[DiffusionTask, LatentClips]:
    clips = clips_of(TINY.unet)
    system = fresh(clips=clips)
    return DiffusionTask(config_of(TINY, reference=settings), system, clips, REGIONS), clips


PLAIN = DiffusionStage(**{**QUICK, "noise_sharing": 0.0})
NEUTRAL = ReferenceChoice(kind=0, masked=False)


def test_a_batch_depends_on_seed_sample_and_step_only():
    task, _ = task_of(PLAIN)
    batch = task.batch(3, PLAIN, [5, 9], [NEUTRAL, NEUTRAL])
    torch.rand(3)
    np.random.rand(3)
    again = task.batch(3, PLAIN, [9, 5], [NEUTRAL, NEUTRAL])
    turned = again.places[WINDOW:] + again.places[:WINDOW]
    assert batch.places == turned
    for field in dataclasses.fields(Batch):
        if field.name in ("places", "told", "own"):
            continue
        rows = getattr(batch, field.name), getattr(again, field.name)
        half = len(rows[0]) // 2
        assert torch.equal(rows[0], torch.cat([rows[1][half:], rows[1][:half]])), field.name
    assert not torch.equal(batch.noise, task.batch(4, PLAIN, [5, 9], [NEUTRAL, NEUTRAL]).noise)


def test_a_batch_shows_consecutive_frames_with_their_own_past_and_sound():
    settings = dataclasses.replace(PLAIN, motion_drop=0.0, motion_noise=0.0, audio_drop=0.0)
    task, clips = task_of(settings)
    k = TINY.unet.motion_frames
    for step in range(6):
        batch = task.batch(step, settings, [11], [ReferenceChoice(kind=2, masked=False)])
        distances = [float((clips.latents[11, i] - batch.clean[0]).abs().max()) for i in range(LENGTH)]
        start = int(np.argmin(distances))
        assert k <= start <= LENGTH - WINDOW
        assert torch.equal(batch.clean, clips.latents[11, start : start + WINDOW])
        assert torch.equal(batch.motion[0], clips.latents[11, start - k : start])
        assert torch.equal(batch.portrait[0], clips.references[11, 2])
        for frame in range(WINDOW):
            centre = PAD + start + frame
            margin = TINY.audio.margin
            assert torch.equal(batch.speech[frame], clips.speech[11, centre - margin : centre + margin + 1].float())
        assert torch.equal(batch.keep_audio, torch.ones(WINDOW))
        assert len(set(batch.timesteps.tolist())) == 1


def test_windows_lie_around_rounded_lips_as_often_as_asked():
    viseme = torch.zeros(LENGTH, 4)
    viseme[LENGTH - 1, 1] = -0.9
    k = TINY.unet.motion_frames
    rng = np.random.default_rng(0)
    always = dataclasses.replace(PLAIN, rounded=1.0)
    assert {draw_start(always, rng, viseme, k) for _ in range(50)} == {LENGTH - WINDOW}
    half = dataclasses.replace(PLAIN, rounded=0.5)
    starts = [draw_start(half, rng, viseme, k) for _ in range(600)]
    by_chance = 1 / (LENGTH - WINDOW - k + 1)
    share = sum(start == LENGTH - WINDOW for start in starts) / 600
    assert share == pytest.approx(0.5 + 0.5 * by_chance, abs=0.08)
    viseme[k, 1] = -0.9
    for _ in range(100):
        start = draw_start(always, rng, viseme, k)
        assert k <= start <= LENGTH - WINDOW
        assert bool((viseme[start : start + WINDOW, 1] < -0.35).any())
    spread = torch.full((LENGTH, 4), 0.5)
    assert len({draw_start(always, rng, spread, k) for _ in range(200)}) == LENGTH - WINDOW - k + 1


def test_a_masked_portrait_comes_from_the_masked_pictures_and_a_dropped_past_is_the_portrait():
    settings = dataclasses.replace(PLAIN, motion_drop=1.0, motion_noise=0.0, audio_drop=1.0)
    task, clips = task_of(settings)
    batch = task.batch(0, settings, [4], [ReferenceChoice(kind=1, masked=True)])
    assert torch.equal(batch.portrait[0], clips.masked[4, 1])
    assert all(torch.equal(frame, batch.portrait[0]) for frame in batch.motion[0])
    assert not batch.keep_audio.any()


@pytest.mark.parametrize("sharing", [0.0, 0.6])
def test_frames_of_a_clip_share_the_stated_part_of_their_noise(sharing: float):
    settings = dataclasses.replace(PLAIN, noise_sharing=sharing)
    task, _ = task_of(settings)
    noise = torch.cat([task.batch(step, settings, [1], [NEUTRAL]).noise.flatten(1) for step in range(40)], dim=1)
    r = np.corrcoef(noise.numpy())
    np.testing.assert_allclose(r[~np.eye(WINDOW, dtype=bool)], sharing, atol=0.06)
    assert float(noise.std()) == pytest.approx(1.0, abs=0.03)


def test_a_new_network_has_loss_one():
    """Its output layer is zero, so it predicts the anchor's best linear estimate, whose error is one by design."""
    task, _ = task_of(PLAIN)
    weight = task.position_weight(PLAIN)
    torch.testing.assert_close(weight.mean(), torch.tensor(1.0))
    with torch.no_grad():
        losses = [
            float(task.loss(task.batch(step, PLAIN, [step, step + 7], [NEUTRAL] * 2), PLAIN, weight, gated=False)[0])
            for step in range(12)
        ]
    assert np.mean(losses) == pytest.approx(1.0, abs=0.1)


def test_the_loss_is_the_weighted_velocity_error_in_the_networks_unit():
    task, clips = task_of(PLAIN)
    nn.init.normal_(task.system.denoiser.conv_out.weight, std=0.3)  # type: ignore[arg-type]
    weight = task.position_weight(PLAIN)
    batch = task.batch(2, PLAIN, [3, 12], [NEUTRAL] * 2)
    with torch.no_grad():
        velocity, noisy = task.predict(batch, PLAIN, gated=False)
        loss, figures = task.loss(batch, PLAIN, weight, gated=False)
    alpha_bar = alphas_cumprod(TINY.unet.beta_schedule).numpy()[batch.timesteps.numpy()][:, None, None, None]
    alpha, sigma = np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)
    clean, noise = batch.clean.double().numpy(), batch.noise.double().numpy()
    np.testing.assert_allclose(noisy, alpha * clean + sigma * noise, atol=1e-5)
    r2 = clips.change_std.clamp_min(0.05).double().numpy() ** 2
    error = (velocity.double().numpy() - (alpha * noise - sigma * clean)) ** 2 * (alpha_bar * r2 + sigma**2) / r2
    assert float(loss) == pytest.approx(float((error * weight.double().numpy()).mean()), rel=1e-4)
    assert figures == {}


def test_the_spatial_loss_is_eq_7_on_one_frame_per_clip():
    settings = dataclasses.replace(PLAIN, spatial_weight=0.5, mouth_weight=1.0, eye_weight=1.0)
    task, _ = task_of(settings)
    weight = task.position_weight(settings)
    batch = dataclasses.replace(
        task.batch(2, settings, [3, 12], [NEUTRAL] * 2), timesteps=torch.tensor([250] * WINDOW + [999] * WINDOW)
    )
    with torch.no_grad():
        plain, _ = task.loss(batch, dataclasses.replace(settings, spatial_weight=0.0), weight, gated=False)
        total, figures = task.loss(batch, settings, weight, gated=False)
        velocity, noisy = task.predict(batch, settings, gated=False)
        expected = []
        for clip, step in enumerate((250, 999)):
            row = clip * WINDOW + WINDOW // 2
            alpha_bar = float(alphas_cumprod(TINY.unet.beta_schedule)[step])
            estimate = math.sqrt(alpha_bar) * noisy[row] - math.sqrt(1 - alpha_bar) * velocity[row]
            pictures = task.system.autoencoder.decode(torch.stack([estimate, batch.clean[row]]))
            expected.append(math.cos(step * math.pi / 2000) * float((pictures[0] - pictures[1]).abs().mean()))
    assert figures["spatial"] == pytest.approx(np.mean(expected), rel=1e-3)
    assert float(total - plain) == pytest.approx(0.5 * figures["spatial"], rel=1e-3)


def test_positions_that_move_and_the_mouth_weigh_more():
    task, clips = task_of(PLAIN)
    flat = dataclasses.replace(PLAIN, mouth_weight=1.0, eye_weight=1.0, scale_power=0.0)
    torch.testing.assert_close(task.position_weight(flat), torch.ones(1, *clips.change_std.shape))
    mouth = dataclasses.replace(flat, mouth_weight=3.0)
    weight = task.position_weight(mouth)[0, 0]
    expected = 1 + 2 * REGIONS[0].reshape(8, 8, 8, 8).mean(axis=(1, 3))
    np.testing.assert_allclose(weight, expected / expected.mean(), rtol=1e-5)


def test_time_steps_are_logit_normal_with_a_share_at_the_very_last():
    rng = np.random.default_rng(0)
    settings = DiffusionStage(time_mean=1.0, time_std=1.3, time_last=0.15)
    steps = np.array([draw_timestep(settings, rng) for _ in range(20000)])
    assert steps.min() >= 0
    assert steps.max() == 999
    assert (steps == 999).mean() == pytest.approx(0.15, abs=0.01)
    inner = (steps[steps < 999] + 0.5) / 1000
    logits = np.log(inner / (1 - inner))
    assert np.median(logits) == pytest.approx(1.0, abs=0.05)
    assert logits.std() == pytest.approx(1.3, abs=0.06)


def test_masked_noisy_emotion_sampling_draws_what_it_says():
    rng = np.random.default_rng(0)
    settings = ExpertsStage(other_emotion=0.3, neutral_reference=0.5, mask_probability=0.4)
    choices = [moee.mask_noisy_reference(settings, rng) for _ in range(20000)]
    kinds = np.array([choice.kind for choice in choices])
    masked = np.array([choice.masked for choice in choices])
    np.testing.assert_allclose([(kinds == kind).mean() for kind in range(3)], [0.5, 0.2, 0.3], atol=0.012)
    assert not masked[kinds == 1].any(), "a portrait of the clip's own emotion has nothing to hide"
    for kind in (0, 2):
        assert masked[kinds == kind].mean() == pytest.approx(0.4, abs=0.02)


def test_stage_1_takes_mostly_neutral_portraits():
    rng = np.random.default_rng(0)
    settings = DiffusionStage(other_reference=0.25, mouth_mask=0.1)
    choices = [choose_reference(settings, rng) for _ in range(20000)]
    shares = [np.mean([choice.kind == kind for choice in choices]) for kind in range(3)]
    np.testing.assert_allclose(shares, [0.75, 0.125, 0.125], atol=0.012)
    assert np.mean([choice.masked for choice in choices]) == pytest.approx(0.1, abs=0.01)


def test_the_other_portraits_may_mostly_show_another_emotion():
    rng = np.random.default_rng(0)
    settings = DiffusionStage(other_reference=0.7, same_reference=0.2)
    kinds = np.array([choose_reference(settings, rng).kind for _ in range(20000)])
    np.testing.assert_allclose([(kinds == kind).mean() for kind in range(3)], [0.3, 0.14, 0.56], atol=0.012)
    with pytest.raises(ValueError, match="same_reference must lie between 0 and 1"):
        DiffusionStage(same_reference=1.5)


def test_clips_are_sorted_by_the_experts_they_need():
    only, count = moee.clip_kinds(clips_of(TINY.unet))
    assert only[:8].tolist() == [-1, 0, 1, 2, 3, 4, 5, -2]
    assert count[:8].tolist() == [0, 1, 1, 1, 1, 1, 1, 2]


# ---- what each stage moves ------------------------------------------------------------------------------------------


def real_stage(name: str, system: MoEESystem, clips: LatentClips) -> Stage:
    """``whole`` is the decoder's stage with the networks that make the estimate, ``critic`` that one's critic,
    ``changed`` with weight where portraits must change."""
    kinds = {"reference": DiffusionStage, "experts": ExpertsStage, "gates": GatesStage, "decoder": DecoderStage}
    settings = {key: kind(**QUICK) for key, kind in kinds.items()}
    if name == "whole":
        settings["decoder"] = DecoderStage(**QUICK, whole=True, spatial_weight=2.0, short_until=0.5)
    if name == "critic":
        settings["decoder"] = DecoderStage(**QUICK, whole=True, critic=0.5, critic_penalty=2.0, optimiser="muon")
    config = config_of(system.config, **settings)
    if name == "changed":
        settings["decoder"] = DecoderStage(**QUICK, whole=True, critic=0.5, changed_weight=2.0, spatial_weight=2.0)
    if name in ("decoder", "whole", "critic", "changed"):
        return decoder.make_stage(config, system, clips, REGIONS, frames_of())
    make = {"reference": moee.reference_stage, "experts": moee.experts_stage, "gates": moee.gates_stage}[name]
    return make(config, system, clips, REGIONS)


@pytest.mark.parametrize(
    ("name", "moves", "stays"),
    [
        (
            "reference",
            ("reference_net.", "denoiser.backbone.", "denoiser.conv_out.", "audio_projector.", "emotion_to_latents."),
            ("autoencoder.", "speech_encoder.", ".gates.", "anchor_std"),
        ),
        ("experts", (".emotion.experts.",), ("reference_net.", ".gates.", ".emotion.norm.", "emotion_to_latents.")),
        ("gates", (".gates.",), ("reference_net.", ".emotion.experts.", "emotion_to_latents.", ".spatial.")),
        ("decoder", ("autoencoder.decoder.",), ("autoencoder.encoder.", "denoiser.", "reference_net.")),
        (
            "whole",
            ("autoencoder.decoder.", "denoiser.", "reference_net.", "audio_projector."),
            ("autoencoder.encoder.", ".gates.", "anchor_std", "emotion_to_latents.", "speech_encoder."),
        ),
    ],
)
def test_a_stage_trains_its_own_part(name: str, moves: tuple[str, ...], stays: tuple[str, ...]):
    names = {key for key, _ in real_stage(name, fresh(), clips_of(TINY.unet)).trainable}
    for part in moves:
        assert any(part in key for key in names), part
    for part in stays:
        assert not any(part in key for key in names), part
    if name != "reference":
        assert all(any(part in key for part in moves) for key in names)


@pytest.mark.parametrize("name", ["reference", "experts", "gates", "decoder", "whole", "critic", "changed"])
def test_a_real_stage_resumes_bit_for_bit(tmp_path: Path, name: str):
    clips = clips_of(TINY.unet)

    def trained(folder: Path, kill_at: int | None) -> MoEESystem:
        system = fresh(clips=clips)
        stage = dataclasses.replace(real_stage(name, system, clips), validate=None)
        inner = stage.loss

        def loss(step: int) -> tuple[Tensor, dict[str, float]]:
            if step == kill_at:
                raise KilledError
            return inner(step)

        run_stage(dataclasses.replace(stage, loss=loss), made(folder))
        return system

    straight = trained(tmp_path / "a", None)
    with pytest.raises(KilledError):
        trained(tmp_path / "b", 2)
    resumed = trained(tmp_path / "b", None)
    assert same(weights(straight), weights(resumed))
    assert not same(weights(straight), weights(fresh(clips=clips)))


def test_only_the_experts_of_the_clips_emotions_get_a_gradient():
    clips = clips_of(TINY.unet)
    system = fresh(clips=clips)
    nn.init.normal_(system.denoiser.conv_out.weight)  # type: ignore[arg-type]
    for key, parameter in system.named_parameters():
        if key.endswith(("motion.proj_out.weight", "spatial.proj_out.weight", "to_out.0.weight")):
            nn.init.normal_(parameter, std=0.1)
    task = DiffusionTask(config_of(TINY), system, clips, REGIONS)
    batch = task.batch(0, PLAIN, [2, 12], [NEUTRAL] * 2)  # disgusted and happy
    task.loss(batch, PLAIN, task.position_weight(PLAIN), gated=False)[0].backward()
    reached = {
        int(key.split(".emotion.experts.")[1].split(".")[0])
        for key, parameter in system.named_parameters()
        if ".emotion.experts." in key and parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
    }
    assert reached == {EXPERTS.index("disgusted"), EXPERTS.index("happy")}


def test_the_start_depends_on_the_seed_alone():
    clips = clips_of(TINY.unet)
    first, second = fresh(clips=clips), fresh(clips=clips)
    assert same(weights(first), weights(second))
    other = MoEESystem(TINY)
    moee.initialise(other, clips, 8)
    assert not same(weights(first), weights(other))
    std = first.denoiser.anchor_std
    assert std is not None
    torch.testing.assert_close(std.weight, clips.change_std.clamp_min(0.05).flatten(1))  # type: ignore[arg-type]
