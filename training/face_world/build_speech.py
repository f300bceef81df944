"""Make the speech bank and the sample recordings again: ``python -m training.face_world.build_speech``.

Needs CMU flite on PATH (free licence; voices awb, slt, kal16, rms) and scipy. The result depends on nothing but this
file and ``speech/sentences.json``.

A *speaker* is a flite voice spoken through a longer or shorter vocal tract: the waveform is resampled by a factor f,
which moves pitch and formants by f and the tempo with them; pitch and tempo are asked for in advance so that only the
formants and the chosen pitch remain. A *mood* changes mean pitch, range of pitch, tempo, loudness and spectral tilt.
The voice rms does not obey flite's pitch settings; there pitch is moved by pitch-synchronous overlap-add (TD-PSOLA).

Raises ``MediaError`` (one line) when flite is missing or fails, or when a decoded recording is not aligned with the
original.
"""

from __future__ import annotations

import functools
import json
import logging
import math
import os
import shutil
import subprocess
import sys
import tempfile
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import librosa
import numpy as np
from scipy import signal

from moee_core.errors import MediaError
from training.face_world.speech import (
    BANK_FOLDER,
    INDEX_FORMAT,
    INDEX_NAME,
    MOODS,
    SAMPLE_RATE,
    SPLITS,
    decode_recording,
)
from training.face_world.visemes import VOWELS

logger = logging.getLogger(__name__)

Phonemes = list[tuple[str, float]]

SAMPLES_FOLDER = Path(__file__).parents[2] / "moee_core" / "assets" / "speech"
BANK_BIT_RATE = 16_000
SAMPLE_BIT_RATE = 24_000
GAP_SECONDS = 0.2
EDGE_PAUSE_SECONDS = 0.14
"""Silence kept before and after a sentence."""

LOUDNESS = 0.075
"""RMS of a neutral utterance, full scale 1."""

PEAK = 0.97
TILT_HERTZ = 1500.0
ALIGNMENT_SECONDS = 0.002
VOICED = VOWELS | frozenset(("b", "d", "g", "m", "n", "ng", "l", "r", "w", "y", "v", "dh", "z", "jh", "zh", "er"))


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """A flite voice, its vocal-tract factor (above 1: shorter, brighter) and its neutral pitch in Hz."""

    flite_voice: str
    tract: float
    pitch: float

    @property
    def name(self) -> str:
        return f"{self.flite_voice}-{self.tract:.2f}"


@dataclass(frozen=True, kw_only=True)
class Mood:
    """Factors on pitch, pitch range and duration; decibels on loudness and on the band above `TILT_HERTZ`."""

    pitch: float = 1.0
    liveliness: float = 1.0
    stretch: float = 1.0
    gain_db: float = 0.0
    tilt_db: float = 0.0


MOOD_STYLES: dict[str, Mood] = {
    "neutral": Mood(),
    "happy": Mood(pitch=1.16, liveliness=1.6, stretch=0.92, gain_db=2.0, tilt_db=2.0),
    "sad": Mood(pitch=0.88, liveliness=0.45, stretch=1.20, gain_db=-5.0, tilt_db=-4.0),
    "angry": Mood(pitch=1.06, liveliness=1.4, stretch=0.84, gain_db=5.0, tilt_db=5.0),
    "disgusted": Mood(pitch=0.94, liveliness=0.8, stretch=1.12, gain_db=-1.0, tilt_db=-2.0),
    "fear": Mood(pitch=1.28, liveliness=0.7, stretch=0.88, gain_db=-2.0, tilt_db=1.0),
    "surprised": Mood(pitch=1.30, liveliness=2.0, stretch=1.0, gain_db=1.5, tilt_db=1.0),
}
RELATIVE_PITCH_DEVIATION = 0.11
"""Neutral standard deviation of pitch as a part of its mean."""

