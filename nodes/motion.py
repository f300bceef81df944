"""Motion from Speech, Motion from Video, Load Motion, Save Motion, Edit Motion, Swap Motion Part, Plot Motion."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import comfy.utils
import folder_paths
import numpy as np
import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..moee_core.audio.encoder import SpeechEncoder
from ..moee_core.audio.hubert import HubertFeatures, load_hubert
from ..moee_core.emotion.source import EmotionSource, as_source
from ..moee_core.emotion.timeline import parse_emotion
from ..moee_core.motion.coefficients import FACE, Motion
from ..moee_core.motion.files import read_motion, save_motion
from ..moee_core.motion.generate import MotionSettings, speech_motion
from ..moee_core.motion.mouth import load_ear
from ..moee_core.motion.plot import plot
from ..moee_core.renderer.detector import meshes_of, meshes_of_landmarks
from ..moee_core.systems.emo_talker import MODES, EmoTalkerSystem
from ..moee_core.systems.emo_talker import MotionSettings as EmoTalkerSettings
from ..moee_core.tracking.track import motion_of_meshes
from ..moee_core.weights.emo_talker import load_emo_talker
from . import host
from .conditions import waveform_of
from .emotion import problem
from .sample import EMOTION_TIP
from .sockets import Emotion, LandmarksSocket, MotionSocket

CATEGORY = "MoEE talking portrait/motion"
PARTS = ["pose", "lip", "expression", "face", "all"]
OWN_EAR = "none (the checkpoint's own ear)"
NO_MOTION = "none (put .npz files into ComfyUI's input folder)"


def factor(name: str, tooltip: str) -> io.Float.Input:
    return io.Float.Input(name, default=1.0, min=0.0, max=2.0, step=0.05, tooltip=tooltip)


def motion_files() -> list[str]:
    """Motions in the input folder and its folder motion, SadTalker's coefficients among them."""
    root = Path(folder_paths.get_input_directory())
    found = [path for pattern in ("*.npz", "*.mat", "motion/*.npz", "motion/*.mat") for path in root.glob(pattern)]
    return sorted(path.relative_to(root).as_posix() for path in found)


