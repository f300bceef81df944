"""What a file of weights is, from the names in it: for somebody who has a folder of downloads.

Raises ``CheckpointError`` for a file that cannot be read or is none of these; a survey of a folder goes on past them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ..emotion.vocabulary import quote
from ..errors import CheckpointError
from ..experts.file import ARCHITECTURE as EXPERT
from .checkpoint import ARCHITECTURE as MOEE
from .checkpoint import read_header
from .emo_talker import ARCHITECTURE as EMOTALKER
from .expression_reader import ARCHITECTURE as READER
from .hallo import ARCHITECTURE as BASE
from .hub_folder import read_settings
from .tables import shapes_of


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of file. ``serves``: what it is good for here. ``marks``: names that all stand in such a file.
    ``foreign``: parts of names that stand in none, but in others that have the marks too. ``model_type``: what the
    config.json beside it says, where relatives have the very same names."""

    name: str
    title: str
    serves: str
    marks: tuple[str, ...]
    foreign: tuple[str, ...] = ()
    model_type: str = ""


RESULTS = "selfcheck"
KINDS = (
    Kind(
        name="hallo",
        title="Hallo's networks (net.pth)",
        serves="the base of MoEE, together with the autoencoder and wav2vec 2.0",
        marks=("denoising_unet.conv_in.weight", "reference_unet.conv_in.weight", "audioproj.proj1.weight"),
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
        foreign=("controlnet_cond_embedding.",),
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
    READER: Kind(name="reader", title="an expression reader", serves="reads action units off a face", marks=()),
}
COMPLETE = (("hallo", "autoencoder", "wav2vec2"), ("hallo_base", "wav2vec2"))
"""What makes a Hallo base that can be used."""
SUFFIXES = {".safetensors", ".pth", ".pt", ".ckpt", ".bin"}
OR_RELATIVE = "_or_relative"
IN_CTC = "wav2vec2."
"""Before every name of wav2vec 2.0 in a file with a transcriber on top."""


def kind_of(name: str) -> Kind:
    """The kind that ``Kind.name`` names."""
    plain = name.removesuffix(OR_RELATIVE)
    kind = {kind.name: kind for kind in (*KINDS, *OURS.values())}[plain]
    return kind if plain == name else _relative(kind)


def detect(path: str | Path) -> Kind:
    """The kind of one file."""
    path = Path(path)
    if path.suffix == ".safetensors" and path.is_file():
        architecture = read_header(path)[1].get("architecture", "")
        if architecture in OURS:
            return OURS[architecture]
    keys = {key.removeprefix(IN_CTC) for key in shapes_of(path)}
    for kind in KINDS:
        if keys.issuperset(kind.marks) and not any(part in key for part in kind.foreign for key in keys):
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


def missing(names: Iterable[str]) -> list[str]:
    """Titles of what a Hallo base still lacks beside files of these kinds; empty when it is complete."""
    present = set(names)
    titles = {kind.name: kind.title for kind in (*KINDS, *OURS.values())}
    fewest = min(([name for name in one if name not in present] for one in COMPLETE), key=_absence)
    return [titles[name] for name in fewest]


def _absence(names: list[str]) -> tuple[int, bool]:
    """Fewest first; of two equal lists the one whose files can be downloaded."""
    return len(names), "hallo_base" in names
