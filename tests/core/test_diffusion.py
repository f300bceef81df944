"""Schedules and the sampling loop against diffusers' DDIM, noise by frame number, guidance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from moee_core.diffusion.sampler import frame_noise, guided, guided_in_silence, sample, spoken_passes, to_x0
from moee_core.diffusion.schedule import alphas_cumprod, trailing_timesteps

SHAPE = (4, 16, 16)


def ddim(kind: str, zero_snr: bool, prediction_type: str) -> Any:
    diffusers = pytest.importorskip("diffusers")
    return diffusers.DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule=kind,
        clip_sample=False,
        set_alpha_to_one=True,
        prediction_type=prediction_type,
        timestep_spacing="trailing",
        rescale_betas_zero_snr=zero_snr,
    )


# ---- schedules ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["linear", "scaled_linear"])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_alphas_cumprod_are_those_of_diffusers(kind: str, zero_snr: bool):
    found = alphas_cumprod(kind, zero_snr=zero_snr)
    assert found.dtype == torch.float64
    assert found.shape == (1000,)
    # diffusers works in float32 and pins its last entry to 2**-24 for its other schedulers
    np.testing.assert_allclose(found.numpy(), ddim(kind, zero_snr, "v_prediction").alphas_cumprod.numpy(), atol=2e-6)


@pytest.mark.parametrize("kind", ["linear", "scaled_linear"])
def test_zero_terminal_snr_keeps_the_first_step_and_empties_the_last(kind: str):
    plain, rescaled = alphas_cumprod(kind, zero_snr=False), alphas_cumprod(kind)
    betas = np.linspace(0.00085, 0.012, 1000) if kind == "linear" else np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    np.testing.assert_allclose(plain.numpy(), np.cumprod(1 - betas), rtol=1e-12)
    assert float(rescaled[-1]) == 0.0
    assert float(plain[-1]) > 1e-3
    torch.testing.assert_close(rescaled[0], plain[0])
    assert (rescaled.diff() < 0).all()


def test_trailing_steps_are_those_of_diffusers():
    """Where 1000 i / steps ends in exactly one half, diffusers' rounding error decides and ours rounds to even."""
    scheduler = ddim("linear", True, "v_prediction")
    for steps in (*range(1, 61), 100, 125, 333, 500, 999, 1000):
        scheduler.set_timesteps(steps)
        found, expected = np.array(trailing_timesteps(steps)), scheduler.timesteps.numpy()
        tie = (2000 * np.arange(steps)) % (2 * steps) == steps
        assert (found[~tie] == expected[~tie]).all(), steps
        assert (abs(found[tie] - expected[tie]) <= 1).all(), steps


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_impossible_numbers_of_steps_are_refused(steps: int):
    with pytest.raises(ValueError, match=f"must be 1 to 1000, got {steps}"):
        trailing_timesteps(steps)


def test_unknown_schedules_and_predictions_are_refused():
    with pytest.raises(ValueError, match="'cosine'; choose linear or scaled_linear"):
        alphas_cumprod("cosine")
    one = torch.ones(1)
    with pytest.raises(ValueError, match="'sample'; choose v_prediction or epsilon"):
        to_x0(one, one, one, one, "sample")


@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon"])
def test_a_perfect_prediction_gives_the_clean_latents(prediction_type: str):
    clean, noise = torch.randn(3, *SHAPE), torch.randn(3, *SHAPE)
    alpha, sigma = torch.tensor(0.6), torch.tensor(0.8)
    truth = {"epsilon": noise, "v_prediction": alpha * noise - sigma * clean}[prediction_type]
    found = to_x0(truth, alpha * clean + sigma * noise, alpha, sigma, prediction_type)
    torch.testing.assert_close(found, clean, rtol=0, atol=1e-5)


# ---- the sampling loop ----------------------------------------------------------------------------------------------


def toy(x: Tensor, t: Tensor) -> Tensor:
    """A fixed network: not linear, mixes channels, depends on time."""
    return torch.tanh(0.7 * x.roll(1, dims=1)) + 0.3 * torch.sin(t.float() / 100)[:, None, None, None]


