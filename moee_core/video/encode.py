"""Streaming a talking video to disk: frame in, H.264 and AAC out, memory independent of length.

Shapes (legend for this file):
    H height, W width, pixels; C channels, S samples

    frame_HW3   uint8 RGB

Frame k is shown at k / fps seconds, sample s is heard at s / sample_rate seconds. With each frame the sound up to
that frame's end is encoded and interleaved. The sound is cut where the last frame ends; the caller who wants all
of it writes ``frames.num_frames(...)`` frames, which is less than one frame longer than the sound.

Colour is converted with the BT.709 matrix to limited range and tagged so (ITU-T H.273 code 1), 4:2:0; an odd
side is extended by repeating its last row or column.

The file is written under a hidden name in the same folder and renamed when it is complete: after any exception
there is no output file, and an older file of that name is untouched.

Raises ``MediaError`` for paths and encoding, ``ValueError`` for arguments and frames.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable
from fractions import Fraction
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, cast

import numpy as np

from ..audio.read import LAYOUT_OF_COUNT, RELEASE_SAMPLES, Waveform, array_frame, describe_path, describe_reason, let_go
from ..errors import MediaError
from .frames import (
    H273_BT709,
    H273_FULL_RANGE,
    H273_LIMITED_RANGE,
    SWS_ACCURATE_ROUNDING,
    SWS_BICUBIC,
    SWS_BT709,
    exact_fps,
    hidden_beside,
    writable_target,
)

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.container import OutputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

logger = logging.getLogger(__name__)

FORMAT_OF_SUFFIX = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
VIDEO_CODEC = "libx264"
FALLBACK_CODEC = "mpeg4"  # part of every FFmpeg build
FALLBACK_BITS_PER_PIXEL = 0.3
MAX_CRF = 51  # worst quality on x264's scale; 0 is lossless
AUDIO_RATE = 48_000  # hertz
AUDIO_BIT_RATE = {"mono": 128_000, "stereo": 192_000}  # bits per second


class VideoWriter:
    """Write frames, and a waveform, into one video file.

    path           .mp4, .mov or .mkv in an existing folder
    width, height  of every frame, pixels
    fps            frames per second, above 0
    waveform       sound from the first frame on, or None
    crf            quality, 0 (lossless) to 51 (worst)

        with VideoWriter("out.mp4", width=512, height=512, waveform=waveform) as writer:
            for frame in frames:
                writer.write(frame)
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        width: int,
        height: int,
        fps: float | Fraction = 25,
        waveform: Waveform | None = None,
        crf: int = 18,
    ) -> None:
        if width < 1 or height < 1:
            raise ValueError(f"width and height must be at least 1 pixel, got {width} and {height}")
        if not 0 <= crf <= MAX_CRF:
            raise ValueError(f"crf must be between 0 (lossless) and {MAX_CRF}, got {crf}")
        self.width, self.height, self.crf, self.waveform = width, height, crf, waveform
        self.fps = exact_fps(fps)
        self.frames_written = 0
        self._shown = describe_path(path)
        # Checked here, before hours of rendering, not when the file is finished.
        self._target = writable_target(path, "video", tuple(FORMAT_OF_SUFFIX))
        self._unfinished = hidden_beside(self._target)
        self._container: OutputContainer | None = None
        self._samples_fed = 0

    def __enter__(self) -> VideoWriter:
        import av
        import av.error

        kind = FORMAT_OF_SUFFIX[self._target.suffix.lower()]
        options = {} if kind == "matroska" else {"movflags": "+faststart"}
        try:
            self._unfinished.touch()  # PyAV opens the file at the first frame; a folder we may not write to fails here
            container = av.open(str(self._unfinished), "w", format=kind, options=options)
            self._container = container
            self._video = self._video_stream(container)
            if self.waveform is not None:
                self._open_audio(container, self.waveform)
        except BaseException as error:
            self._discard()
            if isinstance(error, (av.error.FFmpegError, OSError)):
                raise self._cannot_write(error) from error
            raise
        return self

    def write(self, frame: np.ndarray) -> None:
        """Append one frame, (height, width, 3) uint8 RGB, and the sound that belongs to it."""
        import av.error

        if self._container is None:
            raise ValueError("VideoWriter.write needs an open writer; use it inside a with block")
        expected = (self.height, self.width, 3)
        if np.shape(frame) != expected or getattr(frame, "dtype", None) != np.uint8:
            raise ValueError(
                f"frame {self.frames_written} must be {expected} uint8, "
                f"got {np.shape(frame)} {getattr(frame, 'dtype', type(frame).__name__)}"
            )
        try:
            self._mux(self._video.encode(self._picture(frame)))
            self.frames_written += 1
            if self.waveform is not None:
                end = self.frames_written / self.fps * self.waveform.sample_rate
                self._feed(self.waveform, round(end))
        except (av.error.FFmpegError, OSError) as error:
            raise self._cannot_write(error) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import av.error

        try:
            if kind is None:
                if not self.frames_written:
                    raise MediaError(
                        f"video {self._shown}: no frame was written, so no file was made; write at least 1"
                    )
                self._finish()
        except (av.error.FFmpegError, OSError) as failure:
            raise self._cannot_write(failure) from failure
        finally:
            self._discard()

    def _video_stream(self, container: OutputContainer) -> VideoStream:
        import av

        codec = choose_codec(av.codecs_available)
        stream = cast("VideoStream", container.add_stream(codec, rate=self.fps))
        context = stream.codec_context
        context.width, context.height = self.width + self.width % 2, self.height + self.height % 2
        context.pix_fmt = "yuv420p"
        context.time_base = 1 / self.fps
        context.colorspace = context.color_primaries = context.color_trc = H273_BT709
        context.color_range = H273_LIMITED_RANGE
        if codec == VIDEO_CODEC:
            context.options = {"crf": str(self.crf)}
        else:
            context.bit_rate = int(FALLBACK_BITS_PER_PIXEL * self.width * self.height * self.fps)
        return stream

    def _open_audio(self, container: OutputContainer, waveform: Waveform) -> None:
        import av

        channels = waveform.samples.shape[0]
        if channels not in LAYOUT_OF_COUNT:
            raise ValueError(f"waveform must have 1 to {max(LAYOUT_OF_COUNT)} channels, got {channels}")
        layout = "mono" if channels == 1 else "stereo"
        self._audio = container.add_stream("aac", rate=AUDIO_RATE, layout=layout)
        self._audio.codec_context.bit_rate = AUDIO_BIT_RATE[layout]
        self._resampler = av.AudioResampler(format="fltp", layout=layout, rate=AUDIO_RATE)

    def _picture(self, frame: np.ndarray) -> VideoFrame:
        import av

        if self.height % 2 or self.width % 2:
            frame = np.pad(frame, ((0, self.height % 2), (0, self.width % 2), (0, 0)), mode="edge")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24").reformat(
            format="yuv420p",
            dst_colorspace=SWS_BT709,
            src_color_range=H273_FULL_RANGE,
            dst_color_range=H273_LIMITED_RANGE,
            interpolation=SWS_BICUBIC | SWS_ACCURATE_ROUNDING,
        )
        picture.pts, picture.time_base = self.frames_written, 1 / self.fps
        return picture

    def _feed(self, waveform: Waveform, end: int) -> None:
        """Encode the source samples from where we are up to ``end``."""
        end = min(end, waveform.samples.shape[1])
        if end > self._samples_fed:
            block = array_frame(waveform.samples[:, self._samples_fed : end], waveform.sample_rate, self._samples_fed)
            if end // RELEASE_SAMPLES != self._samples_fed // RELEASE_SAMPLES:
                let_go(waveform.samples)
            self._samples_fed = end
            self._encode_audio(block)

    def _encode_audio(self, block: AudioFrame | None) -> None:
        for resampled in self._resampler.resample(block):
            self._mux(self._audio.encode(resampled))

    def _mux(self, packets: Iterable[Packet]) -> None:
        assert self._container is not None  # write and __exit__ come here only while the file is open
        for packet in packets:
            self._container.mux(packet)

    def _finish(self) -> None:
        if self.waveform is not None:
            self._encode_audio(None)
            self._mux(self._audio.encode(None))
        self._mux(self._video.encode(None))
        if self._container is not None:
            # From here on closing counts: it writes the index, and moves it to the front.
            container, self._container = self._container, None
            container.close()
        os.replace(self._unfinished, self._target)

    def _discard(self) -> None:
        """Close what is open and remove the unfinished file; does nothing after a clean finish."""
        import av.error

        container, self._container = self._container, None
        try:
            if container is not None:
                container.close()
        except (av.error.FFmpegError, OSError) as error:
            # The file is thrown away and the first error is already on its way: this one is only worth a line.
            logger.debug("closing an abandoned video failed: %s", error)
        finally:
            self._unfinished.unlink(missing_ok=True)

    def _cannot_write(self, error: BaseException) -> MediaError:
        return MediaError(
            f"video {self._shown}: cannot be written ({describe_reason(error)}); check permissions and free disk space"
        )


def choose_codec(available: Collection[str]) -> str:
    """H.264 where this FFmpeg has x264; otherwise, with a warning, MPEG-4 part 2, which every build has."""
    if VIDEO_CODEC in available:
        return VIDEO_CODEC
    logger.warning(
        "this PyAV was built without %s: writing %s instead, larger files and not shown by browsers; "
        "install PyAV from PyPI (pip install av) to get H.264",
        VIDEO_CODEC,
        FALLBACK_CODEC,
    )
    return FALLBACK_CODEC
