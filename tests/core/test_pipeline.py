"""The whole chain on the tiny model: what a frame depends on, what is computed when, and what is kept in memory."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from moee_core.audio.read import Waveform
from moee_core.diffusion.sampler import frame_noise
from moee_core.emotion.timeline import parse_emotion
from moee_core.networks.reference_net import ReferenceFeatures
from moee_core.pipeline import Progress, SamplingSettings, _sample_window, animate, reconstruction_error
from moee_core.systems.moee import MoEESystem

from ..fixtures.tiny import TINY, tiny_system
from .test_portrait_image import colourful

RATE = 16_000  # hertz
FPS = 25
WINDOW = TINY.window_frames
FRAME = RATE // FPS  # samples
BLOCK = 400  # samples over which a recording's level is measured
ROUNDING = 1  # grey levels that a last bit somewhere in the networks may change


@pytest.fixture
def system() -> MoEESystem:
    """A fresh one for each test, because most of them hang hooks on it."""
    return tiny_system()


def steady_noise(count: int, seed: int = 0) -> np.ndarray:
    """(count,) float32: one block of noise again and again, with random signs.

    Every block has exactly the same level, so a longer recording is not brought to another level than its beginning.
    """
    block = 0.1 * np.random.default_rng(0).standard_normal(BLOCK)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (-(-count // BLOCK), BLOCK))
    return (signs * block).reshape(-1)[:count].astype(np.float32)


def recording(frames: int, seed: int = 0) -> Waveform:
    return Waveform(samples=steady_noise(frames * FRAME, seed)[None], sample_rate=RATE)


def start(
    system: MoEESystem,
    waveform: Waveform,
    *,
    emotion: str = "happy",
    on_progress: Progress | None = None,
    portrait: np.ndarray | None = None,
    steps: int = 1,
    seed: int = 0,
    emotion_guidance: float = 1.0,
    audio_guidance: float = 1.0,
) -> Iterator[np.ndarray]:
    settings = SamplingSettings(
        num_inference_steps=steps, seed=seed, emotion_guidance=emotion_guidance, audio_guidance=audio_guidance
    )
    picture = colourful(80, 72) if portrait is None else portrait
    return animate(system, picture, waveform, parse_emotion(emotion), settings, on_progress)


def stacked(frames: Iterator[np.ndarray]) -> np.ndarray:
    """(F, S, S, 3) int, so that differences have a sign."""
    return np.stack(list(frames)).astype(int)


class Calls:
    """The inputs of every call of one module, counted and kept."""

    def __init__(self, module: torch.nn.Module):
        self.inputs: list[Tensor] = []
        module.register_forward_pre_hook(lambda _module, inputs: self.inputs.append(inputs[0]))

    def __len__(self) -> int:
        return len(self.inputs)


# ---- what a frame depends on ----------------------------------------------------------------------------------------


def test_frames_are_pictures_of_the_models_size_one_for_each_moment(system):
    for samples, rate, frames in ((1, RATE, 1), (FRAME, RATE, 1), (FRAME + 1, RATE, 2), (44_100, 44_100, 25)):
        waveform = Waveform(samples=np.zeros((2, samples), np.float32), sample_rate=rate)
        made = list(start(system, waveform))
        assert len(made) == frames
        assert {(frame.shape, frame.dtype) for frame in made} == {((64, 64, 3), np.dtype(np.uint8))}


def test_the_seed_decides_and_nothing_else_random_does(system):
    first = stacked(start(system, recording(8)))
    torch.manual_seed(99)
    assert (stacked(start(tiny_system(), recording(8))) == first).all()
    assert np.abs(stacked(start(system, recording(8), seed=1)) - first).mean() > 1


def test_every_input_changes_the_frames(system):
    plain = stacked(start(system, recording(8)))
    others = {
        "portrait": start(system, recording(8), portrait=colourful(80, 72, seed=1)),
        "emotion": start(system, recording(8), emotion="sad"),
        "sound": start(system, Waveform(samples=np.zeros((1, 8 * FRAME), np.float32), sample_rate=RATE)),
        "steps": start(system, recording(8), steps=2),
        "emotion guidance": start(system, recording(8), emotion_guidance=3.0),
        "audio guidance": start(system, recording(8), audio_guidance=3.0),
    }
    assert [name for name, frames in others.items() if np.abs(stacked(frames) - plain).mean() < 0.05] == []


def test_a_frame_does_not_know_what_is_said_long_after_it(system):
    """Two recordings part in the fourth window: the first two windows are the same, the fourth is not."""
    short, part = 3 * WINDOW, 3 * WINDOW * FRAME
    long = recording(6 * WINDOW)
    long.samples[0, part:] = steady_noise(6 * WINDOW * FRAME - part, seed=5)
    other = recording(6 * WINDOW)
    made, differently, shorter = (stacked(start(system, one)) for one in (long, other, recording(short)))
    known = 2 * WINDOW  # the third window hears a few frames of the fourth
    assert np.abs(made[:known] - differently[:known]).max() <= ROUNDING
    assert np.abs(made[:known] - shorter[:known]).max() <= ROUNDING
    assert np.abs(made[short:] - differently[short:]).max() > 10 * ROUNDING


def test_the_timeline_takes_effect_in_its_own_windows_only(system):
    """An emotion in the third window leaves the first two alone."""
    neutral = stacked(start(system, recording(3 * WINDOW), emotion="neutral"))
    late = stacked(start(system, recording(3 * WINDOW), emotion=f"0 neutral; {2 * WINDOW / FPS} angry ease 0"))
    assert (late[: 2 * WINDOW] == neutral[: 2 * WINDOW]).all()
    assert np.abs(late[2 * WINDOW :] - neutral[2 * WINDOW :]).mean() > 0.1


def test_noise_belongs_to_the_frame_not_to_the_window():
    shape, whole = (4, 8, 8), frame_noise(3, 0, 12, (4, 8, 8), 0.2)
    assert torch.equal(torch.cat([frame_noise(3, 0, 5, shape, 0.2), frame_noise(3, 5, 7, shape, 0.2)]), whole)
    assert abs(float(whole.std()) - 1) < 0.1
    together = torch.corrcoef(frame_noise(0, 0, 40, (4, 32, 32), 0.2).flatten(1)).fill_diagonal_(0.2)
    assert abs(float(together.mean()) - 0.2) < 0.02


# ---- emotion and guidance -------------------------------------------------------------------------------------------


def test_neutral_closes_every_expert(system):
    """Bit for bit the network without an emotion, while any other emotion makes a difference."""
    latent = torch.randn(1, 4, 8, 8)
    conditions = {
        "frames": WINDOW,
        "reference": system.reference_net.reference(latent, latent[:, None].repeat(1, 2, 1, 1, 1)),
        "audio_NSA": torch.randn(WINDOW, TINY.audio.tokens, TINY.audio.token_width),
    }
    x, t = torch.randn(WINDOW, 4, 8, 8), torch.full((WINDOW,), 500)
    without = system.denoiser(x, t, emotion=None, **conditions)
    vectors = {name: torch.from_numpy(parse_emotion(name).sample(WINDOW, FPS)) for name in ("neutral", "fear:0.3")}
    made = {name: system.denoiser(x, t, emotion=system.emotion_context(v), **conditions) for name, v in vectors.items()}
    assert torch.equal(made["neutral"], without)
    assert not torch.allclose(made["fear:0.3"], without, atol=1e-4)


def test_exaggerating_neutral_changes_nothing(system):
    plain = stacked(start(system, recording(WINDOW), emotion="neutral"))
    assert (stacked(start(system, recording(WINDOW), emotion="neutral", emotion_guidance=5.0)) == plain).all()


@pytest.mark.parametrize(("emotion_scale", "audio_scale", "branches"), [(1, 1, 1), (2, 1, 3), (1, 0.5, 2), (3, 2, 3)])
def test_guidance_of_the_audio_costs_a_pass_and_that_of_the_emotion_two(system, emotion_scale, audio_scale, branches):
    calls = Calls(system.denoiser)
    steps, windows = 3, 2
    list(
        start(
            system,
            recording(windows * WINDOW),
            steps=steps,
            emotion_guidance=emotion_scale,
            audio_guidance=audio_scale,
        )
    )
    assert len(calls) == windows * steps * branches


def test_exaggerating_the_emotion_leaves_what_the_sound_moves_alone(system):
    """By how much two recordings differ in the first window's latents is the same at any emotion guidance."""
    latent = torch.randn(1, 4, 8, 8)
    motion = tuple(tokens[None] for tokens in system.reference_net(latent.expand(2, -1, -1, -1)))
    reference = ReferenceFeatures(sites=system.reference_net(latent), latent=latent, motion=motion)
    recordings = [torch.randn(WINDOW, TINY.audio.tokens, TINY.audio.token_width) for _ in range(2)]
    happy = system.emotion_context(torch.from_numpy(parse_emotion("happy").sample(WINDOW, FPS)))

    def difference(scale: float) -> torch.Tensor:
        settings = SamplingSettings(num_inference_steps=1, emotion_guidance=scale)
        one, other = (_sample_window(system, reference, tokens, happy, 0, settings) for tokens in recordings)
        return other - one

    plain = difference(1.0)
    assert float(plain.abs().max()) > 1e-3
    torch.testing.assert_close(difference(3.0), plain, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["emotion_guidance", "audio_guidance"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 10.1])
