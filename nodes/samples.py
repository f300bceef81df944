"""Sample Portrait and Speech."""

from __future__ import annotations

from pathlib import Path

import torch
from comfy_api.latest import io

from ..moee_core.audio.read import read_audio
from ..moee_core.portrait.image import read_portrait

ASSETS = Path(__file__).parents[1] / "moee_core" / "assets"


def names(folder: str) -> list[str]:
    """The samples of one kind, by name."""
    return sorted(path.stem for path in (ASSETS / folder).iterdir() if path.suffix in (".png", ".ogg"))


class Samples(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        portraits, recordings = names("portraits"), names("speech")
        return io.Schema(
            node_id="MoEESamples",
            display_name="Sample Portrait and Speech",
            category="MoEE talking portrait",
            description="A portrait and a recording that come with the pack, to try things out.",
            inputs=[
                io.Combo.Input(
                    "portrait", options=portraits, default=portraits[0], tooltip="Drawn by the project; nobody real."
                ),
                io.Combo.Input("recording", options=recordings, default=recordings[0], tooltip="Synthesised speech."),
            ],
            outputs=[
                io.Image.Output(display_name="image"),
                io.Audio.Output(display_name="audio"),
                io.String.Output(display_name="points"),
            ],
        )

    @classmethod
    def execute(cls, portrait: str, recording: str) -> io.NodeOutput:
        picture = read_portrait(ASSETS / "portraits" / f"{portrait}.png")
        waveform = read_audio(ASSETS / "speech" / f"{recording}.ogg")
        audio = {"waveform": torch.from_numpy(waveform.samples)[None], "sample_rate": waveform.sample_rate}
        points = (ASSETS / "portraits" / f"{portrait}.points.json").read_text(encoding="utf-8").strip()
        return io.NodeOutput(torch.from_numpy(picture).float()[None] / 255, audio, points)
