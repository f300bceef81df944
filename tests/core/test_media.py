"""Any recording in, a streamed video out: what must work, and what must be refused in one line."""

from __future__ import annotations

import os
import struct
import threading
import tracemalloc
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from moee_core.audio.read import Waveform, read_audio, resample_mono
from moee_core.errors import MediaError
from moee_core.portrait.image import read_portrait
from moee_core.video.encode import VideoWriter, choose_codec
from moee_core.video.frames import contact_sheet, num_frames, num_frames_for, read_video, write_image

SIDE = 48  # pixels of most test pictures
RATE = 16_000  # hertz of most test recordings


# ---- builders -------------------------------------------------------------------------------------------------------


def colourful(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth patches of strong colour, (height, width, 3) uint8 RGB."""
    patches = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return cv2.resize(patches, (width, height), interpolation=cv2.INTER_CUBIC)


def encoded(suffix: str, rgb: np.ndarray) -> bytes:
    return cv2.imencode(suffix, np.ascontiguousarray(rgb[:, :, ::-1]))[1].tobytes()


def wav(data: bytes, *, channels: int = 1, rate: int = RATE, bits: int = 16, tag: int = 1) -> bytes:
    """A RIFF file around raw sample bytes; tag 1 is integer, 3 is float."""
    block = channels * bits // 8
    form = struct.pack("<HHIIHH", tag, channels, rate, rate * block, block, bits)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def noise(count: int, rate_ratio: int = 8, seed: int = 0) -> np.ndarray:
    """(count,) float32 of band-limited noise that lossy codecs keep."""
    steps = np.random.default_rng(seed).standard_normal(count // rate_ratio + 2)
    return (0.15 * np.repeat(steps, rate_ratio)[:count]).astype(np.float32)


def opened(path: str, mode: str = "r") -> Any:
    """PyAV's container, untyped: its many optional fields are known to be set here."""
    return av.open(path, mode)  # pyright: ignore[reportCallIssue, reportArgumentType]


def write_sound(path: Path, codec: str, samples_CS: np.ndarray, rate: int, layout: str, sample_format: str) -> Path:
    with opened(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        stream.codec_context.format = sample_format
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples_CS), format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        convert = av.AudioResampler(format=sample_format, layout=layout, rate=rate)
        for block in [*convert.resample(frame), *convert.resample(None)]:
            container.mux(stream.encode(block))
        container.mux(stream.encode(None))
    return path


def lag_of(found: np.ndarray, expected: np.ndarray) -> int:
    """By how many samples ``found`` comes later than ``expected``."""
    count = min(len(found), len(expected))
    spectrum = np.fft.rfft(found[:count], 2 * count) * np.conj(np.fft.rfft(expected[:count], 2 * count))
    lag = int(np.argmax(np.fft.irfft(spectrum)))
    return lag - 2 * count if lag > count else lag


def sound(samples_CS: np.ndarray, rate: int = RATE) -> Waveform:
    return Waveform(samples=np.atleast_2d(samples_CS).astype(np.float32), sample_rate=rate)


def assert_one_line(caught: pytest.ExceptionInfo[BaseException], *words: str) -> None:
    message = str(caught.value)
    assert len(message) <= 300, message
    assert "\n" not in message
    for word in words:
        assert word in message


# ---- recordings that must be read -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "tag", "kind", "full"),
    [(8, 1, "u1", 128), (16, 1, "<i2", 1 << 15), (32, 1, "<i4", 1 << 31), (32, 3, "<f4", 1), (64, 3, "<f8", 1)],
)
def test_pcm_is_exact_to_the_sample(tmp_path, bits, tag, kind, full):
    values = np.linspace(-0.9, 0.9, 2 * 777).reshape(777, 2)
    stored = np.round(values * full) if tag == 1 else values
    offset = 128 if bits == 8 else 0
    path = tmp_path / "sound ✓.wav"
    path.write_bytes(wav((stored + offset).astype(kind).tobytes(), channels=2, bits=bits, tag=tag))
    found = read_audio(path)
    assert found.sample_rate == RATE
    assert found.samples.shape == (2, 777)
    assert found.samples.dtype == np.float32
    assert found.duration == 777 / RATE
    np.testing.assert_allclose(found.samples.T, stored / full, atol=1e-7)


