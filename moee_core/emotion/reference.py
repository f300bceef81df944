"""A picture or a video of a face as the source of an emotion: its action units, read by a small network.

Shapes (legend for this file): n pictures (H, W, 3) uint8 of any size, each with one face that fills the frame
    -> units (n, 20) float32 in the order of ``coefficients.UNITS``

A picture gives units that hold; a video gives them frame by frame, smoothed over a fifth of a second, without those
that speech moves as well unless they are asked for: the lips of the new face say its own words.

Raises ``EmotionError`` when there is no picture.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from ..errors import EmotionError
from ..motion.coefficients import UNITS
from ..networks.expression_reader import SIDE, ExpressionReader
from ..portrait.image import fit_square
from .action_units import ACTION_UNITS
from .source import MAX_STRENGTH, EmotionSource, UnitTrack

LEAST = 0.08
"""Units read weaker than this are the reader's own noise."""
SMOOTHED_SECONDS = 0.2
SPOKEN = tuple(
    number for number, unit in enumerate(UNITS)
    if any(known.code == unit.rstrip("LR") and known.speech_coupled for known in ACTION_UNITS)
)  # fmt: skip
"""Columns of the units that speech moves as well."""
AT_ONCE = 64


def as_read(picture: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (3, 64, 64) float32 in [-1, 1], its largest square."""
    small = fit_square(np.ascontiguousarray(picture), SIDE)
    return small.transpose(2, 0, 1).astype(np.float32) / 127.5 - 1


@torch.no_grad()
def read_units(reader: ExpressionReader, pictures: Iterable[np.ndarray]) -> np.ndarray:
    """(n, 20) units of every picture, 0 to 1.5."""
    device = next(reader.parameters()).device
    parts: list[np.ndarray] = []
    waiting: list[np.ndarray] = []

    def flush() -> None:
        units, _, _ = reader(torch.from_numpy(np.stack(waiting)).to(device))
        parts.append(units.float().cpu().numpy())
        waiting.clear()

    for picture in pictures:
        waiting.append(as_read(picture))
        if len(waiting) == AT_ONCE:
            flush()
    if waiting:
        flush()
    if not parts:
        raise EmotionError("there is no picture to read an expression from")
    units = np.clip(np.concatenate(parts), 0, MAX_STRENGTH)
    return np.where(units < LEAST, 0, units).astype(np.float32)


def picture_source(reader: ExpressionReader, picture: np.ndarray, strength: float = 1.0) -> EmotionSource:
    """The expression of one picture, held."""
    units = np.clip(read_units(reader, [picture]) * strength, 0, MAX_STRENGTH).astype(np.float32)
    return EmotionSource(units=UnitTrack(values=units, about=f"an expression with {said(units[0])}"))


def video_source(
    reader: ExpressionReader,
    frames: Iterable[np.ndarray],
    fps: float,
    strength: float = 1.0,
    *,
    with_speech: bool = False,
) -> EmotionSource:
    """The expression of a video as it changes; what comes after its end keeps the last one."""
    units = read_units(reader, frames) * strength
    if not with_speech:
        units[:, SPOKEN] = 0
    reach = max(1, round(SMOOTHED_SECONDS * fps / 2))
    padded = np.pad(units, ((reach, reach), (0, 0)), mode="edge")
    kernel = np.hanning(2 * reach + 3)[1:-1]
    smooth = np.stack([np.convolve(column, kernel / kernel.sum(), "valid") for column in padded.T], axis=1)
    track = np.clip(smooth, 0, MAX_STRENGTH).astype(np.float32)
    about = f"the expressions of {len(track)} frames, at most {said(track.max(axis=0))}"
    return EmotionSource(units=UnitTrack(values=track, fps=fps, about=about))


def said(units: np.ndarray, most: int = 6) -> str:
    """The strongest units in words: "AU12L 0.8, AU6 0.4"."""
    order = [i for i in np.argsort(-units)[:most] if units[i] > 0]
    return ", ".join(f"AU{UNITS[i]} {units[i]:.2f}" for i in order) or "nothing but a calm face"
