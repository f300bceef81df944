"""Metrics on signals whose answer is known in closed form, readers on synthetic people."""

from __future__ import annotations

import numpy as np
import pytest

from moee_core.metrics.definitions import correlation, flicker, gain, psnr, shifted_correlation, spearman
from moee_core.metrics.instrument import FaceReader, IdentityReader, features, small

SIDE = 64


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# ---- definitions ----------------------------------------------------------------------------------------------------


def test_correlation_ignores_scale_and_offset_but_not_sign():
    x = rng().standard_normal(50)
    assert correlation(3 * x + 7, x) == pytest.approx(1.0)
    assert correlation(-x, x) == pytest.approx(-1.0)


def test_correlation_by_hand():
    """Deviations (-1, 0, 1) and (-1, 1, 0): r = 1 / 2."""
    assert correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])) == pytest.approx(0.5)


def test_what_does_not_vary_correlates_with_nothing():
    x = rng().standard_normal(20)
    assert correlation(np.full(20, 3.0), x) == 0.0
    assert correlation(x, np.zeros(20)) == 0.0
    assert spearman(np.zeros(20), x) == 0.0


@pytest.mark.parametrize("strength", [0.5, 1.0, -0.25, 0.0])
def test_gain_is_the_strength_of_the_reading(strength: float):
    truth = np.sin(np.arange(60) / 3)
    assert gain(strength * truth + 0.8, truth) == pytest.approx(strength, abs=1e-12)


def test_gain_is_the_slope_of_the_least_squares_line():
    reading, truth = rng(1).standard_normal(40), rng(2).standard_normal(40)
    assert gain(reading, truth) == pytest.approx(np.polyfit(truth, reading, 1)[0])
    assert gain(reading, np.ones(40)) == pytest.approx(0.0, abs=1e-6)


def test_the_shifted_control_is_near_zero_on_noise_while_the_correlation_is_one():
    truth = rng(3).standard_normal(400)
    assert correlation(truth, truth) == pytest.approx(1.0)
    assert abs(shifted_correlation(truth, truth)) < 0.06


@pytest.mark.parametrize("periods", [1, 2, 5])
def test_the_shifted_control_of_a_rhythm_is_its_own_cosine(periods: int):
    """Rotated by s of n frames a pure rhythm correlates by cos(2 pi periods s / n) with itself."""
    wave = np.sin(2 * np.pi * periods * np.arange(60) / 60)
    expected = np.cos(2 * np.pi * periods * np.arange(8, 53) / 60).mean()
    assert shifted_correlation(wave, wave) == pytest.approx(expected, abs=1e-9)


def test_a_clip_too_short_to_be_shifted_has_no_control():
    assert shifted_correlation(np.arange(15.0), np.arange(15.0)) == 0.0
    assert shifted_correlation(np.arange(16.0), np.arange(16.0)) == pytest.approx(
        np.corrcoef(np.arange(16.0), np.roll(np.arange(16.0), 8))[0, 1]
    )


@pytest.mark.parametrize("ties", [False, True])
def test_spearman_is_scipys(ties: bool):
    stats = pytest.importorskip("scipy.stats")
    for seed in range(5):
        a, b = rng(seed).standard_normal((2, 30))
        if ties:
            a, b = np.round(a), np.round(2 * b)
        assert spearman(a, b) == pytest.approx(float(stats.spearmanr(a, b).statistic), abs=1e-12)


def test_flicker_is_blind_to_steady_motion_and_sees_trembling():
    t = np.arange(8)[:, None, None, None]
    grid = np.arange(20)[None, None, :, None]
    steady = np.broadcast_to(10 + 5 * t + 3 * grid, (8, 16, 20, 3)).astype(np.uint8)
    box = np.array([2.0, 1.0, 18.0, 15.0])
    assert flicker(steady, box) == 0.0
    trembling = np.broadcast_to(100 + 7 * (t % 2), (8, 16, 20, 3)).astype(np.uint8)
    assert flicker(trembling, box) == pytest.approx(14.0)  # |x - 2 (x + 7) + x|


def test_flicker_looks_inside_the_box_only():
    frames = np.zeros((5, 16, 20, 3), np.uint8)
    frames[::2, :, 10:] = 40
    assert flicker(frames, np.array([0, 0, 10, 16])) == 0.0
    assert flicker(frames, np.array([10, 0, 20, 16])) == pytest.approx(80.0)
    assert flicker(frames, np.array([-5, -5, 20, 16])) == pytest.approx(40.0)


def test_psnr_by_hand():
    a = np.full((4, 4, 3), 100, np.uint8)
    assert psnr(a, a + 5) == pytest.approx(20 * np.log10(255 / 5))
    assert psnr(np.full_like(a, 3), np.full_like(a, 250)) == pytest.approx(20 * np.log10(255 / 247))
    assert psnr(a, a) == 99.0


# ---- readers --------------------------------------------------------------------------------------------------------