def test_24_bit(tmp_path):
    values = np.array([-(1 << 23), -1, 0, 1, (1 << 23) - 1], "<i4")
    path = tmp_path / "deep.wav"
    path.write_bytes(wav(b"".join(int(v).to_bytes(3, "little", signed=True) for v in values), bits=24, rate=44_100))
    np.testing.assert_allclose(read_audio(path).samples[0], values / (1 << 23), atol=1e-7)


def test_a_single_sample(tmp_path):
    (tmp_path / "one.wav").write_bytes(wav(struct.pack("<h", 16384), rate=8000))
    found = read_audio(tmp_path / "one.wav")
    assert found.samples.tolist() == [[0.5]]
    assert resample_mono(found, 16_000).shape == (2,)


@pytest.mark.parametrize(
    ("name", "codec", "sample_format", "rate", "layout"),
    [
        ("a.mp3", "libmp3lame", "fltp", 44_100, "stereo"),
        ("a.m4a", "aac", "fltp", 44_100, "stereo"),
        ("a.m4a", "aac", "fltp", 8_000, "mono"),
        ("a.ogg", "libopus", "flt", 48_000, "mono"),
        ("a.flac", "flac", "s16", 22_050, "mono"),
    ],
)
def test_compressed_sound_keeps_length_and_alignment(tmp_path, name, codec, sample_format, rate, layout):
    """The codec's own delay is removed and nothing is added."""
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV cannot write {codec}")
    channels = 1 if layout == "mono" else 2
    source = np.repeat(noise(rate)[None], channels, axis=0)
    found = read_audio(write_sound(tmp_path / name, codec, source, rate, layout, sample_format))
    assert found.sample_rate == rate
    assert found.samples.shape == (channels, rate)
    assert abs(lag_of(found.samples[0], source[0])) <= 1


def test_surround_is_mixed_down_by_its_layout(tmp_path):
    """5.1: front left stays left, the centre goes to both sides equally, the back joins its side."""
    rate, count = 44_100, 4410
    for speaker, left, right in ((0, 1.0, 0.0), (1, 0.0, 1.0), (2, 0.7071, 0.7071), (4, 0.7071, 0.0)):
        source = np.zeros((6, count), np.float32)
        source[speaker] = 0.5
        path = write_sound(tmp_path / "surround.flac", "flac", source, rate, "5.1", "s16")
        found = read_audio(path)
        assert found.samples.shape == (2, count)
        np.testing.assert_allclose(found.samples[:, 2000] * 2, [left, right], atol=1e-3)


def test_a_wav_that_only_counts_its_channels_is_mixed_like_its_named_twin(tmp_path):
    values = np.zeros((500, 6), "<i2")
    values[:, 2] = 1 << 14
    (tmp_path / "six.wav").write_bytes(wav(values.tobytes(), channels=6))
    np.testing.assert_allclose(read_audio(tmp_path / "six.wav").samples, 0.35355, atol=1e-3)
    (tmp_path / "twelve.wav").write_bytes(wav(np.full((500, 12), 1 << 14, "<i2").tobytes(), channels=12))
    np.testing.assert_allclose(read_audio(tmp_path / "twelve.wav").samples, np.full((1, 500), 0.5), atol=1e-3)


def test_beyond_full_scale_is_scaled_not_clipped(tmp_path):
    (tmp_path / "loud.wav").write_bytes(wav(np.array([1, -4, 2], "<f4").tobytes(), bits=32, tag=3))
    np.testing.assert_allclose(read_audio(tmp_path / "loud.wav").samples, [[0.25, -1, 0.5]])


# ---- what must be refused --------------------------------------------------------------------------------


def test_unusable_recordings_are_refused_in_one_line(tmp_path):
    picture = colourful(SIDE, SIDE)
    cases = {
        "zero.wav": (b"", "empty"),
        "header.wav": (wav(b""), "no samples"),
        "text.wav": (b"Dear reader, this is no recording.\n" * 40, "not a media file"),
        "nan.wav": (wav(np.array([0, np.nan], "<f4").tobytes(), bits=32, tag=3), "not finite"),
        "inf.wav": (wav(np.array([0, np.inf], "<f4").tobytes(), bits=32, tag=3), "not finite"),
        "face.png": (encoded(".png", picture), "no audio track"),
        "face.jpg": (encoded(".jpg", picture), "no audio track"),
        "face.wav": (encoded(".png", picture), "no audio track"),
    }
    for name, (content, word) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MediaError) as caught:
            read_audio(tmp_path / name)
        assert_one_line(caught, name, word)


