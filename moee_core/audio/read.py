"""Recordings: any file PyAV understands in, exact samples out.

Shapes (legend for this file):
    C channels, S samples at the recording's own rate, R samples at another rate

    samples_CS     float32 in [-1, 1]
    resampled_R    float32, R = ceil(S * rate / source rate), sample 0 at the same instant as the source's

A file is decoded at its own rate; the codec delay that its container declares (mp3, AAC, Opus) is already
removed by the decoder, and nothing is added. One or two channels are kept as they are; more are mixed down to
stereo with FFmpeg's matrix for the layout. A recording that goes beyond full scale is scaled down as a whole.

Raises ``MediaError`` for what is not a recording: missing, empty, no audio track, no samples, not-a-number.
PyAV is imported when it is first needed.
"""

from __future__ import annotations

import logging
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import numpy as np

from ..errors import MediaError

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.resampler import AudioResampler
    from av.audio.stream import AudioStream
    from av.container import InputContainer

logger = logging.getLogger(__name__)

PATH_SHOWN = 120  # characters of a path that fit in a one-line message
REASON_SHOWN = 60  # characters of another library's message that fit
IN_MEMORY = 1 << 21  # values of a recording kept in memory (8 MB, 44 s of 48 kHz mono); a longer one is in a file
BLOCK_SAMPLES = 1 << 16  # samples per resampler call: bounds memory, about 1.4 s at 48 kHz
RELEASE_SAMPLES = 64 * BLOCK_SAMPLES  # after so many samples of a recording in a file, their pages leave memory
MIN_TAIL_SAMPLES = 1024  # silence fed after the last sample, longer than half of any resampling filter here
MAX_PADDING = 4096  # samples; a codec's last block (AAC: 1024 or 2048) may go on this far after the stated end
# FFmpeg's names for the channel orders of plain arrays, which carry a count but no names.
LAYOUT_OF_COUNT = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}


@dataclass(frozen=True, kw_only=True)
class Waveform:
    """Sound in memory.

    samples      (C, S) float32 in [-1, 1], C >= 1, S >= 1
    sample_rate  samples per second, hertz

    Raises ``ValueError`` for another shape, dtype or rate.
    """

    samples: np.ndarray
    sample_rate: int

    def __post_init__(self) -> None:
        shape, dtype = np.shape(self.samples), getattr(self.samples, "dtype", None)
        if len(shape) != 2 or 0 in shape:
            raise ValueError(f"Waveform.samples must be (channels, samples), neither of them 0, got shape {shape}")
        if dtype != np.float32:
            raise ValueError(f"Waveform.samples must be float32 in [-1, 1], got {dtype}; convert it first")
        if self.sample_rate < 1:
            raise ValueError(f"Waveform.sample_rate must be at least 1 Hz, got {self.sample_rate}")

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.samples.shape[1] / self.sample_rate


def describe_path(path: str | PathLike[str]) -> str:
    """The path in quotes for a one-line message: no control characters, the middle cut out of a long one."""
    text = "".join(character if character.isprintable() else "?" for character in str(path))
    if len(text) > PATH_SHOWN:
        # The end holds the file name, so it gets most of the room.
        head = PATH_SHOWN // 4
        text = f"{text[:head]}...{text[-(PATH_SHOWN - head - 3) :]}"
    return f"'{text}'"