def person(seed: int) -> np.ndarray:
    """A blurry random face, (64, 64, 3) float."""
    import cv2

    coarse = rng(seed).uniform(60, 180, (8, 8, 3)).astype(np.float32)
    return cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)


def face(
    opening: np.ndarray, width: np.ndarray, units: np.ndarray, label: np.ndarray, noise: float, seed: int
) -> np.ndarray:
    """Pictures of one person in which every quantity brightens a patch of its own in proportion."""
    out = np.repeat(person(1)[None], len(opening), axis=0)
    out[:, 44:52, 24:40, 0] += 60 * opening[:, None, None]
    out[:, 44:52, 24:40, 1] += 60 * width[:, None, None]
    for index in range(units.shape[1]):
        out[:, 16 + 6 * index : 20 + 6 * index, 12:24] += 50 * units[:, index, None, None, None]
    out[np.arange(len(out)), 14:42, 44 - label] += 70
    out += noise * rng(seed).standard_normal(out.shape)
    return np.clip(out, 0, 255).astype(np.uint8)


def truths(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    draw = rng(seed)
    return (
        draw.uniform(0, 1, count),
        draw.uniform(-1, 1, count),
        draw.uniform(0, 1, (count, 3)),
        draw.integers(0, 7, count),
    )


@pytest.fixture(scope="module")
def reader() -> FaceReader:
    opening, width, units, label = truths(220, 1)
    return FaceReader(face(opening, width, units, label, 2.0, 2), np.stack([opening, width], 1), units, label)


def test_a_face_reader_recovers_what_the_pictures_were_made_of(reader: FaceReader):
    opening, width, units, label = truths(60, 3)
    mouth, found_units, scores = reader.read(face(opening, width, units, label, 2.0, 4))
    assert mouth.shape == (60, 2)
    assert found_units.shape == (60, 3)
    assert scores.shape == (60, 7)
    for found, truth in ((mouth[:, 0], opening), (mouth[:, 1], width), *zip(found_units.T, units.T, strict=True)):
        assert correlation(found, truth) > 0.97
        assert gain(found, truth) == pytest.approx(1.0, abs=0.15)
    assert (scores.argmax(axis=1) == label).mean() > 0.95


def test_a_face_reader_reads_half_a_movement_as_half(reader: FaceReader):
    opening, width, units, label = truths(60, 5)
    mouth, _, _ = reader.read(face(0.5 * opening, width, units, label, 2.0, 6))
    assert gain(mouth[:, 0], opening) == pytest.approx(0.5, abs=0.08)


def test_a_face_reader_takes_frames_of_any_size(reader: FaceReader):
    pictures = face(*truths(12, 7), 0.0, 8)
    for factor in (2, 3):
        large = pictures.repeat(factor, axis=1).repeat(factor, axis=2)
        for found, expected in zip(reader.read(large), reader.read(pictures), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-3)


def test_what_lies_outside_the_inner_face_does_not_count(reader: FaceReader):
    pictures = face(*truths(8, 9), 2.0, 10)
    other = pictures.copy()
    other[:, :12], other[:, 60:], other[:, :, :8], other[:, :, 56:] = 0, 255, 0, 255
    for found, expected in zip(reader.read(other), reader.read(pictures), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_pictures_are_made_small_by_averaging():
    frames = rng(11).integers(0, 256, (2, 128, 128, 3), dtype=np.uint8)
    expected = frames.reshape(2, 64, 2, 64, 2, 3).mean(axis=(2, 4)) / 255
    np.testing.assert_allclose(small(frames), expected, atol=0.51 / 255)  # averaged in whole grey levels
    assert features(frames).shape == (2, 48 * 48 * 3)


def clip_of(seed: int, count: int, draw: int) -> np.ndarray:
    """One person, with expression changes that are larger than the differences between people at one place."""
    out = np.repeat(person(seed)[None], count, axis=0)
    out[:, 44:52, 24:40] += 80 * rng(draw).uniform(-1, 1, (count, 1, 1, 1))
    out += 6 * rng(draw + 1).standard_normal(out.shape)
    return np.clip(out, 0, 255).astype(np.uint8)


def test_an_identity_reader_tells_people_apart_through_their_expressions():
    reader = IdentityReader([clip_of(seed, 24, 100 + seed) for seed in range(5)], components=20)
    for seed in range(5):
        clip = clip_of(seed, 10, 200 + seed)
        distances = reader.distances(clip)
        assert distances.shape == (10, 5)
        assert (distances.argmin(axis=1) == seed).mean() > 0.9
        assert reader.identify(clip) == seed
        rivals = np.delete(distances, seed, axis=1)
        assert rivals.min() > 2 * distances[:, seed].mean()


def test_an_identity_reader_judges_the_clip_not_its_worst_frame():
    reader = IdentityReader([clip_of(seed, 24, 100 + seed) for seed in range(3)], components=20)
    clip = np.concatenate([clip_of(0, 9, 300), clip_of(2, 1, 301)])
    assert reader.distances(clip).argmin(axis=1)[-1] == 2
    assert reader.identify(clip) == 0
