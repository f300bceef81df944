"""Two windows of Hallo from picture to picture, against the numbers of its authors' code.

Tolerance: 1e-3 absolute. Four steps with guidance 3.5 and a second window on top of decoded pictures carry rounding
along: the authors' code differs from itself by 1.8e-4 between one thread and two. Keeping reference features in half
precision makes a last bit into a step of 5e-4, so with it each window starts from the authors' carried frames.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from moee_core.diffusion.schedule import alphas_cumprod, trailing_timesteps
from moee_core.networks.masked_audio import SpeechRegions
from moee_core.systems.hallo import HalloPortrait, HalloSampling, HalloSystem, numbered_noise, running_noise

from ..fixtures.hallo_parity import TINY, regions_of, stored
from ..fixtures.parity import equals

EXACT = HalloSampling(num_inference_steps=4, hallo_exact=True)
UNROUNDED = replace(EXACT, half_reference=False)
WINDOW = TINY.window_frames


def close(found: Tensor, expected: Tensor, name: str) -> None:
    equals(found, expected, 1e-3, f"hallo {name}")


@pytest.fixture(scope="module")
def system(hallo: HalloSystem) -> HalloSystem:
    return hallo


@pytest.fixture(scope="module")
def portrait(system: HalloSystem) -> HalloPortrait:
    inputs = stored("pipeline_inputs")
    regions = regions_of(inputs, slice(0, 1), (1.0, 1.0, 1.0))
    return system.portrait(inputs["source_image"][None], inputs["face_emb"], inputs["face_region_mask"], regions)


def noise(start: int, shape: tuple[int, int, int, int]) -> Tensor:
    """Of one window, as stored."""
    given = stored("pipeline_outputs")[f"w{start // WINDOW}.initial_noise"][0].transpose(0, 1)
    assert given.shape == shape
    return given


def speech(system: HalloSystem, frames: Tensor) -> Tensor:
    """The stored windows of features are made up one by one, so they are taken as they are."""
    with torch.no_grad():
        return system.audio_projector(stored("pipeline_inputs")["audio_emb_windowed"][frames])


def test_two_windows_step_by_step(system: HalloSystem, portrait: HalloPortrait, monkeypatch: pytest.MonkeyPatch):
    """Latents before each step, carried frames and audio tokens of both windows, as the whole chain makes them."""
    expected = stored("pipeline_outputs")
    steps: list[Tensor] = []
    windows: list[tuple[Any, ...]] = []
    sample = system.sample_window

    def recording(*given: Any) -> Tensor:
        windows.append((*given, sample(*given)))
        return windows[-1][-1]

    hook = system.denoiser.register_forward_pre_hook(lambda _module, given: steps.append(given[0]))
    monkeypatch.setattr(system, "sample_window", recording)
    try:
        pictures = list(system.animate(portrait, 2 * WINDOW, lambda frames: speech(system, frames), noise, UNROUNDED))
    finally:
        hook.remove()
    assert [x.shape for x in pictures] == [(WINDOW, 3, 128, 128)] * 2
    assert all(x.min() >= -1 and x.max() <= 1 for x in pictures)
    before = steps[::2]  # two branches a step
    for window, (seen, motion, tokens, _, _, _, latents) in enumerate(windows):
        carried = seen.latent_1Zhw.expand(2, -1, -1, -1) if motion is None else motion
        made = {"ref_latents": torch.cat([seen.latent_1Zhw, carried]), "audio_tokens": tokens[None]}
        after = [*before[4 * window + 1 : 4 * window + 4], latents]
        made |= {f"latents_after_step{step}": x.transpose(0, 1)[None] for step, x in enumerate(after)}
        for name, found in made.items():
            close(found, expected[f"w{window}.{name}"], f"pipeline_outputs w{window}.{name}")
    shown = (pictures[1].transpose(0, 1) + 1) / 2
    close(shown[..., 32:96, 32:96], expected["w1.video.middle"][0], "pipeline_outputs w1.video.middle")


@pytest.mark.parametrize("window", [0, 1])
def test_a_window_with_reference_features_in_half_precision(system: HalloSystem, portrait: HalloPortrait, window: int):
    given, expected = stored("pipeline_outputs"), stored("pipeline_outputs_half_reference")
    steps: list[Tensor] = []
    hook = system.denoiser.register_forward_pre_hook(lambda _module, inputs: steps.append(inputs[0]))
    motion = expected[f"w{window}.ref_latents"][1:]
    start = noise(WINDOW * window, (WINDOW, 4, 16, 16))
    try:
        found = system.sample_window(portrait, motion, given[f"w{window}.audio_tokens"][0], start, EXACT)
    finally:
        hook.remove()
    for step, latents in enumerate([*steps[2::2], found]):
        name = f"w{window}.latents_after_step{step}"
        close(latents.transpose(0, 1), expected[name][0], f"pipeline_outputs_half_reference {name}")


def test_the_default_is_not_the_accident(system: HalloSystem, portrait: HalloPortrait):
    expected = stored("pipeline_outputs")
    motion, tokens = expected["w0.ref_latents"][1:], expected["w0.audio_tokens"][0]
    given = noise(0, (WINDOW, 4, 16, 16))
    found = system.sample_window(portrait, motion, tokens, given, replace(UNROUNDED, hallo_exact=False))
    assert (found.transpose(0, 1) - expected["w0.latents_after_step3"][0]).abs().max() > 0.1


def test_guidance_of_one_runs_one_branch(system: HalloSystem, portrait: HalloPortrait):
    calls: list[int] = []
    hook = system.denoiser.register_forward_pre_hook(lambda _module, given: calls.append(len(given[0])))
    expected = stored("pipeline_outputs")
    motion, tokens = expected["w0.ref_latents"][1:], expected["w0.audio_tokens"][0]
    done: list[tuple[int, int]] = []
    try:
        system.sample_window(
            portrait,
            motion,
            tokens,
            noise(0, (WINDOW, 4, 16, 16)),
            HalloSampling(num_inference_steps=2, guidance=1.0),
            on_step=lambda step, steps: done.append((step, steps)),
        )
    finally:
        hook.remove()
    assert calls == [WINDOW] * 2
    assert done == [(1, 2), (2, 2)]


def test_the_last_window_is_cut_to_the_recording(system: HalloSystem, portrait: HalloPortrait):
    wanted: list[list[int]] = []

    def tokens(frames: Tensor) -> Tensor:
        wanted.append(frames.tolist())
        return torch.zeros(len(frames), 32, 40)

    settings = HalloSampling(num_inference_steps=1, guidance=1.0)
    pictures = list(system.animate(portrait, 6, tokens, lambda start, shape: torch.randn(shape), settings))
    assert [len(x) for x in pictures] == [4, 2]
    assert wanted == [[0, 1, 2, 3], [4, 5, 5, 5]]


def test_a_bright_portrait_is_stretched_only_when_exact(system: HalloSystem):
    """The authors' picture processor takes a stack without a value below mid-grey for one in [0, 1]."""
    picture = torch.rand(1, 3, 128, 128) * 0.9 + 0.05
    maps = SpeechRegions.of(torch.ones(1, 3, 16, 16), levels=4)
    one = system.portrait(picture, torch.zeros(1, 512), torch.zeros(1, 3, 128, 128), maps)
    seen: list[Tensor] = []
    hook = system.reference_net.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    try:
        for exact in (False, True):
            settings = HalloSampling(num_inference_steps=1, guidance=1.0, hallo_exact=exact)
            next(system.animate(one, 4, lambda f: torch.zeros(4, 32, 40), lambda s, n: torch.zeros(n), settings))
    finally:
        hook.remove()
    with torch.no_grad():
        torch.testing.assert_close(seen[0][:1], system.autoencoder.encode(picture), rtol=0, atol=1e-3)
        torch.testing.assert_close(seen[1][:1], system.autoencoder.encode(2 * picture - 1), rtol=0, atol=1e-3)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float16, 0.01), (torch.bfloat16, 0.08)])
