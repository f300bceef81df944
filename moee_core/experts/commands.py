"""The command line of emotion experts: ``experts list | extract | merge``.

``list`` says what files are, ``extract`` makes one from two checkpoints, ``merge`` adds several up, into one file or
into a whole checkpoint. A file that exists is replaced only with ``--force``, a file that is read never.

Exit code of ``list``: 1 when a file cannot be used; the rest is listed all the same.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, MoEEError

if TYPE_CHECKING:
    from torch import Tensor

    from ..weights.checkpoint import CheckpointInfo
    from .file import ExpertFile

SUFFIX = ".safetensors"
MERGED = "merged_experts"
"""Metadata of a checkpoint: JSON list of {"into": hash of the denoiser before, "parts": [...]}."""
TOGETHER = " + "
"""Between licences, and between authors, of what was merged."""
PART_TEXTS = ("file", "emotion", "name", "author", "licence", "data_licence")
HEADINGS = ("file", "emotion", "base", "fits", "size", "licence", "data licence", "author: name", "card", "preview")
COLUMN = 34  # characters at most
LINE = 160  # characters of an error in the table

Weighted = list[tuple["ExpertFile", float]]


def add_experts(parser: argparse.ArgumentParser, default_model: str) -> None:
    commands = parser.add_subparsers(required=True, metavar="list | extract | merge")

    listed = commands.add_parser("list", help="say what expert files are and whether they fit a model")
    listed.add_argument(
        "paths", nargs="*", metavar="FILE or FOLDER", help="default: models/moee/experts, or this folder"
    )
    listed.add_argument("--model", default=default_model, help="the checkpoint to fit; the embedded model if not given")
    listed.add_argument("--json", action="store_true", help="print everything as JSON")
    listed.set_defaults(run=_list)

    extract = commands.add_parser("extract", help="make an expert file from a tuned checkpoint and its base")
    extract.add_argument("tuned", help="the checkpoint after training")
    extract.add_argument("--base", required=True, help="the checkpoint before")
    extract.add_argument("--emotion", required=True, help="the emotion whose expert was trained")
    extract.add_argument("--licence", help="default: what the tuned checkpoint states")
    extract.add_argument("--data-licence", help="default: what the tuned checkpoint states")
    extract.set_defaults(run=_extract)

    merge = commands.add_parser("merge", help="add experts up, into one file or into a checkpoint")
    merge.add_argument("experts", nargs="+", metavar="FILE[:WEIGHT]", help="weights from -2 to 2, 1 if not given")
    merge.add_argument("--into", metavar="MODEL", help="write this checkpoint with the experts added")
    merge.add_argument("--emotion", help="add them to the expert of this emotion, whatever they were trained for")
    merge.set_defaults(run=_merge)

    for command in (extract, merge):
        command.add_argument("-o", "--output", required=True, help="the file to write (.safetensors)")
        command.add_argument("--name", help="what to call the expert")
        command.add_argument("--author", help="who made it")
        command.add_argument("--note", help="anything a user should know")
        command.add_argument("--preview", metavar="PICTURE", help="a picture to show it with, made small")
        command.add_argument("--card", metavar="JSON-FILE", help="how it was measured: an object of at most 8 KB")
    extract.add_argument(
        "--force", action="store_true", help="replace the output; extract although the models differ elsewhere too"
    )
    merge.add_argument("--force", action="store_true", help="replace the output if it exists")


# list


def _list(options: argparse.Namespace) -> int:
    from .file import check_fits

    model = _Model.read(options.model)
    shapes = model.shapes
    entries = []
    for path in _files(options.paths):
        entry: dict[str, Any] = {"file": str(path)}
        entries.append(entry)
        try:
            expert = _described(path, entry)
        except (MoEEError, ValueError, OSError) as error:
            entry["error"] = _plain(error, LINE)
            continue
        try:
            check_fits(expert, expert.file, model.hash, shapes)
            entry["fits"] = True
        except CheckpointError as error:
            entry.update(fits=False, misfit=_plain(error, LINE))
    if options.json:
        body = {"model": options.model, "base": model.hash, "experts": entries}
        sys.stdout.write(json.dumps(body, indent=1) + "\n")
    else:
        sys.stdout.write(_table(entries) or "no .safetensors files here; give files or folders of experts\n")
    return 1 if any("error" in entry for entry in entries) else 0


def _files(given: Sequence[str]) -> list[Path]:
    """The files named, and every .safetensors in and below the folders named."""
    found: list[Path] = []
    for path in [Path(text) for text in given] or [_usual_folder()]:
        found += sorted(path.rglob(f"*{SUFFIX}")) if path.is_dir() else [path]
    return found


def _usual_folder() -> Path:
    """models/moee/experts of the ComfyUI this pack is installed in, otherwise the current folder."""
    pack = Path(__file__).resolve().parents[2]
    folder = pack.parent.parent / "models" / "moee" / "experts"
    return folder if pack.parent.name == "custom_nodes" and folder.is_dir() else Path(".")


def _described(path: Path, entry: dict[str, Any]) -> ExpertFile:
    """The file without its weights; ``entry`` is filled up to what cannot be read, which raises."""
    from .file import inspect_expert

    if not path.exists():
        raise CheckpointError("no such file; check the spelling and the folder")
    expert = inspect_expert(path)
    entry.update(emotion=expert.emotion, base=expert.base, bytes=path.stat().st_size)
    entry.update({name: expert.metadata.get(name, "unstated") for name in ("licence", "data_licence")})
    entry.update({name: expert.metadata.get(name, "") for name in ("name", "author", "note")})
    entry["evaluation"] = expert.card()
    entry["preview"] = expert.preview() is not None
    return expert


def _table(entries: Iterable[dict[str, Any]]) -> str:
    rows: list[tuple[str, ...]] = [HEADINGS]
    broken: dict[int, str] = {}
    for entry in entries:
        if "error" in entry:
            broken[len(rows)] = entry["error"]
            rows.append((_plain(entry["file"], 2 * COLUMN, end=True), *[""] * (len(HEADINGS) - 1)))
            continue
        who = ": ".join(text for text in (entry["author"], entry["name"]) if text)
        rows.append(
            (
                _plain(entry["file"], 2 * COLUMN, end=True),
                entry["emotion"],
                _plain(entry["base"], COLUMN) or "unknown",
                "yes" if entry["fits"] else "no",
                _size(entry["bytes"]),
                _plain(entry["licence"], COLUMN),
                _plain(entry["data_licence"], COLUMN),
                _plain(who, COLUMN) or "-",
                _plain(_card_line(entry["evaluation"]), 2 * COLUMN) or "-",
                "yes" if entry["preview"] else "no",
            )
        )
    if len(rows) == 1:
        return ""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for index, row in enumerate(rows):
        cells = [row[0], f"error: {broken[index]}"] if index in broken else row
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=False)).rstrip())
    return "\n".join(lines) + "\n"


def _card_line(card: dict[str, Any]) -> str:
    def shown(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:g}"
        return value if isinstance(value, str) else json.dumps(value)

    return ", ".join(f"{name} {shown(value)}" for name, value in card.items())


def _plain(text: object, limit: int, *, end: bool = False) -> str:
    """Anybody's text fit for one line of a terminal; of a long one the start, or the end."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in str(text)).split())
    if len(line) <= limit:
        return line
    return f"…{line[1 - limit :]}" if end else f"{line[: limit - 1]}…"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


