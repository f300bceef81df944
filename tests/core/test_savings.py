"""Speed by choice: solvers, guidance on part of the way, deep features reused, latents carried, compilation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from moee_core.__main__ import main
from moee_core.diffusion.sampler import DeepFeatures, Reuse, Savings, sample
from moee_core.diffusion.schedule import alphas_cumprod
from moee_core.networks.masked_audio import SpeechRegions
from moee_core.pipeline import SamplingSettings, animate
from moee_core.systems.hallo import HalloPortrait, HalloSampling, HalloSystem
from moee_core.systems.moee import MoEESystem
from moee_core.video.frames import read_video

from ..fixtures.tiny import tiny_system
from .test_command_line import animate_arguments, media
from .test_diffusion import SHAPE, toy
from .test_pipeline import ROUNDING, colourful, parse_emotion, recording, stacked

__all__ = ["media"]  # a fixture
NO_SAVINGS = Savings()


def made(system: MoEESystem, settings: SamplingSettings, frames: int = 4) -> Any:
    return stacked(animate(system, colourful(80, 72), recording(frames), parse_emotion("happy"), settings))


@contextmanager
def counted(module: nn.Module) -> Iterator[list[int]]:
    """Rows of every call of a module."""
    rows: list[int] = []
    hook = module.register_forward_pre_hook(lambda _module, given: rows.append(len(given[0])))
    try:
        yield rows
    finally:
        hook.remove()


# ---- the solver -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zero_snr", "prediction_type"), [(True, "v_prediction"), (False, "v_prediction"), (False, "epsilon")]
)
@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_dpmpp_2m_is_that_of_diffusers(zero_snr: bool, prediction_type: str, steps: int):
    diffusers = pytest.importorskip("diffusers")
    scheduler: Any = diffusers.DPMSolverMultistepScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        algorithm_type="dpmsolver++",
        solver_order=2,
        prediction_type=prediction_type,
        timestep_spacing="trailing",
        rescale_betas_zero_snr=zero_snr,
        final_sigmas_type="zero",
    )
    scheduler.set_timesteps(steps)
    noise = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(steps))
    x = noise
    for step in scheduler.timesteps:
        x = scheduler.step(toy(x, step.expand(2)), step, x).prev_sample
    table = alphas_cumprod(zero_snr=zero_snr).clone()
    if zero_snr:
        table[-1] = 2**-24  # as diffusers has it, whose logarithms know no 0
    settings: dict[str, Any] = {"num_inference_steps": steps, "prediction_type": prediction_type}
    found = sample(toy, noise, table, solver="dpmpp_2m", **settings)
    torch.testing.assert_close(found, x, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("steps", [10, 20])
def test_dpmpp_2m_starts_from_noise_alone_and_comes_closer_than_ddim(steps: int):
    """Of pictures drawn from N(0, 1/4), whose exact denoiser is known, noise z belongs to z / 2."""
    table = alphas_cumprod().float()

    def predict(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = table[t[0]].sqrt(), (1 - table[t[0]]).sqrt()
        return (alpha * x - alpha * x / 4 / (alpha**2 / 4 + sigma**2)) / sigma if alpha else -sigma * 0 * x

    noise = torch.randn(64, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    settings: dict[str, Any] = {"num_inference_steps": steps, "prediction_type": "v_prediction"}
    ddim, second = (
        float((sample(predict, noise, table, solver=solver, **settings) - noise / 2).abs().mean())
        for solver in ("ddim", "dpmpp_2m")
    )
    assert second < (0.85 if steps == 10 else 0.7) * ddim


# ---- guidance on part of the way ------------------------------------------------------------------------------------


def test_guidance_acts_on_its_part_of_the_way_alone():
    """Four steps stand at 0, 1/4, 1/2 and 3/4 of the way; a step with guidance takes three passes, others one."""
    for between, passes in (((0.0, 1.0), 12), ((0.0, 0.5), 8), ((0.25, 0.75), 8), ((0.5, 1.0), 8), ((0.9, 1.0), 4)):
        system = tiny_system()
        savings = Savings(guidance_from=between[0], guidance_until=between[1])
        settings = SamplingSettings(num_inference_steps=4, emotion_guidance=2.0, audio_guidance=1.5, savings=savings)
        with counted(system.denoiser) as calls:
            made(system, settings)
        assert len(calls) == passes, between


def test_guidance_nowhere_is_none_and_everywhere_is_all():
    system = tiny_system()
    guided = SamplingSettings(num_inference_steps=3, emotion_guidance=2.0, audio_guidance=1.5)
    plain = made(system, SamplingSettings(num_inference_steps=3))
    late = replace(guided, savings=Savings(guidance_from=0.99))
    assert (made(system, late) == plain).all()
    part = made(system, replace(guided, savings=Savings(guidance_until=0.5)))
    assert (part != made(system, guided)).any()
    assert (part != plain).any()


# ---- deep features reused -------------------------------------------------------------------------------------------


def test_deep_features_are_worked_out_every_nth_step():
    reuse = Reuse(3)
    for step in range(7):
        reuse.begin()
        for condition in ("full", ("negative", 4)):
            features = reuse.of(condition)
            assert features is not None
            assert (features.entering is None) == (step % 3 == 0)
            assert reuse.of(condition) is features
            features.entering = torch.zeros(1)
    assert Reuse(1).of("full") is None


def test_a_condition_left_out_for_a_while_finds_nothing_old():
    reuse = Reuse(2)
    reuse.begin()
    first = reuse.of("negative")
    assert first is not None
    first.entering = torch.zeros(1)
    reuse.begin()
    reuse.begin()
    again = reuse.of("negative")
    assert again is not None
    assert again.entering is None, "worked out two steps ago, and not since"


@pytest.mark.parametrize(("reuse", "deep"), [(1, 6), (2, 3), (3, 2), (6, 1), (50, 1)])
def test_between_them_only_the_first_level_runs(reuse: int, deep: int):
    system = tiny_system()
    settings = SamplingSettings(num_inference_steps=6, savings=Savings(reuse=reuse))
    backbone = system.denoiser.backbone
    with counted(backbone.mid_block) as middle, counted(backbone.up_blocks[-1]) as last:
        frames = made(system, settings)
    assert (len(middle), len(last)) == (deep, 6)
    plain = made(system, replace(settings, savings=NO_SAVINGS))
    assert (frames == plain).all() == (reuse == 1)


def test_what_is_reused_is_what_would_be_worked_out_for_the_same_input():
    system = tiny_system()
    x, t = torch.randn(4, 4, 8, 8), torch.full((4,), 500)
    latent = torch.randn(1, 4, 8, 8)
    reference = system.reference_net.reference(latent, latent[None].expand(1, 2, -1, -1, -1))
    audio = torch.randn(4, system.config.audio.tokens, system.config.audio.token_width)
    deep = DeepFeatures()
    with torch.no_grad():
        first, again = (
            system.denoiser(x, t, frames=4, reference=reference, audio_NSA=audio, deep=deep) for _ in range(2)
        )
        assert torch.equal(first, again)
        other = system.denoiser(x + 1, t, frames=4, reference=reference, audio_NSA=audio, deep=deep)
        whole = system.denoiser(x + 1, t, frames=4, reference=reference, audio_NSA=audio)
    assert deep.entering is not None
    assert not torch.equal(other, whole)


# ---- Hallo ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def portrait(hallo: HalloSystem) -> HalloPortrait:
    generator = torch.Generator().manual_seed(0)
    regions = SpeechRegions.of(torch.rand(1, 3, 8, 8, generator=generator), levels=4)
    picture = torch.rand(1, 3, 64, 64, generator=generator) * 2 - 1
    return hallo.portrait(picture, torch.randn(1, 512, generator=generator), torch.ones(1, 3, 64, 64), regions)


def hallo_made(system: HalloSystem, portrait: HalloPortrait, sampling: HalloSampling, windows: int = 1) -> Tensor:
    frames, silence = system.config.window_frames, torch.zeros(system.config.window_frames, 32, 40)

    def noise(start: int, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(start))

    return torch.cat(list(system.animate(portrait, windows * frames, lambda f: silence, noise, sampling)))


def test_hallo_saves_as_asked(hallo: HalloSystem, portrait: HalloPortrait):
    plain = HalloSampling(num_inference_steps=4)
    backbone = hallo.denoiser.backbone
    expected = hallo_made(hallo, portrait, plain)
    for savings, whole, every in (
        (Savings(), 8, 8),
        (Savings(reuse=2), 4, 8),
        (Savings(guidance_until=0.5), 6, 6),
        (Savings(guidance_from=0.25, reuse=4), 2, 7),
        (Savings(solver="dpmpp_2m"), 8, 8),
    ):
        with counted(backbone.mid_block) as middle, counted(backbone) as all_of_it:
            found = hallo_made(hallo, portrait, replace(plain, savings=savings))
        assert (len(middle), len(all_of_it)) == (whole, every), savings
        assert torch.isfinite(found).all()
        assert torch.equal(found, expected) == (savings == NO_SAVINGS), savings


def test_hallo_hands_on_latents_where_asked(
    hallo: HalloSystem, portrait: HalloPortrait, monkeypatch: pytest.MonkeyPatch
):
    seen: list[Tensor | None] = []
    windows: list[Tensor] = []
    encoded: list[int] = []
    sample_window, encode = hallo.sample_window, hallo.autoencoder.encode

    def sampling(one: HalloPortrait, motion: Tensor | None, *rest: Any) -> Tensor:
        seen.append(motion)
        windows.append(sample_window(one, motion, *rest))
        return windows[-1]

    def encoding(pictures: Tensor) -> Tensor:
        encoded.append(len(pictures))
        return encode(pictures)

    monkeypatch.setattr(hallo, "sample_window", sampling)
    monkeypatch.setattr(hallo.autoencoder, "encode", encoding)
    settings = HalloSampling(num_inference_steps=1, carry_latents=True)
    carried = hallo_made(hallo, portrait, settings, windows=2)
    assert seen[0] is None
    assert seen[1] is not None
    assert torch.equal(seen[1], windows[0][-hallo.config.unet.motion_frames :])
    assert encoded == []
    again = hallo_made(hallo, portrait, replace(settings, carry_latents=False), windows=2)
    frames = hallo.config.window_frames
    assert torch.equal(carried[:frames], again[:frames])
    assert not torch.equal(carried[frames:], again[frames:])
    assert encoded == [hallo.config.unet.motion_frames]


def test_hallo_exact_and_carried_latents_exclude_each_other():
    with pytest.raises(ValueError, match="leave it or carry_latents out"):
        HalloSampling(hallo_exact=True, carry_latents=True)


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"solver": "euler"}, "unknown solver 'euler'; choose ddim or dpmpp_2m"),
        ({"guidance_from": 0.5, "guidance_until": 0.5}, "0 <= from < until <= 1, got 0.5 and 0.5"),
        ({"guidance_until": 1.5}, "got 0 and 1.5"),
        ({"guidance_from": float("nan")}, "got nan and 1"),
        ({"reuse": 0}, "reuse must be 1 .* got 0"),
        ({"reuse": 101}, "reuse must be 1 .* got 101"),
    ],
)
def test_savings_out_of_range_are_named(given: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        Savings(**given)


# ---- the command line -----------------------------------------------------------------------------------------------


def frames_of(path: Path) -> Any:
    return torch.stack([torch.from_numpy(frame) for frame in read_video(path)])


def test_the_command_line_takes_every_one_of_them(tmp_path: Path, media: Path, tiny_checkpoint: Path):
    def run(name: str, *more: str) -> Any:
        target = tmp_path / f"{name}.mkv"
        given = animate_arguments(media, tiny_checkpoint, target, steps="4", emotion_guidance="3", audio_guidance="2")
        assert main([*map(str, given), *more]) == 0
        return frames_of(target)

    plain = run("plain")
    for name, more in (
        ("solver", ["--solver", "dpmpp_2m"]),
        ("between", ["--guidance-between", "0.5", "1"]),
        ("reuse", ["--reuse", "2"]),
    ):
        assert not torch.equal(run(name, *more), plain), name
    assert torch.equal(run("again"), plain)


def test_the_command_line_names_what_is_out_of_range(
    tmp_path: Path, media: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
):
    given = [*map(str, animate_arguments(media, tiny_checkpoint, tmp_path / "out.mp4"))]
    assert main([*given, "--guidance-between", "0.8", "0.2"]) == 2
    assert "0 <= from < until <= 1, got 0.8 and 0.2" in capsys.readouterr().err
    assert main([*given, "--solver", "euler"]) == 2
    assert "unknown solver 'euler'; choose ddim or dpmpp_2m" in capsys.readouterr().err
    assert main([*given, "--reuse", "0"]) == 2
    assert "reuse must be 1 (off)" in capsys.readouterr().err


@pytest.mark.slow
def test_a_compiled_denoiser_gives_the_same_frames(tmp_path: Path, media: Path, tiny_checkpoint: Path):
    """Needs a C++ compiler, which PyTorch looks for itself. Compared before a video codec has rounded anything."""
    settings = SamplingSettings(num_inference_steps=2, emotion_guidance=1.5)
    system = tiny_system()
    plain = made(system, settings)
    system.denoiser.compile()
    assert abs(made(system, settings) - plain).max() <= ROUNDING
    given = [*map(str, animate_arguments(media, tiny_checkpoint, tmp_path / "out.mkv"))]
    assert main([*given, "--compile"]) == 0
    assert len(frames_of(tmp_path / "out.mkv"))
