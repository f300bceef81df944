"""The spatial loss beyond Eq. 7, and runs that start from a finished model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from moee_core.diffusion.schedule import alphas_cumprod
from moee_core.emotion.vocabulary import LABELS
from moee_core.systems.moee import MoEESystem
from moee_core.weights.checkpoint import load_system, save_system
from training.config import (
    AudioStage,
    AutoencoderStage,
    ConfigError,
    DataConfig,
    DecoderStage,
    DiffusionStage,
    ExpertsStage,
    GatesStage,
    StageConfig,
    TrainConfig,
)
from training.data.latents import LatentClips
from training.run import run
from training.stages import decoder, moee
from training.stages.autoencoder import pictures
from training.stages.diffusion import Batch, DiffusionTask, choose_reference, draw_numbers

from .test_stages import NEUTRAL, PLAIN, QUICK, REGIONS, TINY, WINDOW, clips_of, config_of, frames_of, fresh, task_of


@pytest.mark.parametrize("every", [1, 3])
def test_the_spatial_loss_can_be_flat_in_time_on_more_frames_and_on_edges(every: int):
    settings = dataclasses.replace(
        PLAIN,
        spatial_weight=1.0,
        spatial_time="flat",
        spatial_every=every,
        spatial_edges=0.5,
        mouth_weight=1.0,
        eye_weight=1.0,
    )
    task, _ = task_of(settings)
    weight = task.position_weight(settings)
    batch = task.batch(2, settings, [3, 12], [NEUTRAL] * 2)
    with torch.no_grad():
        _, figures = task.loss(batch, settings, weight, gated=False)
        velocity, noisy = task.predict(batch, settings, gated=False)
        alpha_bar = alphas_cumprod(TINY.unet.beta_schedule).float()[batch.timesteps][:, None, None, None]
        estimate = alpha_bar.sqrt() * noisy - (1 - alpha_bar).sqrt() * velocity
        rows = list(range(every // 2, 2 * WINDOW, every))
        error = task.system.autoencoder.decode(estimate[rows]) - task.system.autoencoder.decode(batch.clean[rows])
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    assert figures["spatial"] == pytest.approx(float(error.abs().mean() + 0.5 * edges), rel=1e-3)


@pytest.mark.parametrize(("name", "value"), [("spatial_time", "sine"), ("spatial_every", 0)])
def test_spatial_settings_are_checked(name: str, value: object):
    with pytest.raises(ValueError, match=name):
        DiffusionStage(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [6, 1])
def test_a_run_can_start_from_a_finished_model(given: int):
    previous, system = fresh(given), fresh(1)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in previous.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    moee.start_from(previous, system)
    given_state = previous.state_dict()
    for name, value in system.state_dict().items():
        if ".gates." in name:
            continue
        if ".emotion.experts.0." in name:
            every = [given_state[name.replace("experts.0.", f"experts.{i}.")] for i in range(given)]
            torch.testing.assert_close(value, torch.stack(every).mean(0))
        else:
            assert torch.equal(value, given_state[name]), name


def test_a_start_without_some_encoder_keeps_the_fresh_one_and_another_size_is_refused():
    smaller = dataclasses.replace(TINY, emotion=dataclasses.replace(TINY.emotion, action_units=0))
    previous, system = MoEESystem(smaller), fresh(1)
    missing = set(system.state_dict()) - set(previous.state_dict())
    before = {name: system.state_dict()[name].clone() for name in missing}
    assert any("action_unit" in name for name in missing)
    moee.start_from(previous, system)
    assert all(torch.equal(system.state_dict()[name], value) for name, value in before.items())
    narrow = MoEESystem(dataclasses.replace(TINY, audio=dataclasses.replace(TINY.audio, hidden=16)))
    with pytest.raises(ConfigError, match=r"start_from: audio_projector\.proj1\.weight is \(16, "):
        moee.start_from(narrow, fresh(1))


def test_the_decoder_stage_draws_one_step_estimates_and_true_latents_as_the_rendered_picture():
    settings = DecoderStage(**{**QUICK, "iterations": 3, "spatial_every": 1, "mouth_weight": 1.0, "eye_weight": 1.0})
    clips, frames = clips_of(TINY.unet), frames_of()
    system = fresh(clips=clips)
    config = config_of(TINY, decoder=settings)
    stage = decoder.make_stage(config, system, clips, REGIONS, frames)
    total, figures = stage.loss(0)
    batch = batch_of(config, system, clips, step=0)
    joined = np.concatenate(frames)
    shown = pictures(np.stack([joined[clip, frame] for clip, frame in batch.places]))
    with torch.no_grad():
        error = system.autoencoder.decode(batch.clean[:: settings.kept_every]) - shown[:: settings.kept_every]
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    assert figures["kept"] == pytest.approx(float(error.abs().mean() + edges), rel=1e-4)
    assert float(total.detach()) == pytest.approx(figures["drawn"] + 0.5 * figures["kept"], rel=1e-5)
    total.backward()
    moved = {name for name, parameter in system.named_parameters() if parameter.grad is not None}
    assert moved
    assert all(name.startswith("autoencoder.decoder.") for name in moved)


def batch_of(config: TrainConfig, system: MoEESystem, clips: LatentClips, step: int) -> Batch:
    """The batch that the decoder's stage draws at a step."""
    settings = config.stages.decoder
    task = DiffusionTask(config, system, clips, REGIONS)
    numbers = draw_numbers(config, step, np.arange(len(clips) - task.held_out), settings.batch_size)
    rng = np.random.default_rng([config.seed, 9, step, numbers[0]])
    return task.batch(step, settings, numbers, [choose_reference(settings, rng) for _ in numbers])


