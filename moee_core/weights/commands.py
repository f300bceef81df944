"""The command line of weights: ``inspect`` says what a file or a folder of downloads is, ``convert`` makes one file of
ours of Hallo's.

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
    from .detect import Kind

DTYPES = ("fp16", "bf16", "fp32")
SPARE = 64 << 20
"""Bytes that have to stay free on the disk beside a converted file."""


def add_weights(commands: Any) -> None:
    """``inspect`` and ``convert`` beside the other commands."""
    inspect = commands.add_parser("inspect", help="say what a checkpoint or a folder of downloads is")
    inspect.add_argument("file", help="a file of weights, or a folder of them")
    inspect.add_argument("--json", action="store_true", help="print everything as JSON")
    inspect.set_defaults(run=_inspect)

    convert = commands.add_parser("convert", help="make one file of Hallo's net.pth and an autoencoder")
    convert.add_argument(
        "sources", nargs="+", metavar="FILE or FOLDER", help="net.pth and the autoencoder, or the folder they lie in"
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
    """A published file, or a converted base, and what is lacking beside it."""
    from .detect import detect, missing
    from .tables import shapes_of

    kind = detect(path)
    shapes = shapes_of(path)
    count = sum(math.prod(shape) for shape in shapes.values())
    serves_base = any(kind.name in names for names in _complete())
    lacking = missing([kind.name]) if serves_base else []
    config = _base_config(path) if kind.name == "hallo_base" else None
    if as_json:
        body = {
            "kind": kind.name,
            "serves": kind.serves,
            "missing": lacking,
            "metadata": metadata,
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
        rows |= {
            f"made of {role}": f"{one['name']} ({one['hash']})" for role, one in json.loads(metadata["sources"]).items()
        }
        rows["licence"] = metadata["licence"]
    if serves_base:
        rows["still needed"] = _listed(lacking)
    if kind.name in ("hallo", "autoencoder"):
        rows["then"] = "python -m moee_core convert NET AUTOENCODER -o models/moee/hallo.safetensors"
    return _table(rows)


def _inspect_folder(folder: Path, *, as_json: bool) -> int:
    """Every file of weights in a folder and below it, and what a base still lacks."""
    from .detect import kind_of, survey

    found = survey(folder)
    if not found.files:
        some = f", for example {found.unknown[0].name}" if found.unknown else ""
        raise CheckpointError(
            f"{quote(folder, 120)} holds no weights that are known here ({len(found.unknown)} other files{some}); give "
            "the folder that Hallo's downloads lie in"
        )
    if as_json:
        body = {
            "files": {name: [str(path) for path in paths] for name, paths in found.files.items()},
            "unknown": [str(path) for path in found.unknown],
            "missing": list(found.missing),
        }
        return _written(json.dumps(body, indent=1))
    lines = []
    for name, paths in found.files.items():
        kind = kind_of(name)
        lines.append(f"{kind.title}: {kind.serves}")
        lines += [f"    {path.relative_to(folder)}" for path in paths]
    if found.unknown:
        lines.append("not known here:")
        lines += [f"    {path.relative_to(folder)}" for path in found.unknown]
    if any(name in names for name in found.files for names in _complete()):
        lines.append(f"for a Hallo base still needed: {_listed(found.missing)}")
    return _written("\n".join(lines))


def _complete() -> tuple[tuple[str, ...], ...]:
    from .detect import COMPLETE

    return COMPLETE


def _base_config(path: Path) -> HalloConfig:
    from .hallo import inspect_hallo_base

    return inspect_hallo_base(path)[0]


def _described(config: Any) -> dict[str, str]:
    """What is particular to an architecture."""
    from ..systems.emo_talker import EmoTalkerConfig

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


def _sized(path: Path) -> str:
    return f"{path} ({path.stat().st_size / 1e6:.2f} MB)"


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
    import shutil

    import torch

    from .hallo import HALLO, base_shapes, convert_hallo

    output = Path(options.output)
    if output.suffix != ".safetensors":
        raise ValueError(f"--output {quote(output.name)} must end in .safetensors")
    if output.exists() and not options.force:
        raise ValueError(f"{quote(output, 120)} exists; give another name, or --force to replace it")
    config = HALLO if options.config is None else _config_file(options.config)
    net, autoencoder = _sources(options.sources)
    if output.resolve() in (net.resolve(), autoencoder.resolve()):
        raise ValueError(f"{quote(output, 120)} is one of the files to read; give another name")
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[options.dtype]
    needed = sum(math.prod(shape) for shape in base_shapes(config)[0].values()) * dtype.itemsize
    output.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(output.parent).free
    if needed + SPARE > free:
        raise ValueError(
            f"the disk of {quote(output.parent, 120)} has {free / 1e6:.0f} MB free, the file needs {needed / 1e6:.0f} "
            "MB; free some space, or write elsewhere"
        )
    convert_hallo(net, autoencoder, output, config=config, dtype=dtype)
    return _written(f"{_sized(output)}: made of {net} and {autoencoder}")


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


def _sources(given: Sequence[str]) -> tuple[Path, Path]:
    """(net, autoencoder) among files and folders. A file that is named counts for more than what lies in a folder."""
    from .detect import detect, kind_of, survey

    named: dict[str, list[Path]] = {}
    lying: dict[str, list[Path]] = {}
    for text in given:
        path = Path(text)
        if path.is_dir():
            for name, paths in survey(path).files.items():
                lying.setdefault(name, []).extend(paths)
        else:
            named.setdefault(detect(path).name, []).append(path)
    found: list[Path] = []
    for name in ("hallo", "autoencoder"):
        kind = kind_of(name)
        paths = named.get(name) or _without_twins(lying.get(name, []))
        if not paths:
            others = ", ".join(sorted({kind_of(one).title for one in (*named, *lying)})) or "no weights"
            raise CheckpointError(f"{kind.title} is not among what was given ({others}); give that file too")
        if len(paths) > 1:
            raise CheckpointError(_ambiguous(kind, paths))
        found.append(paths[0])
    return found[0], found[1]


def _without_twins(paths: Sequence[Path]) -> list[Path]:
    """Without the pickle where the same name lies beside it as safetensors."""
    safe = {path.with_suffix("") for path in paths if path.suffix == ".safetensors"}
    return [path for path in paths if path.suffix == ".safetensors" or path.with_suffix("") not in safe]


def _ambiguous(kind: Kind, paths: Sequence[Path]) -> str:
    some = ", ".join(quote(path, 60) for path in paths[:2])
    return f"{len(paths)} files are {kind.title}: {some}; name the one to take beside the folder"
