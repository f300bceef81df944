"""The command line of weights: ``inspect`` says what a file or a folder of downloads is, ``convert`` makes one file of
ours of Hallo's or of DICE-Talk's.

A file that exists is replaced only with ``--force``. Raises ``CheckpointError`` for files that are not known, or that
do not make a base together.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..emotion.vocabulary import quote
from ..errors import CheckpointError

if TYPE_CHECKING:
    from ..networks.config import HalloConfig
    from ..systems.dice_talk import DiceConfig
    from .detect import Kind

    Files = dict[str, list[Path]]

DTYPES = ("fp16", "bf16", "fp32")
DICE_PARTS = {
    "dice_unet": "unet",
    "dice_adapters": "unet",
    "dice_audio": "audio_projector",
    "dice_bank": "bank",
    "dice_locator": "face_locator",
}
"""Kinds of files that DICE-Talk is made of, and the parts that come from them."""
SPARE = 64 << 20
"""Bytes that have to stay free on the disk beside a converted file."""


def add_weights(commands: Any) -> None:
    """``inspect`` and ``convert`` beside the other commands."""
    inspect = commands.add_parser("inspect", help="say what a checkpoint or a folder of downloads is")
    inspect.add_argument("file", help="a file of weights, or a folder of them")
    inspect.add_argument("--json", action="store_true", help="print everything as JSON")
    inspect.set_defaults(run=_inspect)

    convert = commands.add_parser("convert", help="make one file of Hallo's downloads, or of DICE-Talk's")
    convert.add_argument(
        "sources",
        nargs="+",
        metavar="FILE or FOLDER",
        help="net.pth and the autoencoder, or DICE-Talk's four files, or the folder they lie in; priors of all labels "
        "in one folder are taken along, and adapters alone are completed from Stable Video Diffusion's UNet",
    )
    convert.add_argument("-o", "--output", required=True, help="the file to write (.safetensors)")
    convert.add_argument("--dtype", choices=DTYPES, default="fp16", help="how weights are stored (default fp16)")
    convert.add_argument(
        "--config", metavar="JSON-FILE", help="sizes of the networks, where they are not the published ones"
    )
    convert.add_argument("--force", action="store_true", help="replace the output if it exists")
    convert.set_defaults(run=_convert)


# inspect


def _inspect(options: argparse.Namespace) -> int:
    path = Path(options.file)
    if path.is_dir():
        return _inspect_folder(path, as_json=options.json)
    from .checkpoint import ARCHITECTURE as MOEE
    from .checkpoint import config_to_dict, inspect_checkpoint, read_header
    from .emo_talker import ARCHITECTURE as EMOTALKER
    from .emo_talker import inspect_emo_talker

    metadata: dict[str, str] = {}
    if path.suffix == ".safetensors" or not path.is_file():  # a header says more of what is not there than a table does
        metadata = read_header(path)[1]
    if metadata.get("architecture") not in (MOEE, EMOTALKER):
        return _inspect_other(path, metadata, as_json=options.json)
    info = inspect_emo_talker(path) if metadata["architecture"] == EMOTALKER else inspect_checkpoint(path)
    if options.json:
        body = {"config": config_to_dict(info.config), "metadata": info.metadata, "parameters": info.parameters}
        return _written(json.dumps(body, indent=1))
    dtypes = ", ".join(sorted(set(info.dtypes.values())))
    return _table(
        {
            "file": _sized(info.path),
            "architecture": f"{info.metadata['architecture']}, format {info.metadata['format']}",
            "parameters": f"{info.parameters:,} in {len(info.shapes)} tensors ({dtypes})",
            **_described(info.config),
            "licence": info.metadata.get("licence", "not stated"),
            "data licence": info.metadata.get("data_licence", "not stated"),
            "trained": info.metadata.get("trained", "not stated"),
        }
    )


def _inspect_other(path: Path, metadata: dict[str, str], *, as_json: bool) -> int:
    """A published or a converted file, and what is lacking beside it."""
    from .detect import detect

    kind = detect(path)
    shapes, licence = _contents(path, kind, metadata)
    count = sum(math.prod(shape) for shape in shapes.values())
    config = _base_config(path) if kind.name == "hallo_base" else None
    if kind.name == "dice_talk":
        config = _dice_config_of(path)
    lacking = _lacking([kind.name], config)
    if as_json:
        body = {
            "kind": kind.name,
            "serves": kind.serves,
            "missing": lacking or [],
            "metadata": metadata,
            "licence": licence,
            "parameters": count,
        }
        return _written(json.dumps(body, indent=1))
    rows = {
        "file": _sized(path),
        "kind": kind.title,
        "serves": kind.serves,
        "parameters": f"{count:,} in {len(shapes)} tensors",
    }
    if config is not None:
        rows |= _described(config)
        sources = json.loads(metadata.get("sources", "{}"))
        rows |= {f"made of {role}": f"{one['name']} ({one['hash']})" for role, one in sources.items()}
    if licence:
        rows["licence"] = licence
    rows |= {
        name.replace("_", " "): metadata[name] for name in ("data_licence", "trained", "about") if name in metadata
    }
    if lacking is not None:
        rows["still needed"] = _listed(lacking)
    if kind.name in ("hallo", "autoencoder"):
        rows["then"] = "python -m moee_core convert NET AUTOENCODER -o models/moee/hallo.safetensors"
    elif kind.name in DICE_PARTS:
        from .dice_talk import CONVERT, CONVERT_ADAPTERS

        rows["then"] = CONVERT_ADAPTERS if kind.name == "dice_adapters" else CONVERT
    return _table(rows)


def _contents(path: Path, kind: Kind, metadata: dict[str, str]) -> tuple[dict[str, tuple[int, ...]], str]:
    """Shapes, and the licence where it is known."""
    from .tables import shapes_of

    if kind.name != "prior":
        return shapes_of(path), kind.licence or metadata.get("licence", "")
    from ..emotion.priors import read_prior

    prior = read_prior(path)
    found = {"mean": prior.mean, "deviation": prior.deviation}
    return {name: value.shape for name, value in found.items() if value is not None}, prior.licence


def _lacking(names: Iterable[str], config: HalloConfig | DiceConfig | None = None) -> list[str] | None:
    """What the system still lacks that files of these kinds belong to; None where they belong to none."""
    from ..systems.dice_talk import DiceConfig
    from .detect import COMPLETE, DICE_COMPLETE, kind_of, missing

    present = set(names)
    if any(present & set(one) for one in COMPLETE):
        return missing(present)
    if not any(present & set(one) for one in DICE_COMPLETE):
        return None
    if not isinstance(config, DiceConfig):
        return missing(present, DICE_COMPLETE)
    needed = {"whisper": config.ear == "whisper", "prior": not config.named_priors}
    return [kind_of(name).title for name, there in needed.items() if there and name not in present]


def _inspect_folder(folder: Path, *, as_json: bool) -> int:
    """Every file of weights in a folder and below it, and what a base still lacks."""
    from .detect import COMPLETE, DICE_COMPLETE, kind_of, missing, survey

    found = survey(folder)
    if not found.files:
        some = f", for example {found.unknown[0].name}" if found.unknown else ""
        raise CheckpointError(
            f"{quote(folder, 120)} holds no weights that are known here ({len(found.unknown)} other files{some}); give "
            "the folder that Hallo's or DICE-Talk's downloads lie in"
        )
    if as_json:
        body = {
            "files": {name: [str(path) for path in paths] for name, paths in found.files.items()},
            "unknown": [str(path) for path in found.unknown],
            "missing": list(found.missing),
            "missing_for_dice_talk": missing(found.files, DICE_COMPLETE),
        }
        return _written(json.dumps(body, indent=1))
    lines = []
    for name, paths in found.files.items():
        kind = kind_of(name)
        lines.append(f"{kind.title}: {kind.serves}" + (f" ({kind.licence})" if kind.licence else ""))
        lines += [f"    {_sized(path, path.relative_to(folder))}" for path in paths]
    if found.unknown:
        lines.append("not known here:")
        lines += [f"    {path.relative_to(folder)}" for path in found.unknown]
    for title, complete in (("DICE-Talk", DICE_COMPLETE), ("a Hallo base", COMPLETE)):
        if any(name in names for name in found.files for names in complete):
            lines.append(f"for {title} still needed: {_listed(missing(found.files, complete))}")
    return _written("\n".join(lines))


def _dice_config_of(path: Path) -> DiceConfig:
    from .dice_file import inspect_dice_file

    return inspect_dice_file(path)[0]


def _base_config(path: Path) -> HalloConfig:
    from .hallo import inspect_hallo_base

    return inspect_hallo_base(path)[0]


def _described(config: Any) -> dict[str, str]:
    """What is particular to an architecture."""
    from ..systems.dice_talk import DiceConfig
    from ..systems.emo_talker import EmoTalkerConfig

    if isinstance(config, DiceConfig):
        bank, named = config.bank, ", those of the labels with it" if config.named_priors else ""
        return {
            "video": f"{config.fps:g} fps, windows of {config.window_frames} frames",
            "denoiser": f"widths {config.unet.block_widths}, {config.unet.adapters} adapters",
            "emotion": f"{bank.codes} codes of {bank.width}, priors of {bank.prior_width} numbers{named}",
            "listens": f"to {'Whisper' if config.ear == 'whisper' else 'what the embedded model hears'}",
        }
    if isinstance(config, EmoTalkerConfig):
        codes, window = config.vq.dictionary, config.transformer
        return {
            "motion": f"space {config.space}, {config.fps:g} fps, a token every {config.vq.rate} frames",
            "dictionary": f"{codes.codes} codes of {codes.width}",
            "transformer": f"width {window.width}, {window.layers} layers",
            "listens": f"{'to HuBERT' if config.ear.source == 'hubert' else 'by itself'}, {config.ear.width} numbers",
        }
    unet = config.unet
    return {
        "picture": f"{config.image_size} px, {config.fps:g} fps, windows of {config.window_frames} frames",
        "denoiser": f"widths {unet.block_widths}, {unet.experts} experts, {unet.prediction_type}",
    }


def _sized(path: Path, shown: Path | None = None) -> str:
    return f"{shown or path} ({path.stat().st_size / 1e6:.2f} MB)"


def _listed(titles: Iterable[str]) -> str:
    return "; ".join(titles) or "nothing"


def _table(rows: dict[str, str]) -> int:
    width = max(14, *(len(name) + 2 for name in rows))
    return _written("\n".join(f"{name + ':':{width}}{value}" for name, value in rows.items()))


def _written(text: str) -> int:
    sys.stdout.write(text + "\n")
    return 0


# convert


def _convert(options: argparse.Namespace) -> int:
    import torch

    output = Path(options.output)
    if output.suffix != ".safetensors":
        raise ValueError(f"--output {quote(output.name)} must end in .safetensors")
    if output.exists() and not options.force:
        raise ValueError(f"{quote(output, 120)} exists; give another name, or --force to replace it")
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[options.dtype]
    named, lying = _given(options.sources)
    make = _convert_dice if _is_dice(named, lying) else _convert_hallo
    made_of = make(options, output, named, lying, dtype)
    return _written(f"{_sized(output)}: made of {made_of}")


def _convert_hallo(options: argparse.Namespace, output: Path, named: Files, lying: Files, dtype: Any) -> str:
    from .hallo import HALLO, base_shapes, convert_hallo

    config = HALLO if options.config is None else _config_file(options.config)
    net, autoencoder = (_chosen(named, lying, name)[1] for name in ("hallo", "autoencoder"))
    needed = sum(math.prod(shape) for shape in base_shapes(config)[0].values()) * dtype.itemsize
    _check_output(output, [net, autoencoder], needed)
    convert_hallo(net, autoencoder, output, config=config, dtype=dtype)
    return f"{net} and {autoencoder}"


def _convert_dice(options: argparse.Namespace, output: Path, named: Files, lying: Files, dtype: Any) -> str:
    from .dice_file import convert_dice_talk, file_size
    from .dice_talk import PUBLISHED

    config = PUBLISHED if options.config is None else _dice_config_file(options.config)
    kind, unet = _chosen(named, lying, "dice_unet", "dice_adapters")
    parts = {"unet": unet}
    for name, part in DICE_PARTS.items():
        if part != "unet":
            parts[part] = _chosen(named, lying, name)[1]
    base = _chosen(named, lying, "svd_unet", "svd_single")[1] if kind == "dice_adapters" else None
    priors = _folder_of_priors([*named.get("prior", []), *lying.get("prior", [])])
    read = [*parts.values(), *([] if base is None else [base])]
    _check_output(output, read, file_size(config, dtype, priors=priors is not None))
    convert_dice_talk(parts, output, base=base, priors=priors, config=config, dtype=dtype)
    return ", ".join(str(path) for path in (*read, *([] if priors is None else [priors])))


def _folder_of_priors(paths: Sequence[Path]) -> Path | None:
    """The folder in which there is a prior of every label."""
    from ..emotion.priors import named_prior
    from ..emotion.vocabulary import LABELS

    labels: dict[Path, set[str]] = {}
    for path in paths:
        labels.setdefault(path.parent, set()).add(named_prior(path))
    found = [folder for folder, names in labels.items() if names.issuperset(LABELS)]
    if len(found) > 1:
        raise CheckpointError(
            f"{quote(found[0], 60)} and {quote(found[1], 60)} both hold priors of all labels; give one of the folders"
        )
    return found[0] if found else None


def _check_output(output: Path, read: Sequence[Path], needed: int) -> None:
    """Not one of the files to read, and room for it on the disk."""
    import shutil

    if output.resolve() in {path.resolve() for path in read}:
        raise ValueError(f"{quote(output, 120)} is one of the files to read; give another name")
    output.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(output.parent).free
    if needed + SPARE > free:
        raise ValueError(
            f"the disk of {quote(output.parent, 120)} has {free / 1e6:.0f} MB free, the file needs {needed / 1e6:.0f} "
            "MB; free some space, or write elsewhere"
        )


def _config_file(name: str) -> HalloConfig:
    """Sizes from a JSON file, or from the metadata of a converted base."""
    from ..networks.config import HalloConfig
    from .checkpoint import config_from_dict
    from .hub_folder import read_settings

    path = Path(name)
    if path.suffix == ".safetensors":
        return _base_config(path)
    try:
        return config_from_dict(HalloConfig, read_settings(path))
    except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"--config {quote(path.name)}: {quote(error, 160)}") from error


def _dice_config_file(name: str) -> DiceConfig:
    """As ``_config_file``, for DICE-Talk."""
    from .dice_file import dice_config
    from .hub_folder import read_settings

    path = Path(name)
    if path.suffix == ".safetensors":
        return _dice_config_of(path)
    try:
        return dice_config(read_settings(path))
    except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"--config {quote(path.name)}: {quote(error, 160)}") from error


def _given(given: Sequence[str]) -> tuple[Files, Files]:
    """Files by kind: those that were named, and those that lie in folders."""
    from .detect import detect, survey

    named: Files = {}
    lying: Files = {}
    for text in given:
        path = Path(text)
        if path.is_dir():
            for name, paths in survey(path).files.items():
                lying.setdefault(name, []).extend(paths)
        else:
            named.setdefault(detect(path).name, []).append(path)
    return named, lying


def _is_dice(named: Files, lying: Files) -> bool:
    """Whether DICE-Talk's files were given, and not Hallo's."""
    for files in (named, lying):
        dice, hallo = any(name in files for name in DICE_PARTS), "hallo" in files
        if dice and hallo:
            raise CheckpointError("files of Hallo and of DICE-Talk were given; give those of one of them")
        if dice or hallo:
            return dice
    return False


def _chosen(named: Files, lying: Files, *names: str) -> tuple[str, Path]:
    """The one file of one of these kinds. One that is named counts for more than what lies in a folder."""
    from .detect import kind_of

    found: list[tuple[str, Path]] = []
    alone = {name: _without_twins(paths) for name, paths in lying.items()}
    for files in (named, alone):
        found = found or [(name, path) for name in names for path in files.get(name, [])]
    kind = kind_of(names[0])
    if not found:
        others = ", ".join(sorted({kind_of(one).title for one in (*named, *lying)})) or "no weights"
        raise CheckpointError(f"{kind.title} is not among what was given ({others}); give that file too")
    if len(found) > 1:
        raise CheckpointError(_ambiguous(kind_of(found[0][0]), [path for _, path in found]))
    return found[0]


def _without_twins(paths: Sequence[Path]) -> list[Path]:
    """Without the pickle where the same name lies beside it as safetensors."""
    safe = {path.with_suffix("") for path in paths if path.suffix == ".safetensors"}
    return [path for path in paths if path.suffix == ".safetensors" or path.with_suffix("") not in safe]


def _ambiguous(kind: Kind, paths: Sequence[Path]) -> str:
    some = ", ".join(quote(path, 60) for path in paths[:2])
    return f"{len(paths)} files are {kind.title}: {some}; name the one to take beside the folder"
