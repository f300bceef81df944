"""From samples to features per video frame: mel against librosa, chunks against one pass, windows at the edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from moee_core.audio.encoder import (
    MEL_PER_FRAME,
    THROATS,
    AudioFeatures,
    SpeechEncoder,
    encode_speech,
    mel_between,
)
from moee_core.audio.mel import FFT, HOP, MELS, SAMPLE_RATE, WINDOW, log_mel, mel_filters, normalise_level, stretched
from moee_core.audio.projector import AudioProjector, window_indices
from moee_core.ops import Build


def sine(hertz: float, seconds: float = 0.5, amplitude: float = 0.3) -> Tensor:
    return amplitude * torch.sin(2 * torch.pi * hertz * torch.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE)


def speech_like(seconds: float, seed: int = 0) -> Tensor:
    """Noise with a slow envelope and a gliding tone."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    envelope = 0.5 + 0.5 * np.sin(2 * np.pi * 3 * t)
    return torch.from_numpy(envelope * (0.05 * rng.standard_normal(t.size) + 0.2 * np.sin(900 * t * (1 + t)))).float()


# ---- mel ------------------------------------------------------------------------------------------------------------


def test_filters_are_librosas_htk_triangles():
    librosa = pytest.importorskip("librosa")
    expected = librosa.filters.mel(
        sr=SAMPLE_RATE, n_fft=FFT, n_mels=MELS, fmin=60.0, fmax=7600.0, htk=True, norm=None, dtype=np.float64
    )
    found = mel_filters()
    assert found.shape == (FFT // 2 + 1, MELS)
    np.testing.assert_allclose(found.numpy(), expected.T, atol=2e-4)
    assert (found.amax(dim=0) > 0).all(), "an empty filter hears nothing"


@pytest.mark.parametrize("samples", [SAMPLE_RATE // 2, 5 * HOP, 5 * HOP + 1, 6 * HOP - 1, HOP // 2])
def test_frames_are_librosas_centred_ones_half_a_hop_later(samples: int):
    """librosa centres frame i on sample 160 i; with 80 zeros in front its frame i + 1 is our frame i."""
    librosa = pytest.importorskip("librosa")
    wave = (sine(440.0) + sine(3000.0, amplitude=0.1))[:samples]
    padded = np.concatenate([np.zeros(HOP // 2), wave.numpy(), np.zeros(FFT + HOP)])
    power = np.abs(librosa.stft(padded, n_fft=FFT, hop_length=HOP, win_length=WINDOW, center=True)) ** 2
    found = log_mel(wave)
    frames = -(-samples // HOP)
    assert found.shape == (frames, MELS)
    expected = power.T[1 : frames + 1] @ mel_filters().numpy()
    np.testing.assert_allclose(torch.exp(4 * found - 4).numpy(), expected + 1e-5, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("hertz", [200.0, 1000.0, 4000.0])
def test_a_tone_lights_up_its_own_band(hertz: float):
    scale = lambda f: 2595 * np.log10(1 + f / 700)  # noqa: E731
    step = (scale(7600.0) - scale(60.0)) / (MELS + 1)
    loudest = log_mel(sine(hertz))[10:-10].mean(dim=0).argmax()
    assert abs(float(loudest) - ((scale(hertz) - scale(60.0)) / step - 1)) <= 1


@pytest.mark.parametrize("frame", [0, 3, 9])
def test_a_click_is_heard_in_the_frame_centred_on_it(frame: int):
    wave = torch.zeros(10 * HOP)
    wave[frame * HOP + HOP // 2] = 1.0
    assert int(log_mel(wave).sum(dim=1).argmax()) == frame


# ---- level ----------------------------------------------------------------------------------------------------------


def test_loudness_of_a_recording_does_not_matter():
    wave = speech_like(2.0)
    levels = [normalise_level(gain * wave) for gain in (0.1, 1.0, 30.0)]
    for one in levels[1:]:
        torch.testing.assert_close(one, levels[0], rtol=1e-4, atol=1e-6)
    rms = levels[0].view(-1, WINDOW).square().mean(dim=1).sqrt().numpy()
    assert np.quantile(rms, 0.95) == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize("wave", [torch.zeros(4000), 1e-3 * torch.randn(4000), torch.zeros(0)])
def test_silence_is_left_alone(wave: Tensor):
    assert torch.equal(normalise_level(wave), wave)


@pytest.mark.parametrize("factor", [0.88, 1.0, 1.06, 1.18])
def test_a_shorter_throat_moves_a_sound_down_its_bands(factor: float):
    """What a band of the stretched mel shows was at (band + 8) factor - 8; between bands it is interpolated."""
    mel = torch.randn(2, 7, MELS)
    found = stretched(mel, factor).numpy()
    source = np.clip((np.arange(MELS) + 8) * factor - 8, 0, MELS - 1)
    for index in np.ndindex(2, 7):
        np.testing.assert_allclose(found[index], np.interp(source, np.arange(MELS), mel[index].numpy()), atol=1e-5)
    if factor == 1.0:
        assert torch.equal(stretched(mel, factor), mel)


# ---- the speech encoder ---------------------------------------------------------------------------------------------


def encoder(layers: int = 3) -> SpeechEncoder:
    return SpeechEncoder(8, layers, Build()).eval()


@pytest.mark.parametrize("chunk_frames", [1, 4, 7, 25])
@pytest.mark.parametrize("layers", [1, 3])
def test_chunks_give_what_one_pass_gives(chunk_frames: int, layers: int):
    network, wave = encoder(layers), speech_like(1.0)
    whole = encode_speech(network, wave, 25)
    chunked = encode_speech(network, wave, 25, chunk_frames=chunk_frames)
    assert whole.features_TLD.shape == (25, layers, 8)
    torch.testing.assert_close(chunked.features_TLD, whole.features_TLD, rtol=0, atol=1e-5)


def test_features_are_those_of_a_recording_with_silence_around_it():
    """The edges of a recording must sound like silence, not like the convolutions' own padding."""
    network, wave, around = encoder(), normalise_level(speech_like(1.0)), 20
    silence = torch.zeros(around * MEL_PER_FRAME * HOP)
    with torch.no_grad():
        expected = network.hear(mel_between(torch.cat([silence, wave, silence]), 1.0, 0, 25 + 2 * around)[None])
    found = encode_speech(network, wave, 25, chunk_frames=6).features_TLD
    torch.testing.assert_close(found, expected[0, around:-around], rtol=0, atol=1e-5)


def test_a_recording_is_heard_in_several_throats():
    """The mean of what the convolutions make of it in each; one of them is its own."""
    network, mel = encoder(), mel_between(speech_like(1.0), 1.0, 0, 25)[None]
    with torch.no_grad():
        each = [network(stretched(mel, factor)) for factor in THROATS]
        torch.testing.assert_close(network.hear(mel), torch.stack(each).mean(dim=0), rtol=0, atol=1e-5)
        assert torch.equal(each[THROATS.index(1.0)], network(mel))
        assert float((network.hear(mel) - network(mel)).abs().mean()) > 1e-4


def test_a_silent_recording_is_the_same_in_every_frame():
    features = encode_speech(encoder(), torch.zeros(16000), 25).features_TLD
    torch.testing.assert_close(features, features[:1].expand_as(features), rtol=0, atol=1e-5)


@pytest.mark.parametrize("num_frames", [1, 20, 30])
def test_recording_and_video_need_not_be_equally_long(num_frames: int):
    network, wave = encoder(), speech_like(1.0)
    found = encode_speech(network, wave, num_frames)
    assert isinstance(found, AudioFeatures)
    assert found.num_frames == num_frames == len(found.features_TLD)
    assert found.fps == 25.0
    assert torch.isfinite(found.features_TLD).all()
    assert mel_between(wave, 1.0, 0, num_frames).shape == (4 * num_frames, MELS)


def test_what_is_said_in_one_frame_changes_the_features_around_it_only():
    """Frame 40 of 80 is at 1.6 s; three layers look a few frames to either side."""
    network, wave = encoder(), speech_like(80 / 25)
    mel = mel_between(wave, 1.0, 0, 80)
    other = mel.clone()
    other[4 * 40 : 4 * 41] += 1.0
    with torch.no_grad():
        change = (network(mel[None]) - network(other[None]))[0].abs().amax(dim=(1, 2))
    moved = change.nonzero().flatten()
    assert int(change.argmax()) in range(39, 42)
    assert moved.min() >= 40 - (2 + 2 * len(network.layers))  # the context that encode_speech gives a chunk
    assert moved.max() <= 40 + (2 + 2 * len(network.layers))


@pytest.mark.parametrize("wave", [torch.zeros(SAMPLE_RATE), torch.zeros(0), torch.zeros(7)])
def test_silence_stays_bounded(wave: Tensor):
    found = encode_speech(encoder(), wave, 25).features_TLD
    assert torch.isfinite(found).all()
    assert float(found.abs().max()) < 10
    quiet = mel_between(wave, 1.0, 0, 25)
    torch.testing.assert_close(quiet, torch.full_like(quiet, (np.log(1e-5) + 4) / 4))


@pytest.mark.parametrize("fps", [24.0, 30.0])
def test_other_frame_rates_are_refused(fps: float):
    with pytest.raises(ValueError, match=f"25 frames a second, got {fps:g}"):
        encode_speech(encoder(), speech_like(0.2), 5, fps=fps)


def test_mouth_shapes_are_read_from_all_layers():
    network = encoder()
    features = torch.randn(2, 5, 3, 8)
    weight, bias = network.viseme_head.weight.detach(), network.viseme_head.bias.detach()  # type: ignore[union-attr, operator]
    expected = np.einsum("btk,vk->btv", features.reshape(2, 5, 24).numpy(), weight.numpy()) + bias.numpy()
    np.testing.assert_allclose(network.visemes(features).detach().numpy(), expected, atol=1e-5)


# ---- windows --------------------------------------------------------------------------------------------------------


def test_windows_are_centred_and_clamped_to_the_recording():
    assert window_indices(5, 2).tolist() == [
        [0, 0, 0, 1, 2],
        [0, 0, 1, 2, 3],
        [0, 1, 2, 3, 4],
        [1, 2, 3, 4, 4],
        [2, 3, 4, 4, 4],
    ]
    assert window_indices(1, 1).tolist() == [[0, 0, 0]]
    assert window_indices(4, 0).tolist() == [[0], [1], [2], [3]]


@pytest.mark.parametrize(("start", "stop"), [(0, 3), (2, 6), (5, 9)])
def test_windows_of_a_part_are_those_of_the_whole(start: int, stop: int):
    assert torch.equal(window_indices(9, 2, start, stop), window_indices(9, 2)[start:stop])


def test_a_part_may_reach_beyond_the_recording():
    assert window_indices(3, 1, -1, 5).tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2]]


def test_projected_tokens_are_normed_and_depend_on_the_whole_window():
    settings: dict[str, Any] = {"layers": 2, "width": 3, "margin": 2, "hidden": 32, "tokens": 4, "token_width": 6}
    projector = AudioProjector(**settings, build=Build())
    windows = torch.randn(7, 5, 2, 3, requires_grad=True)
    tokens = projector(windows)
    assert tokens.shape == (7, 4, 6)
    torch.testing.assert_close(tokens.mean(dim=-1), torch.zeros(7, 4), rtol=0, atol=1e-5)
    torch.testing.assert_close(tokens.std(dim=-1, correction=0), torch.ones(7, 4), rtol=0, atol=2e-3)
    tokens[3, 0, 0].backward()
    assert windows.grad is not None
    heard = windows.grad.abs().amax(dim=(2, 3)) > 0
    assert heard[3].all()
    assert not heard[[0, 1, 2, 4, 5, 6]].any()


def test_stretches_of_a_spectrogram_join_without_a_seam():
    wave = speech_like(1.0)
    whole = mel_between(wave, 2.0, -3, 30)
    parts = [mel_between(wave, 2.0, a, b) for a, b in ((-3, 0), (0, 11), (11, 24), (24, 30))]
    torch.testing.assert_close(torch.cat(parts), whole)
    assert torch.equal(mel_between(wave, 1.0, 60, 62), mel_between(torch.zeros(0), 1.0, 0, 2))
