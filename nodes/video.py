"""Talking Portrait Video: latents and sound into one file, a few frames at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.model_management as mm
import comfy.utils
import folder_paths
import numpy as np
from comfy_api.latest import InputImpl, io, ui

from ..moee_core.video.encode import VideoWriter
from .conditions import waveform_of

BATCH = 8
"""Frames decoded at once: memory does not grow with the video."""


class VideoCombine(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoEEVideoCombine",
            display_name="Talking Portrait Video",
            category="MoEE talking portrait",
            description="Decodes and saves the video with its sound; memory does not grow with its length.",
            inputs=[
                io.Latent.Input("latent", tooltip="From Talking Portrait Sampler, or from any core sampler."),
                io.Vae.Input("vae", tooltip="The checkpoint's VAE."),
                io.Audio.Input("audio", optional=True, tooltip="The recording; without it the video is silent."),
                io.Float.Input(
                    "fps", default=25.0, min=1.0, max=120.0, step=0.01, tooltip="25 for the model that ships."
                ),
                io.String.Input(
                    "filename_prefix", default="video/talking_portrait", tooltip="Below ComfyUI's output folder."
                ),
                io.Int.Input("crf", default=18, min=0, max=51, tooltip="Quality: 0 is lossless, 18 looks it."),
            ],
            outputs=[io.Video.Output(display_name="video")],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls, latent: dict, vae: Any, fps: float, filename_prefix: str, crf: int, audio: dict | None = None
    ) -> io.NodeOutput:
        samples = latent["samples"]
        waveform = None if audio is None else waveform_of(audio)
        first = _pictures(vae, samples[:1])
        height, width = first.shape[1:3]
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory(), width, height
        )
        path = Path(folder) / f"{name}_{counter:05}_.mp4"
        bar = comfy.utils.ProgressBar(len(samples))
        with VideoWriter(path, width=width, height=height, fps=fps, waveform=waveform, crf=crf) as writer:
            for start in range(0, len(samples), BATCH):
                mm.throw_exception_if_processing_interrupted()
                for picture in _pictures(vae, samples[start : start + BATCH]):
                    writer.write(picture)
                bar.update_absolute(min(start + BATCH, len(samples)), len(samples))
        shown = ui.PreviewVideo([ui.SavedResult(path.name, subfolder, io.FolderType.output)])
        return io.NodeOutput(InputImpl.VideoFromFile(str(path)), ui=shown)


def _pictures(vae: Any, samples: Any) -> np.ndarray:
    """(N, H, W, 3) uint8."""
    pictures = vae.decode(samples.float())
    return (pictures[..., :3].float().cpu().clamp(0, 1) * 255).round().byte().numpy()
