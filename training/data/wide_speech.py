"""A wider speech bank for local training: ``python -m training.data.wide_speech OUT --utterances 2400``.

The bank that ships has three training voices and fifty sentences; a speech encoder trained on it alone hears a new
voice badly. This one says random words (``words.txt``) in the same flite voices with any vocal tract, pitch, tempo and
mood, and in voices of espeak-ng, whose formant synthesis knows many more speakers. It is made on the spot, kept out of
the repository, and never holds the voice that tests are spoken in.

Needs flite on PATH and the espeak-ng library (Debian, Ubuntu: ``apt-get install flite espeak-ng``).

Files: ``OUT/samples.npy`` (S,) int16 at 16 kHz, all utterances end to end; ``OUT/index.json`` with voice, length and
phonemes of each. Raises ``MediaError`` when a synthesiser is missing or fails, or a bank cannot be read.
"""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import json
import logging
import math
import multiprocessing
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moee_core.errors import MediaError
from training.face_world.speech import SAMPLE_RATE, Utterance

logger = logging.getLogger(__name__)

FORMAT = 1
WORDS = Path(__file__).parent / "words.txt"
FLITE_VOICES = {"awb": 130.0, "slt": 176.0, "kal16": 106.0}
"""Training voices and their own pitch in Hz. The tests' voice, rms, must never be here."""

FLITE_SHARE = 0.5
ESPEAK_LANGUAGES = ("en-us", "en-us", "en-gb-x-rp")
ESPEAK_VARIANTS = (
    *(f"m{i}" for i in range(1, 9)),
    *(f"f{i}" for i in range(1, 6)),
    *("Alex", "Alicia", "Andrea", "Andy", "Annie", "Denis", "Diogo", "Gene", "Gene2", "Henrique", "Hugo", "Jacky"),
    *("Lee", "Marco", "Mario", "Michael", "Mike", "Nguyen", "adam", "anika", "antonio", "belinda", "benjamin"),
    *("boris", "caleb", "david", "ed", "edward", "edward2", "grandma", "grandpa", "gustave", "iven", "iven2", "john"),
    *("linda", "marcelo", "max", "michel", "miguel", "norbert", "pablo", "paul", "pedro", "quincy", "rob", "robert"),
    *("sandro", "shelby", "steph", "steph2", "travis", "victor", "zac", "klatt", "klatt2", "klatt3", "klatt4"),
)

ESPEAK_PHONES: dict[str, str] = {
    **{"_": "pau", "_:": "pau", "_|": "pau", "_!": "pau", "?": "pau", "": "pau"},
    **{"@": "ax", "@2": "ax", "@5": "ax", "a#": "ax", "@L": "ax l", "@-": "ax", "3": "er", "3:": "er", "@r": "er"},
    **{"a": "ae", "aa": "ae", "a2": "ae", "A:": "aa", "A": "aa", "A@": "aa r", "0": "aa", "0#": "aa", "A#": "aa"},
    **{"E": "eh", "E2": "eh", "E#": "eh", "e": "eh", "e@": "eh r", "E@": "eh r", "e:": "ey", "eI": "ey"},
    **{"I": "ih", "I2": "ih", "I#": "ih", "i": "iy", "i:": "iy", "i@": "iy ax", "i@3": "iy r", "I@": "ih r"},
    **{"O": "ao", "O:": "ao", "O@": "ao r", "o@": "ao r", "O2": "ao", "o:": "ow", "oU": "ow", "@U": "ow", "o": "ow"},
    **{"V": "ah", "V#": "ah", "U": "uh", "U@": "uh r", "u": "uw", "u:": "uw", "u2": "uw"},
    **{"aI": "ay", "aI@": "ay ax", "aI3": "ay r", "aU": "aw", "aU@": "aw ax", "OI": "oy", "VI": "ay"},
    **{"p": "p", "b": "b", "m": "m", "t": "t", "d": "d", "n": "n", "k": "k", "g": "g", "N": "ng", "t#": "d"},
    **{"t2": "t", "d#": "d", "n-": "n", "m-": "m", "n^": "n", "l": "l", "l/2": "l", "l/3": "l", "L": "l", "r": "r"},
    **{"r-": "r", "r/2": "r", "R": "r", "w": "w", "j": "y", "h": "hh", "f": "f", "v": "v", "T": "th", "D": "dh"},
    **{"s": "s", "z": "z", "S": "sh", "Z": "zh", "tS": "ch", "dZ": "jh", "z#": "z", "s#": "s", "x": "k", "C": "hh"},
    **{"R2": "r", "w#": "w", "v#": "v", "I3": "ih", "e#": "eh", "i2": "iy", "@3": "er", "o2": "ow", "W": "w"},
}
"""espeak-ng's English phoneme mnemonics as flite's phones (several share the time of one)."""