# extract


def _extract(options: argparse.Namespace) -> int:
    from ..emotion.vocabulary import EXPERTS
    from .file import expert_deltas, save_expert

    emotion = _expert_name(options.emotion)
    target = _target(options, [options.tuned, options.base, options.preview, options.card])
    about = _about(options)
    tuned, base = _Model.read(options.tuned), _Model.read(options.base)
    names = _pair(options.tuned, options.base)
    if {tuned.info.config.unet.experts, base.info.config.unet.experts} != {len(EXPERTS)}:
        raise CheckpointError(
            f"{names} do not both have {len(EXPERTS)} experts; take two models of training stage 2 on"
        )
    deltas = expert_deltas(tuned.denoiser, base.denoiser, emotion)
    if not _changes(deltas):
        changed = [name for name in EXPERTS if _changes(expert_deltas(tuned.denoiser, base.denoiser, name))]
        raise CheckpointError(
            f"nothing to extract: {names} have the same expert for {emotion!r}, to half precision "
            f"(changed: {', '.join(changed) or 'none'})"
        )
    _check_nothing_else(tuned, base, names, emotion, force=options.force)
    for key, given in (("licence", options.licence), ("data_licence", options.data_licence)):
        stated = given or tuned.info.metadata.get(key)
        about |= {key: stated} if stated else {}
    save_expert(target, emotion, base.hash, deltas, about)
    sys.stdout.write(
        f"{target.name}: expert for {emotion}, {len(deltas)} tensors, {_size(target.stat().st_size)}, "
        f"base {base.hash}, licence {_plain(about.get('licence', 'unstated'), COLUMN)}\n"
    )
    return 0


