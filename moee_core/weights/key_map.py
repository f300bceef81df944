"""Names of weights in published files, as tables.

A row is (ours, theirs), two fragments of a name; ``{}`` stands for a number that is the same in both. The rows are
applied in order, each to what the one before has left, and each once at most: the first rows name the longest
fragments. A name that no row fits is the same in both.

Sources: diffusers' UNet2DConditionModel and AutoencoderKL, CompVis' single files (input_blocks, output_blocks),
AnimateDiff's motion modules, Hallo's network.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

Rows = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class KeyMap:
    """From our names to those of a published layout. ``prefix`` stands before all of theirs."""

    rows: Rows = ()
    prefix: str = ""

    def theirs(self, key: str) -> str:
        for ours, theirs in self.rows:
            key = _pattern(ours).sub(functools.partial(_filled, theirs), key, count=1)
        return self.prefix + key


@functools.cache
def _pattern(fragment: str) -> re.Pattern[str]:
    return re.compile(r"(?:^|(?<=\.))" + re.escape(fragment).replace(r"\{\}", r"(\d+)"))


def _filled(fragment: str, match: re.Match[str]) -> str:
    numbers = iter(match.groups())
    return re.sub(r"\{\}", lambda _: next(numbers), fragment)


_AUDIO, _MOTION = "audio_modules.{}.", "motion_modules.{}.temporal_transformer."
_IN_AUDIO, _IN_MOTION = _AUDIO + "transformer_blocks.0.", _MOTION + "transformer_blocks.0."

BACKBONE: Rows = (
    ("sites.{}.audio.speech.{}.", _IN_AUDIO + "attn2_{}."),
    ("sites.{}.audio.zero_convs.0.", _IN_AUDIO + "zero_conv_full."),
    ("sites.{}.audio.zero_convs.1.", _IN_AUDIO + "zero_conv_face."),
    ("sites.{}.audio.zero_convs.2.", _IN_AUDIO + "zero_conv_lip."),
    ("sites.{}.audio.norm{}.", _IN_AUDIO + "norm{}."),
    ("sites.{}.audio.attn1.", _IN_AUDIO + "attn1."),
    ("sites.{}.audio.ff.", _IN_AUDIO + "ff."),
    ("sites.{}.audio.", _AUDIO),
    ("sites.{}.motion.attentions.{}.", _IN_MOTION + "attention_blocks.{}."),
    ("sites.{}.motion.norms.{}.", _IN_MOTION + "norms.{}."),
    ("sites.{}.motion.ff_norm.", _IN_MOTION + "ff_norm."),
    ("sites.{}.motion.ff.", _IN_MOTION + "ff."),
    ("sites.{}.motion.", _MOTION),
    ("sites.{}.spatial.", "attentions.{}."),
    ("sites.{}.", "attentions.{}."),
    ("downsample.", "downsamplers.0."),
    ("upsample.", "upsamplers.0."),
    ("backbone.", ""),
)
"""ReferenceNet and denoiser as diffusers, AnimateDiff and Hallo name them."""

VIDEO_UNET: Rows = (
    ("attn2.adapters.{}.to_k.", "attn2.processor.to_k_ip.{}."),
    ("attn2.adapters.{}.to_v.", "attn2.processor.to_v_ip.{}."),
    ("time_mixer.mix_factor.weight", "time_mixer.mix_factor"),
    ("downsample.", "downsamplers.0."),
    ("upsample.", "upsamplers.0."),
)
"""The SVD family's UNet as diffusers names it, and its adapters as Sonic and DICE-Talk do. A mix factor is one number
there, and a table of one number here."""

EMOTION_BANK: Rows = (
    ("prior_tokens.", "emo_linear."),
    ("code_tokens.", "kv_tokens_linear."),
    ("to_code.", "codebook.fc."),
    ("dictionary.codes.", "codebook.codebook."),
    ("to_q.", "attention.fc_q."),
    ("to_k.", "attention.fc_k."),
    ("to_v.", "attention.fc_v."),
)
"""DICE-Talk's emotion model."""

AUTOENCODER: Rows = (
    ("encoder.down_blocks.{}.resample.", "encoder.down_blocks.{}.downsamplers.0."),
    ("decoder.up_blocks.{}.resample.", "decoder.up_blocks.{}.upsamplers.0."),
)
AUTOENCODER_BEFORE_2023: Rows = (
    *AUTOENCODER,
    ("to_q.", "query."),
    ("to_k.", "key."),
    ("to_v.", "value."),
    ("to_out.0.", "proj_attn."),
)
"""diffusers renamed the attention's layers with release 0.17; files of both kinds are about."""

POSITIONS = "pos_encoder.pe"
"""A sinusoidal table that AnimateDiff keeps with every temporal attention, (1, POSITIONS_LENGTH, width)."""
POSITIONS_LENGTH = 32

_RESNET: Rows = (
    ("norm1.", "in_layers.0."),
    ("conv1.", "in_layers.2."),
    ("time_emb_proj.", "emb_layers.1."),
    ("norm2.", "out_layers.0."),
    ("conv2.", "out_layers.3."),
    ("conv_shortcut.", "skip_connection."),
)
_AROUND: Rows = (
    ("time_embedding.linear_1.", "time_embed.0."),
    ("time_embedding.linear_2.", "time_embed.2."),
    ("conv_in.", "input_blocks.0.0."),
    ("conv_norm_out.", "out.0."),
    ("conv_out.", "out.2."),
    ("mid_block.resnets.0.", "middle_block.0."),
    ("mid_block.attentions.0.", "middle_block.1."),
    ("mid_block.resnets.1.", "middle_block.2."),
)


def single_file(key: str, attention_levels: tuple[bool, ...], layers: int) -> str:
    """The name in a single file of a UNet's weight that diffusers calls ``key``, without ``model.diffusion_model.``.

    A single file counts through: block 0 is conv_in, then ``layers`` pairs of residual block and transformer and one
    downsampling for each level; on the way up ``layers + 1`` pairs, the upsampling inside the last of them.
    """
    for diffusers, theirs in _AROUND:
        if key.startswith(diffusers):
            return _resnet(theirs + key.removeprefix(diffusers), "resnets" in diffusers)
    match = re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", key)
    if match is None:
        return key
    way, block, kind, index, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
    if way == "down":
        number = 1 + block * (layers + 1) + (layers if kind == "downsamplers" else index)
        if kind == "downsamplers":
            return f"input_blocks.{number}.0.op.{rest.removeprefix('conv.')}"
        return _resnet(f"input_blocks.{number}.{int(kind == 'attentions')}.{rest}", kind == "resnets")
    number = block * (layers + 1) + (layers if kind == "upsamplers" else index)
    if kind == "upsamplers":
        behind = 1 + attention_levels[len(attention_levels) - 1 - block]
        return f"output_blocks.{number}.{behind}.{rest}"
    return _resnet(f"output_blocks.{number}.{int(kind == 'attentions')}.{rest}", kind == "resnets")


def _resnet(key: str, is_resnet: bool) -> str:
    return KeyMap(rows=_RESNET).theirs(key) if is_resnet else key
