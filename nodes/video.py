"""Talking Portrait Video: latents and sound into one file, a few frames at a time; Load Frame Interpolation."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import comfy.utils
import folder_paths
import numpy as np
import torch
from comfy_api.latest import InputImpl, io, ui
from torch import Tensor

from ..moee_core.systems.dice_pipeline import DECODED_AT_ONCE
from ..moee_core.video.encode import VideoWriter
from ..moee_core.video.frames import num_frames
from ..moee_core.video.interpolate import count_before, doubled
from . import dice_models as dice
from .conditions import waveform_of
from .dice_sockets import CLIP_SHOWN, Interpolation

INTERPOLATION_MEMORY = 1 << 30
"""Bytes beside the weights for two frames of a large picture."""
NO_FILE = "none (put flownet.pkl into models/moee/rife)"
"""Always a choice: a workflow saved before there was any file still loads."""


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
                    "fps",
                    default=25.0,
                    min=1.0,
                    max=120.0,
                    step=0.01,
                    tooltip="Of the latents: 25 for the models that ship, 12.5 for the published DICE-Talk.",
                ),
                io.String.Input(
                    "filename_prefix", default="video/talking_portrait", tooltip="Below ComfyUI's output folder."
                ),
                io.Int.Input("crf", default=18, min=0, max=51, tooltip="Quality: 0 is lossless, 18 looks it."),
                Interpolation.Input(
                    "interpolation",
                    optional=True,
                    tooltip="From Load Frame Interpolation: one more frame between every two, and twice the fps.",
                ),
            ],
            outputs=[io.Video.Output(display_name="video")],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        latent: dict,
        vae: Any,
        fps: float,
        filename_prefix: str,
        crf: int,
        audio: dict | None = None,
        interpolation: Any = None,
    ) -> io.NodeOutput:
        factor = 1 if interpolation is None else 2
        samples, wanted = _of_clip(latent, fps, factor)
        waveform = None if audio is None else waveform_of(audio)
        pictures = _decoded(vae, samples)
        if interpolation is not None:
            pictures = _doubled(pictures, interpolation)
        first = next(pictures)
        height, width = first.shape[:2]
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory(), width, height
        )
        path = Path(folder) / f"{name}_{counter:05}_.mp4"
        bar = comfy.utils.ProgressBar(wanted)
        with VideoWriter(path, width=width, height=height, fps=factor * fps, waveform=waveform, crf=crf) as writer:
            for number, picture in enumerate(islice(chain([first], pictures), wanted)):
                writer.write(picture)
                bar.update_absolute(number + 1, wanted)
        shown = ui.PreviewVideo([ui.SavedResult(path.name, subfolder, io.FolderType.output)])
        return io.NodeOutput(InputImpl.VideoFromFile(str(path)), ui=shown)


def _of_clip(latent: dict, fps: float, factor: int) -> tuple[Tensor, int]:
    """The latents to decode and the frames to show: of a clip that knows its recording no more than that has, without
    its padding."""
    samples, clip = latent["samples"], latent.get(CLIP_SHOWN)
    most = factor * (len(samples) - 1) + 1
    if clip is None:
        return samples, most
    if abs(clip.fps - fps) > 1e-6:
        raise ValueError(
            f"these frames are drawn at {clip.fps:g} a second and fps is {fps:g}: connect the fps of the sampler; for "
            "more frames a second connect Load Frame Interpolation"
        )
    wanted = min(num_frames(clip.samples, clip.sample_rate, factor * fps), most)
    return samples[: count_before(wanted, factor)], wanted


def _decoded(vae: Any, samples: Tensor) -> Iterator[np.ndarray]:
    """(H, W, 3) uint8, decoded a few at a time."""
    for at, part in enumerate(samples.split(DECODED_AT_ONCE)):
        mm.throw_exception_if_processing_interrupted()
        pictures = vae.decode(part.float())[..., :3].float().cpu()
        for number, picture in enumerate(pictures, at * DECODED_AT_ONCE):
            if not bool(torch.isfinite(picture).all()):
                raise ValueError(_black(number, bool(torch.isfinite(part).all())))
        yield from (pictures.clamp(0, 1) * 255).round().byte().numpy()


def _black(frame: int, sound: bool) -> str:
    """Why a frame would be black. ``sound``: the latents hold numbers."""
    if sound:
        return (
            f"the VAE makes NaN or infinite values of frame {frame}; connect the VAE of the same checkpoint, or let it "
            "compute in fp32 (start ComfyUI with --fp32-vae) or bf16"
        )
    return (
        f"the latent of frame {frame} holds NaN or infinite values, so there is no picture in it; load the model's "
        "weights as bf16 or fp32 (weight_dtype) and sample again"
    )


def _doubled(pictures: Iterator[np.ndarray], interpolation: Any) -> Iterator[np.ndarray]:
    """Twice as many less one, the network loaded anew where decoding has pushed it out."""

    def on_pair(_pairs: int) -> None:
        mm.throw_exception_if_processing_interrupted()
        mm.load_models_gpu([interpolation], memory_required=INTERPOLATION_MEMORY)

    mm.load_models_gpu([interpolation], memory_required=INTERPOLATION_MEMORY)
    return doubled(pictures, interpolation.model, on_pair, device=interpolation.load_device)


class LoadRIFE(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        files = [*dice.rife_files(), NO_FILE]
        return io.Schema(
            node_id="MoEELoadRIFE",
            display_name="Load Frame Interpolation",
            category="MoEE talking portrait",
            description="RIFE, which draws a frame between every two: 12.5 a second become 25.",
            inputs=[
                io.Combo.Input(
                    "file", options=files, default=files[0], tooltip="flownet.pkl of DICE-Talk, in models/moee/rife."
                ),
            ],
            outputs=[Interpolation.Output(display_name="interpolation")],
        )

    @classmethod
    def validate_inputs(cls, file: str) -> bool | str:
        try:
            dice.chosen(dice.rife_files(), file, "models/moee/rife")
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        return io.NodeOutput(dice.load_rife_patcher(file))
