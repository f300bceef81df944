"""A recording of many minutes: in a file, exact to the sample, and not in memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from moee_core.audio.read import Waveform, let_go, read_audio, resample_mono

from .test_media import RATE, noise, wav


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_a_long_recording_lies_in_a_file_and_is_the_same(tmp_path, monkeypatch, channels):
    values = (noise(30_000 * channels) * 3).astype("<f4").reshape(-1, channels)  # beyond full scale
    (tmp_path / "long.wav").write_bytes(wav(values.tobytes(), channels=channels, bits=32, tag=3))
    short = read_audio(tmp_path / "long.wav").samples
    monkeypatch.setattr("moee_core.audio.read.IN_MEMORY", 5_000)
    long = read_audio(tmp_path / "long.wav")
    np.testing.assert_array_equal(long.samples, short)
    assert np.abs(long.samples).max() == 1.0
    np.testing.assert_array_equal(
        resample_mono(long, 11_025), resample_mono(Waveform(samples=short, sample_rate=RATE), 11_025)
    )


def in_memory_from_files() -> float:
    """MB of files' pages in this process's memory."""
    return int(Path("/proc/self/status").read_text().split("RssFile:")[1].split()[0]) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux counts memory there")
def test_a_recording_in_a_file_leaves_memory_and_stays_as_it_was(tmp_path):
    path = tmp_path / "long.wav"
    path.write_bytes(wav((noise(600 * RATE) * 8000).astype("<i2").tobytes()))
    before = in_memory_from_files()
    samples = read_audio(path).samples
    mono = resample_mono(Waveform(samples=samples, sample_rate=RATE), in_file=True)
    assert in_memory_from_files() < before + 8, "the recording has 37 MB, and the copy as many"
    np.testing.assert_array_equal(mono, samples[0])
    assert in_memory_from_files() > before + 50
    let_go(samples[:, 5:])  # a part stands for the whole
    assert in_memory_from_files() < before + 45
    let_go(mono)
    np.testing.assert_array_equal(mono[-5:], samples[0, -5:])
    let_go(np.zeros(3))


def test_memory_does_not_grow_with_the_recording(tmp_path):
    peaks = []
    for seconds in (60, 600):
        path = tmp_path / f"{seconds}.wav"
        path.write_bytes(wav((noise(seconds * RATE) * 8000).astype("<i2").tobytes()))
        tracemalloc.start()
        assert read_audio(path).samples.shape == (1, seconds * RATE)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 4e6, "nine more minutes are 34 MB of samples"
