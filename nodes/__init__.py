"""The ComfyUI side of the project: the only room that may import ComfyUI.

Each node is a schema and one call into ``moee_core``. ComfyUI is imported inside ``make_extension``, so that this
package can be imported, and its parts tested, where there is no ComfyUI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy_api.latest import ComfyExtension


def make_extension() -> ComfyExtension:
    """Return the extension ComfyUI registers. Raises ImportError outside ComfyUI 0.14 or newer."""
    from comfy_api.latest import ComfyExtension, io

    from . import host
    from .dice import DiceConditioning, DiceSampler, LoadDiceTalk
    from .dice_prior import DicePriorNode, SaveDicePrior
    from .emotion import EmotionNode, EmotionTimelineNode, EmotionToLatentsNode
    from .encoders import LoadEmotionEncoders
    from .face import FacePointsNode
    from .load import LoadExpert, LoadModel
    from .look import ContactSheet, EffectMeter, GateViewer
    from .motion import (
        EditMotion,
        LoadMotion,
        MotionFromSpeech,
        MotionFromVideo,
        PlotMotion,
        SaveMotion,
        SwapMotionPart,
    )
    from .portrait import EncodePortrait, EncodeSpeech
    from .render import RenderMotion
    from .sample import Conditioning, Sampler
    from .samples import Samples
    from .sources import ActionUnitsNode, EmotionFromText, EmotionFromVoice, ReferenceExpression
    from .video import LoadRIFE, VideoCombine
    from .windows import ShiftedWindowsNode

    host.register_folder()

    class MoEEExtension(ComfyExtension):
        async def get_node_list(self) -> list[type[io.ComfyNode]]:
            """Every node of the pack, in the order a graph is built."""
            return [
                LoadModel,
                LoadExpert,
                LoadEmotionEncoders,
                Samples,
                EncodePortrait,
                EncodeSpeech,
                EmotionNode,
                EmotionTimelineNode,
                EmotionFromText,
                EmotionFromVoice,
                ActionUnitsNode,
                ReferenceExpression,
                EmotionToLatentsNode,
                Conditioning,
                Sampler,
                VideoCombine,
                ContactSheet,
                EffectMeter,
                GateViewer,
                FacePointsNode,
                MotionFromSpeech,
                MotionFromVideo,
                LoadMotion,
                SaveMotion,
                EditMotion,
                SwapMotionPart,
                PlotMotion,
                RenderMotion,
                LoadDiceTalk,
                DicePriorNode,
                SaveDicePrior,
                DiceSampler,
                DiceConditioning,
                ShiftedWindowsNode,
                LoadRIFE,
            ]

    return MoEEExtension()
