"""Free English text as an emotion and action units: "slightly sad, but with raised eyebrows".

Meaning (ours). Every phrase of the lexicon brings weights w_i over the labels, at its natural intensity times the
degrees said with it. Phrases that name a feeling count before those that describe what shows, and these before those
that say what happened ("smiling at a funeral" is a smile). With W_l the largest weight of label l among what counts:

    intensity = max_i sum_l w_i,l        at most 1.5
    weight_l  = intensity W_l / sum_k W_k

What words call faint is shown a little stronger (``_SHOWN``), or nobody would see it. Numbers mean what they say: where
all that counts has one ("80 % sad, 20 % angry"), the weights are w_i themselves.

Action units come only from words about the face; a unit takes the largest of its strengths. What is negated adds
nothing. A text that is a blend with numbers, "happy:0.6 + sad:0.2", or an ``instruction`` means what it means there.

Raises ``EmotionError`` for empty text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..errors import EmotionError
from .action_units import AU_INDEX, action_unit_vector
from .condition import MAX_INTENSITY, EmotionCondition, parse_blend
from .instructions import read_instruction
from .vocabulary import LABELS, quote
from .words import (
    CAUSE,
    DISPLAY,
    LONGEST_WORD,
    Match,
    Meaning,
    actions,
    base_forms,
    function_words,
    known_forms,
    lexicon,
    moves,
    parts,
    tokenize,
)
from .words_grammar import LINKS, SUBJECTS, TO_BE

_HIDDEN = 0.3  # how much of a feeling shows that somebody hides behind nothing else
_DECIMALS = 9
_LISTED = 8  # words that ``explain`` lists at most
_NEAR = 6  # phrases before and after a negation that it may be about
_LONGEST_LIST = 40  # tokens searched for the "or" of a list
_LATE = ("not at all", "no longer", "no more", "gone")  # at the end of a clause they look back, elsewhere ahead
_REACH = 4  # tokens between a part of the face and what it does
_ENDS = frozenset('.;:!?()[]{}—–…"') | {"--"}
_SUBJECTS = frozenset(SUBJECTS.split())
_LINKS = frozenset(LINKS.split())
_TO_BE = frozenset(TO_BE.split())
_LESS_THAN = 0.1  # of the second in "more curious than afraid"
_UNSURPASSED = 1.35  # of the natural intensity: "could not be happier"
_FELT, _SHOWN = (0.0, 0.2, 0.35, 1.0, MAX_INTENSITY), (0.0, 0.2, 0.44, 1.0, MAX_INTENSITY)
"""How strong a feeling is said to be, and how strong a face has to show it. People read an emotion off a face only from
about half its strength on: of true renders of tuning people an instrument names 17 % right at 0.3, 42 % at 0.4, 78 % at
0.5 (chance 14 %). Who is "slightly sad" is sad all the same; who is "hardly sad" is not, and shows it as little."""
_NUMBER = re.compile(r"\d+(?:[.,]\d+)?(?:\s?/\s?\d+)?")
_SHORT = 400  # characters of a text that may be a blend with numbers


@dataclass(frozen=True, kw_only=True)
class Understanding:
    """What a text says: an emotion, units (code, strength 0..1), words not understood, and things it denies."""

    condition: EmotionCondition
    units: tuple[tuple[str, float], ...] = ()
    unknown: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    def explain(self) -> str:
        """One line for the user."""
        said = [" + ".join(f"{label} {weight:.2f}" for label, weight in self.condition.weights) or LABELS[0]]
        if self.units:
            said.append("action units " + ", ".join(f"{code} ({strength:.2f})" for code, strength in self.units))
        for name, words in (("denied", self.ignored), ("not understood", self.unknown)):
            if words:
                listed = ", ".join(quote(word)[1:-1] for word in words[:_LISTED])
                said.append(f"{name}: {listed}" + (f" and {len(words) - _LISTED} more" if len(words) > _LISTED else ""))
        return "; ".join(said)


@dataclass
class _Item:
    """A phrase of the text at tokens ``start`` to ``end``, and what the words around it did to it."""

    start: int
    end: int
    kind: str
    meaning: Meaning
    factors: list[float] = field(default_factory=list)
    negated: bool = False
    counted: bool = False
    side: str = ""

    @property
    def is_content(self) -> bool:
        return self.kind == "content"

    @property
    def scale(self) -> float:
        return float(np.prod(self.factors)) if self.factors else 1.0


def understand(text: str) -> Understanding:
    """What ``text`` says about the emotion and the face. A text about neither is neutral.

    ``EmotionError`` if the text is empty.
    """
    if not text.strip():
        raise EmotionError("the emotion is empty; write a label such as happy, or a sentence such as 'a bit surprised'")
    return _exact(text) or _read(text)


def features(understanding: Understanding) -> NDArray[np.float32]:
    """(49,) float32: the emotion vector (8) in the order of ``LABELS``, then the action units (41).

    Emotions without named units leave the units at zero.
    """
    units = action_unit_vector(dict(understanding.units))
    return np.concatenate([understanding.condition.vector(), units]).astype(np.float32)


def _exact(text: str) -> Understanding | None:
    """The text as a blend with numbers or an instruction, if it is one."""
    if len(text) <= _SHORT and any(char in "0123456789" for char in text):
        try:
            return Understanding(condition=parse_blend(text))
        except EmotionError:
            pass
    try:
        found = read_instruction(text)
    except EmotionError:
        return None
    if not (found.explicit and found.units):
        return None
    return Understanding(condition=found.emotion or EmotionCondition(), units=tuple(found.units.items()))


def _read(text: str) -> Understanding:
    tokens = tokenize(text)
    items = _items(tokens)
    corrected = _correct(tokens, items)
    items = sorted([*items, *corrected], key=lambda item: (item.start, item.end))
    _apply_sides(items, tokens)
    _apply_degrees(items, tokens)
    _apply_negations(items, tokens)
    _apply_hiding(items, tokens)
    contents = [item for item in items if item.is_content]
    return Understanding(
        condition=_condition(contents),
        units=_units(contents),
        unknown=_unknown(tokens, items),
        ignored=tuple(dict.fromkeys(_surface(item, tokens) for item in contents if item.negated)),
    )


# ---- finding


def _items(tokens: Sequence[str]) -> list[_Item]:
    """Phrases of the lexicon, and parts of the face that do something."""
    items = [_item(match) for match in lexicon().matches(tokens)]
    for face in _face(tokens):
        # the whole says more than its words: a trembling lip is no trembling; a longer idiom says more than the move
        inside = [one for one in items if face.start <= one.start and one.end <= face.end and one.is_content]
        crossing = [one for one in items if one.start < face.end and face.start < one.end and one.is_content]
        if any(one.end - one.start > 1 and one.meaning.tier for one in crossing):
            continue
        items = [one for one in items if one not in inside] + [face]
    items += _numbers(tokens)
    items += _less(tokens, {index for item in items for index in range(item.start, item.end)})
    return sorted(items, key=lambda item: (item.start, item.end))


def _item(match: Match) -> _Item:
    return _Item(match.start, match.end, match.meaning.kind, match.meaning)


def _face(tokens: Sequence[str]) -> list[_Item]:
    """Each part of the face with the nearest thing it can do, in the same clause and at most ``_REACH`` words away."""
    doing = [[name for form in base_forms(token) for name in actions().get(form, ())] for token in tokens]
    found = []
    for match in parts().matches(tokens):
        part = match.meaning.place
        for distance in range(1, _REACH + 1):
            places = (match.start - distance, match.end - 1 + distance)
            moves_here = [
                (place, moves()[part, name])
                for place in places
                if 0 <= place < len(tokens) and not _clause_ends(tokens, place, match.start)
                for name in doing[place]
                if (part, name) in moves()
            ]
            if moves_here:
                place, meaning = moves_here[0]
                start, end = min(place, match.start), max(place + 1, match.end)
                # "raises an eyebrow" is one of the two; "a furrowed brow" is both
                one = tokens[max(match.start - 1, 0) : match.end] in (["an", "eyebrow"], ("an", "eyebrow"))
                found.append(_Item(start, end, "content", meaning, side="R" if one else ""))
                break
    return found


def _clause_ends(tokens: Sequence[str], place: int, other: int) -> bool:
    return any(
        token in _ENDS or token in (",", "and", "but") for token in tokens[min(place, other) : max(place, other)]
    )


def _numbers(tokens: Sequence[str]) -> list[_Item]:
    """Percentages, 7/10, "8 out of 10" and plain numbers up to 1.5, as degrees."""
    found = []
    for index, token in enumerate(tokens):
        if not _NUMBER.fullmatch(token):
            continue
        whole, _, parts_of = token.replace(",", ".").replace(" ", "").partition("/")
        value, end = float(whole[:9]), index + 1
        if parts_of:
            value /= max(float(parts_of[:9]), 1e-9)
        elif tokens[end : end + 1] in (["%"], ["percent"]):
            value, end = value / 100, end + 1
        elif list(tokens[end : end + 2]) == ["per", "cent"]:
            value, end = value / 100, end + 2
        elif list(tokens[end : end + 2]) == ["out", "of"] and _NUMBER.fullmatch("".join(tokens[end + 2 : end + 3])):
            value, end = value / max(float(tokens[end + 2].split("/")[0].replace(",", ".")), 1e-9), end + 3
        elif value > MAX_INTENSITY:
            continue
        found.append(_Item(index, end, "degree", _number(value)))
    return found


def _number(value: float) -> Meaning:
    return Meaning("degree", place="both", factor=min(value, MAX_INTENSITY), counted=True)


def _less(tokens: Sequence[str], taken: set[int]) -> list[_Item]:
    """ "fearless", "unafraid": a feeling with a negation built in."""
    found = []
    for index, token in enumerate(tokens):
        if index in taken or len(token) > LONGEST_WORD:
            continue
        for form in base_forms(token):
            stem = form.removesuffix("less") if form.endswith("less") else form.removeprefix("un")
            meaning = lexicon().single(stem) if stem != form and len(stem) > 2 else None
            if meaning is not None and meaning.kind == "content" and meaning.tier:
                found.append(_Item(index, index + 1, "content", meaning, negated=True))
                break
    return found


def _correct(tokens: Sequence[str], items: Sequence[_Item]) -> list[_Item]:
    """Words nobody knows that are one slip away from one of the lexicon."""
    taken = {index for item in items for index in range(item.start, item.end)}
    found = []
    for index, token in enumerate(tokens):
        if index in taken or known_forms(function_words(), token) or known_forms(actions(), token):
            continue
        known = lexicon().spelling(token)
        meaning = lexicon().single(known) if known else None
        if meaning is not None:
            found.append(_Item(index, index + 1, meaning.kind, meaning))
    return found


def _unknown(tokens: Sequence[str], items: Sequence[_Item]) -> tuple[str, ...]:
    taken = {index for item in items for index in range(item.start, item.end)}
    return tuple(
        dict.fromkeys(
            token
            for index, token in enumerate(tokens)
            if index not in taken and token[0].isalpha() and not known_forms(function_words(), token) and len(token) > 1
        )
    )


def _surface(item: _Item, tokens: Sequence[str]) -> str:
    return " ".join(tokens[item.start : item.end])


# ---- what the words around a phrase do to it


def _between(first: _Item, second: _Item, tokens: Sequence[str]) -> list[str]:
    return list(tokens[first.end : second.start])


def _stops(words: Iterable[str]) -> bool:
    return any(word in _ENDS for word in words)


def _apply_sides(items: list[_Item], tokens: Sequence[str]) -> None:
    """ "left", "right", "one": the nearest phrase of the clause whose units can move on one side."""
    for item in items:
        if item.kind != "side":
            continue
        word = _surface(item, tokens)
        side = "L" if "left" in word else "R"
        able = [
            (max(other.start - item.end, item.start - other.end, 0), index)
            for index, other in enumerate(items)
            if other.is_content
            and any(side + code in AU_INDEX for code, _ in other.meaning.units)
            and not _stops(tokens[min(item.end, other.end) : max(item.start, other.start)])
        ]
        if able and min(able)[0] <= _REACH:
            items[min(able)[1]].side = side


def _apply_degrees(items: list[_Item], tokens: Sequence[str]) -> None:
    waiting: list[Meaning] = []
    previous: _Item | None = None  # the content before, in the same clause
    last: _Item | None = None
    for index, item in enumerate(items):
        if last is not None and _stops(_between(last, item, tokens)):
            waiting, previous = [], None
        last = item
        following = next((one for one in items[index + 1 : index + _NEAR] if one.kind != "side"), None)
        if item.meaning.place == "dual" and not _acts_on(item, following, tokens):
            item.kind = "content" if item.meaning.also else "degree"
            item.meaning = item.meaning.also or item.meaning._replace(place="pre")
        if item.is_content:
            if waiting:
                item.factors += [degree.factor for degree in waiting]
                item.counted = any(degree.counted for degree in waiting)
            elif previous is not None and _joined(previous, item, tokens):
                item.factors += previous.factors
            waiting, previous = [], item
        elif item.kind == "degree":
            inside = previous is not None and previous.start <= item.start < previous.end
            behind = item.meaning.place in ("post", "both") and not _acts_on(item, following, tokens)
            if previous is not None and (inside or behind):
                previous.factors.append(item.meaning.factor)
                previous.counted |= item.meaning.counted
            else:
                waiting.append(item.meaning)


def _acts_on(item: _Item, following: _Item | None, tokens: Sequence[str]) -> bool:
    """Whether a degree has something to act on ahead of it, before a comma or a stop."""
    if following is None or following.kind not in ("content", "degree", "not"):
        return False
    between = _between(item, following, tokens)
    return not _stops(between) and "," not in between and len(between) <= _REACH


def _joined(first: _Item, second: _Item, tokens: Sequence[str]) -> bool:
    """ "very [happy] and [surprised]": nothing but a plain "and" between two phrases."""
    return _between(first, second, tokens) in (["and"], ["&"], ["or"], [",", "and"])


def _apply_negations(items: Sequence[_Item], tokens: Sequence[str]) -> None:
    negating = False
    seen: _Item | None = None  # the last phrase that this negation negated
    for index, item in enumerate(items):
        near = items[max(index - _NEAR, 0) : index + _NEAR]  # looking at all of them would take quadratic time
        if negating and index:
            stopped = _stops(_between(items[index - 1], item, tokens))
            if stopped or (seen is not None and _ends_reach(seen, item, tokens)):
                negating, seen = False, None
        if item.kind == "not":
            inside = next((one for one in near if one.is_content and one.start < item.start < one.end), None)
            if inside is not None:
                inside.negated = True
            elif negating and seen is None:
                negating = False  # "not without joy"
            elif (compared := _compared(item, near, tokens)) is not None:
                compared.factors.append(_UNSURPASSED)
            elif not _gone(item, near, tokens) and not _is_exclamation(item, tokens):
                negating, seen = True, None
        elif item.kind == "gone":
            if not _gone(item, near, tokens):
                negating, seen = True, None
        elif item.kind == "but":
            surface = _surface(item, tokens)
            if surface == "but now":  # "was sad, but now happy"
                for before in items[:index]:
                    before.negated |= before.is_content
            if seen is not None or surface.startswith("but"):
                negating, seen = False, None
        elif item.is_content:
            if negating and not item.negated:
                item.negated, seen = True, item
            _compare(item, near, tokens)


def _compare(item: _Item, near: Sequence[_Item], tokens: Sequence[str]) -> None:
    """ "too tired to be angry" is not angry, "more curious than afraid" hardly afraid."""
    words = tokens[max(item.start - 2, 0) : item.start]
    if "too" in words:
        following = next((one for one in near if one.is_content and one.start >= item.end), None)
        if following is not None and "to" in tokens[item.end : following.start][:1]:
            following.negated = True
    if "than" in words:
        before = [one for one in near if one.is_content and one.end <= item.start]
        if before and "more" in tokens[max(before[-1].start - 2, 0) : before[-1].start]:
            item.factors.append(_LESS_THAN)


def _compared(item: _Item, near: Sequence[_Item], tokens: Sequence[str]) -> _Item | None:
    """ "could not be happier", "never looked sadder": the phrase that cannot be surpassed."""
    following = next((one for one in near if one.is_content and one.start >= item.end), None)
    if following is None or following.end - following.start > 1:
        return None
    word, between = tokens[following.start], tokens[item.end : following.start]
    comparative = word.endswith("er") and len(base_forms(word)) > 1
    return following if comparative and 0 < len(between) <= 2 and set(between) <= _TO_BE else None


def _is_exclamation(item: _Item, tokens: Sequence[str]) -> bool:
    """ "No, she is happy": the no of an answer."""
    after = tokens[item.end : item.end + 1]
    return _surface(item, tokens) == "no" and (not after or after[0] in _ENDS or after[0] == ",")


def _ends_reach(seen: _Item, item: _Item, tokens: Sequence[str]) -> bool:
    """Whether a negation that has met ``seen`` stops before ``item``."""
    between = _between(seen, item, tokens)
    if not item.is_content and item.kind not in ("and", "or", "degree", "side", "filler"):
        return item.kind != "not"
    if "," in between and not _list_goes_on(item, tokens):
        return True
    return item.is_content and not _LINKS.issuperset(between)


def _list_goes_on(item: _Item, tokens: Sequence[str]) -> bool:
    """ "not happy, sad or angry": an "or" still comes before the clause ends."""
    for token in tokens[item.start : item.start + _LONGEST_LIST]:
        if token in ("or", "nor"):
            return True
        if token in _ENDS or token in ("but", "and") or token in _SUBJECTS:
            return False
    return False


def _gone(item: _Item, near: Sequence[_Item], tokens: Sequence[str]) -> bool:
    """ "her smile is gone", "sad no longer", "happy? not really": negates what is before. Whether it did."""
    before = next((one for one in reversed(near) if one.is_content and one.end <= item.start), None)
    after = tokens[item.end : item.end + 1]
    at_end = not after or after[0] in _ENDS or after[0] == ","
    if before is None:
        return False
    between = _between(before, item, tokens)
    if _surface(item, tokens) in _LATE:
        late = at_end and not _stops(between)
    else:
        late = item.meaning.kind == "gone" and not _stops(between) and "," not in between
    answer = between == ["?"] and at_end
    before.negated |= answer or late
    return answer or late


def _apply_hiding(items: Sequence[_Item], tokens: Sequence[str]) -> None:
    """ "hides his fear behind a smile" shows a smile; "hides his fear" a little fear."""
    hiding: _Item | None = None
    hidden: list[_Item] = []
    before: _Item | None = None  # the content before the hiding, which is hidden in "anger hidden under a smile"
    for index, item in enumerate(items):
        if index and _stops(_between(items[index - 1], item, tokens)):
            hiding, before = None, None
        if item.kind == "hide":
            hiding = item
        elif hiding is not None and item.kind == "behind":
            if before is not None and (not hidden or hidden[-1].start < hiding.start):
                hidden.append(before)
            hiding, before = None, None
        elif item.kind == "but" or (hiding and "with" in tokens[max(item.start - 2, 0) : item.start]):
            hiding = None
        if item.is_content and not item.negated:
            if hiding is not None:
                hidden.append(item)
            else:
                before = item
    inside = {id(item) for item in hidden}
    said = (item for item in items if item.is_content and item.meaning.tier and not item.negated)
    shown = any(id(item) not in inside for item in said)
    for item in hidden:
        item.negated = shown
        item.factors.append(_HIDDEN)


# ---- putting it together


def _condition(contents: Sequence[_Item]) -> EmotionCondition:
    said = [item for item in contents if item.meaning.tier and not item.negated]
    denied = {label for item in contents if item.negated for label, _ in item.meaning.weights}
    tier = max(
        (item.meaning.tier for item in said if item.meaning.weights or item.meaning.tier > DISPLAY), default=CAUSE
    )
    named = [item for item in said if item.meaning.tier == tier]
    if tier < max((item.meaning.tier for item in contents if item.negated), default=0):
        # "not happy, but smiling": a smile does not bring back what was denied
        named = [item for item in named if not denied & {label for label, _ in item.meaning.weights}]
    largest: dict[str, float] = {}
    for item in named:
        for label, weight in item.meaning.weights:
            largest[label] = max(largest.get(label, 0.0), weight * item.scale)
    total = sum(largest.values())
    if not total:
        return EmotionCondition()
    strongest = max(sum(weight for _, weight in item.meaning.weights) * item.scale for item in named)
    counted = all(item.counted for item in named)
    intensity = min(total if counted else strongest, MAX_INTENSITY)
    if not counted:  # numbers are meant as they are
        intensity = float(np.interp(intensity, _FELT, _SHOWN))
    # rounded: 0.30000000000000004 helps nobody, and sums of rounded weights stay within what a condition allows
    return EmotionCondition(
        weights=tuple((label, round(intensity * weight / total, _DECIMALS)) for label, weight in largest.items())
    )


def _units(contents: Sequence[_Item]) -> tuple[tuple[str, float], ...]:
    strengths: dict[str, float] = {}
    for item in contents:
        if item.negated:
            continue
        for code, strength in item.meaning.units:
            sided = item.side + code if item.side + code in AU_INDEX else code
            strengths[sided] = max(strengths.get(sided, 0.0), min(strength * item.scale, 1.0))
    ordered = sorted(strengths, key=lambda code: AU_INDEX[code])
    return tuple((code, round(strengths[code], _DECIMALS)) for code in ordered)
