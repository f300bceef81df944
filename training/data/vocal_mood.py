"""How strongly a mood is heard: the speech bank's sentences, said with a third, two thirds or all of their mood.

The bank says every mood at full strength and knows no contempt. Here an utterance is said again with other pitch,
liveliness, tempo, loudness and brightness: a mood at level l is the style of ``build_speech`` to the power l, so from
the bank's full mood it is style^(l - 1), and contempt is a style of its own. Everything is said again, also what does
not change, so that the method's traces tell nothing about the emotion.

Pitch, tempo and brightness of a voice one has never heard before say little about its mood: other voices are as high,
as quick, as lively when they are calm. What people hear across voices is in how a voice moves and sounds (Juslin and
Laukka 2003), so every emotion also has a ``COLOURS`` entry, ours: a tremor for fear, a lilt for happiness, breath for
sadness, harshness for anger, creak for disgust, a rising melody for surprise, a falling one for contempt.

Shapes: samples (S,) float32 16 kHz, phonemes ((name, end in seconds), ...)

Method: TD-PSOLA (pitch-synchronous overlap-add); pitch by autocorrelation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from training.face_world.speech import SAMPLE_RATE
from training.face_world.visemes import VOWELS

LEVELS = (1 / 3, 2 / 3, 1.0)
"""The three levels of an emotion, as intensities."""
HOP = 80
FRAME = 800
PITCH_RANGE = (60.0, 400.0)
TILT_HERTZ = 1500.0
TREMOR_HERTZ = 7.0
LILT_HERTZ = 3.0
VOICED = VOWELS | frozenset(("b", "d", "g", "m", "n", "ng", "l", "r", "w", "y", "v", "dh", "z", "jh", "zh", "er"))

Phonemes = tuple[tuple[str, float], ...]


@dataclass(frozen=True, kw_only=True)
class Voice:
    """Factors on pitch, pitch range and duration; decibels on loudness and on the band above ``TILT_HERTZ``.

    And the colours, all 0 in a plain voice: ``tremor`` and ``lilt`` are parts of the loudness that swing 7 and 3 times
    a second, and octaves of the pitch a fifth as large; ``harsh`` the random, ``creak`` the alternating part of the
    loudness of single pulses; ``breath`` noise as a part of the voice; ``rise`` octaves from first to last sound.
    """

    pitch: float = 1.0
    liveliness: float = 1.0
    stretch: float = 1.0
    gain_db: float = 0.0
    tilt_db: float = 0.0
    tremor: float = 0.0
    lilt: float = 0.0
    harsh: float = 0.0
    creak: float = 0.0
    breath: float = 0.0
    rise: float = 0.0

    def to_power(self, exponent: float) -> Voice:
        """This much of the change; 0 is none."""
        factors = {name: getattr(self, name) ** exponent for name in ("pitch", "liveliness", "stretch")}
        amounts = {name: getattr(self, name) * exponent for name in ("gain_db", "tilt_db", *COLOUR_NAMES)}
        return Voice(**factors, **amounts)


COLOUR_NAMES = ("tremor", "lilt", "harsh", "creak", "breath", "rise")
COLOURS: dict[str, dict[str, float]] = {
    "neutral": {},
    "angry": {"harsh": 0.8},
    "disgusted": {"creak": 0.6},
    "fear": {"tremor": 0.45},
    "happy": {"lilt": 0.45},
    "sad": {"breath": 0.5},
    "surprised": {"rise": 0.6},
    "contempt": {"rise": -0.6},
}
"""What an emotion at full level adds to a voice."""
CONTEMPT = Voice(pitch=0.90, liveliness=1.25, stretch=1.10, gain_db=-1.5, tilt_db=4.0)
"""Low, drawling and pressed (ours)."""


def bank_style(mood: str) -> Voice:
    """How the bank says a mood. Needs what the bank is built with (the extra ``train``)."""
    from training.face_world.build_speech import MOOD_STYLES

    style = MOOD_STYLES[mood]
    return Voice(
        pitch=style.pitch,
        liveliness=style.liveliness,
        stretch=style.stretch,
        gain_db=style.gain_db,
        tilt_db=style.tilt_db,
    )


def change_for(mood: str, emotion: str, level: float) -> Voice:
    """What turns an utterance that is said in full ``mood`` into ``emotion`` at ``level``."""
    said, wanted = bank_style(mood), CONTEMPT if emotion == "contempt" else bank_style(emotion)
    wanted = wanted.to_power(level)
    factors = {name: getattr(wanted, name) / getattr(said, name) for name in ("pitch", "liveliness", "stretch")}
    amounts = {name: getattr(wanted, name) - getattr(said, name) for name in ("gain_db", "tilt_db")}
    return Voice(**factors, **amounts, **{name: amount * level for name, amount in COLOURS[emotion].items()})


def said_again(
    samples: np.ndarray, phonemes: Phonemes, change: Voice, rng: np.random.Generator
) -> tuple[np.ndarray, Phonemes]:
    """The utterance with the change applied: samples (S * stretch,) float32 and the phonemes' new ends.

    ``rng`` draws phases, pulses and noise.
    """
    found, voiced = _pitch(samples, phonemes)
    centre = float(np.exp(np.log(found[voiced]).mean())) if voiced.any() else 120.0
    wanted = centre * change.pitch * (found / centre) ** change.liveliness
    moved = _overlap_add(samples.astype(np.float64), found, wanted, voiced, change, rng)
    if change.breath:
        loudness = np.sqrt(np.convolve(moved**2, np.hanning(FRAME) / np.hanning(FRAME).sum(), "same"))
        noise = np.diff(rng.normal(0.0, 1.0, len(moved) + 1))  # brighter than white, as breath is
        moved = moved * (1 - 0.5 * change.breath) + 0.35 * change.breath * loudness * noise
    spectrum = np.fft.rfft(moved)
    hertz = np.fft.rfftfreq(len(moved), 1 / SAMPLE_RATE)
    above = 1j * hertz / (1j * hertz + TILT_HERTZ)  # a first-order high-pass: a shelf, when added
    tilted = np.fft.irfft(spectrum * (1 + (10 ** (change.tilt_db / 20) - 1) * above), len(moved))
    louder = tilted * 10 ** (change.gain_db / 20)
    length = len(louder) / SAMPLE_RATE
    ends = tuple((name, min(end * change.stretch, length)) for name, end in phonemes)
    return np.clip(louder, -1.0, 1.0).astype(np.float32), ends


def _pitch(samples: np.ndarray, phonemes: Phonemes) -> tuple[np.ndarray, np.ndarray]:
    """(frames,) Hz and whether voiced, every ``HOP`` samples; unvoiced frames hold the median."""
    frames = len(samples) // HOP + 1
    padded = np.pad(samples.astype(np.float64), (FRAME // 2, FRAME))
    rows = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[: frames * HOP : HOP][:frames]
    rows = (rows - rows.mean(1, keepdims=True)) * np.hanning(FRAME)
    power = np.abs(np.fft.rfft(rows, 2 * FRAME)) ** 2
    likeness = np.fft.irfft(power)[:, :FRAME] / np.maximum(_window_likeness(), 1e-3)
    low, high = round(SAMPLE_RATE / PITCH_RANGE[1]), round(SAMPLE_RATE / PITCH_RANGE[0])
    # two periods are as alike as one: the shorter is meant
    lag = low + (likeness[:, low:high] * np.linspace(1.0, 0.8, high - low)).argmax(1)
    found = SAMPLE_RATE / lag
    seconds = np.arange(frames) * HOP / SAMPLE_RATE
    names = np.array([name for name, _ in phonemes])
    ends = np.array([end for _, end in phonemes])
    place = np.minimum(np.searchsorted(ends, seconds, side="right"), len(ends) - 1)
    voiced = np.isin(names[place], list(VOICED))
    centre = float(np.median(found[voiced])) if voiced.any() else 120.0
    voiced &= np.abs(np.log2(found / centre)) < 0.6  # an octave off is a mistake of the autocorrelation
    found = np.where(voiced, found, centre)
    smooth = np.lib.stride_tricks.sliding_window_view(np.pad(found, 4, mode="edge"), 9)
    return np.median(smooth, axis=1), voiced


def _window_likeness() -> np.ndarray:
    """The autocorrelation of the window itself, scaled to 1 at lag 0: what a perfectly periodic sound would lose."""
    power = np.abs(np.fft.rfft(np.hanning(FRAME), 2 * FRAME)) ** 2
    likeness = np.fft.irfft(power)[:FRAME]
    return likeness / likeness[0]


def _overlap_add(
    samples: np.ndarray,
    found: np.ndarray,
    wanted: np.ndarray,
    voiced: np.ndarray,
    change: Voice,
    rng: np.random.Generator,
) -> np.ndarray:
    """Two periods around every pitch mark, laid down again at the wanted spacing and loudness."""
    stretch = change.stretch
    phases = rng.uniform(0, 2 * math.pi, 2)
    marks = [0]  # one mark a period, on the peaks where voiced
    while marks[-1] < len(samples):
        frame = min(marks[-1] // HOP, len(found) - 1)
        period = SAMPLE_RATE / found[frame]
        low, high = marks[-1] + round(0.8 * period), marks[-1] + round(1.2 * period) + 1
        on_peak = voiced[frame] and high < len(samples)
        marks.append(low + int(samples[low:high].argmax()) if on_peak else marks[-1] + round(period))
    sources = np.array(marks)
    length = math.ceil(len(samples) * stretch)
    moved, weight = np.zeros(length), np.zeros(length)
    position, pulse = 0.0, 0
    while position < length:
        seconds = position / SAMPLE_RATE
        swings = (
            change.tremor * math.sin(2 * math.pi * TREMOR_HERTZ * seconds + phases[0]),
            change.lilt * math.sin(2 * math.pi * LILT_HERTZ * seconds + phases[1]),
        )
        source = position / stretch
        frame = min(int(source) // HOP, len(found) - 1)
        index = int(np.searchsorted(sources, source))
        near = sources[max(0, index - 1) : index + 1]
        nearest = int(near[np.abs(near - source).argmin()])
        reach, target = round(SAMPLE_RATE / found[frame]), round(position)
        before = min(reach, nearest, target)
        after = min(reach, len(samples) - nearest, length - target)
        if after > 0:
            window = np.hanning(2 * reach + 1)[reach - before : reach + after]
            gain = (1 + swings[0]) * (1 + swings[1])
            if voiced[frame]:
                gain *= max(0.1, 1 + change.harsh * rng.normal(0, 0.7)) * (1 + change.creak * (-1) ** pulse)
            moved[target - before : target + after] += gain * window * samples[nearest - before : nearest + after]
            weight[target - before : target + after] += window
        # voiceless stretches keep their own spacing, or noise would turn into a buzz
        melody = 2 ** (change.rise * (position / length - 0.5) + 0.2 * sum(swings))
        position += SAMPLE_RATE / (wanted[frame] * melody if voiced[frame] else found[frame])
        pulse += 1
    return moved / np.maximum(weight, 0.5)
