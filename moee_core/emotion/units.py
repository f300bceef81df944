"""Action units as text, for sockets and the command line: "12:0.8, R14:0.5" or "AU1 AU2 0.6".

    units := unit {separator unit}          separator: comma, semicolon, plus or white space
    unit  := ["AU"] [L | R] number [L | R] [(":" | "=" | " ") strength]

A strength is 0 to 1, or 1 if left out; after a space it has a point: "12 0.8", "12 1.0". Numbers and sides are those
of ``ACTION_UNITS``; L and R, before or after the number, are the person's own.

Raises ``EmotionError`` for an unknown unit, one named twice, a strength out of range, and units that no face here has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from ..errors import EmotionError
from .action_units import ACTION_UNITS, AU_INDEX, action_unit_vector
from .condition import format_number
from .source import UnitTrack
from .vocabulary import quote

_CODE = re.compile(r"(?:AU)?([LR]?)([0-9]{1,2})([LR]?)", re.IGNORECASE)
_ITEM = re.compile(
    r"((?:AU)?[LR]?[0-9]{1,2}[LR]?)(?:\s*[:=]\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)|\s+([0-9]*\.[0-9]+))?(?=[\s,;+]|$)",
    re.IGNORECASE,
)
_SEPARATOR = re.compile(r"[\s,;+]*")


def parse_units(text: str) -> dict[str, float]:
    """Code -> strength, in the order written."""
    units: dict[str, float] = {}
    place = 0
    while match := _SEPARATOR.match(text, place):
        place = match.end()
        if place == len(text):
            break
        item = _ITEM.match(text, place)
        if item is None:
            word = text[place:].split(maxsplit=1)[0]
            raise EmotionError(f"{quote(word)} is no action unit; codes look like 12, AU12 or, for one side, R14")
        code = _code(item[1])
        if code in units:
            raise EmotionError(f"action unit {code} is named twice")
        strength = float(item[2] or item[3] or 1.0)
        if not 0 <= strength <= 1:
            raise EmotionError(f"action unit {code} has strength {strength:.6g}; give a number from 0 to 1")
        units[code], place = strength, item.end()
    if not units:
        raise EmotionError("there are no action units; write them like 12:0.8, 6:0.5 or, for one side, R14:0.5")
    return units


def _code(word: str) -> str:
    """A unit's code as the table has it."""
    found = _CODE.fullmatch(word)
    if not found or (found[1] and found[3]):
        raise EmotionError(f"{quote(word)} is no action unit; a side is written once, such as R14")
    code = (found[1] or found[3]).upper() + str(int(found[2]))
    if code in AU_INDEX:
        return code
    if str(int(found[2])) in AU_INDEX:
        raise EmotionError(f"action unit {int(found[2])} has no sides here; write {int(found[2])}")
    numbers = ", ".join(unit.code for unit in ACTION_UNITS if not unit.side)
    raise EmotionError(f"there is no action unit {quote(word)}; known are {numbers}")


def unit_track(units: Mapping[str, float]) -> UnitTrack:
    """Units held for ever. Raises ``EmotionError`` where no face here can show any of them."""
    from ..motion.expression import NOT_ON_FACES, face_units

    values = face_units(action_unit_vector(dict(units))[None])
    missing = [code for code in units if code in NOT_ON_FACES]
    if missing and not values.any():
        raise EmotionError(f"the faces here cannot show action unit {missing[0]} ({_name(missing[0])})")
    shown = ", ".join(f"AU{code} {format_number(round(strength, 3))}" for code, strength in units.items())
    left = f" (not shown: {', '.join(f'AU{code}' for code in missing)})" if missing else ""
    return UnitTrack(values=np.asarray(values), about=shown + left)


def _name(code: str) -> str:
    return ACTION_UNITS[AU_INDEX[code]].name