def test_a_portrait_that_is_not_square_in_16_bits(hallo: HalloSystem, dtype: torch.dtype, bound: float):
    """The whole chain, the sampling loop in the noise's precision. Three bits less make eight times the difference, so
    it is rounding; made-up weights carry it on into the second window, with guidance even more."""
    generator = torch.Generator().manual_seed(5)
    picture = torch.rand(1, 3, 64, 96, generator=generator) * 2 - 1
    maps = torch.rand(1, 3, 8, 12, generator=generator)
    features = torch.randn(6, 12, 32, generator=generator)

    def run(system: HalloSystem, dtype: torch.dtype) -> Tensor:
        one = system.portrait(
            picture.to(dtype),
            torch.ones(1, 512, dtype=dtype),
            torch.ones(1, 3, 64, 96, dtype=dtype),
            SpeechRegions.of(maps, levels=4),
        )
        settings = HalloSampling(num_inference_steps=1, guidance=1.0)
        given = system.animate(one, 6, partial(system.audio_tokens, features), numbered_noise(0), settings)
        return torch.cat(list(given))

    expected, found = run(hallo, torch.float32), run(copy.deepcopy(hallo).to(dtype), dtype)
    assert found.shape == (6, 3, 64, 96)
    assert found.dtype == dtype
    assert found.isfinite().all()
    first = slice(0, WINDOW)
    assert (found[first].float() - expected[first]).norm() < bound * expected[first].norm()