def _pair(first: str, second: str) -> str:
    from ..emotion.vocabulary import quote

    return f"{quote(Path(first).name)} and {quote(Path(second).name)}"


def _changes(deltas: dict[str, Tensor]) -> bool:
    """Whether anything is left of the differences in half precision; what is undefined is a change too."""
    return any(bool((value.half() != 0).any()) for value in deltas.values())


def _check_nothing_else(tuned: _Model, base: _Model, names: str, emotion: str, *, force: bool) -> None:
    """Refuse two models that differ in anything but the expert; with ``force`` only say so."""
    from ..emotion.vocabulary import EXPERTS

    before, after = base.whole(), tuned.whole()
    others = [] if tuned.info.config == base.info.config else ["their configuration"]
    own = f".emotion.experts.{EXPERTS.index(emotion)}."
    for key in sorted(before.keys() | after.keys()):
        if own not in key and not _same(before.get(key), after.get(key)):
            others.append(key)
    if not others:
        return
    first = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
    if not force:
        raise CheckpointError(
            f"{names} differ in {len(others)} more places than the expert for {emotion!r}, which alone would not "
            f"reproduce the tuned model (--force extracts it anyway): {first}"
        )
    sys.stderr.write(f"warning: the expert alone does not reproduce the tuned model; also different: {first}\n")


def _same(first: Tensor | None, second: Tensor | None) -> bool:
    import torch

    if first is None or second is None or first.shape != second.shape:
        return False
    return torch.equal(first.float(), second.float())


# merge


def _merge(options: argparse.Namespace) -> int:
    from .file import check_adds_up, load_expert

    weighted = [parse_weighted(text) for text in options.experts]
    target = _target(options, [options.into, options.preview, options.card, *(path for path, _ in weighted)])
    experts: Weighted = [(load_expert(path), weight) for path, weight in weighted]
    for expert, _ in experts:
        check_adds_up(expert)
    parts = [part for expert, weight in experts for part in _parts(expert, weight)]
    if options.emotion:
        emotion = _expert_name(options.emotion)
        experts = [(replace(expert, emotion=emotion), weight) for expert, weight in experts]
    if options.into:
        for name in ("name", "author", "note", "preview", "card"):
            if getattr(options, name):
                raise ValueError(f"--{name} describes an expert's file and --into writes a checkpoint; leave one out")
        _merge_into(options.into, target, experts, parts)
    else:
        _merge_to_file(options, target, experts, parts)
    return 0


