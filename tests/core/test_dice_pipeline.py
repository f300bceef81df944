"""The chain around DICE-Talk: how many frames, what is seen of a portrait, tokens, jobs that go on step by step."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from moee_core.diffusion.sampler import frame_noise
from moee_core.jobs import StepJob, prune
from moee_core.portrait.regions import FaceBounds
from moee_core.systems.dice_pipeline import (
    DiceAround,
    animate_dice,
    clip_frames,
    dice_conditions,
    dice_noise,
    emotion_tokens,
    frames_behind,
    picture_token,
    prior_of_clip,
    square_picture,
    whole_picture,
)
from moee_core.systems.dice_talk import DiceSampling
from moee_core.video.frames import num_frames
from moee_core.video.interpolate import count_before

from ..fixtures.dice import PUBLISHED_LIKE, SMALL_LIKE, made_up

CPU = torch.device("cpu")


@pytest.mark.parametrize("samples", [1, 639, 4800, 15360, 16000, 16001, 384_000, 1_520_000])
def test_enough_frames_are_drawn_for_either_way_to_show_them(samples: int):
    plain, doubled = num_frames(samples, 16000, 12.5), num_frames(samples, 16000, 25)
    drawn = clip_frames(samples, 16000, 12.5)
    assert plain <= drawn <= plain + 1
    assert 2 * drawn - 1 >= doubled
    assert drawn == max(plain, count_before(doubled))


def test_noise_is_that_of_the_frames_numbers():
    assert torch.equal(dice_noise(3, 5, (2, 4, 4), 0.2), frame_noise(3, 0, 5, (2, 4, 4), 0.2))


def test_a_picture_of_any_shape_is_shown_whole_or_as_its_square():
    picture = np.zeros((300, 200, 3), np.uint8)
    picture[60:140, 50:150] = 255
    whole = whole_picture(picture, (50, 60, 150, 140))
    assert whole.picture_HW3.shape == (768, 512, 3)
    assert whole.mask_3HW.shape == (3, 768, 512)
    square = square_picture(
        picture, FaceBounds(width=200, height=300, face=(50, 60, 150, 140), lips=(80, 110, 120, 130)), 64
    )
    assert square.picture_HW3.shape == (64, 64, 3)
    for seen in (whole, square):
        face = seen.mask_3HW[0] > 0.5
        assert seen.picture_HW3[..., 0][face.numpy()].mean() > 190, "the face is where the mask is"
        assert 0.1 < face.float().mean() < 0.6


def test_priors_that_are_alike_read_the_bank_once():
    system = made_up(SMALL_LIKE)
    rows = torch.randn(3, 6)[[0, 0, 1, 2, 2, 2, 0]]
    seen: list[int] = []
    system.bank.register_forward_pre_hook(lambda _m, given: seen.append(len(given[0])))
    tokens, which = emotion_tokens(system, rows, CPU)
    assert seen == [3]
    torch.testing.assert_close(tokens[which], system.bank(rows))


def test_what_a_portrait_is_known_by():
    system = made_up(PUBLISHED_LIKE)
    latent = torch.zeros(1, 4, 2, 2)
    with pytest.raises(ValueError, match="connect clip_vision"):
        picture_token(system, latent, None)
    with pytest.raises(ValueError, match=r"an embedding of 12 numbers, this CLIP Vision gives \(1, 7\)"):
        picture_token(system, latent, torch.zeros(1, 7))
    assert picture_token(made_up(SMALL_LIKE), torch.randn(1, 16, 8, 8), None).shape == (1, 12)


def test_a_clip_of_its_own_parts_is_drawn_and_decoded():
    system = made_up(SMALL_LIKE)
    picture = np.full((64, 64, 3), 128, np.uint8)
    bounds = FaceBounds(width=64, height=64, face=(10, 10, 54, 60), lips=(20, 40, 44, 50))
    calls: list[int] = []

    def decode(latents: torch.Tensor) -> torch.Tensor:
        calls.append(len(latents))
        return latents[:, :3].repeat_interleave(8, 2).repeat_interleave(8, 3).tanh()

    around = DiceAround(
        encode=lambda pixels: pixels.mean(dim=1, keepdim=True)[..., ::8, ::8].repeat(1, 16, 1, 1), decode=decode
    )
    given = dice_conditions(
        system, square_picture(picture, bounds, 64), torch.randn(12, 3, 64), torch.randn(1, 6), 12, around
    )
    settings = DiceSampling(steps=2, padding=0, shift=3)
    frames = list(animate_dice(system, given, around, settings, seed=1))
    assert len(frames) == 12
    assert {(one.shape, one.dtype) for one in frames} == {((64, 64, 3), np.dtype(np.uint8))}
    assert calls == [10, 2]
    short = replace(given, audio_TSD=given.audio_TSD[:1], emotion_TSD=given.emotion_TSD[:1])
    assert len(list(animate_dice(system, short, around, settings, seed=1))) == 1, "filled up to a window"


def test_a_prior_of_a_face_at_any_rate():
    system = made_up(SMALL_LIKE)
    units = np.linspace(0, 1, 40, dtype=np.float32)[:, None].repeat(20, axis=1)
    fast = prior_of_clip(system, units, 50.0, None, None)
    slow = prior_of_clip(system, units[::2], 25.0, None, None)
    torch.testing.assert_close(fast.mean_BD, slow.mean_BD, atol=0.02, rtol=0)
    with pytest.raises(ValueError, match="the embedder of the published one was not published"):
        prior_of_clip(made_up(PUBLISHED_LIKE), units, 25.0, None, None)


def test_a_job_of_steps_goes_on_and_is_finished(tmp_path: Path):
    shape = (5, 2, 3, 3)
    states = [torch.randn(shape) for _ in range(3)]
    job = StepJob.open(tmp_path, "one", shape)
    again = job
    assert (job.done, job.state) == (0, None)
    for done, state in enumerate(states, 1):
        job.add(done, state)
        again = StepJob.open(tmp_path, "one", shape)
        assert again.done == done
        assert again.state is not None
        assert torch.equal(again.state, state)
    assert StepJob.open(tmp_path, "one", (6, 2, 3, 3)).state is None, "of another clip"
    assert again.finished(4) is None
    again.finish(states[-1][:4])
    assert sorted(one.name for one in (tmp_path / "one").iterdir()) == ["latents.npy"]
    found = StepJob.open(tmp_path, "one", shape).finished(4)
    assert found is not None
    assert torch.equal(found, states[-1][:4])
    assert again.finished(5) is None


def test_a_damaged_state_is_begun_anew_and_old_jobs_are_deleted(tmp_path: Path):
    shape = (2, 1, 2, 2)
    job = StepJob.open(tmp_path, "one", shape)
    job.add(1, torch.zeros(shape))
    path = tmp_path / "one" / "steps.npz"
    whole = path.read_bytes()
    for size in (0, 10, len(whole) // 2):
        path.write_bytes(whole[:size])
        assert StepJob.open(tmp_path, "one", shape).done == 0
    assert prune(tmp_path, 0.0, 1 << 30) == ["one"]


def test_frames_are_in_order():
    numbers = [clip_frames(samples, 16000, 25) for samples in range(1, 4000, 37)]
    assert all(a <= b for a, b in pairwise(numbers))


def test_frames_behind_a_clip():
    """As many as asked for; in a single step only those that fill the last window."""
    several, once = DiceSampling(steps=4, padding=6), DiceSampling(steps=1, padding=6)
    assert [frames_behind(spoken, 5, several) for spoken in (1, 5, 12)] == [6, 6, 6]
    assert frames_behind(2, 25, DiceSampling(steps=4, padding=3)) == 23
    assert [frames_behind(spoken, 5, once) for spoken in (1, 5, 12)] == [4, 0, 3]
    assert frames_behind(12, 5, DiceSampling(steps=1, overlap=2, padding=6)) == 6
