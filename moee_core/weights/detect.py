"""What a file of weights is, from the names in it: for somebody who has a folder of downloads.

Raises ``CheckpointError`` for a file that cannot be read or is none of these; a survey of a folder goes on past them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ..emotion.priors import ARCHITECTURE as PRIOR
from ..emotion.priors import is_prior, read_prior
from ..emotion.vocabulary import quote
from ..errors import CheckpointError
from ..experts.file import ARCHITECTURE as EXPERT
from .checkpoint import ARCHITECTURE as MOEE
from .checkpoint import read_header
from .dice_file import ARCHITECTURE as DICE_TALK
from .dice_talk import LICENCE as DICE_LICENCE
from .emo_talker import ARCHITECTURE as EMOTALKER
from .expression_reader import ARCHITECTURE as READER
from .hallo import ARCHITECTURE as BASE
from .hub_folder import read_settings
from .rife import LICENCE as RIFE_LICENCE
from .stable_video import LICENCE as SVD_LICENCE
from .tables import shapes_of


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of file. ``serves``: what it is good for here. ``marks``: names that all stand in such a file.
    ``foreign``: parts of names that stand in none, but in others that have the marks too. ``model_type``: what the
    config.json beside it says, where relatives have the very same names. ``prefix``: what may stand before every name.
    ``licence``: of what is published in such a file, where it is known."""

    name: str
    title: str
    serves: str
    marks: tuple[str, ...]
    foreign: tuple[str, ...] = ()
    model_type: str = ""
    prefix: str = ""
    licence: str = ""


