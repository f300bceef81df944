"""A network of transformers from a local folder in the layout of the Hugging Face hub: complete, or an error.

Never the network, no code from the folder. Raises ``CheckpointError``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..emotion.vocabulary import quote
from ..errors import CheckpointError


def load_folder(
    class_name: str, folder: Path, title: str, aside: tuple[str, ...], advice: str = "", may_lack: tuple[str, ...] = ()
) -> Any:
    """The network of transformers' ``class_name`` in float32; weights whose names begin with one of ``aside`` are left
    aside, those in ``may_lack`` may be absent, any other that is missing, unknown or of another shape is an error.
    ``title`` and ``advice`` are for the user."""
    try:
        import transformers
    except ImportError as error:
        raise CheckpointError(f"{title} needs the Python package transformers: pip install transformers") from error
    try:
        found: Any = getattr(transformers, class_name).from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, output_loading_info=True
        )
        model, report = found
    except Exception as error:  # transformers and its readers raise many kinds; all mean the same to the user
        raise CheckpointError(f"{quote(folder, 120)} cannot be loaded as {title}: {quote(error, 160)}") from error
    missing = sorted(set(report["missing_keys"]) - set(may_lack))
    unknown = sorted(key for key in report["unexpected_keys"] if not key.startswith(aside))
    end = f"; {advice}" if advice else ""
    for keys, what in ((missing, "lacks"), (unknown, "has the unknown")):
        if keys:
            raise CheckpointError(f"{quote(folder, 120)} {what} weight {quote(keys[0], 80)} ({len(keys)} in all){end}")
    mismatched = report.get("mismatched_keys") or ()
    if mismatched:
        raise CheckpointError(f"{quote(folder, 120)}: {len(mismatched)} weights have other shapes than its config.json")
    return model.float()


def settings_of(folder: Path, model_type: str, title: str) -> dict[str, Any]:
    """What config.json says of a model that has to be of ``model_type``."""
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(
            f"{quote(folder, 120)} holds no {title} (no config.json); give a folder downloaded from the hub"
        )
    settings = read_settings(path)
    if settings.get("model_type") != model_type:
        kind = quote(settings.get("model_type", "unknown"))
        raise CheckpointError(f"{quote(folder, 120)} holds a model of type {kind}, {model_type} is needed")
    return settings


def holds(folder: Path, model_type: str) -> bool:
    """Whether config.json says that the folder's model is of this type; no for one that cannot be read."""
    try:
        return read_settings(folder / "config.json").get("model_type") == model_type
    except CheckpointError:
        return False


def normalises(folder: Path) -> bool:
    """Whether a model of sound wants its recordings at mean 0 and variance 1; yes where its folder does not say."""
    path = folder / "preprocessor_config.json"
    return bool(read_settings(path).get("do_normalize", True)) if path.is_file() else True


def read_settings(path: Path) -> dict[str, Any]:
    """A JSON file that holds a table."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{quote(path, 120)} is not JSON: {quote(error, 80)}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{quote(path, 120)} is not a table of settings")
    return found
