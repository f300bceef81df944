"""Facial action units (AUs): the 41 a detector reports, and the AU prototype of every emotion.

``ACTION_UNITS`` is the list of the OpenGraphAU detector, 27 units of the whole face and 14 of one side (``L12`` is
the left half of ``12``, seen from the person), under their names in the Facial Action Coding System (FACS). Its order
is the order of every AU vector.

``PROTOTYPES`` says which units make an expression: AU code -> strength, 0 absent, 1 as strong as it gets (unitless).
Which units belong to the six emotions, and to happily_surprised, sadly_fear, sadly_surprised and angrily_disgusted,
follows Du, Tao and Martinez (PNAS 2014): units that most people show are near 1, variants between 0.2 and 0.5.
Contempt is the one-sided smile of FACS. The remaining eight compounds join the leading units of their two parts;
they and all strengths are ours, chosen so that no two expressions look the same.

Raises ``EmotionError`` for an unknown AU code or a strength outside 0..1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import EmotionError
from .vocabulary import quote

Side = Literal["", "left", "right"]


@dataclass(frozen=True, kw_only=True)
class ActionUnit:
    """One unit: ``code`` such as "12" or "R12", its FACS ``name``, and which ``side`` of the face ("" is both).

    ``speech_coupled`` units also move when a neutral face talks, so they are weak evidence of an emotion.
    """

    code: str
    name: str
    side: Side
    speech_coupled: bool


_FACS_NAMES = {
    "1": "inner brow raiser",
    "2": "outer brow raiser",
    "4": "brow lowerer",
    "5": "upper lid raiser",
    "6": "cheek raiser",
    "7": "lid tightener",
    "9": "nose wrinkler",
    "10": "upper lip raiser",
    "11": "nasolabial deepener",
    "12": "lip corner puller",
    "13": "sharp lip puller",
    "14": "dimpler",
    "15": "lip corner depressor",
    "16": "lower lip depressor",
    "17": "chin raiser",
    "18": "lip pucker",
    "19": "tongue show",
    "20": "lip stretcher",
    "22": "lip funneler",
    "23": "lip tightener",
    "24": "lip pressor",
    "25": "lips part",
    "26": "jaw drop",
    "27": "mouth stretch",
    "32": "lip bite",
    "38": "nostril dilator",
    "39": "nostril compressor",
}
_ONE_SIDED = ("1", "2", "4", "6", "10", "12", "14")
_SPEECH_COUPLED = frozenset({"16", "17", "18", "19", "20", "22", "23", "24", "25", "26", "27"})


def _unit(number: str, side: Side) -> ActionUnit:
    prefix = {"": "", "left": "L", "right": "R"}[side]
    speech_coupled = number in _SPEECH_COUPLED
    return ActionUnit(code=prefix + number, name=_FACS_NAMES[number], side=side, speech_coupled=speech_coupled)


_SIDES: tuple[Side, Side] = ("left", "right")
ACTION_UNITS = (
    *(_unit(number, "") for number in _FACS_NAMES),
    *(_unit(number, side) for number in _ONE_SIDED for side in _SIDES),
)
AU_INDEX: Mapping[str, int] = MappingProxyType({unit.code: index for index, unit in enumerate(ACTION_UNITS)})

_PROTOTYPES: dict[str, dict[str, float]] = {
    "neutral": {},
    "angry": {"4": 1.0, "7": 0.9, "24": 0.9, "23": 0.5, "10": 0.2},
    "disgusted": {"9": 1.0, "10": 0.9, "17": 0.8, "4": 0.4},
    # 1+4 together bend the brows; with 20 and a nearly closed jaw that is what tells fear from surprise.
    "fear": {"1": 0.9, "4": 0.8, "20": 1.0, "25": 0.8, "5": 0.5, "2": 0.3, "26": 0.2},
    "happy": {"12": 1.0, "25": 0.8, "6": 0.5},
    "sad": {"15": 1.0, "4": 0.8, "1": 0.5, "17": 0.5},
    "surprised": {"1": 1.0, "2": 1.0, "26": 1.0, "25": 0.9, "5": 0.5},
    "contempt": {"R14": 1.0, "R12": 0.8},
    "angrily_disgusted": {"4": 1.0, "10": 1.0, "17": 0.8, "7": 0.5, "9": 0.5, "24": 0.3},
    "sadly_surprised": {"1": 1.0, "4": 0.8, "25": 0.9, "26": 0.9, "2": 0.3, "6": 0.2},
    # The same core as fear: only the variants differ, so the two stay easy to confuse.
    "sadly_fear": {"1": 1.0, "4": 1.0, "20": 0.8, "25": 0.8, "15": 0.5, "2": 0.2, "5": 0.2, "6": 0.2},
    "happily_surprised": {"1": 0.9, "2": 0.9, "12": 1.0, "25": 0.9, "26": 0.4, "5": 0.3},
    "happily_disgusted": {"12": 1.0, "10": 0.9, "25": 0.8, "9": 0.5, "6": 0.4, "4": 0.2},
    "fearfully_surprised": {"1": 1.0, "2": 1.0, "5": 0.9, "20": 0.9, "25": 0.9, "26": 0.5, "4": 0.2},
    "sadly_angry": {"4": 1.0, "15": 0.9, "7": 0.5, "17": 0.5, "24": 0.3},
    "angrily_surprised": {"4": 1.0, "25": 0.9, "26": 0.9, "7": 0.5, "5": 0.4, "10": 0.2},
    "disgustedly_surprised": {"1": 1.0, "2": 1.0, "10": 0.9, "5": 0.8, "17": 0.5, "9": 0.4, "4": 0.2},
    "fearfully_angry": {"4": 1.0, "20": 0.9, "25": 0.8, "5": 0.4, "7": 0.4, "10": 0.2},
    "fearfully_disgusted": {"1": 0.9, "4": 0.8, "10": 1.0, "20": 0.9, "25": 0.8, "5": 0.4, "2": 0.3, "9": 0.3},
    "sadly_disgusted": {"4": 1.0, "10": 0.9, "15": 0.5, "1": 0.4, "17": 0.4, "9": 0.3, "6": 0.2},
}
PROTOTYPES: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {name: MappingProxyType(strengths) for name, strengths in _PROTOTYPES.items()}
)


def action_unit_vector(strengths: Mapping[str, float], *, exclude_speech_coupled: bool = False) -> NDArray[np.float32]:
    """AU code -> strength as a vector (41,) float32 in the order of ``ACTION_UNITS``; absent units are 0.

    ``exclude_speech_coupled`` leaves at 0 the units that speech moves as well.
    """
    vector = np.zeros(len(ACTION_UNITS), dtype=np.float32)
    for code, strength in strengths.items():
        if code not in AU_INDEX:
            raise EmotionError(f"unknown action unit {quote(code)}; codes look like '12' or, for one side, 'R12'")
        if not 0.0 <= strength <= 1.0:  # also refuses NaN
            raise EmotionError(f"action unit {code} has strength {strength:.6g}; give a number from 0 to 1")
        index = AU_INDEX[code]
        if not (exclude_speech_coupled and ACTION_UNITS[index].speech_coupled):
            vector[index] = strength
    return vector
