"""Frames: how many a recording needs, reading them from a video, laying them out, writing one as a picture.

Shapes (legend for this file):
    H height, W width, pixels; N frames

    frame_HW3   uint8 RGB

Frame counts are computed with exact fractions, so that 2.0 s at 25 fps is 50 frames and never 51.
Raises ``MediaError`` for files, ``ValueError`` for arguments. PyAV and OpenCV are imported when first needed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np

from ..audio.read import describe_path, describe_reason, open_container, require_file
from ..errors import MediaError

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

MAX_SAMPLE_RATE = 192_000  # hertz; durations in seconds are taken to be a whole number of samples at up to this rate
MAX_FPS_DENOMINATOR = 1001  # 30000/1001 and its relatives
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
JPEG_QUALITY = 95  # of 100
LABEL_HEIGHT = 18  # pixels of the strip that holds one line of text
LABEL_MARGIN = 4  # pixels
LABEL_FONT_SCALE = 0.4
SHEET_GREY = 32  # background of a contact sheet, 8-bit scale
# Tags in a video (ITU-T H.273). BT.709's matrix, primaries and transfer share one number.
H273_BT709, H273_UNTAGGED, H273_BT2020 = 1, 2, (9, 10)
H273_LIMITED_RANGE, H273_FULL_RANGE = 1, 2
# libswscale's matrices and conversion flags, as numbers because PyAV's names for them differ between versions.
SWS_BT709, SWS_BT601, SWS_BT2020 = 1, 5, 9
SWS_BICUBIC, SWS_FULL_CHROMA, SWS_ACCURATE_ROUNDING = 1 << 2, 1 << 13, 1 << 18
HD_HEIGHT = 720  # pixels; untagged video from here on is BT.709, below BT.601, as players assume


def exact_fps(fps: float | Fraction) -> Fraction:
    """Frames per second as a fraction (denominator at most 1001). Raises ``ValueError`` unless positive."""
    if not math.isfinite(fps) or fps <= 0:
        raise ValueError(f"fps must be above 0 frames per second, got {fps}")
    rate = Fraction(fps).limit_denominator(MAX_FPS_DENOMINATOR)
    if rate <= 0:
        raise ValueError(f"fps must be at least 1/{MAX_FPS_DENOMINATOR} frames per second, got {fps}")
    return rate


def num_frames(num_samples: int, sample_rate: int, fps: float | Fraction) -> int:
    """Video frames that cover so many samples: ceil(num_samples / sample_rate * fps), at least 1."""
    if num_samples < 0 or sample_rate < 1:
        raise ValueError(f"need num_samples >= 0 and sample_rate >= 1 Hz, got {num_samples} and {sample_rate}")
    return max(1, math.ceil(Fraction(int(num_samples), int(sample_rate)) * exact_fps(fps)))


def num_frames_for(duration_seconds: float, fps: float | Fraction) -> int:
    """Video frames that cover a duration in seconds: ceil(duration * fps) without rounding errors, at least 1.

    Where the number of samples is known, ``num_frames`` is exact.
    """
    if not math.isfinite(duration_seconds) or duration_seconds < 0:
        raise ValueError(f"duration_seconds must be 0 or more, got {duration_seconds}")
    # The nearest whole number of samples: recovers samples / rate from its floating-point quotient.
    duration = Fraction(duration_seconds).limit_denominator(MAX_SAMPLE_RATE)
    return max(1, math.ceil(duration * exact_fps(fps)))


def read_video(path: str | PathLike[str]) -> Iterator[np.ndarray]:
    """Frames of the first video track one by one: (H, W, 3) uint8 RGB, turned upright as the file asks.

    A missing file is reported at the call, one that cannot be decoded at the first frame (``MediaError``).
    """
    require_file(path, "video")
    return _decoded(path)


def video_rate(path: str | PathLike[str]) -> float:
    """Frames per second of the first video track. Raises ``MediaError`` for a file without one."""
    require_file(path, "video")
    shown = describe_path(path)
    with open_container(path, "video") as container:
        if not container.streams.video:
            raise MediaError(f"video {shown}: the file has no video track; give a video file")
        stream = container.streams.video[0]
        rate = stream.average_rate or stream.guessed_rate
        if not rate:
            raise MediaError(f"video {shown}: the file does not say its frame rate; export it again")
        return float(rate)


def _decoded(path: str | PathLike[str]) -> Iterator[np.ndarray]:
    import av.error

    shown = describe_path(path)
    count = 0
    with open_container(path, "video") as container:
        if not container.streams.video:
            raise MediaError(f"video {shown}: the file has no video track; give a video file")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        try:
            for frame in container.decode(stream):
                count += 1
                yield _rgb(frame)
        except av.error.FFmpegError as error:
            raise MediaError(
                f"video {shown}: cannot be decoded after frame {count} ({describe_reason(error)}); export it again"
            ) from error
    if not count:
        raise MediaError(f"video {shown}: the video track contains no frames; export it again")


def _rgb(frame: VideoFrame) -> np.ndarray:
    """One decoded PyAV frame as upright (H, W, 3) uint8 RGB, by the matrix the file is tagged with."""
    if frame.colorspace == H273_BT709 or (frame.colorspace == H273_UNTAGGED and frame.height >= HD_HEIGHT):
        matrix = SWS_BT709
    else:
        matrix = SWS_BT2020 if frame.colorspace in H273_BT2020 else SWS_BT601
    full = frame.color_range == H273_FULL_RANGE
    image = frame.reformat(
        format="rgb24",
        src_colorspace=matrix,
        # Means nothing for RGB, but PyAV 14 sets the source matrix only where the two differ.
        dst_colorspace=SWS_BT601,
        src_color_range=H273_FULL_RANGE if full else H273_LIMITED_RANGE,
        # Without the last two flags every channel comes out about one level too dark.
        interpolation=SWS_BICUBIC | SWS_FULL_CHROMA | SWS_ACCURATE_ROUNDING,
    ).to_ndarray()
    # Degrees counter-clockwise; the oldest PyAV cannot tell, its frames stay as stored.
    turns = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def contact_sheet(
    frames: Iterable[np.ndarray], columns: int, labels: Sequence[str] | None = None, scale: float = 1
) -> np.ndarray:
    """All frames on one picture, row by row, with an optional line of text under each.

    frames   N arrays (H, W, 3) uint8 RGB of one size
    columns  frames per row, at least 1
    labels   N strings; characters the built-in font lacks show as "?"
    scale    size of each frame on the sheet relative to the frame, above 0
    -> (rows * (round(H * scale) + label strip), columns * round(W * scale), 3) uint8 RGB
    """
    import cv2

    cells = list(frames)
    if not cells or columns < 1 or not scale > 0:
        raise ValueError(f"need frames, columns >= 1 and scale > 0, got {len(cells)}, {columns} and {scale}")
    for index, cell in enumerate(cells):
        if cell.ndim != 3 or cell.shape[2] != 3 or cell.dtype != np.uint8 or cell.shape != cells[0].shape:
            raise ValueError(
                f"frame {index} must be (H, W, 3) uint8 like frame 0 {cells[0].shape}, got {cell.shape} {cell.dtype}"
            )
    if labels is not None and len(labels) != len(cells):
        raise ValueError(f"need one label per frame, got {len(labels)} labels for {len(cells)} frames")
    height, width = (max(1, round(side * scale)) for side in cells[0].shape[:2])
    strip = LABEL_HEIGHT if labels is not None else 0
    rows = -(-len(cells) // columns)
    sheet = np.full((rows * (height + strip), columns * width, 3), SHEET_GREY, dtype=np.uint8)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST  # enlarged for a look at the pixels themselves
    for index, cell in enumerate(cells):
        row, column = divmod(index, columns)
        top, left = row * (height + strip), column * width
        if scale != 1:
            cell = cv2.resize(np.ascontiguousarray(cell), (width, height), interpolation=how)
        sheet[top : top + height, left : left + width] = cell
        if labels is not None:
            text = np.full((strip, width, 3), SHEET_GREY, dtype=np.uint8)
            origin = (LABEL_MARGIN, strip - LABEL_MARGIN - 1)
            font, white = cv2.FONT_HERSHEY_SIMPLEX, (255, 255, 255)
            plain = labels[index].encode("ascii", "replace").decode("ascii")
            cv2.putText(text, plain, origin, font, LABEL_FONT_SCALE, white, 1, cv2.LINE_AA)
            sheet[top + height : top + height + strip, left : left + width] = text
    return sheet


def write_image(path: str | PathLike[str], image: np.ndarray) -> None:
    """Write a PNG or JPEG picture whole or not at all.

    image  (H, W, 3) uint8 RGB or (H, W) uint8 grey
    Raises ``MediaError`` for another suffix, a missing folder, or a path that cannot be written.
    """
    import cv2

    if image.dtype != np.uint8 or image.ndim not in (2, 3) or 0 in image.shape or image.shape[2:] not in ((), (3,)):
        raise ValueError(f"image must be (H, W, 3) or (H, W) uint8, got {image.shape} {image.dtype}")
    target = writable_target(path, "picture", PICTURE_SUFFIXES)
    pixels = np.ascontiguousarray(image[:, :, ::-1] if image.ndim == 3 else image)
    settings = [] if target.suffix.lower() == ".png" else [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    done, data = cv2.imencode(target.suffix.lower(), pixels, settings)
    if not done:
        raise MediaError(f"picture {describe_path(path)}: {image.shape} cannot be encoded; try PNG or a smaller size")
    unfinished = hidden_beside(target)
    try:
        unfinished.write_bytes(data.tobytes())
        os.replace(unfinished, target)
    except OSError as error:
        raise MediaError(
            f"picture {describe_path(path)}: cannot be written ({describe_reason(error)}); check the folder and disk"
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)


def writable_target(path: str | PathLike[str], kind: str, suffixes: Sequence[str]) -> Path:
    """The absolute path to write to. Raises ``MediaError`` for a folder, a missing folder, an unsupported suffix."""
    shown = describe_path(path)
    try:
        target = Path(path).absolute()
        if target.is_dir():
            raise MediaError(f"{kind} {shown}: this is a folder; give a file name in it")
        if target.suffix.lower() not in suffixes:
            found = describe_path(target.suffix)[:20]
            raise MediaError(f"{kind} {shown}: cannot write {found} files; supported are {', '.join(suffixes)}")
        if not target.parent.is_dir():
            raise MediaError(f"{kind} {shown}: its folder does not exist; create the folder first")
    except MediaError:
        raise
    except (OSError, ValueError) as error:  # too long a name, a NUL character
        raise MediaError(
            f"{kind} {shown}: cannot be written ({describe_reason(error)}); choose another path"
        ) from error
    return target


def hidden_beside(target: Path) -> Path:
    """A new hidden name in the same folder (so that renaming it is atomic), with the same suffix."""
    return target.with_name(f".{uuid4().hex}{target.suffix}")