class MotionFromSpeech(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        mouth = factor("mouth_amplitude", "How far the mouth opens; 0 keeps it shut.")
        strength = factor("expressiveness", "How strong emotions and brows are.")
        head = factor("head_motion", "How much the head sways and nods; 0 holds it still.")
        blinks = io.Float.Input(
            "blinks_per_minute", default=16.0, min=0.0, max=60.0, step=1.0, tooltip="0 never blinks; people: 10-20."
        )
        gaze = factor("gaze_motion", "How far the eyes wander; 0 looks straight ahead.")
        found = host.emotalkers()
        learned = [
            io.Combo.Input(
                "checkpoint",
                options=found,
                default=found[0],
                tooltip="The small one that ships with the pack, or a .safetensors file in models/moee/emotalker.",
            ),
            io.Combo.Input(
                "hubert",
                options=[OWN_EAR, *host.hubert_folders()],
                default=OWN_EAR,
                tooltip="A HuBERT folder in models/moee/hubert, for a checkpoint that listens through it.",
            ),
            io.Combo.Input(
                "mode",
                options=list(MODES),
                default=MODES[0],
                tooltip="'continuous' is smoothest, 'snap' keeps to learned codes, 'sample' differs with the seed.",
            ),
            io.Float.Input(
                "temperature", default=1.0, min=0.05, max=5.0, step=0.05, tooltip="For 'sample': above 1 is wilder."
            ),
            mouth,
            strength,
            head,
            blinks,
        ]
        return io.Schema(
            node_id="MoEEMotionFromSpeech",
            display_name="Motion from Speech",
            category=CATEGORY,
            description="What a face does while it says a recording: mouth, emotion, blinks, head and eyes as curves "
            "that can be plotted, saved, edited and put on any portrait.",
            inputs=[
                io.Audio.Input("audio", tooltip="One voice and little behind it. The motion is as long as this."),
                io.MultiType.Input(io.String.Input("emotion", default="happy", tooltip=EMOTION_TIP), [Emotion]),
                io.Float.Input("fps", default=25.0, min=1.0, max=120.0, step=0.01, tooltip="Frames a second."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFF,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip="Other blinks, looks and sways.",
                ),
                io.DynamicCombo.Input(
                    "generator",
                    options=[
                        io.DynamicCombo.Option("process", [mouth, strength, head, gaze, blinks]),
                        io.DynamicCombo.Option("emotalker", learned),
                    ],
                    tooltip="'process': heard mouth, the emotion you ask for, random blinks. 'emotalker' hears the "
                    "emotion in the voice and does not use yours.",
                ),
            ],
            outputs=[MotionSocket.Output(display_name="motion"), io.Int.Output(display_name="frames")],
        )

    @classmethod
    def validate_inputs(cls, emotion: str | None = None, generator: object = None) -> bool | str:
        """``generator`` must be taken: the host hands dynamic groups to every validation."""
        return problem(emotion) or True

    @classmethod
    def execute(cls, audio: dict, emotion: Any, fps: float, seed: int, generator: dict) -> io.NodeOutput:
        given = dict(generator)
        if given.pop("generator") == "emotalker":
            motion = _heard(audio, fps, seed, given)
        else:
            source = emotion if isinstance(emotion, EmotionSource) else as_source(parse_emotion(emotion))
            listener = _emotalker(host.emotalker_path(host.EMBEDDED), 0.0).ear if source.voice else None
            settings = MotionSettings(seed=seed, **{key: float(value) for key, value in given.items()})
            motion = speech_motion(_ear(), waveform_of(audio), source, fps=fps, settings=settings, mood_ear=listener)
        return io.NodeOutput(motion, len(motion))


def _heard(audio: dict, fps: float, seed: int, given: dict[str, Any]) -> Motion:
    """EmoTalker's motion; the sliders scale what it made."""
    path = host.emotalker_path(given["checkpoint"])
    system = _emotalker(path, Path(path).stat().st_mtime)
    features = None if given["hubert"] == OWN_EAR else _hubert(str(host.hubert_folders()[given["hubert"]]))
    settings = EmoTalkerSettings(
        mode=given["mode"],
        temperature=float(given["temperature"]),
        seed=seed,
        blinks_per_minute=float(given["blinks_per_minute"]),
    )
    motion = system.generate(waveform_of(audio), fps, settings, features=features)
    sliders = {"lip": "mouth_amplitude", "expression": "expressiveness", "pose": "head_motion"}
    for part, slider in sliders.items():
        amount = float(given[slider])
        motion = motion.scaled(part, amount) if amount != 1.0 else motion
    return motion


@lru_cache(maxsize=1)
def _emotalker(path: str, _written: float) -> EmoTalkerSystem:
    """On the CPU: a million and a half parameters that run token after token are faster there."""
    return load_emo_talker(path)[0]


@lru_cache(maxsize=1)
def _hubert(folder: str) -> HubertFeatures:
    return load_hubert(folder)


@lru_cache(maxsize=1)
def _ear() -> SpeechEncoder:
    return load_ear()


class MotionFromVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoEEMotionFromVideo",
            display_name="Motion from Video",
            category=CATEGORY,
            description="Follows the face in a video: head, mouth, brows, lids and gaze as a motion for any portrait.",
            inputs=[
                io.Float.Input("fps", default=25.0, min=1.0, max=240.0, step=0.01, tooltip="Of the video's frames."),
                io.Float.Input(
                    "calm_at",
                    default=-1.0,
                    min=-1.0,
                    max=36000.0,
                    step=0.01,
                    tooltip="Seconds into the video at which the person is at rest; -1 looks for such a moment.",
                ),
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="The frames, with one face from the front. Needs the Python package mediapipe.",
                ),
                LandmarksSocket.Input(
                    "face_landmarks",
                    optional=True,
                    tooltip="From ComfyUI's Detect Face Landmarks (MediaPipe); the frames are not needed then.",
                ),
            ],
            outputs=[MotionSocket.Output(display_name="motion"), io.Int.Output(display_name="frames")],
        )

    @classmethod
    def execute(
        cls, fps: float, calm_at: float, images: Tensor | None = None, face_landmarks: Any = None
    ) -> io.NodeOutput:
        if face_landmarks is not None:
            meshes, looked_at = meshes_of_landmarks(face_landmarks)[0], 0
        elif images is not None:
            meshes, looked_at = _meshes(images), len(images)
        else:
            raise ValueError("Motion from Video needs the frames in 'images', or 'face_landmarks': connect one of them")
        total = looked_at + len(meshes)
        bar = comfy.utils.ProgressBar(total)

        def solved(done: int, _of: int) -> None:
            mm.throw_exception_if_processing_interrupted()
            bar.update_absolute(looked_at + done, total)

        motion = motion_of_meshes(meshes, fps, calm_at=None if calm_at < 0 else calm_at, progress=solved)
        return io.NodeOutput(motion, len(motion))


def _meshes(images: Tensor) -> np.ndarray:
    """(F, 478, 3) by the installed detector, frame by frame."""
    bar = comfy.utils.ProgressBar(2 * len(images))

    def frames() -> Iterator[np.ndarray]:
        for i, image in enumerate(images):
            mm.throw_exception_if_processing_interrupted()
            bar.update_absolute(i, 2 * len(images))
            yield (image[..., :3].float().cpu().clamp(0, 1) * 255).round().byte().numpy()

    return np.stack(list(meshes_of(frames())))


class LoadMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        found = motion_files() or [NO_MOTION]
        return io.Schema(
            node_id="MoEELoadMotion",
            display_name="Load Motion",
            category=CATEGORY,
            description="A motion that was saved, or SadTalker's coefficients (.npz, .mat), from the input folder.",
            inputs=[
                io.Combo.Input("file", options=found, default=found[0], tooltip="A file in ComfyUI's input folder."),
            ],
            outputs=[MotionSocket.Output(display_name="motion"), io.Int.Output(display_name="frames")],
        )

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        motion = read_motion(folder_paths.get_annotated_filepath(file))
        return io.NodeOutput(motion, len(motion))

    @classmethod
    def validate_inputs(cls, file: str) -> bool | str:
        try:
            read_motion(folder_paths.get_annotated_filepath(file))
        except (OSError, ValueError) as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, file: str) -> float:
        """Read again when the file was written anew."""
        path = Path(folder_paths.get_annotated_filepath(file))
        return path.stat().st_mtime if path.is_file() else 0.0


class SaveMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoEESaveMotion",
            display_name="Save Motion",
            category=CATEGORY,
            description="Writes a motion as .npz with names, units, rate. To load it, copy it into the input folder.",
            inputs=[
                MotionSocket.Input("motion", tooltip="From any node that makes one."),
                io.String.Input("filename_prefix", default="motion/motion", tooltip="Below ComfyUI's output folder."),
            ],
            outputs=[MotionSocket.Output(display_name="motion"), io.String.Output(display_name="path")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, motion: Motion, filename_prefix: str) -> io.NodeOutput:
        folder, name, counter, _, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory(), 0, 0
        )
        path = Path(folder) / f"{name}_{counter:05}_.npz"
        save_motion(path, motion)
        return io.NodeOutput(motion, str(path), ui=ui.PreviewText(str(path)))


class EditMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoEEEditMotion",
            display_name="Edit Motion",
            category=CATEGORY,
            description="Makes parts of a motion stronger or weaker, and holds or adds single coefficients.",
            inputs=[
                MotionSocket.Input("motion", tooltip="From any node that makes one."),
                factor("lips", "The mouth that speech moves."),
                factor("expression", "Action units, lids and gaze."),
                factor("pose", "Turning and shifting of the head."),
                io.String.Input(
                    "set",
                    default="",
                    multiline=True,
                    tooltip="Coefficients to hold (AU12L = 0.5) or to add to (yaw += 0.1), one a line or split by ';'.",
                ),
            ],
            outputs=[MotionSocket.Output(display_name="motion")],
        )

    @classmethod
    def execute(cls, motion: Motion, lips: float, expression: float, pose: float, set: str) -> io.NodeOutput:
        for part, amount in (("lip", lips), ("expression", expression), ("pose", pose)):
            motion = motion.scaled(part, amount) if amount != 1.0 else motion
        return io.NodeOutput(motion.with_text(set))

    @classmethod
    def validate_inputs(cls, set: str | None = None) -> bool | str:
        """A text for another space than the motion's is found when the motion is there."""
        return True if set is None else FACE.problem(set) or True


class SwapMotionPart(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoEESwapMotion",
            display_name="Swap Motion Part",
            category=CATEGORY,
            description="Takes the head, the lips or the expression from another motion and leaves the rest as it is.",
            inputs=[
                MotionSocket.Input("motion", tooltip="Keeps everything but the part."),
                MotionSocket.Input("driving", tooltip="Gives the part; a shorter one holds its last frame."),
                io.Combo.Input("part", options=PARTS, default="pose", tooltip="What the driving motion gives."),
            ],
            outputs=[MotionSocket.Output(display_name="motion")],
        )

    @classmethod
    def execute(cls, motion: Motion, driving: Motion, part: str) -> io.NodeOutput:
        return io.NodeOutput(motion.with_part_of(driving, part))


class PlotMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoEEPlotMotion",
            display_name="Plot Motion",
            category=CATEGORY,
            description="The curves of a motion as a picture: mouth, action units, lids and gaze, head.",
            inputs=[
                MotionSocket.Input("motion", tooltip="From any node that makes one."),
                io.Int.Input("width", default=960, min=320, max=4096, tooltip="Pixels; height follows."),
            ],
            outputs=[io.Image.Output(display_name="image")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, motion: Motion, width: int) -> io.NodeOutput:
        image = torch.from_numpy(plot(motion, width)).float()[None] / 255
        return io.NodeOutput(image, ui=ui.PreviewImage(image, cls=cls))
