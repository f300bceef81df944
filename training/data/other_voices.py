"""Sentences of the bank in voices of another synthesiser, Festival, for evaluation sets: nothing is trained on them.

What training has heard is no other voice: espeak-ng speaks half of the wider bank (``wide_speech.py``), flite all the
rest, and the listener that ships has learned from both. Of Festival's English voices, kal and slt are the people whom
flite has as kal16 and slt; these three are in no bank: ked, a man from America, and lp and pc, a woman and a man from
Italy, who read the English sentences as if they were Italian. Durations and melodies are their own, and differ much.
They are no complete strangers: like flite's kal16 they are joined from diphones, by the same method.

A *speaker* is one of them through a longer or shorter vocal tract, as in the bank (``build_speech.py``), whose
definitions of edge pauses and of loudness hold here too; pitch goes with the tract. Moods come from ``vocal_mood.py``.
That needs to know which stretches are voiced. Festival tells when every phone ends and what kind of sound it is, in
any language, so nothing has to be guessed from the signal. No mouth ever moves to these voices: their phones are only
``pau``, ``VOICED`` or ``VOICELESS``.

Shapes: samples (S,) float32 16 kHz

Raises ``MediaError`` when Festival or a voice is missing or fails.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from moee_core.errors import MediaError
from training.data.vocal_mood import Phonemes
from training.face_world.speech import SAMPLE_RATE, Utterance

SYNTHESISERS = ("festival",)
PACKAGES = "apt-get install festival festvox-kdlpc16k festvox-italp16k festvox-itapc16k"
VOICED, VOICELESS = "ax", "s"
SILENCES = ("pau", "#")


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """One of Festival's voices and its vocal-tract factor (above 1: shorter, brighter and higher)."""

    voice: str
    tract: float

    @property
    def name(self) -> str:
        return f"{self.voice}-{self.tract:.2f}"


SPEAKERS: dict[str, tuple[Speaker, ...]] = {
    "tune": tuple(Speaker(voice=voice, tract=tract) for voice, tract in (("ked", 1.09), ("lp", 0.92), ("pc", 1.09))),
    "test": tuple(Speaker(voice=voice, tract=1.0) for voice in ("ked", "lp", "pc")),
}

SAY = """
(define (say text target)
  (let ((utt (eval (list 'Utterance 'Text text))))
    (utt.synth utt)
    (utt.save.wave utt target 'riff)
    (mapcar
      (lambda (phone)
        (format t "%s %f %s %s\\n"
          (item.name phone) (item.feat phone 'end) (item.feat phone 'ph_vc) (item.feat phone 'ph_cvox)))
      (utt.relation.items utt 'Segment))
    (format t "\\n")))
"""
"""Festival's Scheme: write a sentence to a file; to standard output, of every phone name and end in seconds, and
whether it is a vowel and whether it is a voiced consonant (+ or -)."""


def other_utterances(split: str, bank: Sequence[Utterance]) -> list[Utterance]:
    """The sentences of ``bank``, which is that of ``split`` (tune or test), by every other speaker, neutral."""
    texts = {utterance.sentence: utterance.text for utterance in bank}
    out = []
    for speaker in SPEAKERS[split]:
        said = speak(list(texts.values()), speaker)
        for (sentence, text), (samples, phonemes) in zip(texts.items(), said, strict=True):
            out.append(
                Utterance(
                    key=f"{split}-{sentence:02d}-{speaker.name}-neutral",
                    text=text,
                    sentence=sentence,
                    voice=speaker.name,
                    mood="neutral",
                    split=split,
                    samples=samples,
                    phonemes=phonemes,
                )
            )
    return out


def speak(texts: Sequence[str], speaker: Speaker) -> list[tuple[np.ndarray, Phonemes]]:
    """Sentences: samples (S,) of each, and its phones with their ends in seconds."""
    from scipy import signal

    from training.face_world.build_speech import _set_loudness, _trim_pauses  # the bank's own, not the like of them

    tract = Fraction(speaker.tract).limit_denominator(100)
    out = []
    for samples, phones in _run_festival(texts, speaker):
        moved = signal.resample_poly(samples, tract.denominator, tract.numerator)
        trimmed, ends = _trim_pauses(moved, [(name, end / float(tract)) for name, end in phones])
        out.append((_set_loudness(trimmed, ends, 0.0).astype(np.float32), tuple(ends)))
    return out


def _run_festival(texts: Sequence[str], speaker: Speaker) -> list[tuple[np.ndarray, Phonemes]]:
    festival = shutil.which("festival")
    if festival is None:
        raise MediaError(f"festival is not on PATH; install it (Debian, Ubuntu: {PACKAGES}) and run this again")
    with tempfile.TemporaryDirectory() as folder:
        targets = [Path(folder, f"{number}.wav") for number in range(len(texts))]
        lines = [
            SAY,
            f"(voice_{speaker.voice}_diphone)",
            f"(Parameter.set 'Duration_Stretch {speaker.tract:.4f})",  # resampled to the tract, the tempo is back
            *(f"(say {json.dumps(t)} {json.dumps(str(path))})" for t, path in zip(texts, targets, strict=True)),
        ]
        script = Path(folder, "sentences.scm")
        script.write_text("\n".join(lines), encoding="utf-8")
        done = subprocess.run([festival, "-b", str(script)], capture_output=True, text=True, check=False)
        blocks = done.stdout.strip().split("\n\n")
        if done.returncode != 0 or not all(path.exists() for path in targets):
            reason = " ".join(done.stderr.split())[:80]
            raise MediaError(
                f"festival failed with voice {speaker.voice}: {reason}; if the voice is missing, install it "
                f"(Debian, Ubuntu: {PACKAGES})"
            )
        waves = [_read_wave(path, speaker) for path in targets]
    return [(samples, _phones(block, len(samples))) for samples, block in zip(waves, blocks, strict=True)]


def _read_wave(path: Path, speaker: Speaker) -> np.ndarray:
    with wave.open(str(path)) as recording:
        if (recording.getframerate(), recording.getnchannels(), recording.getsampwidth()) != (SAMPLE_RATE, 1, 2):
            raise MediaError(f"festival's voice {speaker.voice} is not 16 kHz mono 16 bit (Debian, Ubuntu: {PACKAGES})")
        return np.frombuffer(recording.readframes(recording.getnframes()), dtype="<i2") / 32768.0


def _phones(block: str, length: int) -> Phonemes:
    phones = []
    for line in block.splitlines():
        name, end, vowel, consonant = line.split()
        kind = "pau" if name in SILENCES else VOICED if "+" in (vowel, consonant) else VOICELESS
        phones.append((kind, min(float(end), length / SAMPLE_RATE)))
    return tuple(phones)
