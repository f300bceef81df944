"""The training loop and the diffusion stages: killed and resumed is the same as never killed; what each stage moves."""

from __future__ import annotations

import dataclasses
import functools
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
from moee_core.errors import CheckpointError
from moee_core.networks.config import PortraitUNetConfig, SystemConfig
from moee_core.systems.moee import MoEESystem
from training import parallel
from training.checkpoint import load_state
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
from training.loop import Averages, Stage, learning_rate, run_stage
from training.stages import decoder, moee
from training.stages.diffusion import Batch, DiffusionTask, ReferenceChoice, choose_reference, draw_start, draw_timestep

from ..fixtures.tiny import TINY


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ---- a toy stage ----------------------------------------------------------------------------------------------------

TOY = StageConfig(iterations=23, warmup=5, save_every=5, validate_every=8, learning_rate=0.05, ema=0.9)


class KilledError(Exception):
    """Stands for whatever ends a process in the middle of a stage."""


def toy_module() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2), nn.Linear(2, 2))


def toy_loss(module: nn.Module, step: int) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(6, 4, generator=generator)
    return (module(x) - x[:, :2].sin()).square().mean()


def toy_stage(module: nn.Module, kill_at: int | None = None, name: str = "toy", **settings: Any) -> Stage:
    """The last layer is frozen."""

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        if step == kill_at:
            raise KilledError
        return toy_loss(module, step), {"step": float(step)}

    return Stage(
        name=name,
        module=module,
        trainable=[(key, p) for key, p in module.named_parameters() if not key.startswith("3.")],
        loss=loss,
        settings=dataclasses.replace(TOY, **settings),
    )


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("kills", [(0,), (4,), (5,), (13,), (22,), (3, 9, 9, 21)])
def test_killed_and_resumed_is_bit_for_bit_the_same(tmp_path: Path, kills: tuple[int, ...]):
    straight, broken = toy_module(), toy_module()
    expected = run_stage(toy_stage(straight), made(tmp_path / "a"))
    for kill_at in kills:
        broken = toy_module()  # a new process starts from the stage's beginning
        with pytest.raises(KilledError):
            run_stage(toy_stage(broken, kill_at), made(tmp_path / "b"))
    broken = toy_module()
    found = run_stage(toy_stage(broken), tmp_path / "b")
    assert found == expected
    assert same(weights(broken), weights(straight))
    states = [load_state(tmp_path / name / "state.pt") for name in "ab"]
    assert states[0] is not None
    assert states[1] is not None
    assert states[0]["losses"] == states[1]["losses"]
    assert len(states[0]["losses"]) == TOY.iterations


def made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def test_the_loop_is_adamw_with_clipping_a_schedule_and_averaged_weights(tmp_path: Path):
    """The same written out plainly."""
    module, twin = toy_module(), toy_module()
    run_stage(toy_stage(module, clip=0.3), tmp_path)
    live = [p for key, p in twin.named_parameters() if not key.startswith("3.")]
    optimiser = torch.optim.AdamW(live, betas=(0.9, 0.99), weight_decay=TOY.weight_decay)
    average = [p.detach().double().clone() for p in live]
    for step in range(TOY.iterations):
        optimiser.param_groups[0]["lr"] = learning_rate(TOY, step)
        optimiser.zero_grad()
        toy_loss(twin, step).backward()
        length = math.sqrt(sum(float(p.grad.double().square().sum()) for p in live if p.grad is not None))
        for p in live:
            assert p.grad is not None
            p.grad.mul_(min(1.0, 0.3 / length))
        optimiser.step()
        decay = min(0.9, (step + 1) / (step + 12))
        average = [decay * a + (1 - decay) * p.detach().double() for a, p in zip(average, live, strict=True)]
    trained = [p for key, p in module.named_parameters() if not key.startswith("3.")]
    for found, expected in zip(trained, average, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6)


def test_what_is_not_trained_stays_and_everything_is_frozen_at_the_end(tmp_path: Path):
    module = toy_module()
    before = weights(module)
    run_stage(toy_stage(module), tmp_path)
    after = weights(module)
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert moved == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_a_finished_stage_that_is_run_again_gives_the_same_weights(tmp_path: Path):
    """KilledError after the last step and before the stage's file was written."""
    first, second = toy_module(), toy_module()
    run_stage(toy_stage(first), tmp_path)
    run_stage(toy_stage(second, kill_at=0), tmp_path)
    assert same(weights(first), weights(second))


def test_the_state_of_another_stage_is_not_continued(tmp_path: Path):
    run_stage(toy_stage(toy_module(), name="earlier"), tmp_path)
    module, alone = toy_module(), toy_module()
    run_stage(toy_stage(module), tmp_path)
    run_stage(toy_stage(alone), made(tmp_path / "alone"))
    assert same(weights(module), weights(alone))


def test_validation_sees_the_averaged_weights_and_leaves_the_live_ones(tmp_path: Path):
    module, seen = toy_module(), []
    stage = dataclasses.replace(
        toy_stage(module, save_every=8), validate=lambda step, folder: seen.append((step, weights(module)))
    )
    run_stage(stage, tmp_path)
    assert [step for step, _ in seen] == [8, 16, 23]
    state = load_state(tmp_path / "state.pt")
    assert state is not None
    shown = seen[-1][1]
    assert all(torch.equal(shown[key], value) for key, value in state["averages"].items())
    assert not any(torch.equal(state["module"][key], value) for key, value in state["averages"].items())
    assert same(weights(module), shown)


