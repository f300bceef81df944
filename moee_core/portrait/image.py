"""Portrait pictures: any common file in, plain 8-bit RGB out.

Shapes (legend for this file):
    H height, W width, pixels

    image_HW3   uint8 RGB, upright

``read_portrait`` takes PNG, JPEG, WebP, BMP and TIFF: colour, grey or palette, 8 or 16 bits, with or without
transparency (laid over mid grey), and turns a picture upright as its EXIF data asks. The decoder is OpenCV,
imported when it is first needed; paths may hold any characters.

Raises ``MediaError`` for what is not a usable picture: missing, empty, cut short, another kind of file, too small.
"""

from __future__ import annotations

import re
import struct
import zlib
from os import PathLike

import numpy as np

from ..audio.read import describe_path, describe_reason, require_file
from ..errors import MediaError

MIN_SIDE = 32  # pixels; a face cannot be found in less
BACKGROUND = 128.0  # mid grey behind transparent pixels, 8-bit scale

PNG_START = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8\xff"
# In JPEG image data, FF 00 is an escaped byte and FF D0..D7 are restart marks; any other FF xx opens a segment.
JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
JPEG_END, JPEG_APP1 = 0xD9, 0xE1
ORIENTATION_TAG = 0x0112  # TIFF/EXIF
# EXIF orientation -> (quarter turns counter-clockwise, then mirror left-right)
UPRIGHT = {
    1: (0, False),
    2: (0, True),
    3: (2, False),
    4: (2, True),
    5: (3, True),
    6: (3, False),
    7: (1, True),
    8: (1, False),
}


def read_portrait(path: str | PathLike[str]) -> np.ndarray:
    """Read a picture as (H, W, 3) uint8 RGB, upright, both sides at least 32 pixels. Raises ``MediaError``."""
    import cv2

    shown = describe_path(path)
    found = require_file(path, "picture")
    try:
        data = found.read_bytes()
    except OSError as error:
        raise MediaError(f"picture {shown}: cannot be read ({describe_reason(error)}); copy it again") from error
    if _is_cut_short(data):
        raise MediaError(f"picture {shown}: the file is cut short ({len(data)} bytes found); copy or download it again")
    try:
        # Unchanged keeps transparency and 16 bits; orientation is then ours to apply, the same for every format.
        pixels = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise MediaError(f"picture {shown}: {_found_instead(data)}; give a PNG, JPEG, WebP, BMP or TIFF picture")
    height, width = pixels.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise MediaError(
            f"picture {shown}: {width}x{height} pixels is too small; both sides must be at least {MIN_SIDE}"
        )
    return _upright(_rgb8(pixels, shown), _exif_orientation(data))


def fit_square(image: np.ndarray, size: int) -> np.ndarray:
    """The largest square of the picture at ``size`` pixels.

    image  (H, W, 3) uint8
    -> (size, size, 3) uint8

    A wide picture is cut equally left and right. From a tall one, a third of the surplus is cut above and two
    thirds below, because faces sit in the upper part. Smaller results are averaged over areas, larger ones are
    interpolated cubically.
    """
    import cv2

    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(f"image must be (H, W, 3) uint8, got {image.shape} {image.dtype}")
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}")
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 3, (width - side) // 2
    square = image[top : top + side, left : left + side].copy()
    if side == size:
        return square
    return cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA if size < side else cv2.INTER_CUBIC)


def _rgb8(pixels: np.ndarray, shown: str) -> np.ndarray:
    """What OpenCV decoded (grey, BGR or BGRA; 8 or 16 bits) as (H, W, 3) uint8 RGB."""
    if pixels.dtype not in (np.uint8, np.uint16):
        raise MediaError(f"picture {shown}: pixels are {pixels.dtype}; save it with 8 or 16 bits per channel")
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if channels > 4:
        raise MediaError(f"picture {shown}: {channels} channels per pixel; save it as grey, RGB or RGBA")
    pixels = pixels.reshape(*pixels.shape[:2], channels)
    scale = 1.0 if pixels.dtype == np.uint8 else 1.0 / 257.0
    if channels in (2, 4):
        return _over_grey(pixels, scale)
    if channels == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    rgb = np.ascontiguousarray(pixels[:, :, ::-1])
    return rgb if scale == 1.0 else _rounded(rgb.astype(np.float32) * scale)