def describe_reason(error: BaseException) -> str:
    """Another library's or the system's message, on one short line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    text = " ".join(text.split())
    return text if len(text) <= REASON_SHOWN else text[: REASON_SHOWN - 3] + "..."


def require_file(path: str | PathLike[str], kind: str) -> Path:
    """The absolute path of an existing, readable, non-empty file.

    ``kind`` names what is wanted ("picture", "recording") in the message.
    Raises ``MediaError`` for a missing file, a folder, an empty file, or one that may not be opened.
    """
    shown = describe_path(path)
    try:
        found = Path(path).absolute()
        if found.is_dir():
            raise MediaError(f"{kind} {shown}: this is a folder; give the path of one file in it")
        with found.open("rb") as file:
            first = file.read(1)
    except FileNotFoundError:
        raise MediaError(f"{kind} {shown}: no such file; check the spelling and the folder") from None
    except PermissionError:
        raise MediaError(f"{kind} {shown}: may not be opened (permission denied); change its permissions") from None
    except MediaError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        raise MediaError(f"{kind} {shown}: cannot be opened ({describe_reason(error)}); check the path") from error
    if not first:
        raise MediaError(f"{kind} {shown}: the file is empty (0 bytes); copy or export it again")
    return found


def open_container(path: str | PathLike[str], kind: str) -> InputContainer:
    """Open a media file with PyAV; the caller closes it (``with``). Raises ``MediaError`` when it is not one."""
    import av
    import av.error

    found = require_file(path, kind)
    try:
        return av.open(str(found), metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise MediaError(
            f"{kind} {describe_path(path)}: not a media file that can be decoded ({describe_reason(error)}); "
            "its content may not match its name, export it again"
        ) from error


def read_audio(path: str | PathLike[str]) -> Waveform:
    """Read the (best) audio track of a sound or video file at its own rate.

    Returns one channel, or two: mono and stereo are kept, more channels are mixed down to stereo. The samples of a
    long recording lie in a temporary file that goes away with the array, so that memory does not grow with its length.
    Raises ``MediaError``: see the module docstring.
    """
    shown = describe_path(path)
    with open_container(path, "recording") as container:
        if not container.streams.audio:
            raise MediaError(
                f"recording {shown}: the file has no audio track; give a sound file, or a video with sound"
            )
        track, sample_rate, stated = _decode(container, shown)
    if not track.count:
        raise MediaError(f"recording {shown}: the audio track contains no samples; record or export it again")
    samples_CS = track.array()
    if stated and 0 < samples_CS.shape[1] - stated < MAX_PADDING:
        samples_CS = samples_CS[:, :stated]
    bad, peak = 0, 0.0
    for part in _parts(samples_CS):
        bad += int(np.count_nonzero(~np.isfinite(part)))
        peak = max(peak, float(np.abs(part).max()))
    if bad:
        raise MediaError(f"recording {shown}: {bad} samples are not finite numbers (NaN or infinity); export it again")
    if peak > 1.0:
        logger.info("recording %s goes beyond full scale (peak %.3g): scaled down as a whole", shown, peak)
        for part in _parts(samples_CS):
            part /= peak
    return Waveform(samples=samples_CS, sample_rate=sample_rate)


def let_go(array: np.ndarray) -> None:
    """Take an array's pages out of memory where it lies in a file, in which they stay; nothing to do for others."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def _parts(samples_CS: np.ndarray) -> Iterator[np.ndarray]:
    """Views (C, up to ``BLOCK_SAMPLES``) that cover a recording; a long one passes through memory, and is not kept."""
    for start in range(0, samples_CS.shape[1], BLOCK_SAMPLES):
        yield samples_CS[:, start : start + BLOCK_SAMPLES]
        if start % RELEASE_SAMPLES == 0:
            let_go(samples_CS)
    let_go(samples_CS)


