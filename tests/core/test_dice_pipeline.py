"""The chain around DICE-Talk: how many frames, what is seen of a portrait, tokens, jobs that go on step by step."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from moee_core.diffusion.sampler import frame_noise
from moee_core.errors import MediaError
from moee_core.jobs import StepJob, prune
from moee_core.portrait.face_box import mask_of
from moee_core.portrait.image import fit_square
from moee_core.portrait.regions import FaceBounds
from moee_core.systems.dice_pipeline import (
    PRIORS_AT_ONCE,
    TOKENS_AT_ONCE,
    DiceAround,
    DicePicture,
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


def marked(height: int, width: int, face: tuple[float, float, float, float]) -> tuple[np.ndarray, FaceBounds]:
    """A picture with every pixel different from its neighbours, and a face on it."""
    picture = np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return picture, FaceBounds(width=width, height=height, face=face, lips=face)


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (200, 200)])
def test_a_face_inside_of_the_usual_square_is_shown_in_it(size: tuple[int, int]):
    height, width = size
    top, left = (height - 200) // 3, (width - 200) // 2
    made = np.random.default_rng(6)
    for _ in range(20):
        x0, y0 = left + made.uniform(0, 100), top + made.uniform(0, 100)
        picture, bounds = marked(height, width, (x0, y0, x0 + made.uniform(20, 100), y0 + made.uniform(20, 100)))
        seen = square_picture(picture, bounds, 64)
        box = bounds.cropped(top, left, 200, 200).face
        assert np.array_equal(seen.picture_HW3, fit_square(picture, 64))
        assert torch.equal(seen.mask_3HW, mask_of(box, (200, 200), (64, 64)).clamp(0, 1))


@pytest.mark.parametrize(
    ("size", "face", "corner"),
    [
        ((600, 200), (50.0, 440.0, 150.0, 560.5), (361, 0)),  # below the usual square: moved until its chin is in
        ((600, 200), (50.0, 20.5, 150.0, 120.0), (20, 0)),  # above it
        ((200, 600), (10.0, 50.0, 90.0, 150.0), (0, 10)),
        ((200, 600), (510.0, 50.0, 590.0, 150.0), (0, 390)),
        ((200, 600), (550.0, 50.0, 640.0, 150.0), (0, 400)),  # and out of the picture
        ((200, 600), (0.0, 20.0, 300.0, 180.0), (0, 50)),  # wider than any square: its middle
        ((200, 600), (-100.0, 20.0, 100.0, 180.0), (0, 0)),
    ],
)
def test_the_square_moves_to_where_the_face_is(
    size: tuple[int, int], face: tuple[float, float, float, float], corner: tuple[int, int]
):
    picture, bounds = marked(*size, face)
    seen = square_picture(picture, bounds, 200)
    top, left = corner
    assert np.array_equal(seen.picture_HW3, picture[top : top + 200, left : left + 200])
    box = (face[0] - left, face[1] - top, face[2] - left, face[3] - top)
    assert torch.equal(seen.mask_3HW, mask_of(box, (200, 200), (200, 200)))
    assert seen.mask_3HW.max() == 1


def test_priors_that_are_alike_read_the_bank_once():
    system = made_up(SMALL_LIKE)
    rows = torch.randn(3, 6)[[0, 0, 1, 2, 2, 2, 0]]
    seen: list[int] = []
    system.bank.register_forward_pre_hook(lambda _m, given: seen.append(len(given[0])))
    tokens, which = emotion_tokens(system, rows, CPU)
    assert seen == [3]
    torch.testing.assert_close(tokens[which], system.bank(rows))


@pytest.mark.parametrize("form", ["bank", "direct"])
def test_the_bank_is_made_once_for_all_groups_of_priors(form: str):
    system = made_up(replace(SMALL_LIKE, bank=replace(SMALL_LIKE.bank, form=form)))
    rows = torch.randn(2 * PRIORS_AT_ONCE + 3, 6)
    expected = torch.cat([system.bank(row[None]) for row in rows])
    calls: list[int] = []
    system.bank.code_tokens.register_forward_pre_hook(lambda _m, given: calls.append(len(given[0])))
    tokens, which = emotion_tokens(system, rows, CPU)
    assert calls == ([4] if form == "bank" else [])
    torch.testing.assert_close(tokens[which], expected, rtol=1e-6, atol=1e-6)


def test_what_a_portrait_is_known_by():
    system = made_up(PUBLISHED_LIKE)
    latent = torch.zeros(1, 4, 2, 2)
    with pytest.raises(ValueError, match="connect clip_vision"):
        picture_token(system, latent, None)
    with pytest.raises(ValueError, match=r"an embedding of 12 numbers, this CLIP Vision gives \(1, 7\)"):
        picture_token(system, latent, torch.zeros(1, 7))
    assert picture_token(made_up(SMALL_LIKE), torch.randn(1, 16, 8, 8), None).shape == (1, 12)


def encode(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.mean(dim=1, keepdim=True)[..., ::8, ::8].repeat(1, 16, 1, 1)


def decode(latents: torch.Tensor) -> torch.Tensor:
    return latents[:, :3].repeat_interleave(8, 2).repeat_interleave(8, 3).tanh()


def portrait() -> DicePicture:
    picture = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
    return square_picture(picture, FaceBounds(width=64, height=64, face=(10, 10, 54, 60), lips=(20, 40, 44, 50)), 64)


def told(frames: int, priors: int = 1) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(4)
    return {
        "seen": portrait(),
        "features_RLA": torch.randn(12, 3, 64, generator=generator),
        "priors_TP": torch.randn(priors, 6, generator=generator),
        "frames": frames,
        "around": DiceAround(encode=encode, decode=decode),
    }


TWO_STEPS = DiceSampling(steps=2, padding=0, shift=3)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_a_clip_in_half_precision(kind: torch.dtype):
    """From the picture to the frames; float32 is what comes from outside."""
    clips = []
    for dtype in (kind, torch.float32):
        system = made_up(SMALL_LIKE).to(dtype)
        given = dice_conditions(system, **told(12, priors=12))
        assert {one.dtype for one in vars(given).values()} == {dtype, torch.int64}
        clips.append(np.stack(list(animate_dice(system, given, told(12)["around"], TWO_STEPS, seed=1))).astype(int))
    assert clips[0].shape == (12, 64, 64, 3)
    assert clips[1].std() > 20
    assert np.abs(clips[0] - clips[1]).mean() < 256 * 2 * torch.finfo(kind).eps  # of 256 shades, two roundings
    units = np.random.default_rng(7).random((20, 20), dtype=np.float32)
    exact, half = (prior_of_clip(made_up(SMALL_LIKE).to(one), units, 25.0, None, None) for one in (torch.float32, kind))
    torch.testing.assert_close(half.mean_BD, exact.mean_BD, atol=0.02, rtol=0.02)


def test_one_emotion_is_kept_once_however_long_the_clip():
    system = made_up(SMALL_LIKE)
    given = dice_conditions(system, **told(300))
    assert given.emotion_USD.shape == (1, 3, 12)
    assert given.which_T.tolist() == [0] * 300
    some = told(300, priors=300)
    some["priors_TP"] = some["priors_TP"][:2].repeat_interleave(150, dim=0)
    given = dice_conditions(system, **some)
    assert len(given.emotion_USD) == 2
    torch.testing.assert_close(given.emotion_USD[given.which_T], system.bank(some["priors_TP"]))
    expected = system.audio_tokens(some["features_RLA"], torch.arange(300))
    assert torch.equal(given.audio_TSD[:TOKENS_AT_ONCE], expected[:TOKENS_AT_ONCE])
    torch.testing.assert_close(given.audio_TSD, expected)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"priors_TP": torch.zeros(5, 6)}, r"priors must be \(1, 6\) or, one for each frame, \(12, 6\), got \(5, 6\)"),
        ({"priors_TP": torch.zeros(1, 7)}, r"got \(1, 7\); make them for this model"),
        ({"priors_TP": torch.zeros(6)}, r"got \(6,\)"),
        ({"priors_TP": torch.full((1, 6), torch.nan)}, r"the prior of frame 0 \(counted from 0\) is not finite"),
        ({"features_RLA": torch.zeros(0, 3, 64)}, "there are no speech features"),
        ({"features_RLA": torch.zeros(9, 3, 65)}, r"speech features must be \(R, 3, 64\), got \(9, 3, 65\)"),
        ({"features_RLA": torch.full((9, 3, 64), torch.inf)}, "speech feature 0 .* is not finite"),
        ({"frames": 0}, "a clip has at least 1 frame, got 0"),
        ({"seen": replace(portrait(), mask_3HW=torch.ones(3, 32, 64))}, r"mask is \(32, 64\), the picture \(64, 64\)"),
        (
            {"around": DiceAround(encode=lambda pixels: pixels, decode=decode)},
            r"latent must be \(1, 16, h, w\), got \(1, 3, 64, 64\)",
        ),
        (
            {"around": DiceAround(encode=lambda pixels: encode(pixels) * torch.nan, decode=decode)},
            "the portrait's latent is not finite, it holds NaN or infinity; load the autoencoder",
        ),
    ],
)
def test_what_a_clip_cannot_be_made_of(wrong: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        dice_conditions(made_up(SMALL_LIKE), **{**told(12), **wrong})


def test_a_frame_that_is_not_finite_is_no_black_picture():
    system = made_up(SMALL_LIKE)

    def overflowing(latents: torch.Tensor) -> torch.Tensor:
        found = decode(latents)
        if len(latents) == 2:
            found[1, 2, 5, 5] = torch.nan
        return found

    around = DiceAround(encode=encode, decode=overflowing)
    frames = animate_dice(system, dice_conditions(system, **told(12)), around, TWO_STEPS, seed=1)
    assert len([next(frames) for _ in range(10)]) == 10
    with pytest.raises(
        MediaError, match=r"the decoder makes of frame 11 \(counted from 0\) is not finite.*\(VAE\) as bf16"
    ):
        next(frames)
    system.unet.conv_out.weight[0] = torch.nan
    with pytest.raises(MediaError, match=r"the network draws of frame 0 .* load the weights as bf16 or fp32"):
        next(animate_dice(system, dice_conditions(system, **told(12)), around, TWO_STEPS, seed=1))


def test_a_clip_of_its_own_parts_is_drawn_and_decoded():
    system = made_up(SMALL_LIKE)
    calls: list[int] = []

    def counted(latents: torch.Tensor) -> torch.Tensor:
        calls.append(len(latents))
        return decode(latents)

    around = DiceAround(encode=encode, decode=counted)
    given = dice_conditions(system, **{**told(12), "around": around})
    settings = TWO_STEPS
    frames = list(animate_dice(system, given, around, settings, seed=1))
    assert len(frames) == 12
    assert {(one.shape, one.dtype) for one in frames} == {((64, 64, 3), np.dtype(np.uint8))}
    assert calls == [10, 2]
    short = replace(given, audio_TSD=given.audio_TSD[:1], which_T=given.which_T[:1])
    assert len(list(animate_dice(system, short, around, settings, seed=1))) == 1, "filled up to a window"


def test_a_prior_of_a_face_at_any_rate():
    system = made_up(SMALL_LIKE)
    units = np.linspace(0, 1, 40, dtype=np.float32)[:, None].repeat(20, axis=1)
    fast = prior_of_clip(system, units, 50.0, None, None)
    slow = prior_of_clip(system, units[::2], 25.0, None, None)
    torch.testing.assert_close(fast.mean_BD, slow.mean_BD, atol=0.02, rtol=0)
    with pytest.raises(ValueError, match="the embedder of the published one was not published"):
        prior_of_clip(made_up(PUBLISHED_LIKE), units, 25.0, None, None)


class Ear:
    """Fifty features a second, each of its own number."""

    width = 67

    def frames(self, _samples: torch.Tensor, first: int, last: int, _gain: float) -> torch.Tensor:
        return torch.sin(torch.arange(first, last)[:, None] * 0.1 + torch.arange(67) * 0.3)


EAR: Any = Ear()


def units_of(frames: int) -> np.ndarray:
    return np.random.default_rng(8).random((frames, 20), dtype=np.float32)


@pytest.mark.parametrize("fps", [1.0, 25.0, 60.0])
def test_one_picture_is_held_while_a_voice_speaks(fps: float):
    system, units = made_up(SMALL_LIKE), units_of(1)
    found = prior_of_clip(system, units, fps, EAR, torch.zeros(160_000))
    voice = Ear().frames(torch.zeros(0), 0, 500, 1.0)[:, None]
    expected = system.embedder.clip(torch.from_numpy(units).expand(250, -1), voice)
    assert found.weights_BN.shape == (1, 250)
    assert torch.equal(found.mean_BD, expected.mean_BD)
    assert torch.equal(found.variance_BD, expected.variance_BD)
    assert found.variance_BD.min() > 0
    assert found.about == "1 frame and a voice"


@pytest.mark.parametrize(
    ("frames", "seconds", "read", "about"),
    [
        (50, 2.0, 50, "50 frames and a voice"),
        (50, 2.5, 50, "50 frames and a voice"),
        (50, 2.6, 50, "50 frames and a voice, the first 2.0 s of both"),
        (50, 1.0, 25, "50 frames and a voice, the first 1.0 s of both"),
        (50, None, 50, "50 frames"),
        (50, 0.01, 50, "50 frames"),  # not a frame of it
        (1, None, 1, "1 frame"),
        (None, 1.0, 25, "a voice"),
    ],
)
def test_a_prior_says_what_it_is_of(frames: int | None, seconds: float | None, read: int, about: str):
    samples = None if seconds is None else torch.zeros(round(16000 * seconds))
    units = None if frames is None else units_of(frames)
    found = prior_of_clip(made_up(SMALL_LIKE), units, 25.0, EAR, samples)
    assert found.weights_BN.shape == (1, read)
    assert found.about == about


@pytest.mark.parametrize(
    ("units", "fps", "samples", "said"),
    [
        (np.zeros((0, 20), np.float32), 25.0, None, r"must be \(N, 20\) with N at least 1, got \(0, 20\)"),
        (np.zeros((3, 19), np.float32), 25.0, None, r"must be \(N, 20\) with N at least 1, got \(3, 19\)"),
        (np.zeros(20, np.float32), 25.0, None, r"got \(20,\)"),
        (units_of(3), 0.0, None, "fps of the frames must be a finite number above 0, got 0.0"),
        (units_of(3), np.nan, None, "fps of the frames must be a finite number above 0, got nan"),
        (np.where(np.arange(3)[:, None] == 1, np.nan, units_of(3)), 25.0, None, "row 1 .* of the action units is not"),
        (None, 25.0, torch.full((16000,), torch.nan), "sample 0 .* of the recording is not finite"),
        (None, 25.0, torch.zeros(100), r"no frame to embed \(frames: face none, speech 0\)"),
        (None, 25.0, None, "no frame to embed"),
    ],
)
def test_what_no_prior_is_made_of(units: np.ndarray | None, fps: float, samples: torch.Tensor | None, said: str):
    with pytest.raises(ValueError, match=said):
        prior_of_clip(made_up(SMALL_LIKE), units, fps, EAR, samples)


def test_a_prior_that_is_not_finite_is_none():
    system = made_up(SMALL_LIKE)
    system.embedder.to_weight.bias[0] = torch.nan
    with pytest.raises(MediaError, match="the prior of this clip is not finite"):
        prior_of_clip(system, units_of(3), 25.0, None, None)


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
