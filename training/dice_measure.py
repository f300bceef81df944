"""What is measured of a DICE-Talk: clips of unseen people, read back by the instruments of an evaluation set.

Shapes: F frames, S = 128 pixels, P prior width, U units

Instruments (``moee_core/metrics/instrument.py``): FaceReader for emotion and action units, IdentityReader for identity.
Both are calibrated on true renders and know nothing of any model. F-SIM[discriminant] stands for the paper's F-SIM: the
cosine between a clip and the person's own centre in the space of the IdentityReader, both seen from the mean of all
people.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from moee_core.audio.encoder import encode_speech
from moee_core.emotion.prior_embedder import Embedded
from moee_core.emotion.reference import read_units
from moee_core.emotion.vocabulary import LABELS
from moee_core.metrics.evaluate import LABEL_ORDER
from moee_core.metrics.instrument import FaceReader, IdentityReader, features
from moee_core.portrait.face_box import mask_of
from moee_core.systems.dice_pipeline import DiceAround, DicePicture, animate_dice, dice_conditions, prior_of_clip
from moee_core.systems.dice_talk import DiceSampling, DiceTalkSystem
from moee_core.systems.moee import MoEESystem
from moee_core.video.frames import num_frames
from moee_core.weights.expression_reader import load_expression_reader

ONE_STEP = DiceSampling(steps=1, reference_guidance=1.0, audio_guidance=1.0, emotion_guidance=1.0)
"""As the small model is best sampled."""
SHARING = 0.2
"""Part of the noise that frames have in common, as in training."""

Maker = Callable[[dict[str, np.ndarray], np.ndarray, Tensor], np.ndarray]
"""A person of the set, samples (n,) 16 kHz, priors (1 or F, P) -> (F, S, S, 3) uint8."""


def maker(system: DiceTalkSystem, around: MoEESystem, sampling: DiceSampling = ONE_STEP, seed: int = 0) -> Maker:
    """The whole chain with the autoencoder and the ears of ``around``."""
    coded = DiceAround(encode=around.autoencoder.encode, decode=around.autoencoder.decode)
    fps = system.config.fps

    def make(person: dict[str, np.ndarray], samples: np.ndarray, priors: Tensor) -> np.ndarray:
        portrait = person["portrait"]
        frames = num_frames(len(samples), 16000, fps)
        heard = encode_speech(around.speech_encoder, torch.from_numpy(samples.astype(np.float32)), frames, fps)
        shape = (portrait.shape[0], portrait.shape[1])
        x0, y0, x1, y1 = (float(value) for value in person["neutral_face"])
        seen = DicePicture(picture_HW3=portrait, mask_3HW=mask_of((x0, y0, x1, y1), shape, shape).clamp(0, 1))
        given = dice_conditions(system, seen, heard.features_TLD, priors, frames, coded)
        return np.stack(list(animate_dice(system, given, coded, sampling, seed=seed, sharing=SHARING)))

    return make


def named_prior(system: DiceTalkSystem, label: str, intensity: float = 1.0) -> Tensor:
    """(1, P): from neutral towards a label's prior."""
    neutral, target = system.priors.weight[0], system.priors.weight[LABELS.index(label)]
    return (neutral + intensity * (target - neutral))[None].detach()


def video_prior(
    system: DiceTalkSystem, around: MoEESystem, frames: np.ndarray | None, samples: np.ndarray | None, fps: float = 25.0
) -> Embedded:
    """Of a video of somebody (F, S, S, 3) uint8, of a voice (n,), or of both."""
    units = None if frames is None else read_units(_reader(), frames)
    heard = None if samples is None else torch.from_numpy(samples.astype(np.float32))
    return prior_of_clip(system, units, fps, around.ear, heard)


@functools.cache
def _reader():
    return load_expression_reader()


@dataclass(frozen=True)
class Readers:
    """Of the people of a set."""

    faces: list[FaceReader]
    who: IdentityReader

    @staticmethod
    def of(people: list[dict[str, np.ndarray]]) -> Readers:
        faces = [FaceReader(one["calibration"], one["mouth"], one["units"], one["label"]) for one in people]
        return Readers(faces, IdentityReader([one["calibration"] for one in people]))

    def similarity(self, frames: np.ndarray, number: int) -> float:
        """F-SIM[discriminant], -1 to 1."""
        who = self.who
        clip = (((features(frames) - who.mean) @ who.basis) @ who.whiten).mean(axis=0)
        middle = who.centres.mean(axis=0)
        a, b = clip - middle, who.centres[number] - middle
        return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-9))

    def emotion(self, frames: np.ndarray, number: int) -> str:
        """Of ``LABEL_ORDER``."""
        return LABEL_ORDER[int(self.faces[number].read(frames)[2].mean(axis=0).argmax())]

    def units(self, frames: np.ndarray, number: int) -> np.ndarray:
        """(F, U)."""
        return self.faces[number].read(frames)[1]


def emotions_and_identity(
    make: Maker,
    system: DiceTalkSystem,
    around: MoEESystem,
    people: list[dict[str, np.ndarray]],
    readers: Readers,
    labels_each: int = 2,
) -> dict[str, float]:
    """Shares of clips in which the emotion asked for is read, by a label's prior and by the face of somebody else in a
    video; and whether the person is still the person. Labels are asked for in turn."""
    by_name, by_video, who, alike = [], [], [], []
    for number, person in enumerate(people):
        samples = person["neutral_samples"][:16000].astype(np.float32)
        for turn in range(labels_each):
            label = LABEL_ORDER[(number * labels_each + turn) % len(LABEL_ORDER)]
            made = make(person, samples, named_prior(system, label))
            by_name.append(readers.emotion(made, number) == label)
            who.append(readers.who.identify(made) == number)
            alike.append(readers.similarity(made, number))
        label = str(person["source_label"])
        prior = video_prior(system, around, person["reference_frames"], None).mean_BD
        made = make(person, samples, prior)
        by_video.append(readers.emotion(made, number) == label)
        who.append(readers.who.identify(made) == number)
        alike.append(readers.similarity(made, number))
    return {
        "named": float(np.mean(by_name)),
        "video": float(np.mean(by_video)),
        "identity": float(np.mean(who)),
        "F-SIM[discriminant]": float(np.mean(alike)),
    }
