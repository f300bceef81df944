"""What an evaluation set holds for every way to say an emotion, one person at a time, beside ``evaluation_set.py``.

Shapes: S = 128 pixels of a portrait, s = 64 of what the instruments read, t frames, T frames of the voice's clip

    portrait_emotional (S, S, 3)           the person's portrait in an emotion that no clip of theirs asks for
    compound_NAME (t, s, s, 3)             true renders of the four trained compounds, and of one that was not trained
    compound_samples (n,)                  the recording that goes with them
    unit_calibration (600, s, s, 3), unit_truth (600, 20)   random action units while speaking, with the truth
    source_label                           the emotion that the following all say
    voice_samples (n,)                     a voice in the full mood, two sentences, said by a test voice
    other_voice_samples (n,), other_voice  where asked for: the same by a voice of another synthesiser, and its name
    reference_picture (S, S, 3)            somebody else showing it
    reference_frames (t, S, S, 3)          somebody else speaking with it

A pure function of the face world. Sentences and voices are those of the split.
"""

from __future__ import annotations

import numpy as np

from moee_core.emotion.vocabulary import COMPOUNDS, TRAINED_COMPOUNDS
from moee_core.metrics.evaluate import LABEL_ORDER
from moee_core.metrics.instrument import SIDE, downsized
from moee_core.motion.coefficients import UNITS
from training.data.motion_clips import joined_parts
from training.data.vocal_mood import change_for, said_again
from training.face_world import performance as world
from training.face_world.identity import Identity
from training.face_world.render import render
from training.face_world.rig import AU_NAMES, FaceState
from training.face_world.speech import Utterance
from training.face_world.splits import person, split_rng
from training.face_world.visemes import VISEME_OF

FRAMES = 24
UNIT_PICTURES = 600
IMAGE_SIZE = 128
PURPOSE = 19
OTHER_PURPOSE = 25
STRANGER = 1000
"""Whoever shows the reference is person number + this."""


def sources_of(
    split: str, number: int, utterances: list[Utterance], taken: set[str], pose: np.ndarray
) -> dict[str, np.ndarray]:
    """Everything named above; ``taken`` are the labels of the person's clips, ``pose`` (5,) is how they hold their head
    in every picture: the readers are calibrated at it, and misread true renders at another one."""
    rng = split_rng(split, number, purpose=PURPOSE)
    identity = person(split, number)
    free = [label for label in LABEL_ORDER[1:] if label not in taken]
    other = world.vector({str(rng.choice(free)): float(rng.uniform(0.7, 1.1))})
    opening = float(rng.choice([0.0, 0.3]))
    out = {
        "portrait_emotional": render(
            identity, world.portrait_state(pose, other, identity.expressiveness, opening), IMAGE_SIZE
        )
    }
    out |= _compounds(rng, number, identity, pose, utterances)
    out |= _units(rng, identity, pose)
    label = source_label(number)
    vector = world.vector({} if label == "neutral" else {label: 1.0})
    stranger = person(split, number + STRANGER)
    away = world.reference_pose(rng)
    utterance = utterances[rng.integers(len(utterances))]
    track = np.tile(vector, (FRAMES, 1))
    act = world.perform(rng, stranger, track, samples=utterance.samples, phonemes=utterance.phonemes, base_pose=away)
    return out | {
        "source_label": np.array(label),
        "voice_samples": voice_in_mood(rng, label, utterances).astype(np.float16),
        "reference_picture": render(stranger, world.portrait_state(away, vector, stranger.expressiveness), IMAGE_SIZE),
        "reference_frames": act.render(stranger, IMAGE_SIZE),
    }


def source_label(number: int) -> str:
    """What a person's sources all say."""
    return LABEL_ORDER[(3 * number + 1) % len(LABEL_ORDER)]


def other_voice(split: str, number: int, utterances: list[Utterance]) -> dict[str, np.ndarray]:
    """``other_voice_samples`` and who says it, from ``other_voices.other_utterances``: every speaker in turn."""
    names = sorted({utterance.voice for utterance in utterances})
    name = names[number % len(names)]
    rng = split_rng(split, number, purpose=OTHER_PURPOSE)  # of its own: the rest of a set is the same without it
    samples = voice_in_mood(rng, source_label(number), [u for u in utterances if u.voice == name])
    return {"other_voice_samples": samples.astype(np.float16), "other_voice": np.array(name)}


def voice_in_mood(rng: np.random.Generator, label: str, utterances: list[Utterance]) -> np.ndarray:
    """(n,) two sentences of one voice, said in the full mood of ``label``."""
    first = utterances[rng.integers(len(utterances))]
    same = [u for u in utterances if u.voice == first.voice]
    pair = [first, same[rng.integers(len(same))]]
    parts = [said_again(u.samples, u.phonemes, change_for(u.mood, label, 1.0), rng) for u in pair]
    return joined_parts(parts)[0]


def _compounds(
    rng: np.random.Generator, number: int, identity: Identity, pose: np.ndarray, utterances: list[Utterance]
) -> dict[str, np.ndarray]:
    neutral = [u for u in utterances if u.mood == "neutral"]
    utterance = neutral[rng.integers(len(neutral))]
    untrained = [name for name in COMPOUNDS if name not in TRAINED_COMPOUNDS]
    out = {"compound_samples": utterance.samples[: FRAMES * 640].astype(np.float16)}
    for name in (*TRAINED_COMPOUNDS, untrained[number % len(untrained)]):
        emotion = np.tile(world.vector(dict.fromkeys(COMPOUNDS[name], 0.5)), (FRAMES, 1))
        act = world.perform(
            np.random.default_rng(number), identity, emotion, samples=utterance.samples,
            phonemes=utterance.phonemes, base_pose=pose, blinking=False,
        )  # fmt: skip
        out[f"compound_{name}"] = np.stack([downsized(frame, SIDE) for frame in act.render(identity, IMAGE_SIZE)])
    return out


def _units(rng: np.random.Generator, identity: Identity, pose: np.ndarray) -> dict[str, np.ndarray]:
    shapes = [target for targets in VISEME_OF.values() for target in targets]
    pictures, truth = [], []
    for _ in range(UNIT_PICTURES):
        units = np.zeros(len(AU_NAMES), np.float32)
        units[: len(UNITS)] = world.random_units(rng)
        viseme = np.array(shapes[rng.integers(len(shapes))], np.float32) * rng.uniform(0.0, 1.0)
        viseme[0] *= 1 - min(1.0, viseme[3])
        sway = np.array([*rng.normal(0, [0.012, 0.02, 0.016]), 0.0, 0.0], np.float32)
        state = FaceState(action_units=units, viseme=np.clip(viseme, [0, -1, 0, 0], 1), pose=pose + sway)
        pictures.append(render(identity, state, SIDE))
        truth.append(units[: len(UNITS)])
    return {"unit_calibration": np.stack(pictures), "unit_truth": np.stack(truth)}