def _merge_to_file(options: argparse.Namespace, target: Path, experts: Weighted, parts: list[dict[str, Any]]) -> None:
    from .file import combined, portable, save_expert

    first = experts[0][0]
    shapes: dict[str, tuple[int, ...]] = {}
    for expert, _ in experts:
        if expert.base != first.base or not expert.base:
            raise CheckpointError(
                f"{_pair(first.file, expert.file)} cannot be added up: their bases are {_base(first)} and "
                f"{_base(expert)}, and an expert is a difference to its own; merge only those of one base"
            )
        if expert.emotion != first.emotion:
            raise CheckpointError(
                f"{_pair(first.file, expert.file)} serve {first.emotion!r} and {expert.emotion!r}; say with "
                "--emotion which expert the sum is for, or put them --into a model, each in its own place"
            )
        for key, value in expert.for_denoiser().items():
            shapes.setdefault(key, tuple(value.shape))
    deltas = portable(combined(experts, first.base, shapes), first.emotion)
    header = _common(experts, parts) | _about(options) | {"parts": json.dumps(parts)}
    save_expert(target, first.emotion, first.base, deltas, header)
    sys.stdout.write(
        f"{target.name}: expert for {first.emotion} from {_said(experts)}, {_size(target.stat().st_size)}, "
        f"licence {_plain(header['licence'], COLUMN)}\n"
    )


def _common(experts: Weighted, parts: list[dict[str, Any]]) -> dict[str, str]:
    """Metadata of a sum: what all parts say alike, with every licence and author named.

    A preview and an evaluation are of the expert as it was; they stay only with a single one that is unchanged.
    """
    first, weight = experts[0]
    shared = {
        key: value
        for key, value in first.metadata.items()
        if all(expert.metadata.get(key) == value for expert, _ in experts)
    }
    if len(experts) > 1 or weight != 1 or first.emotion != first.metadata["emotion"]:
        shared.pop("preview", None)
        shared.pop("evaluation", None)
    for key in ("licence", "data_licence"):
        shared[key] = _all_of(expert.metadata.get(key, "unstated") for expert, _ in experts)
    authors = _all_of(part.get("author", "") for part in parts)
    return shared | ({"author": authors} if authors else {})


def _merge_into(model: str, target: Path, experts: Weighted, parts: list[dict[str, Any]]) -> None:
    from .file import combined, write_tensors

    before = _Model.read(model)
    state = before.whole()
    for key, value in combined(experts, before.hash, before.shapes).items():
        whole = f"denoiser.{key}"
        state[whole] = (state[whole].float() + value).to(state[whole].dtype)
    header = dict(before.info.metadata)
    header[MERGED] = json.dumps([*_earlier(before.info), {"into": before.hash, "parts": parts}])
    for key in ("licence", "data_licence"):
        stated = (expert.metadata.get(key, "unstated") for expert, _ in experts)
        header[key] = _all_of([header.get(key, "unstated"), *stated])
    write_tensors(target, state, header)
    sys.stdout.write(
        f"{target.name}: {Path(model).name} with {_said(experts)}, {_size(target.stat().st_size)}, "
        f"licence {_plain(header['licence'], COLUMN)}\n"
    )