@pytest.mark.parametrize("reader", [read_portrait, read_audio, read_video])
def test_missing_files_folders_and_long_paths(tmp_path, reader):
    with pytest.raises(MediaError) as caught:
        reader(tmp_path / "absent.dat")
    assert_one_line(caught, "absent.dat", "no such file")
    with pytest.raises(MediaError) as caught:
        reader(tmp_path)
    assert_one_line(caught, "folder")
    for path in ("d/" * 190 + "last name.dat", "n" * 400 + ".dat", "line\nbreak\x00.dat"):
        with pytest.raises(MediaError) as caught:
            reader(path)
        assert_one_line(caught, ".dat")


@pytest.mark.parametrize("samples", [np.zeros(5, np.float32), np.zeros((1, 0), np.float32), np.zeros((1, 5))])
def test_waveform_names_what_is_wrong(samples):
    with pytest.raises(ValueError, match=r"Waveform\.samples"):
        Waveform(samples=samples, sample_rate=RATE)


# ---- resampling -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_resampling_has_no_delay(rate):
    """A sine stays the same function of time and a click stays at its instant, across block borders too."""
    count = 2 * rate + 13
    seconds = np.arange(count) / rate
    found = resample_mono(sound(np.sin(2 * np.pi * 440 * seconds), rate))
    assert len(found) == -(-count * 16_000 // rate)
    assert found.dtype == np.float32
    expected = np.sin(2 * np.pi * 440 * np.arange(len(found)) / 16_000)
    assert np.abs(found - expected)[400:-400].max() < 1e-3
    click = np.zeros(count)
    click[rate] = 1
    assert abs(int(np.argmax(resample_mono(sound(click, rate)))) - 16_000) <= 1


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_sound_in_a_file_is_the_sound_in_memory(rate: int):
    wave = sound(np.random.default_rng(1).normal(0, 0.1, rate + 7), rate)
    found = resample_mono(wave, in_file=True)
    np.testing.assert_array_equal(np.asarray(found), resample_mono(wave))
    assert isinstance(found, np.memmap) or os.name == "nt"


@pytest.mark.parametrize("count", [1, 2, 7, 50, 801])
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 192_000])
def test_short_recordings_survive_resampling(count, rate):
    found = resample_mono(sound(np.full(count, 0.5), rate))
    assert len(found) == -(-count * 16_000 // rate)
    assert found.max() > 0.02


def test_mono_is_the_mean_of_any_number_of_channels():
    channels = np.stack([noise(4800, seed=seed) for seed in range(6)])
    many = resample_mono(sound(channels, 48_000))
    np.testing.assert_allclose(many, resample_mono(sound(channels.mean(axis=0), 48_000)), atol=1e-6)
    np.testing.assert_allclose(resample_mono(sound(channels, RATE)), channels.mean(axis=0), atol=1e-6)


def test_resampling_works_in_blocks():
    """Beyond its result the resampler needs a few blocks, not copies of the recording."""
    waveform = sound(np.zeros((2, 48_000 * 60), np.float32), 48_000)
    tracemalloc.start()
    result = resample_mono(waveform)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < result.nbytes + (4 << 20)


# ---- counting frames ------------------------------------------------------------------------------------------------


def test_frame_counts_are_exact():
    assert num_frames_for(2.0, 25) == 50
    assert num_frames_for(0.1 * 3, 10) == 3
    assert num_frames_for(0, 25) == 1
    assert num_frames(32_000, 16_000, 25) == 50
    assert num_frames(32_001, 16_000, 25) == 51
    assert num_frames(1, 192_000, 25) == 1
    assert num_frames(0, 16_000, 25) == 1
    assert num_frames(1001 * 1600, 48_000, Fraction(30_000, 1001)) == 1000
    assert num_frames(1001 * 1600 + 1, 48_000, 30_000 / 1001) == 1001


def test_counts_from_seconds_agree_with_counts_from_samples():
    generator = np.random.default_rng(1)
    for rate in (8_000, 16_000, 22_050, 44_100, 48_000, 96_000):
        for fps in (24, 25, 29.97, 30, 60):
            whole = [int(k * rate / fps) for k in range(1, 200, 17)]
            for count in [*whole, *generator.integers(1, 600 * rate, 20).tolist()]:
                assert num_frames_for(count / rate, fps) == num_frames(count, rate, fps)


@pytest.mark.parametrize("fps", [0, -25, float("nan"), float("inf"), 1e-9])
def test_impossible_frame_rates(fps):
    with pytest.raises(ValueError, match="fps"):
        num_frames(100, 16_000, fps)


# ---- writing a video ------------------------------------------------------------------------------------------------


def write_video(path: Path, count: int, *, side: int = 64, fps=25, waveform: Waveform | None = None) -> Path:
    with VideoWriter(path, width=side, height=side, fps=fps, waveform=waveform) as writer:
        for index in range(count):
            writer.write(np.full((side, side, 3), index % 200, np.uint8))
    return path


@pytest.mark.parametrize(
    ("suffix", "rate", "channels", "seconds", "fps"),
    [
        (".mp4", 16_000, 1, 2.013, 25),
        (".mp4", 44_100, 2, 3.37, 30),
        (".mp4", 48_000, 6, 1.2, 25),
        (".mp4", 22_050, 1, 2, 29.97),
        (".mp4", 48_000, 1, 0.05, 25),
        (".mov", 8_000, 1, 1.0, 24),
        (".mkv", 16_000, 1, 2.013, 25),
    ],
)
def test_frames_duration_and_sound_agree(tmp_path, suffix, rate, channels, seconds, fps):
    count = round(rate * seconds)
    source = np.repeat(noise(count)[None], channels, axis=0) / channels
    frames = num_frames(count, rate, fps)
    path = write_video(tmp_path / f"видео{suffix}", frames, fps=fps, waveform=sound(source, rate))
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    with opened(str(path)) as container:
        duration = container.duration / av.time_base
        shown_at = [frame.pts * frame.time_base for frame in container.decode(video=0)]
    assert len(shown_at) == frames
    assert shown_at[0] == 0
    np.testing.assert_allclose(np.array(shown_at, float), np.arange(frames) / fps, atol=1e-3)
    assert abs(duration - count / rate) <= 1 / fps + 1e-3
    with opened(str(path)) as container:
        blocks = list(container.decode(audio=0))
    heard = np.concatenate([block.to_ndarray() for block in blocks], axis=1)
    expected = resample_mono(sound(source, rate), 48_000)
    start = float(blocks[0].pts * blocks[0].time_base)
    assert abs(lag_of(heard[0], expected) / 48_000 + start) < 0.010
    assert len(heard) == min(channels, 2)
    assert abs(heard.shape[1] / 48_000 + start - count / rate) < 0.03


def test_reading_back_our_own_sound_is_exact_in_length(tmp_path):
    path = write_video(tmp_path / "a.mp4", 25, waveform=sound(noise(RATE)))
    found = read_audio(path)
    assert found.samples.shape == (1, 48_000)
    assert found.sample_rate == 48_000


def test_sound_and_pictures_are_interleaved(tmp_path):
    """In file order the two tracks stay within about a second of each other; nothing waits for the end."""
    path = write_video(tmp_path / "a.mp4", 250, waveform=sound(noise(160_000)))
    clock = {"video": 0.0, "audio": 0.0}
    with opened(str(path)) as container:
        packets = [packet for packet in container.demux() if packet.dts is not None]
        # By place in the file, as a player downloads it.
        for packet in sorted(packets, key=lambda packet: packet.pos):
            clock[packet.stream.type] = float(packet.dts * packet.time_base)
            assert abs(clock["video"] - clock["audio"]) < 1.2
    assert min(clock.values()) > 9.5
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # the index comes first: it plays while it loads


def test_sound_is_cut_where_the_last_frame_ends(tmp_path):
    path = write_video(tmp_path / "a.mp4", 10, waveform=sound(noise(RATE * 5)))
    with opened(str(path)) as container:
        assert abs(container.duration / av.time_base - 0.4) < 0.04


def test_colours_survive_and_are_tagged(tmp_path):
    """Measured twice: by our reader, and from the stored planes with the BT.709 equations."""
    image = colourful(128, 128)
    path = tmp_path / "colour.mp4"
    with VideoWriter(path, width=128, height=128) as writer:
        for _ in range(3):
            writer.write(image)
    for frame in read_video(path):
        difference = frame.astype(int) - image
        assert np.abs(difference).mean() < 3
        assert np.abs(difference.mean(axis=(0, 1))).max() < 1
    with opened(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        luma = next(container.decode(video=0)).to_ndarray()[:128]
    expected = 16 + 219 * (image / 255.0) @ np.array([0.2126, 0.7152, 0.0722])
    assert np.abs(luma - expected).mean() < 1.5


def test_odd_sizes_repeat_their_last_row_and_column(tmp_path):
    image = np.full((33, 51, 3), (30, 90, 210), np.uint8)
    with VideoWriter(tmp_path / "odd.mp4", width=51, height=33) as writer:
        writer.write(image)
    frame = next(read_video(tmp_path / "odd.mp4"))
    assert frame.shape == (34, 52, 3)
    assert np.abs(frame.astype(int) - image[0, 0]).max() <= 4


def test_memory_does_not_grow_with_length(tmp_path):
    """40 seconds at 128 pixels: what Python and numpy hold stays at a few frames."""
    waveform = sound(noise(40 * RATE))
    frame = np.full((128, 128, 3), 90, np.uint8)
    with VideoWriter(tmp_path / "long.mp4", width=128, height=128, waveform=waveform) as writer:
        for _ in range(50):
            writer.write(frame)
        resident = resident_bytes()
        tracemalloc.start()
        for _ in range(950):
            writer.write(frame)
        held, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        growth = resident_bytes() - resident
    assert held < 1 << 20
    assert peak < 4 << 20
    assert growth < 24 << 20  # all frames together are 49 MB, and 23 MB as yuv420p


def resident_bytes() -> int:
    """What the system counts as held by this process, encoder included; 0 where it cannot be asked."""
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if status.exists() else 0


class Interrupted(BaseException):
    """Like ComfyUI's interrupt: not an Exception."""


@pytest.mark.parametrize("failure", [RuntimeError, Interrupted, KeyboardInterrupt])
def test_an_interrupted_video_leaves_nothing(tmp_path, failure):
    threads = threading.active_count()
    waveform = sound(noise(RATE))

    def render() -> None:
        with VideoWriter(tmp_path / "a.mp4", width=64, height=64, waveform=waveform) as writer:
            for _ in range(60):
                writer.write(np.zeros((64, 64, 3), np.uint8))
            raise failure

    with pytest.raises(failure):
        render()
    assert list(tmp_path.iterdir()) == []
    assert threading.active_count() == threads


def test_an_earlier_video_survives_a_failed_one_and_gives_way_to_a_good_one(tmp_path):
    path = write_video(tmp_path / "a.mp4", 3)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="frame 0"), VideoWriter(path, width=64, height=64) as writer:
        writer.write(np.zeros((64, 63, 3), np.uint8))
    assert path.read_bytes() == before
    write_video(path, 7)
    assert sum(1 for _ in read_video(path)) == 7
    assert len(list(tmp_path.iterdir())) == 1


def test_a_video_without_frames_is_refused(tmp_path):
    with pytest.raises(MediaError) as caught, VideoWriter(tmp_path / "a.mp4", width=64, height=64):
        pass
    assert_one_line(caught, "no frame")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "frame", [np.zeros((64, 64), np.uint8), np.zeros((64, 64, 4), np.uint8), np.zeros((64, 64, 3), np.float32)]
)
def test_wrong_frames_are_named(tmp_path, frame):
    message = r"frame 0 must be \(64, 64, 3\) uint8"
    with (
        pytest.raises(ValueError, match=message),
        VideoWriter(tmp_path / "a.mp4", width=64, height=64) as writer,
    ):
        writer.write(frame)
    assert list(tmp_path.iterdir()) == []