def resample_mono(waveform: Waveform, sample_rate: int = 16_000, in_file: bool = False) -> np.ndarray:
    """The mean of all channels at another rate.

    waveform     (C, S) of any channel count and rate
    sample_rate  hertz
    in_file      keep the result in a temporary file that goes away with the array: hours of sound need no memory
    -> (R,) float32, R = ceil(S * sample_rate / waveform.sample_rate), aligned with the source (no filter delay)
    """
    if sample_rate < 1:
        raise ValueError(f"sample_rate must be at least 1 Hz, got {sample_rate}")
    source_rate, count = waveform.sample_rate, waveform.samples.shape[1]
    length = -(-count * sample_rate // source_rate)
    result_R = _array_in_file(length) if in_file else np.zeros(length, dtype=np.float32)
    if source_rate == sample_rate:
        for start, part in zip(range(0, count, BLOCK_SAMPLES), _parts(waveform.samples), strict=True):
            result_R[start : start + BLOCK_SAMPLES] = part.mean(axis=0, dtype=np.float32)
        let_go(result_R)
        return result_R
    import av

    resampler = av.AudioResampler(format="fltp", layout="mono", rate=sample_rate)
    filled = 0
    # Silence after the end pushes the last samples, and recordings shorter than the filter, out of the resampler.
    # Its length scales with the ratio because the filter gets longer as the rate drops.
    tail = max(MIN_TAIL_SAMPLES, 64 * -(-source_rate // sample_rate))
    for frame in _mono_frames(waveform, tail):
        for block in resampler.resample(frame):
            filled = _append(result_R, filled, block.to_ndarray()[0])
    for block in resampler.resample(None):
        filled = _append(result_R, filled, block.to_ndarray()[0])
    let_go(result_R)
    return result_R


class _Track:
    """Blocks of one recording, in memory while it is short, then in an unnamed temporary file."""

    def __init__(self) -> None:
        self.count = self._channels = 0
        self._blocks: list[np.ndarray] = []
        self._held = 0
        self._file: IO[bytes] | None = None

    def add(self, block_CS: np.ndarray) -> None:
        self._channels = len(block_CS)
        self.count += block_CS.shape[1]
        self._blocks.append(block_CS)
        self._held += block_CS.size
        if self._held > IN_MEMORY and os.name != "nt":  # Windows keeps no unnamed files
            self._write()

    def _write(self) -> None:
        import tempfile

        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="moee_sound_")  # noqa: SIM115 - lives as long as the track
        for block in self._blocks:
            self._file.write(np.ascontiguousarray(block.T, np.float32).tobytes())
        self._blocks.clear()
        self._held = 0

    def array(self) -> np.ndarray:
        """(C, S) float32; nothing can be added any more."""
        if self._file is None:
            samples_CS = np.concatenate(self._blocks, axis=1)
            self._blocks.clear()
            return samples_CS
        self._write()
        with self._file as file:
            file.flush()
            return np.memmap(file, dtype=np.float32, mode="r+", shape=(self.count, self._channels)).T  # type: ignore[call-overload]


def _array_in_file(length: int) -> np.ndarray:
    """Zeros (length,) float32 over an unnamed temporary file; in memory on Windows, which keeps no unnamed files."""
    import tempfile

    if os.name == "nt":
        return np.zeros(length, dtype=np.float32)

    with tempfile.TemporaryFile(prefix="moee_sound_") as file:
        file.truncate(4 * max(1, length))
        return np.memmap(file, dtype=np.float32, mode="r+", shape=(length,))  # type: ignore[call-overload]


def array_frame(
    samples_CS: np.ndarray, sample_rate: int, start: int | None, *, layout: str | None = None
) -> AudioFrame:
    """A PyAV frame of float samples (C, S) that begins at sample ``start`` of its track.

    Without a ``layout``, 1 to 8 channels are taken to be in FFmpeg's usual order for their count.
    """
    import av

    samples_CS = np.ascontiguousarray(samples_CS, dtype=np.float32)
    layout = layout or LAYOUT_OF_COUNT[len(samples_CS)]
    frame = av.AudioFrame.from_ndarray(samples_CS, format="fltp", layout=layout)
    frame.sample_rate = sample_rate
    frame.time_base = Fraction(1, sample_rate)
    frame.pts = start
    return frame


def _mono_frames(waveform: Waveform, tail: int) -> Iterator[AudioFrame]:
    count = waveform.samples.shape[1]
    for start, part in zip(range(0, count, BLOCK_SAMPLES), _parts(waveform.samples), strict=True):
        yield array_frame(part.mean(axis=0, dtype=np.float32, keepdims=True), waveform.sample_rate, start)
    yield array_frame(np.zeros((1, tail), dtype=np.float32), waveform.sample_rate, count)


def _append(target_R: np.ndarray, filled: int, block_S: np.ndarray) -> int:
    """Copy as much of the block as still fits; return how much is filled now."""
    take = min(len(block_S), len(target_R) - filled)
    target_R[filled : filled + take] = block_S[:take]
    return filled + take


def _decode(container: InputContainer, shown: str) -> tuple[_Track, int, int]:
    """The best audio track in one or two channels, its sample rate, and number of samples stated.

    MP4 and MOV state the exact length, which the decoder does not apply to the end; 0 for other containers.
    """
    import av
    import av.error

    stream = cast("AudioStream", container.streams.best("audio") or container.streams.audio[0])
    track = _Track()
    kind: tuple[int, int] | None = None
    mixer: AudioResampler | None = None
    damaged = 0
    try:
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                damaged += 1
                continue
            for frame in frames:
                found = (frame.rate, frame.layout.nb_channels)
                if kind is None:
                    kind = found
                    if found[1] > 2 and _layout_name(frame) is not None:
                        mixer = av.AudioResampler(format="fltp", layout="stereo", rate=frame.rate)
                elif found != kind:
                    raise MediaError(
                        f"recording {shown}: changes from {kind[0]} Hz, {kind[1]} channels to {found[0]} Hz, "
                        f"{found[1]} channels on the way; export it as one WAV file"
                    )
                if frame.samples:
                    for block in _mixed(frame, mixer):
                        track.add(block)
        if mixer is not None:
            for rest in mixer.resample(None):
                if rest.samples:
                    track.add(rest.to_ndarray())
    except (av.error.FFmpegError, ValueError) as error:
        if isinstance(error, MediaError):
            raise
        raise MediaError(
            f"recording {shown}: the audio track cannot be decoded ({describe_reason(error)}); export it as a WAV file"
        ) from error
    if damaged:
        logger.warning("recording %s: %d damaged packets were left out", shown, damaged)
    rate = kind[0] if kind else 0
    if "mp4" not in container.format.name or stream.duration is None or stream.time_base is None:
        return track, rate, 0
    return track, rate, round(stream.duration * stream.time_base * rate)


def _layout_name(frame: AudioFrame) -> str | None:
    """The channel layout; guessed from the count where the file gives only that, None when there is no guess."""
    name = frame.layout.name
    return LAYOUT_OF_COUNT.get(frame.layout.nb_channels) if name.endswith("channels") else name


def _mixed(frame: AudioFrame, mixer: AudioResampler | None) -> Iterator[np.ndarray]:
    """The frame's samples in one or two channels, as blocks (C, S)."""
    samples_CS = _float_samples(frame)
    layout = _layout_name(frame)
    if len(samples_CS) <= 2:
        yield samples_CS
    elif mixer is None or layout is None:
        yield samples_CS.mean(axis=0, dtype=np.float32, keepdims=True)
    else:
        # No time stamp: a gap between two of them must not become inserted silence.
        for block in mixer.resample(array_frame(samples_CS, frame.rate, None, layout=layout)):
            yield block.to_ndarray()


def _float_samples(frame: AudioFrame) -> np.ndarray:
    """The frame as (C, S) float32; integer formats are divided by their full scale."""
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128.0) / 128.0
    if values.dtype.kind == "i":
        return (values / float(1 << (8 * values.dtype.itemsize - 1))).astype(np.float32)
    return values.astype(np.float32)