def test_guidance_out_of_range_is_named(name, value):
    with pytest.raises(ValueError, match=name):
        SamplingSettings(**{name: value})


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_steps_out_of_range_are_named(steps):
    with pytest.raises(ValueError, match="num_inference_steps"):
        SamplingSettings(num_inference_steps=steps)


# ---- window by window -----------------------------------------------------------------------------------------------


def test_progress_counts_finished_frames_window_by_window(system):
    seen: list[tuple[int, int]] = []
    list(start(system, recording(2 * WINDOW + 2), on_progress=lambda done, total: seen.append((done, total))))
    total = 2 * WINDOW + 2
    assert seen == [(WINDOW, total), (2 * WINDOW, total), (total, total)]


def test_an_exception_in_the_progress_callback_stops_the_work(system):
    class Cancelled(BaseException):
        pass

    def cancel(done: int, _total: int) -> None:
        if done == 2 * WINDOW:
            raise Cancelled

    calls, frames = Calls(system.denoiser), []
    with pytest.raises(Cancelled):
        frames.extend(start(system, recording(5 * WINDOW), on_progress=cancel))
    assert len(calls) == 2


def test_the_first_frame_comes_after_one_window_of_work(system):
    calls = Calls(system.denoiser)
    frames = start(system, recording(5 * WINDOW))
    assert len(calls) == 0
    next(frames)
    assert len(calls) == 1
    for _ in range(WINDOW):
        next(frames)
    assert len(calls) == 2


