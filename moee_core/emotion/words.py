"""What English words mean for a face: the lexicon of the ``words_*`` files made searchable.

A line of the lexicon is "meaning: phrase, phrase"; ``=`` before a word forbids endings ("=mad" is not "made"). Phrases
are written in base form. A word of a text is compared as it is written and then with its endings taken off
("terrifying" -> "terrify", "joyfully" -> "joyful" -> "joy"), and small words between those of a phrase are skipped
("lost her job" is "lose job"). The longest phrase wins.

Everything is built at the first use and kept.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from .vocabulary import LABELS
from .words_causes import CAUSES
from .words_face import ACTIONS, DISPLAYS, MOVES, PARTS
from .words_feelings import FEELINGS
from .words_grammar import BETWEEN, CORRECT, DEGREES, FUNCTION, IRREGULAR, SIGNS

FEELING, DISPLAY, CAUSE = 3, 2, 1
"""How much a word tells of the feeling: it names it, it describes what shows, it says what happened."""

_FRACTIONS = frozenset(("percent", "half", "third", "thirds", "quarter", "quarters"))
LONGEST_WORD = 40  # letters; nothing longer is looked up
_SHORTEST_MISSPELLED = 6  # letters; shorter words have too many neighbours
_SUBSTITUTED_FROM = 9  # letters; "better" is not a misspelt "bitter", but "melancholi" is one of "melancholy"

_TOKEN = re.compile(
    r"[^\W\d_]+(?:'[^\W\d_]+)*"  # words
    r"|\d+(?:[.,]\d+)?(?:\s?/\s?\d+)?"  # numbers, 0.8 and 7/10
    r"|:-?[()DPpOo|/](?!\w)|;-?\)|:'\(|<3"  # emoticons
    r"|--+|[^\w\s]"
)
_HYPHEN = re.compile(r"(?<=\w)[-‐‑](?=\w)")  # "teary-eyed" is two words
_STRETCHED = re.compile(r"(.)\1{2,}")
_CONTRACTED = {
    "dont": ("do", "not"),
    "doesnt": ("does", "not"),
    "didnt": ("did", "not"),
    "isnt": ("is", "not"),
    "arent": ("are", "not"),
    "wasnt": ("was", "not"),
    "wont": ("will", "not"),
    "cant": ("can", "not"),
    "couldnt": ("could", "not"),
    "aint": ("is", "not"),
    "cannot": ("can", "not"),
    "can't": ("can", "not"),
    "won't": ("will", "not"),
    "shan't": ("shall", "not"),
    "ain't": ("is", "not"),
    "gonna": ("going", "to"),
    "wanna": ("want", "to"),
    "gotta": ("got", "to"),
}
_PICTURES = {
    "happy": "😀😃😄😁😆😂🤣😊😇🙂😉🥰😍🤩😘😗😚😙😋😎🤗🥳😸😺😹☺🎉❤♥💕",
    "sad": "😢😭😞😔😟🙁☹😿💔🥺😥😓😪😩😫",
    "angry": "😠😡🤬👿💢😤😾",
    "fear": "😨😱😰🙀😖",
    "surprised": "😮😲😯🤯😳❗",
    "disgusted": "🤢🤮",
    "contempt": "🙄😏😒🤨",
    "neutral": "😐😑😶",
}
_EMOTICONS = {
    ":)": "happy",
    ":-)": "happy",
    ";)": "happy",
    ";-)": "happy",
    ":d": "happy",
    ":-d": "happy",
    "<3": "happy",
}
_EMOTICONS |= {":(": "sad", ":-(": "sad", ":'(": "sad", ":o": "surprised", ":-o": "surprised", ":|": "neutral"}
_EMOTICONS |= {":/": "contempt", ":-/": "contempt", ":-|": "neutral", ":-d": "happy"}

SKIPPED = frozenset(BETWEEN.split())
"""Words that may stand between the words of a phrase."""
_MOST_SKIPPED = 2


class Meaning(NamedTuple):
    """What a phrase means. ``kind`` is "content", "degree" or a sign such as "not".

    A content has ``weights`` over labels other than neutral, ``units`` (code, strength) and its ``tier``; a degree has
    its ``place`` and ``factor``, and is ``counted`` if it is a number ("30 %", "half").
    """

    kind: str
    weights: tuple[tuple[str, float], ...] = ()
    units: tuple[tuple[str, float], ...] = ()
    tier: int = 0
    place: str = ""
    factor: float = 1.0
    counted: bool = False
    also: Meaning | None = None  # a dual word: what it means where it is no degree


class Match(NamedTuple):
    """A phrase found in a text: tokens ``start`` to ``end`` (exclusive) and what they mean."""

    start: int
    end: int
    meaning: Meaning


# ---- text into words


def tokenize(text: str) -> list[str]:
    """Lower-case words, numbers, punctuation marks, emoticons and emoji; "isn't" becomes "is", "not"."""
    plain = "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char))
    plain = plain.casefold().replace("’", "'").replace("‘", "'").replace("_", " ")
    plain = _HYPHEN.sub(" ", plain)
    tokens: list[str] = []
    for token in _TOKEN.findall(plain):
        if token in _CONTRACTED:
            tokens += _CONTRACTED[token]
        elif "'" in token and token[0] != ":" and len(token) > 1:
            head, _, tail = token.partition("'")
            if tail == "t" and head.endswith("n"):
                tokens += [head[:-1], "not"]
            else:
                tokens.append(head)
        else:
            tokens.append(token)
    return tokens


# ---- words into their base forms

_ENDINGS = (
    ("iness", ("y",)),
    ("ically", ("ic",)),
    ("iest", ("y",)),
    ("ies", ("y", "ie")),
    ("ied", ("y", "ie")),
    ("ier", ("y",)),
    ("ily", ("y",)),
    ("bly", ("ble",)),
    ("ation", ("ate", "", "e")),
    ("ness", ("",)),
    ("ment", ("",)),
    ("able", ("", "e")),
    ("ance", ("", "ant")),
    ("ence", ("", "ent")),
    ("ful", ("", "y")),
    ("ing", ("", "e")),
    ("ous", ("", "e", "y")),
    ("ion", ("", "e")),
    ("ity", ("", "e")),
    ("ish", ("", "e")),
    ("est", ("", "e")),
    ("ed", ("", "e")),
    ("er", ("", "e")),
    ("es", ("",)),
    ("ly", ("",)),
    ("y", ("", "e")),
    ("s", ("",)),
)
_SHORTEST_STEM = 3
_ROUNDS = 3  # "joyfulnesses" loses three endings


@lru_cache(maxsize=1)
def _irregular() -> dict[str, str]:
    words = IRREGULAR.replace(";", " ").split()
    return dict(zip(words[::2], words[1::2], strict=True))


@lru_cache(maxsize=8192)
def base_forms(word: str) -> tuple[str, ...]:
    """``word`` and what may be left of it without its endings, the longest first; at most a few dozen forms."""
    forms = {word: None}
    if word in _irregular():
        forms[_irregular()[word]] = None
    if not word.isalpha() or len(word) > LONGEST_WORD:
        return tuple(forms)
    if _STRETCHED.search(word):  # "sooo saaad"
        forms |= {_STRETCHED.sub(run, word): None for run in (r"\1", r"\1\1")}
    shorter = list(forms)
    for _ in range(_ROUNDS):
        shorter = [form for one in shorter for form in _without_ending(one) if form not in forms]
        forms.update(dict.fromkeys(shorter))
    return tuple(forms)


def _without_ending(word: str) -> Iterator[str]:
    for ending, replacements in _ENDINGS:
        stem = word.removesuffix(ending)
        if stem == word or len(stem) < _SHORTEST_STEM or (ending == "s" and stem.endswith("s")):
            continue
        if ending in ("ed", "ing", "er", "est", "y") and stem[-1] == stem[-2] and stem[-1] not in "aeiou":
            yield stem[:-1]
        yield from (stem + replacement for replacement in replacements)


# ---- the lexicon


class Lexicon:
    """Phrases as a tree of words. A node is a dict of the next words; under "" it holds the meaning."""

    def __init__(self) -> None:
        self.root: dict = {}
        self.words: set[str] = set()
        self.correct = frozenset(CORRECT.split())
        self._near: dict[str, set[str]] = {}

    def add(self, phrase: str, meaning: Meaning) -> None:
        """Files a phrase; the first meaning stays, and a dual degree keeps the other one beside it."""
        for words in _alternatives(phrase):
            node = self.root
            for word in words:
                node = node.setdefault(word, {})
                self.words.add(word.lstrip("="))
            known = node.setdefault("", meaning)
            if known.place == "dual" and known.also is None and meaning.kind == "content":
                node[""] = known._replace(also=meaning)

    def matches(self, tokens: Sequence[str]) -> list[Match]:
        """The longest phrase at each place, from left to right, without overlaps."""
        found, position = [], 0
        while position < len(tokens):
            end, meaning = self._longest(tokens, position)
            if meaning is not None:
                found.append(Match(position, end, meaning))
                position = end
            else:
                position += 1
        return found

    def _longest(self, tokens: Sequence[str], start: int) -> tuple[int, Meaning | None]:
        best_length, best_end, best = 0, start, None
        waiting = [(self.root, start, 0, 0)]  # node, next token, words matched, words skipped in a row
        while waiting:
            node, position, length, skipped = waiting.pop()
            if length > best_length and not skipped and "" in node:
                best_length, best_end, best = length, position, node[""]
            if position == len(tokens):
                continue
            token = tokens[position]
            if length and skipped < _MOST_SKIPPED and token in SKIPPED:
                waiting.append((node, position + 1, length, skipped + 1))
            exact = node.get("=" + token)
            if exact is not None:
                waiting.append((exact, position + 1, length + 1, 0))
            # the form nearest to the written one is looked at last, that is, popped first
            for form in reversed(base_forms(token)):
                child = node.get(form)
                if child is not None:
                    waiting.append((child, position + 1, length + 1, 0))
        return best_end, best

    def single(self, word: str) -> Meaning | None:
        """The meaning of one word standing alone, in any of its forms."""
        return self._longest([word], 0)[1]

    def spelling(self, word: str) -> str | None:
        """The only feeling or degree of the lexicon one slip away from ``word`` or one of its forms, or None.

        A slip is a letter too many, one missing, two swapped, or, in long words, a wrong one; never the first letter.
        """
        if not _SHORTEST_MISSPELLED <= len(word) <= LONGEST_WORD or not word.isalpha() or word in self.correct:
            return None
        for form in base_forms(word):
            if len(form) >= _SHORTEST_MISSPELLED and form not in self.correct:
                near = {known for known in self._neighbours(form) if _one_slip(form, known)}
                meanings = {self.single(known) for known in near}
                if len(meanings) == 1 and None not in meanings:
                    return min(near)
        return None

    def _neighbours(self, word: str) -> set[str]:
        if not self._near:
            for known in self.words:
                meaning = self.single(known) if len(known) >= _SHORTEST_MISSPELLED else None
                if meaning is not None and (meaning.tier == FEELING or meaning.kind == "degree"):
                    for key in _shortened(known):
                        self._near.setdefault(key, set()).add(known)
        return set().union(*(self._near.get(key, ()) for key in _shortened(word)))


def _shortened(word: str) -> Iterator[str]:
    yield word
    yield _undoubled(word)
    yield from (word[:index] + word[index + 1 :] for index in range(1, len(word)))


def _undoubled(word: str) -> str:
    return "".join(a for a, b in zip(word, word[1:] + " ", strict=True) if a != b)


def _one_slip(word: str, known: str) -> bool:
    if word != known and _undoubled(word) == _undoubled(known):
        return True  # "dissapointed": people slip once about which letters are double
    if word == known or word[0] != known[0] or abs(len(word) - len(known)) > 1:
        return False
    start = next((i for i, (a, b) in enumerate(zip(word, known, strict=False)) if a != b), min(len(word), len(known)))
    if len(word) < len(known):
        return word[start:] == known[start + 1 :]
    if len(word) > len(known):
        return word[start + 1 :] == known[start:]
    if word[start + 2 :] == known[start + 2 :] and word[start : start + 2] == known[start : start + 2][::-1]:
        return True
    return len(word) >= _SUBSTITUTED_FROM and word[start + 1 :] == known[start + 1 :]


def _alternatives(phrase: str) -> Iterator[list[str]]:
    """ "lose job|home" -> [lose, job] and [lose, home]."""
    ways: list[list[str]] = [[]]
    for word in phrase.split():
        ways = [[*way, option] for way in ways for option in (word.split("|") if word.strip(":|-") else [word])]
    return iter(ways)


def _lines(text: str) -> Iterator[tuple[str, list[str]]]:
    for line in text.strip().splitlines():
        meaning, _, phrases = line.partition(":")
        yield meaning.strip(), [phrase.strip() for phrase in phrases.split(",") if phrase.strip()]


def _pairs(text: str) -> tuple[tuple[str, float], ...]:
    words = text.replace(",", " ").split()
    return tuple((name, float(number)) for name, number in zip(words[::2], words[1::2], strict=True))


def content(text: str, tier: int) -> Meaning:
    """ "happy 0.8 | 12 .8" as a meaning."""
    feelings, _, units = text.partition("|")
    weights = tuple((label, weight) for label, weight in _pairs(feelings) if label != LABELS[0] and weight > 0)
    # "neutral 0" is a word that is merely understood; a plain "neutral" is an answer
    return Meaning("content", weights, _pairs(units), tier if weights or "neutral 0" not in feelings else 0)


@lru_cache(maxsize=1)
def lexicon() -> Lexicon:
    """All words with a meaning of their own: degrees and signs, then feelings, displays and causes."""
    built = Lexicon()
    for head, phrases in _lines(SIGNS):
        for phrase in phrases:
            built.add(phrase, Meaning(head))
    for head, phrases in _lines(DEGREES):
        place, factor = head.split()
        for phrase in phrases:
            counted = not _FRACTIONS.isdisjoint(phrase.split())
            built.add(phrase, Meaning("degree", place=place, factor=float(factor), counted=counted))
    for text, tier in ((FEELINGS, FEELING), (DISPLAYS, DISPLAY), (CAUSES, CAUSE)):
        for line in text.strip().splitlines():
            # the units of a display hold no colon, so the last part is the phrases
            head, _, phrases = line.partition(":")
            for phrase in phrases.split(","):
                if phrase.strip():
                    built.add(phrase.strip(), content(head, tier))
    for label, pictures in _PICTURES.items():
        for picture in pictures:
            built.add(picture, content(f"{label} 1", DISPLAY))
    for face, label in _EMOTICONS.items():
        built.add(face, content(f"{label} 1", DISPLAY))
    return built


@lru_cache(maxsize=1)
def parts() -> Lexicon:
    """Parts of the face; the ``place`` of a meaning is the part."""
    built = Lexicon()
    for part, phrases in _lines(PARTS):
        for phrase in phrases:
            built.add(phrase, Meaning("part", place=part))
    return built


@lru_cache(maxsize=1)
def actions() -> dict[str, tuple[str, ...]]:
    """What a part may do: word -> the names of actions it can stand for."""
    table: dict[str, tuple[str, ...]] = {}
    for action, words in _lines(ACTIONS):
        for word in words:
            table[word] = (*table.get(word, ()), action)
    return table


@lru_cache(maxsize=1)
def moves() -> dict[tuple[str, str], Meaning]:
    """(part, action) -> what it shows."""
    table = {}
    for line in MOVES.strip().splitlines():
        head, _, meaning = line.partition(":")
        part, action = head.rsplit(" ", 1)
        table[part, action] = content(meaning, DISPLAY)
    return table


@lru_cache(maxsize=1)
def function_words() -> frozenset[str]:
    """Words that say nothing about a feeling and are never reported as unknown."""
    return frozenset(FUNCTION.split())


def known_forms(words: Iterable[str], word: str) -> bool:
    """Whether any base form of ``word`` is among ``words``."""
    return any(form in words for form in base_forms(word))