def test_places_a_video_cannot_go_are_refused_at_once(tmp_path):
    (tmp_path / "folder.mp4").mkdir()
    cases = {
        "absent/a.mp4": "does not exist",
        "folder.mp4": "folder",
        "a.avi": ".mp4, .mov, .mkv",
        "a": ".mp4, .mov, .mkv",
        "d/" * 200 + "a.mp4": "create the folder",
        "n" * 400 + ".mp4": ".mp4",
    }
    for name, word in cases.items():
        with pytest.raises(MediaError) as caught, VideoWriter(tmp_path / name, width=64, height=64) as writer:
            writer.write(np.zeros((64, 64, 3), np.uint8))
        assert_one_line(caught, word)
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder.mp4"]


def test_arguments_out_of_range(tmp_path):
    ordinary: dict[str, Any] = {"width": 64, "height": 64}
    cases: tuple[dict[str, Any], ...] = ({"width": 0}, {"height": -2}, {"fps": 0}, {"crf": 52})
    for settings in cases:
        with pytest.raises(ValueError, match=next(iter(settings))):
            VideoWriter(tmp_path / "a.mp4", **(ordinary | settings))
    with pytest.raises(ValueError, match="with block"):
        VideoWriter(tmp_path / "a.mp4", width=64, height=64).write(np.zeros((64, 64, 3), np.uint8))


