"""Action units as an English instruction, and the instruction as action units again.

    instruction := [emotion words] frame of clauses
    clause      := movement + adverb [+ side]

A strength from 0 to 1 is said in five steps of a fifth each, after the intensities A to E of the Facial Action Coding
System: trace, slightly, markedly, strongly, as far as possible. What is read back is the middle of the step, 0.1, 0.3,
0.5, 0.7 or 0.9, so a strength comes back to within 0.1. Units that are usually seen together become one movement when
their strengths fall into the same step: 1+2, 6+12 and 4+7. Sides are seen from the person.

Emotion words say each emotion's share at the intensity of the whole, again in five steps (``_LEVELS``), because that
is how ``free_text`` puts several emotions together: the strongest sets the intensity, all of them the mix.

Raises ``EmotionError`` for an unknown unit, a strength outside 0..1, and text that is no such instruction.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

from ..errors import EmotionError
from .action_units import ACTION_UNITS, AU_INDEX, action_unit_vector
from .condition import MAX_INTENSITY, EmotionCondition
from .vocabulary import NEUTRAL, quote

STEPS = 5
STEP_STRENGTHS = tuple((step + 0.5) / STEPS for step in range(STEPS))
"""What each step is read as: the middle of its fifth."""
_STEP_WITHOUT_ADVERB = 2  # somebody who names a movement and no strength wants to see it

# Before the movement, after it. Each of the 20 phrases belongs to one step only.
_ADVERBS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("just barely", "almost imperceptibly"), ("by a mere trace", "so little that it is hard to see")),
    (("slightly", "lightly"), ("slightly", "a little")),
    (("markedly", "noticeably"), ("to a marked degree", "so that it is easy to see")),
    (("strongly", "forcefully"), ("strongly", "with great force")),
    (("completely", "with all might"), ("as far as possible", "to the very limit")),
)
_SIDES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"L": ("on the left", "on the left side"), "R": ("on the right", "on the right side")}
)

# Movements in the order in which an instruction lists them, region by region: brow, eyes, nose, cheeks, mouth.
# The verb comes first and is inflected; {s} is the plural that goes when only one side moves.
_MOVEMENTS: Mapping[tuple[str, ...], tuple[str, ...]] = MappingProxyType(
    {
        ("1", "2"): ("raise the eyebrow{s}", "lift the eyebrow{s}", "hoist the whole brow{s}"),
        ("1",): ("raise the inner brow{s}", "lift the inner eyebrow{s}", "draw up the inner end{s} of the brow{s}"),
        ("2",): ("raise the outer brow{s}", "lift the outer eyebrow{s}", "draw up the outer end{s} of the brow{s}"),
        ("4", "7"): ("frown with tightened eyelids", "frown with tensed eyelids", "scowl with tightened eyelids"),
        ("4",): ("lower the brow{s}", "pull the eyebrow{s} down", "draw the brow{s} downward"),
        ("5",): ("raise the upper eyelids", "lift the upper lids", "open the eyes wide"),
        ("7",): ("tighten the eyelids", "tense the lower lids", "narrow the eyes"),
        ("9",): ("wrinkle the nose", "scrunch up the nose", "crinkle the nose"),
        ("38",): ("flare the nostrils", "widen the nostrils", "dilate the nostrils"),
        ("39",): ("narrow the nostrils", "compress the nostrils", "squeeze the nostrils"),
        ("6", "12"): ("smile with raised cheek{s}", "smile with lifted cheek{s}", "beam with raised cheek{s}"),
        ("6",): ("raise the cheek{s}", "lift the cheek{s}", "push the cheek{s} up"),
        ("11",): (
            "deepen the folds beside the nose",
            "crease the folds beside the nose",
            "deepen the nasolabial folds",
        ),
        ("10",): ("raise the upper lip", "lift the upper lip", "curl the upper lip"),
        ("12",): ("pull the lip corner{s} up", "raise the mouth corner{s}", "draw the corner{s} of the mouth upward"),
        ("13",): ("pull the lip corners sharply up", "tug the mouth corners sharply upward"),
        ("14",): ("dimple the mouth corner{s}", "dimple the cheek{s}", "press in the mouth corner{s}"),
        ("15",): ("pull the lip corners down", "lower the mouth corners", "draw the corners of the mouth downward"),
        ("16",): ("lower the lower lip", "pull the lower lip down", "draw the lower lip downward"),
        ("17",): ("raise the chin", "push the chin up", "wrinkle the chin"),
        ("18",): ("pucker the lips", "push the lips forward", "draw the lips into a kiss"),
        ("19",): ("show the tongue", "stick out the tongue", "put out the tongue"),
        ("20",): ("stretch the lips sideways", "stretch the mouth sideways", "pull the lips sideways"),
        ("22",): ("funnel the lips", "flare the lips", "round the lips into a funnel"),
        ("23",): ("tighten the lips", "tense the lips", "narrow the lips"),
        ("24",): ("press the lips together", "squeeze the lips together", "press the lips shut"),
        ("25",): ("part the lips", "separate the lips", "open the lips"),
        ("26",): ("drop the jaw", "lower the jaw", "let the jaw fall"),
        ("27",): ("stretch the mouth open", "open the mouth wide", "pull the mouth open"),
        ("32",): ("bite the lip", "bite the lower lip", "nibble the lip"),
    }
)
_PAIRS = (("1", "2"), ("4", "7"), ("6", "12"))
_REGIONS = (("1", "2", "4"), ("5", "7"), ("9", "38", "39"), ("6", "11"))  # the rest is the mouth

# form of the verb, how the sentence begins, what stands between clauses, before the last one, and how it ends
_FRAMES = (
    ("base", "", ", ", " and ", "."),
    ("third", "The person ", ", ", " and ", "."),
    ("third", "A face that ", ", ", ", and ", "."),
    ("gerund", "Picture someone ", ", ", " and ", "."),
    ("base", "While talking, ", "; ", "; ", "."),
    ("base", "Please ", ", then ", " and finally ", "."),
    ("gerund", "Facial expression: ", ", ", ", ", ""),
    ("gerund", "Speak while ", ", ", " and also ", "."),
)
_RESTING = (
    "Keep the face neutral and relaxed.",
    "The person shows a neutral, relaxed face.",
    "A relaxed face without any movement.",
    "Picture someone with a neutral face at rest.",
    "While talking, leave the face relaxed.",
    "Please keep a neutral face, at rest.",
    "Facial expression: neutral and relaxed.",
    "Speak with a relaxed, neutral face.",
)

_LEVELS: tuple[tuple[float, float, tuple[str, ...]], ...] = (  # upper limit, read as, words
    (0.25, 0.15, ("faintly", "only faintly")),
    (0.5, 1 / 3, ("mildly", "only mildly")),
    (5 / 6, 2 / 3, ("moderately", "fairly")),
    (1.15, 1.0, ("clearly", "fully")),
    (float("inf"), 1.35, ("extremely", "overwhelmingly")),
)
_FEELINGS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        NEUTRAL: ("neutral", "neutral"),
        "angry": ("angry", "mad"),
        "disgusted": ("disgusted", "repulsed"),
        "fear": ("afraid", "scared"),
        "happy": ("happy", "joyful"),
        "sad": ("sad", "sorrowful"),
        "surprised": ("surprised", "astonished"),
        "contempt": ("contemptuous", "scornful"),
    }
)
_FRONTS = ("Look {}: ", "Seem {}. ", "Feeling {}: ")

_WORD = re.compile(r"[^\W_]+|[.,;:]")
_ENDS = frozenset(".,;:")
_FILLER = frozenset(
    word
    for text in (*_RESTING, *_FRONTS, *(part for frame in _FRAMES for part in frame[1:]))
    for word in re.findall("[a-z]+", text.casefold())
)


class Instruction(NamedTuple):
    """An instruction read back; ``explicit`` if every movement has its adverb, as ``instruction`` writes it."""

    units: dict[str, float]
    emotion: EmotionCondition | None
    explicit: bool


class _Clause(NamedTuple):
    movement: tuple[str, ...]
    side: str
    step: int


def step_of(strength: float) -> int:
    """Which of the five steps, 0 to 4, a strength from 0 to 1 falls into."""
    return min(int(strength * STEPS), STEPS - 1)


def level_of(weight: float) -> int:
    """Which of the five level words, 0 to 4, says a weight from 0 to 1.5."""
    return next(index for index, (limit, _, _) in enumerate(_LEVELS) if weight < limit)


# ---- writing


def instruction(units: Mapping[str, float], *, emotion: EmotionCondition | None = None, seed: int = 0) -> str:
    """An English sentence for action units (code -> strength 0..1), which ``parse_instruction`` reads back.

    A unit of strength 0 is absent. ``seed`` chooses the frame and the synonyms; equal arguments give equal text. An
    ``emotion`` is put in front. Without units the sentence asks for a relaxed face, or only for the emotion.
    """
    action_unit_vector(units)  # refuses unknown codes and strengths out of range
    chance = random.Random(seed)
    front = _front(emotion, chance) if emotion is not None else ""
    clauses = _clauses({code: strength for code, strength in units.items() if strength > 0})
    if clauses:
        form, begin, between, last, end = _pick(_FRAMES, chance)
        said = [_say(clause, form, chance) for clause in clauses]
        body = begin + between.join(said[:-1]) + (last if len(said) > 1 else "") + said[-1] + end
    elif front and emotion is not None and emotion.weights:
        body, front = "", front.rstrip(": .") + "."
    else:
        body = _pick(_RESTING, chance)
    return front + (body[:1].upper() + body[1:])


def _pick(options: Sequence, chance: random.Random):
    # random() gives the same numbers in every version of Python; choice() does not promise that
    return options[int(chance.random() * len(options))]


def _clauses(units: dict[str, float]) -> list[_Clause]:
    """The movements, pairs merged, region by region, the stronger ones first."""
    left = {code: step_of(strength) for code, strength in units.items()}
    clauses = []
    for pair in _PAIRS:
        for side in ("", "L", "R"):
            codes = tuple(side + number for number in pair)
            if codes[0] in left and codes[1] in left and left[codes[0]] == left[codes[1]]:
                clauses.append(_Clause(pair, side, left.pop(codes[0])))
                left.pop(codes[1])
    clauses += [_Clause((code.lstrip("LR"),), code[:1] if code[0] in "LR" else "", step) for code, step in left.items()]
    return sorted(clauses, key=lambda one: (_region(one.movement), -one.step, AU_INDEX[one.side + one.movement[0]]))


def _region(movement: tuple[str, ...]) -> int:
    return next((index for index, numbers in enumerate(_REGIONS) if movement[0] in numbers), len(_REGIONS))


def _say(clause: _Clause, form: str, chance: random.Random) -> str:
    movement = _pick(_MOVEMENTS[clause.movement], chance).format(s="" if clause.side else "s")
    verb, rest = movement.split(" ", 1)
    before, after = _ADVERBS[clause.step]
    adverb = _pick([*before, *after], chance)
    leads = chance.random() < 0.5 if adverb in before and adverb in after else adverb in before
    words = [adverb if leads else "", _inflect(verb, form), rest]
    words.append(_pick(_SIDES[clause.side], chance) if clause.side else "")
    return " ".join(word for word in [*words, "" if leads else adverb] if word)


def _inflect(verb: str, form: str) -> str:
    if form == "third":
        return verb + ("es" if verb.endswith(("ss", "ch", "sh")) else "s")
    if form == "gerund":
        if verb in ("let", "put", "drop", "tug"):
            return f"{verb}{verb[-1]}ing"
        return verb.removesuffix("e") + "ing"
    return verb


def _front(emotion: EmotionCondition, chance: random.Random) -> str:
    front, which = _pick(_FRONTS, chance), int(chance.random() * 2)
    if not emotion.weights:
        return _sentence(front, _FEELINGS[NEUTRAL][0])
    strongest = max(weight for _, weight in emotion.weights)
    said = [
        f"{_LEVELS[level_of(emotion.intensity * weight / strongest)][2][which]} {_pick(_FEELINGS[label], chance)}"
        for label, weight in sorted(emotion.weights, key=lambda item: -item[1])
    ]
    return _sentence(front, ", ".join(said[:-1]) + (" and " if len(said) > 1 else "") + said[-1])


def _sentence(front: str, words: str) -> str:
    text = front.format(words)
    return text[:1].upper() + text[1:]


# ---- reading


def parse_instruction(text: str) -> dict[str, float]:
    """The action units that ``text`` asks for, code -> the middle of the step, in the order of ``ACTION_UNITS``.

    Reads everything ``instruction`` writes, in any letter case; emotion words in front are skipped. A movement without
    an adverb counts as marked. ``EmotionError`` names the first words that are not understood.
    """
    return read_instruction(text).units


def read_instruction(text: str) -> Instruction:
    """Like ``parse_instruction``, and with the emotion in front."""
    if not text.strip():
        raise EmotionError("the instruction is empty; write it like 'slightly raise the eyebrows'")
    units: dict[str, float] = {}
    levels: list[tuple[str, float]] = []
    explicit, understood = True, False
    for clause in _split(text):
        found = _read_clause(clause)
        movements, steps, sides, feelings, level = (found[kind] for kind in ("move", "step", "side", "feel", "level"))
        words = quote(" ".join(clause))
        if len(movements) + len(feelings) > 1 or len(steps) > 1 or len(sides) > 1 or len(level) > 1:
            raise EmotionError(f"{words} says more than one thing at once; separate movements by commas")
        if (steps or sides) and not movements:
            raise EmotionError(f"{words} names no movement; write it like 'slightly raise the eyebrows'")
        if level and not feelings:
            raise EmotionError(f"{words} names no emotion; write it like 'moderately happy'")
        understood |= bool(movements or feelings or found["rest"])
        for label in feelings:
            levels.append((label, _LEVELS[level[0] if level else 3][1]))
        for numbers in movements:
            explicit &= bool(steps)
            step = steps[0] if steps else _STEP_WITHOUT_ADVERB
            for code in _sided(numbers, sides[0] if sides else "", words):
                if code in units:
                    raise EmotionError(f"action unit {code} appears twice, the second time in {words}; say it once")
                units[code] = STEP_STRENGTHS[step]
    if not understood:
        raise EmotionError(f"{quote(text.strip())} names no movement; write it like 'slightly raise the eyebrows'")
    ordered = {unit.code: units[unit.code] for unit in ACTION_UNITS if unit.code in units}
    return Instruction(ordered, mixed(levels) if levels else None, explicit)


def mixed(levels: Sequence[tuple[str, float]]) -> EmotionCondition:
    """Several emotions as one blend: the strongest sets the intensity, all of them the mix. Neutral adds nothing."""
    highest: dict[str, float] = {}
    for label, level in levels:
        if label != NEUTRAL:
            highest[label] = max(highest.get(label, 0.0), level)
    total = sum(highest.values())
    if not total:
        return EmotionCondition()
    intensity = min(max(highest.values()), MAX_INTENSITY)
    return EmotionCondition(weights=tuple((label, intensity * level / total) for label, level in highest.items()))


def _sided(numbers: tuple[str, ...], side: str, words: str) -> list[str]:
    codes = [side + number for number in numbers]
    for code in codes:
        if code not in AU_INDEX:
            raise EmotionError(f"{words}: action unit {code[1:]} cannot move on one side only; leave the side out")
    return codes


def _split(text: str) -> list[list[str]]:
    """The words of each clause. A clause ends at punctuation and at "and" or "then"."""
    clauses: list[list[str]] = [[]]
    words = _WORD.findall(text.casefold())
    for index, word in enumerate(words):
        if word in _ENDS or word in ("and", "then"):
            clauses.append([])
        # "so that" and "so little that" are adverbs; only a bare "finally" or "also" is a joint
        elif word not in ("finally", "also") or index == 0:
            clauses[-1].append(word)
    return [clause for clause in clauses if clause]


def _read_clause(words: list[str]) -> dict[str, list]:
    phrases, longest = _phrases()
    found: dict[str, list] = {kind: [] for kind in ("move", "step", "side", "feel", "level", "rest")}
    position = 0
    while position < len(words):
        for length in range(min(longest, len(words) - position), 0, -1):
            meaning = phrases.get(tuple(words[position : position + length]))
            if meaning is not None:
                found[meaning[0]].append(meaning[1])
                position += length
                break
        else:
            if words[position] not in _FILLER:
                raise EmotionError(
                    f"cannot understand {quote(' '.join(words[position : position + 4]))} in the instruction; "
                    "write it like 'slightly raise the eyebrows and part the lips'"
                )
            position += 1
    return found


@lru_cache(maxsize=1)
def _phrases() -> tuple[dict[tuple[str, ...], tuple[str, object]], int]:
    """Every phrase of the grammar as words -> (kind, meaning), and the length of the longest in words."""
    phrases: dict[tuple[str, ...], tuple[str, object]] = {}

    def add(phrase: str, kind: str, meaning: object) -> None:
        key = tuple(_WORD.findall(phrase.casefold()))
        if phrases.setdefault(key, (kind, meaning)) != (kind, meaning):
            raise AssertionError(f"{phrase!r} has two meanings")

    for numbers, movements in _MOVEMENTS.items():
        for movement in movements:
            verb, rest = movement.split(" ", 1)
            for form in ("base", "third", "gerund"):
                for plural in ("", "s"):
                    add(f"{_inflect(verb, form)} {rest.format(s=plural)}", "move", numbers)
    for step, (before, after) in enumerate(_ADVERBS):
        for adverb in {*before, *after}:
            add(adverb, "step", step)
    for side, words in _SIDES.items():
        for word in words:
            add(word, "side", side)
    for level, (_, _, words) in enumerate(_LEVELS):
        for word in words:
            add(word, "level", level)
    for label, words in _FEELINGS.items():
        for word in set(words) - {NEUTRAL}:
            add(word, "feel", label)
    for phrase in ("neutral", "relaxed", "relaxed face", "neutral face", "without any movement", "at rest"):
        add(phrase, "rest", None)
    return phrases, max(map(len, phrases))