RESULTS = "selfcheck"
_SITE = "down_blocks.0.attentions.0."
_ADAPTER = _SITE + "transformer_blocks.0.attn2.processor.to_k_ip.1.weight"
"""Sonic has one adapter, DICE-Talk this one too."""
_ALONG_TIME = _SITE + "temporal_transformer_blocks.0.attn1.to_q.weight"
KINDS = (
    Kind(
        name="hallo",
        title="Hallo's networks (net.pth)",
        serves="the base of MoEE, together with the autoencoder and wav2vec 2.0",
        marks=("denoising_unet.conv_in.weight", "reference_unet.conv_in.weight", "audioproj.proj1.weight"),
    ),
    Kind(
        name="dice_unet",
        title="DICE-Talk's UNet (unet.pth)",
        serves="DICE-Talk draws with it",
        marks=("conv_in.weight", _ALONG_TIME, _ADAPTER),
        licence=DICE_LICENCE,
    ),
    Kind(
        name="dice_adapters",
        title="DICE-Talk's adapters (unet.pth without Stable Video Diffusion)",
        serves="DICE-Talk draws with them and Stable Video Diffusion's UNet",
        marks=(_ADAPTER,),
        foreign=("conv_in.", "time_mixer."),  # a file that has some of the UNet, and not all
        licence=DICE_LICENCE,
    ),
    Kind(
        name="dice_audio",
        title="DICE-Talk's speech tokens (audio_linear.pth)",
        serves="DICE-Talk hears with it, behind Whisper",
        marks=tuple(f"{one}.weight" for one in ("proj1", "proj2", "proj3", "norm")),
        foreign=("attention", "layers.", "blocks."),
        licence=DICE_LICENCE,
    ),
    Kind(
        name="dice_bank",
        title="DICE-Talk's emotion model (emo_model.pth)",
        serves="DICE-Talk feels with it, asked by a prior",
        marks=("emo_linear.proj1.weight", "codebook.codebook.weight", "attention.fc_q.weight"),
        licence=DICE_LICENCE,
    ),
    Kind(
        name="dice_locator",
        title="DICE-Talk's face locator (pose_guider.pth)",
        serves="tells DICE-Talk where the face is",
        marks=("conv_in.weight", "blocks.0.weight", "blocks.5.weight", "conv_out.weight"),
        licence=DICE_LICENCE,
    ),
    Kind(
        name="svd_single",
        title="Stable Video Diffusion in a single file",
        serves="completes DICE-Talk's adapters; its autoencoder and image encoder serve DICE-Talk too",
        marks=("model.diffusion_model.input_blocks.1.1.time_stack.0.attn1.to_q.weight",),
        licence=SVD_LICENCE,
    ),
    Kind(
        name="svd_unet",
        title="Stable Video Diffusion's UNet as diffusers names it",
        serves="completes DICE-Talk's adapters",
        marks=("conv_in.weight", _ALONG_TIME),
        foreign=(".processor.",),
        licence=SVD_LICENCE,
    ),
    Kind(
        name="svd_autoencoder",
        title="Stable Video Diffusion's autoencoder as diffusers names it",
        serves="turns pictures into latents and back, for DICE-Talk",
        marks=("encoder.conv_in.weight", "decoder.time_conv_out.weight"),
        licence=SVD_LICENCE,
    ),
    Kind(
        name="rife",
        title="RIFE's frame interpolation (flownet.pkl)",
        serves="doubles the frame rate of a video",
        marks=("block0.conv0.0.0.weight", "block2.conv0.0.0.weight", "block_tea.conv0.0.0.weight"),
        prefix="module.",
        licence=RIFE_LICENCE,
    ),
    Kind(
        name="whisper",
        title="Whisper",
        serves="hears the recording, for DICE-Talk",
        marks=tuple(f"encoder.{one}.weight" for one in ("conv1", "layer_norm", "layers.0.self_attn.k_proj")),
        model_type="whisper",
        prefix="model.",
        licence="Whisper: Apache-2.0, as published by OpenAI on the hub",
    ),
    Kind(
        name="single_file",
        title="a Stable Diffusion 1.5 model in a single file",
        serves="its UNet starts a base of one's own",
        marks=("model.diffusion_model.input_blocks.0.0.weight",),
        foreign=("conditioner.", "cond_stage_model.model."),  # the text encoders of SDXL and of Stable Diffusion 2
    ),
    Kind(
        name="motion",
        title="AnimateDiff's motion modules",
        serves="start a base of one's own, together with a Stable Diffusion 1.5 UNet",
        marks=("down_blocks.0.motion_modules.0.temporal_transformer.proj_in.weight",),
    ),
    Kind(
        name="unet",
        title="Stable Diffusion's UNet as diffusers names it",
        serves="starts a base of one's own",
        marks=("conv_in.weight", "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"),
        foreign=("controlnet_cond_embedding.", "temporal_transformer_blocks."),
    ),
    Kind(
        name="autoencoder",
        title="Stable Diffusion's autoencoder as diffusers names it",
        serves="turns pictures into latents and back, for a Hallo base",
        marks=("encoder.conv_in.weight", "decoder.conv_in.weight", "post_quant_conv.weight"),
    ),
    Kind(
        name="wav2vec2",
        title="wav2vec 2.0",
        serves="hears the recording, for a Hallo base",
        marks=("feature_extractor.conv_layers.0.conv.weight", "feature_projection.projection.weight"),
        foreign=("rel_attn_embed",),  # WavLM
        model_type="wav2vec2",  # HuBERT's names are the same
        prefix="wav2vec2.",  # with a transcriber on top
    ),
)
OURS = {
    MOEE: Kind(name="moee", title="a MoEE checkpoint", serves="a whole model, ready to be used", marks=()),
    BASE: Kind(
        name="hallo_base",
        title="a converted Hallo base",
        serves="the base of MoEE, together with wav2vec 2.0",
        marks=(),
    ),
    EXPERT: Kind(
        name="expert", title="an emotion expert", serves="changes a MoEE checkpoint; see experts list", marks=()
    ),
    EMOTALKER: Kind(name="emo_talker", title="an EmoTalker", serves="makes motions from speech", marks=()),
    RESULTS: Kind(name="results", title="stored results", serves="what selfcheck compares a machine with", marks=()),
    DICE_TALK: Kind(
        name="dice_talk",
        title="a DICE-Talk in one file",
        serves="the networks of DICE-Talk, ready to be used",
        marks=(),
    ),
    PRIOR: Kind(name="prior", title="an emotion prior", serves="tells DICE-Talk an emotion", marks=()),
    READER: Kind(name="reader", title="an expression reader", serves="reads action units off a face", marks=()),
}
COMPLETE = (("hallo", "autoencoder", "wav2vec2"), ("hallo_base", "wav2vec2"))
"""What makes a Hallo base that can be used."""
_DICE_PARTS = ("dice_audio", "dice_bank", "dice_locator", "whisper")
DICE_COMPLETE = (
    ("dice_adapters", "svd_unet", *_DICE_PARTS, "prior"),
    ("dice_adapters", "svd_single", *_DICE_PARTS, "prior"),
    ("dice_unet", *_DICE_PARTS, "prior"),
    ("dice_talk", "whisper"),
)
"""What makes a DICE-Talk that can be used: a file of ours may hold the priors, and says so."""
SUFFIXES = {".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".pkl", ".npy"}
OR_RELATIVE = "_or_relative"


def kind_of(name: str) -> Kind:
    """The kind that ``Kind.name`` names."""
    plain = name.removesuffix(OR_RELATIVE)
    kind = {kind.name: kind for kind in (*KINDS, *OURS.values())}[plain]
    return kind if plain == name else _relative(kind)


def detect(path: str | Path) -> Kind:
    """The kind of one file."""
    path = Path(path)
    if is_prior(path):
        read_prior(path)
        return OURS[PRIOR]
    if path.suffix == ".safetensors" and path.is_file():
        architecture = read_header(path)[1].get("architecture", "")
        if architecture in OURS:
            return OURS[architecture]
    keys = set(shapes_of(path))
    for kind in KINDS:
        names = {key.removeprefix(kind.prefix) for key in keys} if kind.prefix else keys
        if names.issuperset(kind.marks) and not any(part in key for part in kind.foreign for key in names):
            return _by_its_settings(path, kind) if kind.model_type else kind
    some = f", for example {quote(min(keys), 80)}" if keys else ""
    raise CheckpointError(
        f"{path.name} is none of the files that are known here ({len(keys)} tensors{some}); known are "
        f"{'; '.join(kind.title for kind in (*KINDS, *OURS.values()))}"
    )


def _by_its_settings(path: Path, kind: Kind) -> Kind:
    """The kind where the config.json beside the file confirms it. Without one nobody can tell, and the file cannot be
    used either: it gets a name of its own, that no base is complete with."""
    settings = path.with_name("config.json")
    if not settings.is_file():
        return _relative(kind)
    found = read_settings(settings).get("model_type", "unknown")
    if found != kind.model_type:
        raise CheckpointError(
            f"{path.name} is a model of type {quote(found)} by the config.json beside it, a relative of {kind.title}; "
            f"download a folder whose model_type is {kind.model_type}"
        )
    return kind


def _relative(kind: Kind) -> Kind:
    serves = f"{kind.serves}, once the config.json it was published with lies beside it and says so"
    return replace(kind, name=kind.name + OR_RELATIVE, title=f"{kind.title} or a relative", serves=serves)


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What lies in a folder: files by kind, in the order of their paths; files of weights that are none of the kinds;
    titles of what a Hallo base still lacks."""

    files: dict[str, tuple[Path, ...]]
    unknown: tuple[Path, ...]
    missing: tuple[str, ...]


def survey(folder: str | Path) -> Survey:
    """Look at every file of weights in a folder and below it."""
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{quote(folder, 120)} is not a folder; give the one that the downloads lie in")
    files: dict[str, tuple[Path, ...]] = {}
    unknown: list[Path] = []
    for path in sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file()):
        try:
            name = detect(path).name
        except CheckpointError:
            unknown.append(path)
        else:
            files[name] = (*files.get(name, ()), path)
    return Survey(files=files, unknown=tuple(unknown), missing=tuple(missing(files)))


def missing(names: Iterable[str], complete: tuple[tuple[str, ...], ...] = COMPLETE) -> list[str]:
    """Titles of what a Hallo base, or what else is ``complete`` with such kinds, still lacks beside files of these
    kinds; empty when it is complete."""
    present = set(names)
    titles = {kind.name: kind.title for kind in (*KINDS, *OURS.values())}
    fewest = min(([name for name in one if name not in present] for one in complete), key=_absence)
    return [titles[name] for name in fewest]


def _absence(names: list[str]) -> tuple[bool, int, bool]:
    """Fewest first; of two equal lists the one whose files can be downloaded. A DICE-Talk in one file is not for
    download at all."""
    return "dice_talk" in names, len(names), "hallo_base" in names
