"""DICE-Talk Prior, Save DICE-Talk Prior."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..moee_core.emotion.priors import prior_name, read_prior, write_prior
from ..moee_core.emotion.source import as_source
from ..moee_core.emotion.timeline import parse_emotion
from ..moee_core.emotion.vocabulary import OWN, own_name, quote
from . import dice_models as dice
from .dice_conditions import drawn, prior_of_video
from .dice_sockets import DiceEncoders, DiceEncodersSocket, DicePrior, DicePriorSocket
from .emotion import problem

NO_FILE = "none (put .npy or .safetensors files into models/moee/dice_talk/priors)"
"""Always a choice: a workflow saved before there was any file still loads."""
PLACE = "models/moee/dice_talk/priors"


class DicePriorNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        files = [*dice.prior_files(), NO_FILE]
        draw = io.Combo.Input(
            "draw",
            options=["mean", "sample"],
            default="mean",
            tooltip="The mean of the Gaussian, or one drawn from it: the same emotion, shown a little differently.",
        )
        named = io.String.Input(
            "emotion",
            default="happy",
            tooltip="An emotion, a mix or a timeline, by the model's own priors and the files beside them; @name is a "
            "file of your own.",
        )
        return io.Schema(
            node_id="MoEEDicePrior",
            display_name="DICE-Talk Prior",
            category="MoEE talking portrait",
            description="The emotion that DICE-Talk is asked for: by name, from a file, or taken from another video "
            "and its sound.",
            inputs=[
                DiceEncodersSocket.Input("encoders", tooltip="From Load DICE-Talk Model."),
                io.DynamicCombo.Input(
                    "source",
                    options=[
                        io.DynamicCombo.Option("emotion", [named]),
                        io.DynamicCombo.Option(
                            "file",
                            [
                                io.Combo.Input("file", options=files, default=files[0], tooltip=f"A prior in {PLACE}."),
                                draw,
                            ],
                        ),
                        io.DynamicCombo.Option(
                            "video",
                            [
                                io.Float.Input(
                                    "fps",
                                    default=25.0,
                                    min=1.0,
                                    max=120.0,
                                    step=0.01,
                                    tooltip="Frames a second of the pictures that are connected.",
                                ),
                                draw,
                            ],
                        ),
                    ],
                    tooltip="'video' reads image, audio or both; only a model with an embedder can.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="How far from the neutral prior: 1 as it is, 0 neutral.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFF,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip="For a prior that is drawn from its Gaussian.",
                ),
                io.Image.Input("image", optional=True, tooltip="For 'video': its frames, one face that fills them."),
                io.Audio.Input("audio", optional=True, tooltip="For 'video': its sound, in which the voice is heard."),
            ],
            outputs=[DicePriorSocket.Output(display_name="prior"), io.String.Output(display_name="about")],
        )

    @classmethod
    def validate_inputs(cls, source: Any = None) -> bool | str:
        asked = source if isinstance(source, dict) else {}
        try:
            if asked.get("source") == "file" and asked.get("file") is not None:
                dice.chosen(dice.prior_files(), asked["file"], PLACE)
        except ValueError as error:
            return str(error)
        return problem(asked.get("emotion")) or True

    @classmethod
    def fingerprint_inputs(cls, **_given: object) -> str:
        """Asked anew when a file of a prior came, went or was written."""
        return dice.priors_stamp()

    @classmethod
    def execute(
        cls,
        encoders: DiceEncoders,
        source: dict,
        strength: float,
        seed: int,
        image: Tensor | None = None,
        audio: dict | None = None,
    ) -> io.NodeOutput:
        kind, known = source["source"], dice.known_priors(encoders)
        if kind == "emotion":
            said = as_source(parse_emotion(source["emotion"]))
            made = DicePrior(about=said.explain(), known=known, source=said, strength=strength)
        else:
            asked = seed if source["draw"] == "sample" else None
            if kind == "file":
                prior = drawn(read_prior(dice.chosen(dice.prior_files(), source["file"], PLACE)), asked)
            else:
                prior = prior_of_video(encoders, image, float(source["fps"]), audio, asked)
            made = DicePrior(about=prior.about, known=known, prior=prior, strength=strength)
        licence = made.prior.licence if made.prior is not None else encoders.licence
        more = f" x {strength:g}" if strength != 1 else ""
        return io.NodeOutput(made, f"{made.about}{more} ({licence})")


class SaveDicePrior(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoEESaveDicePrior",
            display_name="Save DICE-Talk Prior",
            category="MoEE talking portrait",
            description=f"Keeps a prior as a file in {PLACE}: an emotion then calls it by its @name.",
            inputs=[
                DicePriorSocket.Input("prior", tooltip="From DICE-Talk Prior; one that does not change over time."),
                io.String.Input("name", default="my_prior", tooltip="Letters, digits, - and _; an emotion says @name."),
            ],
            outputs=[DicePriorSocket.Output(display_name="prior"), io.String.Output(display_name="path")],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, name: str | None = None) -> bool | str:
        try:
            if name is not None:
                _stem(name)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, prior: DicePrior, name: str) -> io.NodeOutput:
        path = dice.new_prior_path(_stem(name))
        write_prior(path, prior.held())
        return io.NodeOutput(prior, str(path))


def _stem(name: str) -> str:
    """What a prior's file is called, so that @name calls it. Raises ``ValueError`` for a name that means an emotion."""
    stem = own_name(name).removeprefix(OWN)
    label = prior_name(stem)
    if not label.startswith(OWN):
        raise ValueError(
            f"{quote(name)} means the emotion {label}: the file would take the place of the model's own, and "
            f"{OWN}{stem} would call nothing. Choose another name, such as my_{stem}"
        )
    return stem