SPEAKERS: dict[str, tuple[Speaker, ...]] = {
    "train": (
        Speaker(flite_voice="awb", tract=0.92, pitch=112.0),
        Speaker(flite_voice="awb", tract=1.00, pitch=130.0),
        Speaker(flite_voice="awb", tract=1.09, pitch=152.0),
        Speaker(flite_voice="slt", tract=0.92, pitch=152.0),
        Speaker(flite_voice="slt", tract=1.00, pitch=176.0),
        Speaker(flite_voice="slt", tract=1.09, pitch=205.0),
        Speaker(flite_voice="kal16", tract=0.92, pitch=90.0),
        Speaker(flite_voice="kal16", tract=1.00, pitch=106.0),
        Speaker(flite_voice="kal16", tract=1.09, pitch=124.0),
    ),
    "tune": (Speaker(flite_voice="awb", tract=1.16, pitch=186.0),),
    "test": (
        Speaker(flite_voice="rms", tract=1.00, pitch=104.0),
        Speaker(flite_voice="rms", tract=1.10, pitch=132.0),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A recording for users: its file, speaker, text and tempo (1 = the speaker's own, more is slower)."""

    file: str
    speaker: Speaker
    text: str
    stretch: float = 1.0


SAMPLES: tuple[Sample, ...] = (
    Sample(
        file="demo.ogg",
        speaker=SPEAKERS["test"][0],
        text="I passed the exam, and I'm happy! Hang on, is that an elephant? But my little cat has left me.",
        stretch=0.95,
    ),
    Sample(
        file="hello.ogg", speaker=SPEAKERS["train"][1], text="Hello, my friend. It is lovely to see you.", stretch=0.9
    ),
    Sample(
        file="question.ogg", speaker=SPEAKERS["train"][4], text="What would you show me first, if I came by tomorrow?"
    ),
)


def plan_split(split: str, num_sentences: int) -> list[tuple[int, int, str]]:
    """(sentence within the split, speaker within the split, mood) of every utterance.

    Steps through speakers and moods have no common rhythm, so a mood tells nothing about the sentence or the speaker.
    """
    num_speakers = len(SPEAKERS[split])
    if split == "train":  # every sentence in nearly every mood once, by six or seven of the nine speakers
        return [
            (sentence, (sentence + turn) % num_speakers, MOODS[(turn + 3 * sentence) % len(MOODS)])
            for sentence in range(num_sentences)
            for turn in range(len(MOODS) - (sentence % 5 in (1, 3)))
        ]
    if split == "tune":
        return [
            (sentence, 0, MOODS[(3 * sentence + turn) % len(MOODS)])
            for sentence in range(num_sentences)
            for turn in range(3)
        ]
    plan: list[tuple[int, int, str]] = []
    lively = MOODS[1:]
    for sentence in range(num_sentences):
        for speaker in range(num_speakers):
            plan.append((sentence, speaker, "neutral"))
            cell = sentence * num_speakers + speaker
            extra = 3 if cell % 4 == sentence % 2 else 2
            # + sentence // 3 breaks the cycle in which a speaker would meet the same moods only
            plan += [
                (sentence, speaker, lively[(2 * cell + sentence // 3 + turn) % len(lively)]) for turn in range(extra)
            ]
    return plan


def speak(text: str, speaker: Speaker, mood: Mood, *, flite: str) -> tuple[np.ndarray, Phonemes]:
    """Synthesise a sentence: (S,) float64 at `SAMPLE_RATE` and its phonemes (name, end in seconds)."""
    pitch = speaker.pitch * mood.pitch / speaker.tract
    deviation = pitch * RELATIVE_PITCH_DEVIATION * mood.liveliness
    samples, phonemes = _run_flite(
        text, speaker.flite_voice, pitch, deviation, mood.stretch * speaker.tract, flite=flite
    )
    if speaker.flite_voice == "rms":
        samples = _move_pitch(samples, phonemes, pitch=pitch, liveliness=mood.liveliness)
    tract = Fraction(speaker.tract).limit_denominator(100)
    if tract != 1:
        samples = signal.resample_poly(samples, tract.denominator, tract.numerator)
        phonemes = [(name, end / float(tract)) for name, end in phonemes]
    samples, phonemes = _trim_pauses(samples, phonemes)
    return _set_loudness(_tilt(samples, mood.tilt_db), phonemes, mood.gain_db), phonemes


def build(folder: Path = BANK_FOLDER, samples_folder: Path = SAMPLES_FOLDER) -> None:
    """Write the bank into ``folder`` (which holds sentences.json) and the sample recordings into ``samples_folder``."""
    flite = shutil.which("flite")
    if flite is None:
        raise MediaError("flite is not on PATH; install it (Debian, Ubuntu: apt-get install flite) and run this again")
    texts: dict[str, list[str]] = json.loads((folder / "sentences.json").read_text(encoding="utf-8"))
    sentences = [text for split in SPLITS for text in texts[split]]
    index: dict[str, Any] = {"format": INDEX_FORMAT, "sample_rate": SAMPLE_RATE, "sentences": sentences, "splits": {}}
    first = 0
    for split in SPLITS:
        index["splits"][split] = _build_split(split, texts[split], first, folder, flite=flite)
        first += len(texts[split])
    # The index comes last, because it is what makes the new recordings readable.
    _write_atomically(folder / INDEX_NAME, lambda path: path.write_text(_compact_json(index), encoding="utf-8"))
    samples_folder.mkdir(parents=True, exist_ok=True)
    for sample in SAMPLES:
        mood = replace(MOOD_STYLES["neutral"], stretch=sample.stretch)
        samples, _ = speak(sample.text, sample.speaker, mood, flite=flite)
        _write_recording(samples_folder / sample.file, samples, SAMPLE_BIT_RATE)
        logger.info("%s: %.2f s", sample.file, len(samples) / SAMPLE_RATE)


def _build_split(split: str, texts: Sequence[str], first: int, folder: Path, *, flite: str) -> dict[str, Any]:
    gap = np.zeros(round(GAP_SECONDS * SAMPLE_RATE))
    pieces, entries, position = [gap], [], len(gap)
    for sentence, speaker_number, mood in plan_split(split, len(texts)):
        speaker = SPEAKERS[split][speaker_number]
        samples, phonemes = speak(texts[sentence], speaker, MOOD_STYLES[mood], flite=flite)
        entries.append(
            {
                "key": f"{split}-{first + sentence:02d}-{speaker.name}-{mood}",
                "sentence": first + sentence,
                "voice": speaker.name,
                "mood": mood,
                "start": position,
                "length": len(samples),
                "phonemes": [[name, round(end, 3)] for name, end in phonemes],
            }
        )
        pieces += [samples, gap]
        position += len(samples) + len(gap)
    track = np.concatenate(pieces)
    path = folder / f"{split}.ogg"
    _write_recording(path, track, BANK_BIT_RATE)
    _check_alignment(path, track, entries)
    size = path.stat().st_size
    logger.info("%s: %d utterances, %.0f s, %d bytes", split, len(entries), len(track) / SAMPLE_RATE, size)
    return {"file": path.name, "length": len(track), "utterances": entries}


def _run_flite(
    text: str, voice: str, pitch: float, deviation: float, stretch: float, *, flite: str
) -> tuple[np.ndarray, Phonemes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        settings = {"int_f0_target_mean": pitch, "int_f0_target_stddev": deviation, "duration_stretch": stretch}
        options = [word for name, value in settings.items() for word in ("--setf", f"{name}={value:.4f}")]
        command = [flite, "-voice", voice, *options, "-psdur", "-t", text, "-o", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not path.exists():
            reason = " ".join(done.stderr.split())[:120]
            raise MediaError(
                f"flite failed on {text[:60]!r} with voice {voice}: {reason}; check that this flite has the voice"
            )
        with wave.open(str(path)) as recording:
            if (recording.getframerate(), recording.getnchannels(), recording.getsampwidth()) != (SAMPLE_RATE, 1, 2):
                raise MediaError(f"flite's voice {voice} is not 16 kHz mono 16 bit; install Debian's flite 2.2")
            samples = np.frombuffer(recording.readframes(recording.getnframes()), dtype="<i2") / 32768.0
    phonemes: Phonemes = []
    for word in done.stdout.split():
        name, _, end = word.rpartition(":")
        # kal16 leaves out half of the last pause: no phone may end after the sound
        phonemes.append((name, min(float(end), len(samples) / SAMPLE_RATE)))
    return samples, phonemes


def _move_pitch(samples: np.ndarray, phonemes: Phonemes, *, pitch: float, liveliness: float) -> np.ndarray:
    """TD-PSOLA: mean pitch to ``pitch`` Hz, its spread (in octaves) times ``liveliness``; length and formants stay."""
    hop = 80
    found = librosa.yin(samples, fmin=60.0, fmax=250.0, sr=SAMPLE_RATE, frame_length=1024, hop_length=hop)
    seconds = np.arange(len(found)) * hop / SAMPLE_RATE
    voiced = np.zeros(len(found), dtype=bool)
    begin = 0.0
    for name, end in phonemes:
        voiced[(seconds >= begin) & (seconds < end)] = name in VOICED
        begin = end
    centre = float(np.median(found[voiced]))
    found = signal.medfilt(np.where(voiced & (abs(np.log2(found / centre)) < 0.7), found, centre), 9)
    wanted = pitch * (found / centre) ** liveliness

    marks = [0]  # one mark a period, on the peaks where voiced
    while marks[-1] < len(samples):
        frame = min(marks[-1] // hop, len(found) - 1)
        period = SAMPLE_RATE / found[frame]
        low, high = marks[-1] + round(0.8 * period), marks[-1] + round(1.2 * period) + 1
        on_peak = voiced[frame] and high < len(samples)
        marks.append(low + int(samples[low:high].argmax()) if on_peak else marks[-1] + round(period))
    sources = np.array(marks)
    moved, weight = np.zeros(len(samples)), np.zeros(len(samples))
    position = 0.0
    while position < len(samples):
        frame = min(int(position) // hop, len(found) - 1)
        nearest = int(sources[np.abs(sources - position).argmin()])
        reach = round(SAMPLE_RATE / found[frame])
        # voiceless stretches keep their own spacing, or noise would turn into a buzz
        step = SAMPLE_RATE / (wanted[frame] if voiced[frame] else found[frame])
        target = round(position)
        before = min(reach, nearest, target)
        after = min(reach, len(samples) - nearest, len(samples) - target)
        if after > 0:
            window = np.hanning(2 * reach + 1)[reach - before : reach + after]
            moved[target - before : target + after] += window * samples[nearest - before : nearest + after]
            weight[target - before : target + after] += window
        position += step
    return moved / np.maximum(weight, 0.5)


def _trim_pauses(samples: np.ndarray, phonemes: Phonemes) -> tuple[np.ndarray, Phonemes]:
    """Shorten the pauses at both ends to `EDGE_PAUSE_SECONDS`; times move along."""
    ends = [end for _, end in phonemes]
    cut = max(0, round((ends[0] - EDGE_PAUSE_SECONDS) * SAMPLE_RATE)) if phonemes[0][0] == "pau" else 0
    last = len(samples)
    if phonemes[-1][0] == "pau":
        last = min(last, round((ends[-2] + EDGE_PAUSE_SECONDS) * SAMPLE_RATE))
    duration = (last - cut) / SAMPLE_RATE
    return samples[cut:last], [(name, min(end - cut / SAMPLE_RATE, duration)) for name, end in phonemes]


def _tilt(samples: np.ndarray, decibels: float) -> np.ndarray:
    """Raise or lower what lies above `TILT_HERTZ` (first-order shelf)."""
    warped = math.tan(math.pi * TILT_HERTZ / SAMPLE_RATE)  # bilinear transform of a one-pole high-pass
    gain = 1.0 / (1.0 + warped)
    above = np.asarray(signal.lfilter([gain, -gain], [1.0, (warped - 1.0) * gain], samples))
    return samples + (10 ** (decibels / 20) - 1.0) * above


def _set_loudness(samples: np.ndarray, phonemes: Phonemes, decibels: float) -> np.ndarray:
    """RMS over everything but pauses to `LOUDNESS` plus ``decibels``; peaks are bent, not cut, above 0.7."""
    sounding = np.zeros(len(samples), dtype=bool)
    begin = 0.0
    for name, end in phonemes:
        sounding[round(begin * SAMPLE_RATE) : round(end * SAMPLE_RATE)] = name != "pau"
        begin = end
    level = float(np.sqrt(np.mean(np.square(samples[sounding]))))
    louder = samples * (LOUDNESS * 10 ** (decibels / 20) / level)
    knee = 0.7
    over = np.maximum(np.abs(louder) - knee, 0.0)
    bent = knee + (PEAK - knee) * np.tanh(over / (PEAK - knee))
    return np.where(over > 0, np.sign(louder) * bent, louder)


def _write_recording(path: Path, samples: np.ndarray, bit_rate: int) -> None:
    """Ogg/Opus, 16 kHz mono, the same bytes for the same samples."""
    _write_atomically(path, functools.partial(_encode, samples=samples, bit_rate=bit_rate))


def _encode(path: Path, *, samples: np.ndarray, bit_rate: int) -> None:
    # bitexact: the container's serial number is otherwise drawn at random
    with av.open(str(path), "w", format="ogg", options={"fflags": "+bitexact"}) as container:
        options = {"application": "voip", "frame_duration": "60", "flags": "+bitexact"}
        stream = container.add_stream("libopus", rate=SAMPLE_RATE, layout="mono", options=options)
        stream.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(
            np.round(samples * 32767).astype(np.int16)[None], format="s16", layout="mono"
        )
        frame.sample_rate = SAMPLE_RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _check_alignment(path: Path, track: np.ndarray, entries: list[dict[str, Any]]) -> None:
    """Cross-correlate every decoded utterance with the original; the best lag must be within `ALIGNMENT_SECONDS`."""
    decoded = decode_recording(path)
    if len(decoded) < len(track):
        raise MediaError(f"{path.name}: {len(decoded)} samples came back of {len(track)}; this libopus loses the end")
    reach = 2000
    for entry in entries:
        begin, end = entry["start"], entry["start"] + entry["length"]
        # differences, because a voice at steady low pitch looks much the same one period later
        around = np.diff(decoded[begin - reach : end + reach])
        match = signal.correlate(around, np.diff(track[begin:end]), mode="valid", method="fft")
        lag = int(match.argmax()) - reach
        if abs(lag) > ALIGNMENT_SECONDS * SAMPLE_RATE:
            raise MediaError(f"{path.name}: {entry['key']} is {lag} samples late; the codec delay is not removed")


def _compact_json(index: dict[str, Any]) -> str:
    """One utterance a line: small, and a change is readable in a diff."""
    text = json.dumps(index, separators=(",", ":"), ensure_ascii=True)
    return text.replace('{"key"', '\n{"key"') + "\n"


def _write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside the target and rename, so that a reader never sees half a file."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        write(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def main() -> int:
    """Build everything; 0 on success, 1 with one line of explanation when something is missing."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        build()
    except MediaError as error:
        logger.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