def test_a_batch_says_which_frames_it_holds():
    clips = clips_of(TINY.unet)
    settings = DecoderStage(**QUICK)
    batch = batch_of(config_of(TINY, decoder=settings), fresh(clips=clips), clips, step=4)
    assert len(batch.places) == len(batch.clean)
    for latents, (clip, frame) in zip(batch.clean, batch.places, strict=True):
        assert torch.equal(latents, clips.latents[clip, frame].float())


def test_the_critic_pulls_with_the_strength_asked_for():
    clips = clips_of(TINY.unet)
    kinds = {0.0: [], 0.25: [], 1.0: []}
    for strength, slopes in kinds.items():
        system = fresh(clips=clips)
        settings = DecoderStage(**QUICK, whole=True, critic=strength)
        stage = decoder.make_stage(config_of(TINY, decoder=settings), system, clips, REGIONS, frames_of())
        total, figures = stage.loss(0)
        system.denoiser.conv_out.weight.requires_grad_(True)
        assert ("objection" in figures) == (strength > 0)
        slopes.append(torch.autograd.grad(total, system.denoiser.conv_out.weight)[0])
    plain, quarter, full = (kinds[k][0] for k in (0.0, 0.25, 1.0))
    assert float((full - plain).norm()) > 0
    torch.testing.assert_close((quarter - plain) * 4, full - plain, rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("given", [{"critic": -1.0, "whole": True}, {"critic": 0.5}])
def test_a_critic_needs_networks_to_pull(given: dict[str, Any]):
    with pytest.raises(ValueError, match="critic must be 0, or positive with whole = true"):
        DecoderStage(**given)


def test_hard_clips_are_as_large_a_part_of_the_pool_as_asked():
    clips = clips_of(TINY.unet)
    viseme = torch.zeros_like(clips.viseme)
    viseme[[3, 4, 8], 2, 1] = -0.8  # 3 and 4 round their lips in an emotion, 8 with a neutral face
    clips = dataclasses.replace(clips, viseme=viseme)
    assert int(clips.emotion[8, 0].argmax()) == 0
    pool = decoder._pool(clips, 20, 0.75)
    assert set(pool.tolist()) == set(range(20)), "every clip is still drawn"
    counts = np.bincount(pool)
    assert counts[3] == counts[4] > 1
    assert all(counts[number] == 1 for number in range(20) if number not in (3, 4))
    assert (counts[3] + counts[4]) / len(pool) == pytest.approx(0.75, abs=0.02)
    assert decoder._pool(clips, 20, 0.0).tolist() == list(range(20))
    with pytest.raises(ValueError, match="no clip rounds its lips while an emotion is strong"):
        decoder._pool(dataclasses.replace(clips, viseme=torch.zeros_like(viseme)), 20, 0.5)
    with pytest.raises(ValueError, match="hard must be at least 0 and below 1"):
        DecoderStage(hard=1.0)


def test_clips_of_emphasised_emotions_are_repeated_until_they_are_their_share():
    clips = clips_of(TINY.unet)
    emotion = torch.zeros(24, *clips.emotion.shape[1:])
    emotion[..., 0] = 1
    emotion[:12, :, LABELS.index("happy")] = 0.6
    emotion[3, :, LABELS.index("sad")] = 0.7  # more than happy
    emotion[4, :, LABELS.index("sad")] = 0.5  # less
    emotion[13, -1, LABELS.index("surprised")] = 0.2  # at the clip's end alone
    clips = dataclasses.replace(clips, emotion=emotion)
    pool = decoder._with_emphasis(clips, np.arange(20), ("sad", "surprised"), 0.5)
    counts = np.bincount(pool)
    assert counts[3] == counts[13] > 1
    assert all(counts[number] == 1 for number in range(20) if number not in (3, 13))
    assert (counts[3] + counts[13]) / len(pool) == pytest.approx(0.5, abs=0.03)
    assert decoder._with_emphasis(clips, np.arange(20), (), 0.0).tolist() == list(range(20))
    with pytest.raises(ConfigError, match=r"no clip shows angry or fear; raise data\.clips"):
        decoder._with_emphasis(clips, np.arange(20), ("angry", "fear"), 0.5)
    assert DecoderStage(emphasis=" sad, surprised ", emphasis_share=0.5).emphasised == ("sad", "surprised")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"emphasis": "sad,joyful", "emphasis_share": 0.5}, "emphasis knows angry, .*, not 'joyful'"),
        ({"emphasis": "neutral", "emphasis_share": 0.5}, "not 'neutral'"),
        ({"emphasis": "sad"}, "emphasis and emphasis_share go together, got 'sad' and 0.0"),
        ({"emphasis_share": 0.5}, "emphasis and emphasis_share go together, got '' and 0.5"),
        ({"emphasis": "sad", "emphasis_share": 1.0}, "emphasis_share must be at least 0 and below 1"),
    ],
)
def test_an_emphasis_that_cannot_be_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        DecoderStage(**settings)