def test_windows_continue_from_the_last_latents_of_the_one_before(system):
    """The ReferenceNet sees the portrait, then per window k motion frames: at first the portrait, then the last k."""
    referenced, decoded = Calls(system.reference_net), Calls(system.autoencoder.decoder)
    list(start(system, recording(3 * WINDOW)))
    kept = TINY.unet.motion_frames
    portrait, *motion = referenced.inputs
    assert (len(motion), len(decoded)) == (3, 3)
    assert torch.equal(motion[0], portrait.expand(kept, -1, -1, -1))
    for window, following in zip(decoded.inputs, motion[1:], strict=False):
        assert torch.equal(following, window[-kept:])


def test_the_last_window_is_sampled_whole_and_decoded_in_part(system):
    sampled, decoded = Calls(system.denoiser), Calls(system.autoencoder.decoder)
    list(start(system, recording(WINDOW + 1)))
    assert [len(x) for x in sampled.inputs] == [WINDOW, WINDOW]
    assert [len(x) for x in decoded.inputs] == [WINDOW, 1]


# ---- memory ---------------------------------------------------------------------------------------------------------


def held_by_tensors() -> int:
    """Bytes of every tensor alive, each storage once."""
    alive = [one for one in gc.get_objects() if type(one) in (Tensor, torch.nn.Parameter)]
    return sum({one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in alive}.values())


def resident() -> int:
    """What the system counts as held by this process, in bytes; 0 where it cannot be asked."""
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if status.exists() else 0


def test_memory_does_not_grow_with_the_recording(system):
    """4 s and 16 s: the difference is the speech features, and far less than the frames, which are 12 kB each."""
    held: dict[int, int] = {}
    kept: dict[int, int] = {}
    for seconds in (4, 16):
        gc.collect()
        peaks = []
        waveform = recording(seconds * FPS)
        for index, _ in enumerate(start(system, waveform)):
            if index % (8 * WINDOW) == 4 * WINDOW:
                peaks.append(held_by_tensors())
        held[seconds], kept[seconds] = max(peaks), resident()
        assert max(peaks) - min(peaks) < 1000  # a window late in the recording holds what an early one does
    features = 12 * FPS * TINY.audio.layers * TINY.audio.width * 4
    sound = 12 * RATE * 4
    vectors = 12 * FPS * 8 * 4
    assert held[16] - held[4] < features + sound + vectors + 10_000
    assert kept[16] - kept[4] < 24 << 20


# ---- the domain check -----------------------------------------------------------------------------------------------


def test_reconstruction_error_is_the_distance_to_what_the_autoencoder_gives_back(system):
    """0 for an autoencoder that returns what it got, the mean square of the picture for one that returns grey."""
    portrait = colourful(64, 64)
    for values in system.autoencoder.decoder.parameters():
        values.zero_()
    expected = np.sqrt(np.mean((portrait.astype(float) - 127.5) ** 2))
    assert abs(reconstruction_error(system, portrait) - expected) < 1e-3