def _earlier(info: CheckpointInfo) -> list[Any]:
    """What had been merged into a checkpoint before."""
    try:
        earlier = json.loads(info.metadata.get(MERGED, "[]"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{info.path.name}: its metadata {MERGED!r} is not JSON; it is damaged") from error
    return earlier if isinstance(earlier, list) else [earlier]


def _parts(expert: ExpertFile, weight: float) -> list[dict[str, Any]]:
    """An expert as a record; one that was merged itself as its own parts, with their weights."""
    try:
        inside = json.loads(expert.metadata.get("parts", "[]"))
    except (ValueError, RecursionError):
        inside = []
    inside = [part for part in inside if _is_part(part)] if isinstance(inside, list) else []
    if inside:
        known = ({key: str(part[key]) for key in PART_TEXTS if key in part} for part in inside)
        return [texts | {"weight": part["weight"] * weight} for texts, part in zip(known, inside, strict=True)]
    texts = {"file": expert.file, "emotion": expert.emotion}
    texts |= {key: expert.metadata[key] for key in PART_TEXTS if key in expert.metadata and key not in texts}
    return [texts | {"weight": weight}]


def _is_part(part: Any) -> bool:
    """Whether somebody's record of a part can be multiplied and passed on."""
    weight = part.get("weight") if isinstance(part, dict) else None
    return isinstance(weight, int | float) and abs(weight) < 1e6 and math.isfinite(weight)


def _all_of(texts: Iterable[str]) -> str:
    """Every distinct text, also of those that were joined before."""
    single = (one.strip() for text in texts for one in text.split(TOGETHER))
    return TOGETHER.join(dict.fromkeys(one for one in single if one))


def _said(experts: Weighted) -> str:
    return _plain(", ".join(f"{expert.file} × {weight:g}" for expert, weight in experts), LINE)


def _base(expert: ExpertFile) -> str:
    from ..emotion.vocabulary import quote

    return quote(expert.base, 20) if expert.base else "unknown"


def parse_weighted(text: str) -> tuple[str, float]:
    """``FILE`` or ``FILE:WEIGHT``; a colon may also be part of the path."""
    from ..emotion.vocabulary import quote
    from .file import check_weight

    path, colon, tail = text.rpartition(":")
    if not colon or Path(text).is_file() or tail.endswith(SUFFIX) or "/" in tail or "\\" in tail:
        return text, 1.0
    try:
        weight = float(tail)
    except ValueError:
        raise ValueError(f"{quote(text, 80)}: {quote(tail)} is not a weight; write FILE:0.5, or only FILE") from None
    check_weight(weight, quote(Path(path).name))
    return path, weight


# all of them


@dataclass(frozen=True)
class _Model:
    """A checkpoint, read strictly. ``hash``: of its denoiser, by which experts know it."""

    hash: str
    parts: dict[str, dict[str, Tensor]]
    info: CheckpointInfo

    @staticmethod
    def read(path: str) -> _Model:
        from ..weights.checkpoint import load_parts, state_hash

        parts, info = load_parts(path)
        return _Model(state_hash(parts["denoiser"]), parts, info)

    @property
    def denoiser(self) -> dict[str, Tensor]:
        return self.parts["denoiser"]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {key: tuple(value.shape) for key, value in self.denoiser.items()}

    def whole(self) -> dict[str, Tensor]:
        return {f"{part}.{key}": value for part, state in self.parts.items() for key, value in state.items()}


def _expert_name(text: str) -> str:
    """One of the six, by any of its names. Raises ``EmotionError``, or ``CheckpointError`` for one without expert."""
    from ..emotion.vocabulary import EXPERTS, quote, resolve_label

    label = resolve_label(text)
    if label not in EXPERTS:
        raise CheckpointError(f"--emotion: there is no expert for {quote(label)}; choose one of {', '.join(EXPERTS)}")
    return label


def _about(options: argparse.Namespace) -> dict[str, str]:
    """The metadata that options give."""
    from .file import MAX_CARD, card_text, parse_card, preview_text

    about = {name: getattr(options, name) for name in ("name", "author", "note") if getattr(options, name)}
    if options.preview:
        about["preview"] = preview_text(options.preview)
    if options.card:
        where = f"--card {_plain(Path(options.card).name, COLUMN)}"
        try:
            with Path(options.card).open("rb") as stream:
                text = stream.read(4 * MAX_CARD).decode("utf-8-sig")
        except OSError as error:
            raise ValueError(f"{where} cannot be read ({error.strerror}); check the path") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{where} is not UTF-8 text; save it as UTF-8") from error
        about["evaluation"] = card_text(parse_card(text, where), where)
    return about


def _target(options: argparse.Namespace, read: Iterable[str | None]) -> Path:
    """Where to write, known to be possible and allowed before anything is computed."""
    from ..audio.read import describe_path
    from ..video.frames import writable_target

    target = writable_target(options.output, "output", (SUFFIX,))
    if os.path.lexists(target):
        if any(target.samefile(path) for path in read if path and target.exists() and os.path.exists(path)):
            raise ValueError(f"{describe_path(options.output)} is one of the files to read; give another -o")
        if not options.force:
            raise ValueError(f"{describe_path(options.output)} exists; give another -o, or --force to replace it")
    return target