def test_an_emphasis_on_what_no_clip_shows_is_refused_by_the_stage():
    clips = clips_of(TINY.unet)
    clips = dataclasses.replace(clips, emotion=torch.eye(8)[0].expand_as(clips.emotion))
    config = config_of(fresh().config, decoder=DecoderStage(**QUICK, emphasis="sad", emphasis_share=0.5))
    with pytest.raises(ConfigError, match=r"no clip shows sad; raise data\.clips"):
        decoder.make_stage(config, fresh(), clips, REGIONS, frames_of())


def changed_in_a_corner() -> tuple[DiffusionTask, torch.Tensor, torch.Tensor]:
    """(task, frames, portraits) of two clips, two frames each: those of the first differ in a corner."""
    task, _ = task_of(PLAIN)
    portrait = torch.randn(2, *task.clips.latents.shape[2:], generator=torch.Generator().manual_seed(3))
    clean = portrait.repeat_interleave(2, dim=0)
    clean[:2, :, :2, :2] += 5.0
    return task, clean, portrait


def test_what_must_change_weighs_more_in_pictures_and_latents():
    task, clean, portrait = changed_in_a_corner()
    changed = task.changed(clean, portrait)
    assert changed.shape == (4, *clean.shape[-2:])
    assert float(changed.mean()) == pytest.approx(1.0, rel=1e-5)
    assert bool((changed[:2, :2, :2] > 0).all())
    assert not changed[:2, 3:, 3:].any(), "one place beyond the change still feels it, two do not"
    assert not changed[2:].any(), "the second clip's frames are its portrait"
    plain = task.position_weight(PLAIN)
    weight = task.position_weight(PLAIN, 2.0 * changed)
    assert weight.shape == clean.shape
    assert float(weight.mean()) == pytest.approx(1.0, rel=1e-5)
    ratio = weight / plain
    assert float(ratio[0, :, 0, 0].min()) > 3 * float(ratio[2].max())
    torch.testing.assert_close(ratio[2], ratio[3], msg="where nothing changes, regions weigh as they did")
    region = 1 + task.regions.sum(dim=0)
    pixels = decoder.raised(region, 2.0 * changed, torch.tensor([1, 2]))
    assert pixels.shape == (2, 1, *region.shape)
    assert float(pixels.mean()) == pytest.approx(float(region.mean()), rel=1e-5)
    assert float(pixels[0, 0, 0, 0]) > 3 * float(pixels[1, 0, 0, 0])
    assert torch.equal(decoder.raised(region, None, torch.tensor([1, 2])), region)
    with pytest.raises(ValueError, match="changed_weight must be 0 or more, got -1"):
        DecoderStage(changed_weight=-1.0)