Spoken = tuple[np.ndarray, list[tuple[str, float]]]


@dataclass(frozen=True, kw_only=True)
class _Job:
    number: int
    seed: int


def random_sentence(rng: np.random.Generator, words: list[str]) -> str:
    """Four to nine random words, sometimes with a pause."""
    chosen = [words[i] for i in rng.integers(0, len(words), rng.integers(4, 10))]
    if rng.random() < 0.4:
        chosen[int(rng.integers(0, len(chosen) - 1))] += ","
    return " ".join(chosen).capitalize() + "."


def speak_flite(rng: np.random.Generator, text: str, flite: str) -> tuple[str, str, Spoken]:
    """(voice, mood, what was said)."""
    from training.face_world.build_speech import MOOD_STYLES, Speaker, speak

    voice = str(rng.choice(sorted(FLITE_VOICES)))
    tract = round(float(np.exp(rng.uniform(math.log(0.84), math.log(1.22)))), 2)
    pitch = FLITE_VOICES[voice] * tract * float(np.exp(rng.uniform(-0.2, 0.2)))
    mood = str(rng.choice(sorted(MOOD_STYLES)))
    speaker = Speaker(flite_voice=voice, tract=tract, pitch=pitch)
    samples, phonemes = speak(text, speaker, MOOD_STYLES[mood], flite=flite)
    return speaker.name, mood, (samples.astype(np.float32), phonemes)