def _over_grey(pixels: np.ndarray, scale: float) -> np.ndarray:
    """Composite grey + alpha or BGRA over mid grey, a band of rows at a time to bound memory."""
    height, width = pixels.shape[:2]
    result = np.empty((height, width, 3), dtype=np.uint8)
    for start in range(0, height, 256):
        band = pixels[start : start + 256].astype(np.float32) * scale
        alpha = band[:, :, -1:] / 255.0
        colour = band[:, :, -2::-1]  # BGR to RGB; a single grey plane broadcasts
        result[start : start + 256] = _rounded(colour * alpha + BACKGROUND * (1.0 - alpha))
    return result


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    turns, mirror = UPRIGHT.get(orientation, (0, False))
    if turns:
        image = np.rot90(image, turns)
    if mirror:
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def _found_instead(data: bytes) -> str:
    """What the bytes look like, for the message."""
    if data.startswith((PNG_START, JPEG_START)) or data[:4] in (b"II*\x00", b"MM\x00*") or data[:2] == b"BM":
        return "the picture is damaged, or larger than the decoder allows"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "the picture is damaged, or larger than the decoder allows"
    if b"\x00" not in data[:512] and all(byte >= 9 for byte in data[:512]):
        return "the file holds text, not a picture"
    return "the content is not a picture that can be decoded"


def _is_cut_short(data: bytes) -> bool:
    """Whether a PNG, JPEG or WebP file ends before its own structure does (some decoders fill in grey silently)."""
    if data.startswith(PNG_START):
        return not any(name == b"IEND" for name, _ in _png_chunks(data))
    if data.startswith(JPEG_START):
        return not any(code == JPEG_END for code, _ in _jpeg_segments(data))
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return len(data) < 8 + struct.unpack("<I", data[4:8])[0]
    return False


def _png_chunks(data: bytes):
    """(name, payload) of each complete chunk."""
    place = len(PNG_START)
    while place + 12 <= len(data):
        length, name = struct.unpack(">I4s", data[place : place + 8])
        if place + 12 + length > len(data):
            return
        payload = memoryview(data)[place + 8 : place + 8 + length]
        (stated,) = struct.unpack(">I", data[place + 8 + length : place + 12 + length])
        if zlib.crc32(payload, zlib.crc32(name)) != stated:
            return  # damaged: whatever follows cannot be trusted
        yield name, payload
        place += 12 + length


def _jpeg_segments(data: bytes):
    """(marker code, payload) of each complete segment; image data between segments is passed over."""
    place = 2
    while found := JPEG_MARKER.search(data, place):
        code, place = found[1][0], found.end()
        if code in (JPEG_END, 0x01):  # these two have no payload
            yield code, memoryview(b"")
            continue
        if place + 2 > len(data):
            return
        end = place + struct.unpack(">H", data[place : place + 2])[0]
        if end > len(data):
            return
        yield code, memoryview(data)[place + 2 : end]
        place = end


def _exif_orientation(data: bytes) -> int:
    """The EXIF orientation of a JPEG, PNG or WebP file, 1 (upright) when it has none."""
    if data.startswith(JPEG_START):
        for code, payload in _jpeg_segments(data):
            if code == JPEG_APP1 and bytes(payload[:6]) == b"Exif\x00\x00":
                return _tiff_orientation(bytes(payload[6:]))
            if code == JPEG_END:
                break  # what follows the end mark is not this picture
    elif data.startswith(PNG_START):
        for name, payload in _png_chunks(data):
            if name == b"eXIf":
                return _tiff_orientation(bytes(payload))
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        place = 12
        while place + 8 <= len(data):
            name, length = struct.unpack("<4sI", data[place : place + 8])
            if name == b"EXIF":
                return _tiff_orientation(data[place + 8 : place + 8 + length].removeprefix(b"Exif\x00\x00"))
            place += 8 + length + length % 2
    return 1


def _tiff_orientation(block: bytes) -> int:
    """The orientation tag in the first directory of a TIFF-style block, 1 when absent or malformed."""
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None or len(block) < 8:
        return 1
    start = struct.unpack(order + "I", block[4:8])[0]
    if start + 2 > len(block):
        return 1
    entries = struct.unpack(order + "H", block[start : start + 2])[0]
    for place in range(start + 2, min(start + 2 + 12 * entries, len(block) - 11), 12):
        tag, kind, _, value = struct.unpack(order + "HHIH", block[place : place + 10])
        if tag == ORIENTATION_TAG and kind == 3:  # 3: unsigned short
            return value if value in UPRIGHT else 1
    return 1