def test_weight_on_change_reaches_the_stage_and_its_critic():
    clips = clips_of(TINY.unet)

    def trained(changed: float) -> tuple[float, torch.Tensor]:
        settings = DecoderStage(
            **QUICK, whole=True, critic=0.5, spatial_weight=2.0, changed_weight=changed, other_reference=1.0
        )
        config = config_of(fresh().config, decoder=settings)
        stage = decoder.make_stage(config, fresh(clips=clips), clips, REGIONS, frames_of())
        assert stage.adversary is not None
        return float(stage.loss(0)[0].detach()), stage.adversary.weight

    (without, even), (with_it, uneven) = trained(0.0), trained(2.0)
    assert without != with_it
    assert float(uneven.sum()) == pytest.approx(1.0, rel=1e-5)
    assert not torch.allclose(even, uneven)


def last_stage_alone(folder: Path, start_from: Path) -> TrainConfig:
    off: dict[str, Any] = {"iterations": 0}
    stages: dict[str, StageConfig] = {
        "audio": AudioStage(**off),
        "autoencoder": AutoencoderStage(**off),
        "reference": DiffusionStage(**off),
    }
    stages |= {"experts": ExpertsStage(**off), "gates": GatesStage(**off)}
    quick = DecoderStage(**{**QUICK, "window": 4}, whole=True)
    config = config_of(TINY, **stages, decoder=quick)
    return dataclasses.replace(
        config,
        start_from=str(start_from),
        data=DataConfig(clips=8, frames=8, image_size=TINY.image_size, shard=8, workers=1),
        cache=str(folder / "cache"),
        runs=str(folder / "runs"),
    )


def test_the_last_stage_alone_goes_on_with_every_expert_as_it_is(tmp_path: Path):
    previous = fresh(clips=clips_of(TINY.unet))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in previous.named_parameters():
            if ".emotion.experts." in name:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    save_system(tmp_path / "previous.safetensors", previous, dtype=torch.float32)
    made = run(last_stage_alone(tmp_path, tmp_path / "previous.safetensors"))
    taken, _ = load_system(made.parent / "gates.safetensors")
    assert all(torch.equal(value, previous.state_dict()[name]) for name, value in taken.state_dict().items())
    trained, info = load_system(made)
    changed = {name for name, value in trained.state_dict().items() if not torch.equal(value, taken.state_dict()[name])}
    assert any(name.startswith("denoiser.backbone.") for name in changed)
    assert any(name.startswith("autoencoder.decoder.") for name in changed)
    assert not any(".gates." in name or name.startswith(("speech_encoder.", "emotion_to")) for name in changed)
    assert '"after"' in info.metadata["trained"]


def test_a_model_of_other_sizes_cannot_be_gone_on_with(tmp_path: Path):
    narrow = MoEESystem(dataclasses.replace(TINY, audio=dataclasses.replace(TINY.audio, hidden=16)))
    save_system(tmp_path / "narrow.safetensors", narrow, dtype=torch.float32)
    with pytest.raises(ConfigError, match=r"other sizes than \[system\.audio\]"):
        run(last_stage_alone(tmp_path, tmp_path / "narrow.safetensors"))
