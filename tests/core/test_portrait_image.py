"""Any picture in: what must be read, what must be refused in one line, and how it becomes a square."""

from __future__ import annotations

import os
import struct
import zlib

import cv2
import numpy as np
import pytest

from moee_core.errors import MediaError
from moee_core.portrait.image import fit_square, read_portrait

SIDE = 48  # pixels of most test pictures


def colourful(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth patches of strong colour, (height, width, 3) uint8 RGB."""
    patches = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return cv2.resize(patches, (width, height), interpolation=cv2.INTER_CUBIC)


def encoded(suffix: str, rgb: np.ndarray) -> bytes:
    return cv2.imencode(suffix, np.ascontiguousarray(rgb[:, :, ::-1]))[1].tobytes()


def png(width: int, height: int, depth: int, colour_type: int, rows: list[bytes], extra: bytes = b"") -> bytes:
    """A PNG of raw rows, for the kinds OpenCV cannot write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\x00" + row for row in rows))
    return (
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")
    )


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def with_orientation(jpeg: bytes, orientation: int, order: str) -> bytes:
    """The JPEG with an APP1 Exif segment that holds only the orientation tag."""
    mark = b"II*\x00" if order == "<" else b"MM\x00*"
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    tiff = mark + struct.pack(order + "IH", 8, 1) + entry + struct.pack(order + "I", 0)
    payload = b"Exif\x00\x00" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + jpeg[2:]


def assert_one_line(caught: pytest.ExceptionInfo[BaseException], *words: str) -> None:
    message = str(caught.value)
    assert len(message) <= 300, message
    assert "\n" not in message
    for word in words:
        assert word in message


# ---- pictures that must be read -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".jpg", ".webp"])
def test_common_formats_keep_their_colours(tmp_path, suffix):
    image = colourful(SIDE, SIDE + 10)
    path = tmp_path / f"pörtrait 肖像{suffix}"
    path.write_bytes(encoded(suffix, image))
    found = read_portrait(path)
    assert found.shape == image.shape
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    tolerance = 8 if suffix in (".jpg", ".webp") else 0
    assert np.abs(found.astype(int) - image).mean() <= tolerance


def test_transparency_is_laid_over_mid_grey(tmp_path):
    row = bytes([200, 100, 0, 255] * 16 + [200, 100, 0, 0] * 16 + [255, 0, 128, 51] * 16)
    path = tmp_path / "rgba.png"
    path.write_bytes(png(48, 40, 8, 6, [row] * 40))
    found = read_portrait(path)
    assert found[0, 0].tolist() == [200, 100, 0]
    assert found[39, 20].tolist() == [128, 128, 128]
    assert found[5, 40].tolist() == [153, 102, 128]  # 0.2 * colour + 0.8 * 128


def test_grey_and_grey_with_transparency(tmp_path):
    (tmp_path / "grey.png").write_bytes(png(40, 40, 8, 0, [bytes([77] * 40)] * 40))
    (tmp_path / "alpha.png").write_bytes(png(40, 40, 8, 4, [bytes([228, 51] * 40)] * 40))
    assert read_portrait(tmp_path / "grey.png")[3, 3].tolist() == [77, 77, 77]
    assert read_portrait(tmp_path / "alpha.png")[3, 3].tolist() == [148, 148, 148]


def test_sixteen_bits_are_scaled_to_eight(tmp_path):
    """Full scale maps to full scale: 65535 / 257 = 255."""
    row = struct.pack(">HHH", 65535, 257 * 100 + 100, 0) * 40
    (tmp_path / "deep.png").write_bytes(png(40, 40, 16, 2, [row] * 40))
    assert read_portrait(tmp_path / "deep.png")[0, 0].tolist() == [255, 100, 0]
    row = struct.pack(">HHHH", 65535, 0, 0, 65535 // 5) * 40
    (tmp_path / "deep_alpha.png").write_bytes(png(40, 40, 16, 6, [row] * 40))
    assert read_portrait(tmp_path / "deep_alpha.png")[0, 0].tolist() == [153, 102, 102]


def test_palette_with_and_without_transparency(tmp_path):
    palette = png_chunk(b"PLTE", bytes([255, 0, 0, 0, 0, 255]))
    rows = [bytes([0, 1] * 20)] * 40
    (tmp_path / "palette.png").write_bytes(png(40, 40, 8, 3, rows, palette))
    see_through = palette + png_chunk(b"tRNS", bytes([0, 255]))
    (tmp_path / "clear.png").write_bytes(png(40, 40, 8, 3, rows, see_through))
    assert read_portrait(tmp_path / "palette.png")[0, :2].tolist() == [[255, 0, 0], [0, 0, 255]]
    assert read_portrait(tmp_path / "clear.png")[0, :2].tolist() == [[128, 128, 128], [0, 0, 255]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_orientation_turns_the_picture_upright(tmp_path, orientation, order):
    """Corner by corner, from the EXIF table: where row 0 and column 0 of the stored picture belong."""
    quarters = np.array([[[250, 0, 0], [0, 250, 0]], [[0, 0, 250], [250, 250, 0]]], dtype=np.uint8)
    stored = quarters.repeat(32, axis=0).repeat(48, axis=1)  # wider than high
    path = tmp_path / "turned.jpg"
    path.write_bytes(with_orientation(encoded(".jpg", stored), orientation, order))
    found = read_portrait(path)
    # Order of the stored quarters (0 1 / 2 3), read upright row by row.
    expected = {
        1: (0, 1, 2, 3),
        2: (1, 0, 3, 2),
        3: (3, 2, 1, 0),
        4: (2, 3, 0, 1),
        5: (0, 2, 1, 3),
        6: (2, 0, 3, 1),
        7: (3, 1, 2, 0),
        8: (1, 3, 0, 2),
    }
    assert found.shape == ((96, 64, 3) if orientation >= 5 else (64, 96, 3))
    height, width = found.shape[:2]
    corners = found[[8, 8, height - 8, height - 8], [8, width - 8, 8, width - 8]].astype(int)
    target = quarters.reshape(4, 3)[list(expected[orientation])].astype(int)
    assert np.abs(corners - target).max() < 25


def test_very_large_picture(tmp_path):
    (tmp_path / "large.jpg").write_bytes(encoded(".jpg", np.full((6000, 8000, 3), (10, 120, 240), np.uint8)))
    found = read_portrait(tmp_path / "large.jpg")
    assert found.shape == (6000, 8000, 3)
    assert fit_square(found, 64).shape == (64, 64, 3)


# ---- pictures that must be refused ----------------------------------------------------------------------------------


def test_unusable_pictures_are_refused_in_one_line(tmp_path):
    whole = colourful(SIDE, SIDE)
    cases = {
        "text.png": (b"Dear reader, this is no picture.\n" * 9, "text"),
        "empty.png": (b"", "empty"),
        "dot.png": (encoded(".png", whole[:1, :1]), "1x1"),
        "thin.png": (encoded(".png", whole[:31]), "48x31"),
        "noise.jpg": (os.urandom(500), "PNG, JPEG"),
    }
    for suffix in (".png", ".jpg", ".webp"):
        data = encoded(suffix, whole)
        cases["half" + suffix] = (data[: len(data) // 2], "cut short")
        cases["nearly" + suffix] = (data[:-3], "cut short")
    data = bytearray(encoded(".png", whole))
    data[len(data) // 2] ^= 0xFF
    cases["damaged.png"] = (bytes(data), "damaged")
    for name, (content, word) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MediaError) as caught:
            read_portrait(tmp_path / name)
        assert_one_line(caught, name, word)


def test_jpeg_with_a_thumbnail_is_checked_to_its_own_end(tmp_path):
    """The end mark of an embedded thumbnail must not count as the end of the picture, nor junk after it as damage."""
    data = encoded(".jpg", colourful(SIDE, SIDE))
    thumbnail = encoded(".jpg", colourful(16, 16))
    data = data[:2] + b"\xff\xe2" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + data[2:]
    (tmp_path / "a.jpg").write_bytes(data + b"appended by a phone")
    assert read_portrait(tmp_path / "a.jpg").shape == (SIDE, SIDE, 3)
    (tmp_path / "a.jpg").write_bytes(data[:-40])
    with pytest.raises(MediaError, match="cut short"):
        read_portrait(tmp_path / "a.jpg")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the administrator may read everything")
def test_no_permission(tmp_path):
    path = tmp_path / "locked.png"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(MediaError, match="permission"):
        read_portrait(path)


# ---- squares --------------------------------------------------------------------------------------------------------


def test_fit_square_crops_the_centre_of_a_wide_picture():
    image = np.zeros((40, 100, 3), np.uint8)
    image[:, 30:70] = 200
    assert (fit_square(image, 40) == 200).all()


def test_fit_square_keeps_more_of_the_top_of_a_tall_picture():
    image = np.zeros((100, 40, 3), np.uint8)
    image[20:60] = 200  # a third of the 60 surplus rows is cut above
    assert (fit_square(image, 40) == 200).all()


def test_fit_square_averages_down_and_interpolates_up():
    checks = np.indices((64, 64)).sum(axis=0) % 2 * 255
    image = np.repeat(checks[:, :, None], 3, axis=2).astype(np.uint8)
    assert np.abs(fit_square(image, 16).astype(int) - 127.5).max() <= 1
    ramp = np.repeat(np.tile(np.arange(64) * 4, (64, 1))[:, :, None], 3, axis=2).astype(np.uint8)
    steps = np.diff(fit_square(ramp, 256)[128, 8:-8, 0].astype(int))
    assert steps.min() >= 0
    assert steps.max() <= 2
    same = fit_square(ramp, 64)
    same[:] = 0
    assert ramp.any()  # the result never shares memory with the input
