"""The emotion names everything else agrees on: labels, compounds, aliases.

``LABELS`` fixes the order of every emotion vector, ``EXPERTS`` the order of the experts, the gates and their masks.
A compound such as ``happily_surprised`` is a name for an equal mix of two labels; the four in ``TRAINED_COMPOUNDS``
are those of the MoEE paper, the others come from Du, Tao and Martinez, "Compound facial expressions of emotion"
(PNAS 2014).

Names are matched without regard to case, and a space, hyphen or underscore are the same: ``Happily Surprised`` and
``happily-surprised`` both mean ``happily_surprised``.

``@smug`` calls an expert of a user's own, loaded beside the six (``experts/own.py``), by the name in its file. Which
names there are is the model's affair, not the vocabulary's.

Raises ``EmotionError`` when a name is not known, and for an own name that is none.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from types import MappingProxyType

from ..errors import EmotionError

NEUTRAL = "neutral"
EXPERTS = ("angry", "disgusted", "fear", "happy", "sad", "surprised")
LABELS = (NEUTRAL, *EXPERTS, "contempt")

TRAINED_COMPOUNDS = ("angrily_disgusted", "sadly_surprised", "sadly_fear", "happily_surprised")
COMPOUNDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "angrily_disgusted": ("angry", "disgusted"),
        "sadly_surprised": ("sad", "surprised"),
        "sadly_fear": ("sad", "fear"),
        "happily_surprised": ("happy", "surprised"),
        "happily_disgusted": ("happy", "disgusted"),
        "fearfully_surprised": ("fear", "surprised"),
        "sadly_angry": ("sad", "angry"),
        "angrily_surprised": ("angry", "surprised"),
        "disgustedly_surprised": ("disgusted", "surprised"),
        "fearfully_angry": ("fear", "angry"),
        "fearfully_disgusted": ("fear", "disgusted"),
        "sadly_disgusted": ("sad", "disgusted"),
    }
)

_OTHER_WORDS = {
    "neutral": ("neutrality",),
    "angry": ("anger", "mad", "furious"),
    "disgusted": ("disgust", "disgusting"),
    "fear": ("fearful", "afraid", "scared", "frightened"),
    "happy": ("happiness", "joy", "joyful"),
    "sad": ("sadness", "sorrow", "sorrowful"),
    "surprised": ("surprise", "astonished"),
    "contempt": ("contemptuous", "scorn"),
}


def _all_aliases() -> dict[str, str]:
    """Other words for a label, and the compounds spelled with them (``sadly_fearful``)."""
    aliases = {word: label for label, words in _OTHER_WORDS.items() for word in words}
    for name, (_, second) in COMPOUNDS.items():
        adverb = name.split("_", 1)[0]
        aliases.update({f"{adverb}_{word}": name for word in _OTHER_WORDS[second]})
    return aliases


ALIASES: Mapping[str, str] = MappingProxyType(_all_aliases())

OWN = "@"
_OWN_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")

_LONGEST_COMPARED = 64  # characters; a longer text is nobody's misspelling and would only slow the comparison down


def quote(text: object, limit: int = 40) -> str:
    """User text made fit for a one-line message: quoted, control characters escaped, ``limit`` characters at most."""
    original = str(text)
    shown = repr(original[:limit])[1:-1]
    clipped = len(original) > limit or len(shown) > limit
    return f"'{shown[: limit - 1]}…'" if clipped else f"'{shown}'"


def own_name(text: str) -> str:
    """``@name`` of an expert of a user's own, from "@name" or "name" in any spelling."""
    key = re.sub(r"[\s_-]+", "_", text.strip().casefold().removeprefix(OWN).strip()).strip("_")
    if not _OWN_NAME.fullmatch(key):
        raise EmotionError(
            f"{quote(text.strip())} is no name of an expert of your own; write {OWN} and 1 to 32 letters, digits or _, "
            "beginning with a letter, such as @smug"
        )
    return OWN + key


def resolve_label(text: str) -> str:
    """The canonical label or compound that ``text`` names; ``EmotionError`` with the nearest names if there is none."""
    key = re.sub(r"[\s_-]+", "_", text.strip().casefold())
    if key.startswith(OWN):
        return own_name(key)
    if key in LABELS or key in COMPOUNDS:
        return key
    if key in ALIASES:
        return ALIASES[key]
    known = (*LABELS, *COMPOUNDS, *ALIASES)
    near = difflib.get_close_matches(key[:_LONGEST_COMPARED], known, n=3)
    suggestions = list(dict.fromkeys(ALIASES.get(name, name) for name in near))[:2]
    hint = f" did you mean {' or '.join(map(repr, suggestions))}?" if suggestions else ""
    raise EmotionError(
        f"unknown emotion {quote(text.strip())};{hint} choose one of {', '.join(LABELS)}, "
        "or a compound such as happily_surprised"
    )