@pytest.mark.parametrize("kind", ["linear", "scaled_linear"])
@pytest.mark.parametrize(
    ("zero_snr", "prediction_type"), [(True, "v_prediction"), (False, "v_prediction"), (False, "epsilon")]
)
@pytest.mark.parametrize("steps", [1, 5, 20])
def test_sampling_is_ddim(kind: str, zero_snr: bool, prediction_type: str, steps: int):
    """Step counts that divide 1000: for others diffusers steps to a time-step it will not visit."""
    noise = torch.randn(2, *SHAPE)
    scheduler = ddim(kind, zero_snr, prediction_type)
    scheduler.set_timesteps(steps)
    x = noise
    for step in scheduler.timesteps:
        x = scheduler.step(toy(x, step.expand(2)), step, x, eta=0.0).prev_sample
    found = sample(
        toy,
        noise,
        alphas_cumprod(kind, zero_snr=zero_snr),
        num_inference_steps=steps,
        prediction_type=prediction_type,
    )
    torch.testing.assert_close(found, x, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("steps", [1, 3, 7])
def test_a_network_that_knows_the_answer_is_believed_whatever_the_noise(steps: int):
    clean, table = torch.randn(2, *SHAPE), alphas_cumprod().float()

    def knows(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = table[t[0]].sqrt(), (1 - table[t[0]]).sqrt()
        return (alpha * x - clean) / sigma

    found = sample(knows, torch.randn(2, *SHAPE), table, num_inference_steps=steps, prediction_type="v_prediction")
    torch.testing.assert_close(found, clean, rtol=0, atol=1e-4)


def test_progress_counts_every_step_and_can_stop_the_loop():
    seen: list[tuple[int, int]] = []

    def stop_at_two(step: int, total: int) -> None:
        seen.append((step, total))
        if step == 2:
            raise KeyboardInterrupt

    settings: dict[str, Any] = {"num_inference_steps": 4, "prediction_type": "v_prediction"}
    with pytest.raises(KeyboardInterrupt):
        sample(toy, torch.randn(1, *SHAPE), alphas_cumprod(), on_step=stop_at_two, **settings)
    assert seen == [(1, 4), (2, 4)]
    seen.clear()
    sample(toy, torch.randn(1, *SHAPE), alphas_cumprod(), on_step=lambda i, n: seen.append((i, n)), **settings)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


# ---- noise ----------------------------------------------------------------------------------------------------------


def test_a_frames_noise_depends_on_its_own_number_only():
    whole = frame_noise(7, 0, 12, SHAPE, 0.3)
    for start, count in ((0, 5), (4, 6), (11, 1)):
        assert torch.equal(frame_noise(7, start, count, SHAPE, 0.3), whole[start : start + count])
    torch.rand(1)  # the global generator is not involved
    assert torch.equal(frame_noise(7, 0, 12, SHAPE, 0.3), whole)


def test_another_seed_gives_other_noise():
    for other in (0, 6, 8, -7, 10**12):
        r = np.corrcoef(frame_noise(7, 0, 4, SHAPE, 0.0).ravel(), frame_noise(other, 0, 4, SHAPE, 0.0).ravel())[0, 1]
        assert abs(r) < 0.08


@pytest.mark.parametrize("sharing", [0.0, 0.2, 0.7])
def test_frames_share_the_stated_part_of_their_variance(sharing: float):
    noise = frame_noise(3, 100, 6, (4, 64, 64), sharing).flatten(1).numpy()
    r = np.corrcoef(noise)
    np.testing.assert_allclose(r[~np.eye(6, dtype=bool)], sharing, atol=0.04)
    np.testing.assert_allclose(noise.std(axis=1), 1.0, atol=0.03)
    np.testing.assert_allclose(noise.mean(axis=1), 0.0, atol=0.03)


@pytest.mark.parametrize("sharing", [-0.1, 1.0])
def test_impossible_sharing_is_refused(sharing: float):
    with pytest.raises(ValueError, match=r"sharing must be in \[0, 1\)"):
        frame_noise(0, 0, 1, SHAPE, sharing)


# ---- guidance -------------------------------------------------------------------------------------------------------


def test_guidance_moves_away_from_the_branch_without_each_condition():
    full, audio, emotion = torch.randn(3, *SHAPE), torch.randn(3, *SHAPE), torch.randn(3, *SHAPE)
    predictions = {"full": full, "audio": audio, "emotion": emotion}
    found = guided(predictions, {"audio": 2.5, "emotion": 1.4}).numpy()
    expected = full.numpy() + 1.5 * (full - audio).numpy() + 0.4 * (full - emotion).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_guidance_with_one_condition_is_classifier_free_guidance_and_scale_1_is_off():
    full, without = torch.randn(3, *SHAPE), torch.randn(3, *SHAPE)
    predictions = {"full": full, "audio": without}
    torch.testing.assert_close(guided(predictions, {"audio": 3.0}), without + 3.0 * (full - without))
    torch.testing.assert_close(guided(predictions, {"audio": 0.0}), without)
    assert torch.equal(guided(predictions, {"audio": 1.0}), full)
    assert torch.equal(guided({"full": full}, {}), full)


@pytest.mark.parametrize(("emotion", "audio"), [(1.0, 1.0), (1.0, 1.8), (1.4, 1.0), (1.4, 1.8), (0.5, 0.0)])
def test_guidance_in_silence_follows_its_formula_and_needs_no_more_than_its_passes(emotion: float, audio: float):
    everything = {name: torch.randn(3, *SHAPE) for name in ("full", "without_audio", "negative")}
    full, silent, negative = (part.numpy() for part in everything.values())
    expected = full + (audio - 1) * (full - silent) + (emotion - 1) * (silent - negative)
    needed = {name: everything[name] for name in spoken_passes(emotion, audio)}
    found = guided_in_silence(needed, emotion=emotion, audio=audio)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-5)
    assert len(needed) == (3 if emotion != 1 else 2 if audio != 1 else 1)
