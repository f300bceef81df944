"""Render Motion: a motion on a portrait, at once and without weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.model_management as mm
import comfy.utils
import folder_paths
from comfy_api.latest import InputImpl, io, ui

from ..moee_core.motion.coefficients import FACE, Motion, MotionError
from ..moee_core.renderer.instant import InstantRenderer
from ..moee_core.video.encode import VideoWriter
from .conditions import waveform_of
from .motion import CATEGORY
from .sockets import Face, FaceOnPicture, MotionSocket

BATCH = 8


class RenderMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoEERenderMotion",
            display_name="Render Motion",
            category=CATEGORY,
            description="Moves the portrait itself: any photograph, painting or cartoon, in seconds on a CPU. "
            "A preview: small turns and clear expressions, not a photograph of what was never seen.",
            inputs=[
                Face.Input("face", tooltip="From Face Points."),
                MotionSocket.Input("motion", tooltip="From Motion from Speech or any node that makes one."),
                io.Audio.Input("audio", optional=True, tooltip="The recording; without it the video is silent."),
                io.String.Input("filename_prefix", default="video/instant", tooltip="Below ComfyUI's output folder."),
                io.Int.Input("crf", default=18, min=0, max=51, tooltip="Quality: 0 is lossless, 18 looks it."),
            ],
            outputs=[io.Video.Output(display_name="video")],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls, face: FaceOnPicture, motion: Motion, filename_prefix: str, crf: int, audio: Any = None
    ) -> io.NodeOutput:
        if motion.space is not FACE:
            raise MotionError(
                f"Render Motion draws motions of the space 'face', this one is of {motion.space.name!r}; use Swap "
                "Motion Part to take its pose over"
            )
        height, width = face.picture.shape[:2]
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory(), width, height
        )
        path = Path(folder) / f"{name}_{counter:05}_.mp4"
        waveform = None if audio is None else waveform_of(audio)
        bar = comfy.utils.ProgressBar(len(motion))
        renderer = InstantRenderer(face.picture, face.points)
        with VideoWriter(path, width=width, height=height, fps=motion.fps, waveform=waveform, crf=crf) as writer:
            for i, frame in enumerate(renderer.frames(motion)):
                writer.write(frame)
                if i % BATCH == 0 or i + 1 == len(motion):
                    mm.throw_exception_if_processing_interrupted()
                    bar.update_absolute(i + 1, len(motion))
        shown = ui.PreviewVideo([ui.SavedResult(path.name, subfolder, io.FolderType.output)])
        return io.NodeOutput(InputImpl.VideoFromFile(str(path)), ui=shown)