def test_a_loss_that_is_not_a_number_stops_the_stage(tmp_path: Path):
    module = toy_module()

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        return toy_loss(module, step) * (math.nan if step == 7 else 1.0), {}

    with pytest.raises(RuntimeError, match="stage toy: the loss became nan at step 7; lower the learning rate"):
        run_stage(dataclasses.replace(toy_stage(module), loss=loss), tmp_path)
    state = load_state(tmp_path / "state.pt")
    assert state is not None
    assert state["step"] == 5
    assert all(torch.isfinite(value).all() for value in state["module"].values())


def test_a_stage_of_no_steps_reports_nothing(tmp_path: Path):
    module = toy_module()
    before = weights(module)
    assert run_stage(toy_stage(module, iterations=0), tmp_path) == {}
    assert same(weights(module), before)


# ---- learning rate and averages -------------------------------------------------------------------------------------


def test_the_learning_rate_warms_up_stays_and_falls_as_half_a_cosine():
    settings = StageConfig(iterations=1000, warmup=50, decay_from=0.6, learning_rate=2.0, final_rate=0.1)
    rates = np.array([learning_rate(settings, step) for step in range(1001)])
    np.testing.assert_allclose(rates[:50], 2.0 * np.arange(1, 51) / 50)
    np.testing.assert_allclose(rates[50:601], 2.0)
    share = (np.arange(600, 1001) - 600) / 400
    np.testing.assert_allclose(rates[600:], 2.0 * (0.1 + 0.9 * (1 + np.cos(np.pi * share)) / 2))
    assert rates[-1] == pytest.approx(0.2)
    assert learning_rate(settings, 5000) == pytest.approx(0.2)


def test_a_stage_without_warm_up_or_decay_has_one_rate():
    settings = StageConfig(iterations=10, warmup=0, decay_from=1.0, learning_rate=0.3)
    assert {round(learning_rate(settings, step), 9) for step in range(10)} == {0.3}


def test_averages_are_warm_at_the_start():
    """After the first step they are mostly the live weights, later they remember 1 / (1 - decay) steps."""
    parameter = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    averages, expected = Averages([("x", parameter)], 0.99), 0.0
    for step in range(400):
        with torch.no_grad():
            parameter.fill_(math.sin(step) + step)
        averages.update(step)
        decay = min(0.99, (step + 1) / (step + 12))
        expected = decay * expected + (1 - decay) * (math.sin(step) + step)
        assert float(averages.values[0]) == pytest.approx(expected)
        if step == 30:
            assert float(averages.values[0]) > 20  # a cold start with 0.99 would still be near 4
    averages.swap()
    assert float(parameter.detach()) == pytest.approx(expected)
    averages.swap()
    assert float(parameter.detach()) == math.sin(399) + 399


# ---- training state on disk -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"not a state", b"PK\x03\x04 torn"])
def test_a_damaged_state_says_what_to_do(tmp_path: Path, content: bytes):
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"state\.pt cannot be read .*; delete it to restart its stage") as caught:
        run_stage(toy_stage(toy_module()), tmp_path)
    assert "\n" not in str(caught.value)


# ---- several processes ----------------------------------------------------------------------------------------------


def different_experts(folder: str) -> None:
    """Three experts, of which each process opens one; the last is open nowhere."""
    experts = nn.ModuleList(nn.Linear(2, 1, bias=False) for _ in range(3))
    number = parallel.rank()
    loss = 10.0 * (number + 1) * experts[number](torch.ones(1, 2)).sum()
    loss.backward()
    mean = parallel.average_gradients(list(experts.parameters()), loss)
    grads = [None if p.grad is None else p.grad.clone() for p in experts.parameters()]
    torch.save({"grads": grads, "mean": mean, "loss": float(loss.detach())}, Path(folder) / f"{number}.pt")


def test_processes_average_each_parameter_with_itself(tmp_path: Path):
    """A clip opens only the experts of its emotion, so the processes hold gradients of different parameters."""
    parallel.launch(2, functools.partial(different_experts, str(tmp_path)))
    results = [torch.load(tmp_path / f"{number}.pt", weights_only=True) for number in range(2)]
    for result in results:
        assert result["mean"] == pytest.approx((results[0]["loss"] + results[1]["loss"]) / 2)
        assert torch.equal(result["grads"][0], torch.full((1, 2), 5.0))
        assert torch.equal(result["grads"][1], torch.full((1, 2), 10.0))
        assert result["grads"][2] is None, "an expert that no process opened must not be decayed"


# ---- the diffusion stages on clips made up here ---------------------------------------------------------------------

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
        change_std=change_std,
    )


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
    for field in dataclasses.fields(Batch):
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


def test_clips_are_sorted_by_the_experts_they_need():
    only, count = moee.clip_kinds(clips_of(TINY.unet))
    assert only[:8].tolist() == [-1, 0, 1, 2, 3, 4, 5, -2]
    assert count[:8].tolist() == [0, 1, 1, 1, 1, 1, 1, 2]


# ---- what each stage moves ------------------------------------------------------------------------------------------


def real_stage(name: str, system: MoEESystem, clips: LatentClips) -> Stage:
    """``whole`` is the decoder's stage with the networks that make the estimate."""
    kinds = {"reference": DiffusionStage, "experts": ExpertsStage, "gates": GatesStage, "decoder": DecoderStage}
    settings = {key: kind(**QUICK) for key, kind in kinds.items()}
    if name == "whole":
        settings["decoder"] = DecoderStage(**QUICK, whole=True, spatial_weight=2.0, short_until=0.5)
    config = config_of(system.config, **settings)
    make = {
        "reference": moee.reference_stage,
        "experts": moee.experts_stage,
        "gates": moee.gates_stage,
        "decoder": decoder.make_stage,
        "whole": decoder.make_stage,
    }[name]
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


@pytest.mark.parametrize("name", ["reference", "experts", "gates", "decoder", "whole"])
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