class _Identifier(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    """``espeak_EVENT`` of speak_lib.h."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Identifier),
    ]


class Espeak:
    """espeak-ng through its C library, which alone tells the times of phonemes. One per process."""

    PHONEME, SYNCHRONOUS, PHONEME_EVENTS = 7, 2, 1
    RATE, PITCH, RANGE = 1, 3, 4

    def __init__(self) -> None:
        name = ctypes.util.find_library("espeak-ng") or "libespeak-ng.so.1"
        try:
            self._library = ctypes.CDLL(name)
        except OSError as error:
            raise MediaError("espeak-ng is not installed (Debian, Ubuntu: apt-get install espeak-ng)") from error
        self.rate = self._library.espeak_Initialize(self.SYNCHRONOUS, 200, None, self.PHONEME_EVENTS)
        if self.rate <= 0:
            raise MediaError("espeak-ng found no voice data; install its data package")
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
        self._pieces: list[np.ndarray] = []
        self._events: list[tuple[str, int]] = []
        self._callback = kind(self._receive)  # kept: the library holds a bare pointer to it
        self._library.espeak_SetSynthCallback(self._callback)

    def _receive(self, wave, count, events) -> int:
        if count and wave:
            self._pieces.append(np.ctypeslib.as_array(wave, (count,)).copy())
        index = 0
        while events[index].type:
            event = events[index]
            if event.type == self.PHONEME:
                name = ctypes.string_at(ctypes.addressof(event.id), 8).split(b"\0")[0].decode("utf-8", "replace")
                self._events.append((name, event.sample))
            index += 1
        return 0

    def speak(self, text: str, voice: str, *, words_per_minute: int, pitch: int, pitch_range: int) -> Spoken:
        """Samples at 16 kHz and (phone, end in seconds)."""
        from scipy import signal

        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise MediaError(f"espeak-ng has no voice {voice!r}; install espeak-ng 1.51 or newer")
        for number, value in ((self.RATE, words_per_minute), (self.PITCH, pitch), (self.RANGE, pitch_range)):
            self._library.espeak_SetParameter(number, value, 0)
        self._pieces, self._events = [], []
        data = text.encode()
        self._library.espeak_Synth(data, len(data) + 1, 0, 1, 0, 1, None, None)
        self._library.espeak_Synchronize()
        if not self._pieces or not self._events:
            raise MediaError(f"espeak-ng said nothing for {text[:60]!r} with voice {voice}")
        wave = np.concatenate(self._pieces).astype(np.float64) / 32768.0
        samples = signal.resample_poly(wave, SAMPLE_RATE, self.rate).astype(np.float32)
        phonemes = phones_of(self._events, self.rate, len(samples) / SAMPLE_RATE)
        return samples, phonemes


def phones_of(events: list[tuple[str, int]], rate: int, duration: float) -> list[tuple[str, float]]:
    """(mnemonic, first sample) of each phoneme -> (flite phone, end in seconds)."""
    out: list[tuple[str, float]] = []
    starts = [sample / rate for _, sample in events] + [duration]
    if starts[0] > 0.005:
        out.append(("pau", starts[0]))
    for (name, _), begin, end in zip(events, starts[:-1], starts[1:], strict=True):
        plain = name.rstrip(";*'`~")
        if plain not in ESPEAK_PHONES:
            raise MediaError(f"espeak-ng's phoneme {name!r} has no mouth shape; add it to ESPEAK_PHONES")
        phones = ESPEAK_PHONES[plain].split()
        for index, phone in enumerate(phones, 1):
            stop = round(begin + (end - begin) * index / len(phones), 4)
            if stop > (out[-1][1] if out else 0.0):
                out.append((phone, stop))
    return out


_espeak: Espeak | None = None


def speak_espeak(rng: np.random.Generator, text: str) -> tuple[str, str, Spoken]:
    """(voice, mood, what was said); espeak-ng has no moods, its tempo and pitch wander instead."""
    global _espeak
    _espeak = _espeak or Espeak()
    voice = f"{rng.choice(ESPEAK_LANGUAGES)}+{rng.choice(ESPEAK_VARIANTS)}"
    samples, phonemes = _espeak.speak(
        text,
        voice,
        words_per_minute=int(rng.integers(125, 190)),
        pitch=int(rng.integers(25, 75)),
        pitch_range=int(rng.integers(20, 80)),
    )
    return voice, "neutral", (samples, phonemes)


def _make(job: _Job) -> dict | None:
    rng = np.random.default_rng([job.seed, 11, job.number])
    words = WORDS.read_text(encoding="utf-8").split()
    text = random_sentence(rng, words)
    flite = shutil.which("flite")
    if flite is None:
        raise MediaError("flite is not on PATH; install it (Debian, Ubuntu: apt-get install flite) and run this again")
    use_flite = rng.random() < FLITE_SHARE
    voice, mood, (samples, phonemes) = speak_flite(rng, text, flite) if use_flite else speak_espeak(rng, text)
    level = float(np.sqrt(np.mean(np.square(samples))))
    samples = np.clip(samples * (0.06 / max(level, 1e-4)), -1, 1)
    return {
        "text": text,
        "voice": voice,
        "mood": mood,
        "phonemes": [[name, round(end, 4)] for name, end in phonemes],
        "samples": np.round(samples * 32767).astype(np.int16),
    }


def build(out: Path, utterances: int, seed: int = 0, workers: int = 2) -> None:
    """Write the bank into ``out``. The same seed and synthesisers give the same bank."""
    out.mkdir(parents=True, exist_ok=True)
    jobs = [_Job(number=number, seed=seed) for number in range(utterances)]
    made = []
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for done, item in enumerate(pool.imap(_make, jobs, chunksize=8), 1):
            made.append(item)
            if done % 200 == 0 or done == utterances:
                logger.info("%d of %d utterances", done, utterances)
    samples = [item.pop("samples") for item in made]
    entries = [{**item, "length": len(part)} for item, part in zip(made, samples, strict=True)]
    np.save(out / "samples.npy", np.concatenate(samples))
    index = {"format": FORMAT, "seed": seed, "utterances": entries}
    (out / "index.json").write_text(json.dumps(index, separators=(",", ":")), encoding="utf-8")


def load(folder: Path) -> list[Utterance]:
    """The utterances of a bank made by ``build``."""
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        track = np.load(folder / "samples.npy", mmap_mode="r")
        if index["format"] != FORMAT:
            raise ValueError(f"format {index['format']}, expected {FORMAT}")
        entries = index["utterances"]
        if sum(entry["length"] for entry in entries) != len(track):
            raise ValueError("samples.npy does not fit index.json")
    except (OSError, ValueError, KeyError) as error:
        raise MediaError(
            f"cannot read the wide speech bank {folder}: {str(error)[:120]}; "
            f"make it with python -m training.data.wide_speech {folder}"
        ) from error
    out, begin = [], 0
    for number, entry in enumerate(entries):
        end = begin + entry["length"]
        out.append(
            Utterance(
                key=f"wide-{number:05d}",
                text=entry["text"],
                sentence=1000 + number,
                voice=entry["voice"],
                mood=entry["mood"],
                split="train",
                samples=np.asarray(track[begin:end], dtype=np.float32) / 32767,
                phonemes=tuple((name, float(stop)) for name, stop in entry["phonemes"]),
            )
        )
        begin = end
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description="Make a wider speech bank for local training.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--utterances", type=int, default=2400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        build(options.out, options.utterances, options.seed, options.workers)
    except MediaError as error:
        logger.error("error: %s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