def test_audio_tokens_come_from_clamped_windows(system: HalloSystem):
    features = torch.randn(6, 12, 32)
    found = system.audio_tokens(features, torch.tensor([0, 5]))
    windows = torch.stack([features[[0, 0, 0, 1, 2]], features[[3, 4, 5, 5, 5]]])
    with torch.no_grad():
        torch.testing.assert_close(found, system.audio_projector(windows))


def test_the_face_is_drawn_on_the_portrait(system: HalloSystem):
    maps = SpeechRegions.of(torch.ones(1, 3, 16, 16), levels=4)
    with pytest.raises(ValueError, match=r"the face's box is drawn on \(64, 64\), the portrait is \(128, 128\)"):
        system.portrait(torch.zeros(1, 3, 128, 128), torch.zeros(1, 512), torch.zeros(1, 3, 64, 64), maps)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_inference_steps": 0}, "num_inference_steps must be 1 to 1000, got 0"),
        ({"guidance": 11.0}, "guidance must be between 0 and 10, got 11"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        HalloSampling(**settings)


# ---- noise and schedule ----------------------------------------------------------------------------------------


def test_noise_is_drawn_as_the_authors_draw_it():
    make = running_noise(42)
    for start in (0, WINDOW):
        assert torch.equal(make(start, (WINDOW, 4, 16, 16)), noise(start, (WINDOW, 4, 16, 16)))
    assert make(2 * WINDOW, (2, 4, 3, 5)).shape == (2, 4, 3, 5)
    assert running_noise(1, torch.float16)(0, (1, 1, 2, 2)).dtype == torch.float16


def test_noise_by_number_does_not_depend_on_the_windows():
    make = numbered_noise(3)
    whole = make(0, (6, 4, 2, 2))
    assert torch.equal(torch.cat([make(0, (4, 4, 2, 2)), make(4, (2, 4, 2, 2))]), whole)
    assert not torch.equal(whole, numbered_noise(4)(0, (6, 4, 2, 2)))
    assert not torch.equal(whole[0], whole[1])


def test_the_schedule_is_the_authors():
    expected = stored("scheduler")
    found = alphas_cumprod("linear", zero_snr=True)
    equals(found.float(), expected["alphas_cumprod"], 1e-6, "hallo scheduler alphas_cumprod")
    assert expected["final_alpha_cumprod"].item() == 1.0
    for steps in (4, 10, 25, 40, 50):
        name = f"timesteps_{steps}"
        equals(torch.tensor(trailing_timesteps(steps)), expected[name].long(), 0, f"hallo scheduler {name}")