def test_without_x264_the_fallback_is_visible_and_writes(tmp_path, caplog, monkeypatch):
    assert choose_codec({"libx264", "mpeg4"}) == "libx264"
    assert not caplog.records
    monkeypatch.setattr(av, "codecs_available", {"mpeg4", "aac"})
    path = write_video(tmp_path / "a.mp4", 5, waveform=sound(noise(3200)))
    assert "libx264" in caplog.text
    assert sum(1 for _ in read_video(path)) == 5


# ---- reading a video, sheets, pictures out --------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(av.VideoFrame, "rotation"), reason="this PyAV cannot tell")
def test_a_phone_video_is_turned_upright(tmp_path):
    """The display matrix in the track header says a quarter turn clockwise."""
    image = np.zeros((64, 96, 3), np.uint8)
    image[:, :48] = (250, 30, 30)
    path = tmp_path / "phone.mp4"
    with VideoWriter(path, width=96, height=64) as writer:
        writer.write(image)
    one, last = 1 << 16, 1 << 30
    straight = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, last)
    turned = struct.pack(">9i", 0, one, 0, -one, 0, 0, 64 * one, 0, last)
    data = path.read_bytes()
    place = data.index(straight, data.index(b"tkhd"))
    path.write_bytes(data[:place] + turned + data[place + len(turned) :])
    frame = next(read_video(path))
    assert frame.shape == (96, 64, 3)
    assert frame[10, 32, 0] > 200
    assert frame[86, 32, 0] < 40


def test_what_is_not_a_video(tmp_path):
    (tmp_path / "sound.wav").write_bytes(wav(b"\x00\x01" * 800))
    (tmp_path / "text.mp4").write_bytes(b"no video\n" * 50)
    for name, word in (("sound.wav", "no video track"), ("text.mp4", "not a media file")):
        with pytest.raises(MediaError) as caught:
            list(read_video(tmp_path / name))
        assert_one_line(caught, name, word)


def test_contact_sheet_places_every_frame():
    frames = [np.full((20, 30, 3), 40 * k + 40, np.uint8) for k in range(5)]
    sheet = contact_sheet(frames, 2)
    assert sheet.shape == (60, 60, 3)
    for index in range(5):
        row, column = divmod(index, 2)
        assert (sheet[row * 20 : row * 20 + 20, column * 30 : column * 30 + 30] == 40 * index + 40).all()
    assert contact_sheet(frames, 2, scale=2).shape == (120, 120, 3)
    assert contact_sheet(frames, 5, scale=0.5).shape == (10, 75, 3)
    labelled = contact_sheet(frames, 2, labels=["a", "b", "häppy", "d", "e"])
    strip = labelled.shape[0] // 3 - 20
    assert strip > 0
    assert (labelled[:20, :30] == 40).all()
    assert labelled[20 : 20 + strip, :30].max() > 150
    with pytest.raises(ValueError, match="label"):
        contact_sheet(frames, 2, labels=["a"])
    with pytest.raises(ValueError, match="frame 1"):
        contact_sheet([frames[0], frames[1][:10]], 2)


def test_write_image_is_whole_or_absent(tmp_path):
    image = colourful(SIDE, SIDE)
    write_image(tmp_path / "画像.png", image)
    assert (read_portrait(tmp_path / "画像.png") == image).all()
    write_image(tmp_path / "b.jpg", image[:, :, 0])
    assert np.abs(read_portrait(tmp_path / "b.jpg")[:, :, 1].astype(int) - image[:, :, 0]).mean() < 4
    for path, word in (("c.gif", ".png, .jpg, .jpeg"), ("absent/c.png", "does not exist"), ("n" * 400 + ".png", "n")):
        with pytest.raises(MediaError) as caught:
            write_image(tmp_path / path, image)
        assert_one_line(caught, word)
    with pytest.raises(ValueError, match="uint8"):
        write_image(tmp_path / "d.png", image / 255.0)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["b.jpg", "画像.png"]
