"""Motions as files: npz with names, units and rate; SadTalker's and Deep3DFaceRecon's coefficients in and out.

    format   "moee-motion-1"          space    name of the space          fps      float
    values   (F, D) float32           names    (D,) text                  units    (D,) text      about   text

A file may hold its coefficients in any order and may leave some out (they are 0): ``names`` decides. Foreign files
are .npz, .npy or .mat with (F, 70) numbers under "coeff_3dmm" or (F, 257) under "coeff" (identity 0:80, expression
80:144, texture 144:224, angles 224:227, light 227:254, translation 254:257; EmoTalker 4.1, Deep3DFaceRecon).
Nothing is unpickled.
"""

from __future__ import annotations

import os
import zipfile
from os import PathLike
from pathlib import Path

import numpy as np

from ..audio.read import describe_path, describe_reason, require_file
from ..video.frames import hidden_beside, writable_target
from .coefficients import SADTALKER, SPACES, Motion, MotionError

FORMAT = "moee-motion-1"
SUFFIXES = (".npz",)
FOREIGN_FPS = 25.0
"""SadTalker's files do not say their rate; it is always this."""

_WHOLE, _SHORT, _CROPPED = 257, 70, 73  # SadTalker appends 3 numbers of the crop to its 70


def save_motion(path: str | PathLike[str], motion: Motion) -> None:
    """Write whole or not at all. Raises ``MediaError`` for a path that cannot be written."""
    target = writable_target(path, "motion", SUFFIXES)
    unfinished = hidden_beside(target)
    try:
        with unfinished.open("wb") as stream:
            np.savez_compressed(
                stream,
                format=np.array(FORMAT),
                space=np.array(motion.space.name),
                fps=np.array(motion.fps, np.float64),
                values=motion.values,
                names=np.array(motion.space.names),
                units=np.array(motion.space.units),
                about=np.array(motion.about),
            )
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)


def read_motion(path: str | PathLike[str]) -> Motion:
    """Our own file, or coefficients of SadTalker's kind. Raises ``MotionError`` or ``MediaError``."""
    source = require_file(path, "motion")
    shown = describe_path(path)
    if source.suffix.lower() == ".mat":
        return _foreign(_read_mat(source, shown), shown)
    try:
        data = np.load(source, allow_pickle=False)
        fields = {"coeff_3dmm": data} if isinstance(data, np.ndarray) else {key: data[key] for key in data.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise MotionError(
            f"motion {shown}: this is no motion file ({describe_reason(error)}); give an .npz that this pack saved, or "
            "SadTalker coefficients as .npz, .npy or .mat"
        ) from error
    if "format" not in fields:
        return _foreign(fields, shown)
    return _own(fields, shown)


def _own(fields: dict[str, np.ndarray], shown: str) -> Motion:
    found = str(fields["format"])
    if found != FORMAT:
        raise MotionError(f"motion {shown}: format {found[:30]!r} is not known here, only {FORMAT!r}; update the pack")
    missing = [name for name in ("space", "fps", "values", "names") if name not in fields]
    if missing:
        raise MotionError(f"motion {shown}: the file has no {missing[0]!r}; it is damaged")
    if str(fields["space"]) not in SPACES:
        raise MotionError(f"motion {shown}: unknown space {str(fields['space'])[:30]!r}; known: {', '.join(SPACES)}")
    space = SPACES[str(fields["space"])]
    names, given = [str(name) for name in fields["names"].ravel()], fields["values"]
    if given.ndim != 2 or given.shape[1] != len(names) or given.dtype.kind not in "fiu":
        raise MotionError(f"motion {shown}: {len(names)} names do not fit values of shape {given.shape} {given.dtype}")
    unknown = [name for name in names if name not in space.index]
    if unknown or len(set(names)) != len(names):
        wrong = f"unknown coefficient {unknown[0][:30]!r}" if unknown else "a coefficient named twice"
        raise MotionError(f"motion {shown}: {wrong} in the space {space.name!r}")
    values = np.zeros((len(given), space.size), np.float32)
    values[:, [space.index[name] for name in names]] = given
    try:
        return Motion(values=values, fps=float(fields["fps"]), space=space, about=str(fields.get("about", "")))
    except (MotionError, TypeError, ValueError) as error:
        raise MotionError(f"motion {shown}: {error}") from error


def _foreign(fields: dict[str, np.ndarray], shown: str) -> Motion:
    name = next((key for key in ("coeff_3dmm", "coeff") if key in fields), None)
    if name is None:
        keys = ", ".join(sorted(fields))[:80] or "nothing"
        raise MotionError(f"motion {shown}: no motion of this pack, no SadTalker coefficients; it holds {keys}")
    given = fields[name]
    if given.dtype.kind not in "fiu" or given.ndim != 2 or given.shape[1] not in (_WHOLE, _SHORT, _CROPPED):
        raise MotionError(f"motion {shown}: {name} must be (frames, 70 or 257), got {given.shape} {given.dtype}")
    if given.shape[1] == _WHOLE:
        given = np.concatenate([given[:, 80:144], given[:, 224:227], given[:, 254:257]], axis=1)
    return Motion(values=given[:, :_SHORT], fps=FOREIGN_FPS, space=SADTALKER, about=f"imported from {Path(shown).name}")


def export_sadtalker(path: str | PathLike[str], motion: Motion) -> None:
    """Coefficients as SadTalker's tools read them: "coeff_3dmm" (F, 70) in an .npz or .mat.

    Raises ``MotionError`` for a motion of another space, ``MediaError`` for a path that cannot be written.
    """
    if motion.space is not SADTALKER:
        raise MotionError(
            f"a motion of the space {motion.space.name!r} cannot be exported as SadTalker's coefficients: there is no "
            "exact map between their expressions"
        )
    target = writable_target(path, "motion", (".npz", ".mat"))
    unfinished = hidden_beside(target)
    try:
        if target.suffix.lower() == ".mat":
            _scipy_io().savemat(str(unfinished), {"coeff_3dmm": motion.values}, appendmat=False)
        else:
            with unfinished.open("wb") as stream:
                np.savez_compressed(stream, coeff_3dmm=motion.values)
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)


def _read_mat(source: Path, shown: str) -> dict[str, np.ndarray]:
    try:
        return {k: v for k, v in _scipy_io().loadmat(str(source)).items() if not k.startswith("__")}
    except (OSError, ValueError, NotImplementedError, TypeError) as error:
        raise MotionError(f"motion {shown}: not a MATLAB file that can be read ({describe_reason(error)})") from error


def _scipy_io():
    try:
        import scipy.io
    except ImportError as error:  # optional: ComfyUI brings it, the library alone does not
        raise MotionError("MATLAB files need the package scipy; install it, or convert the file to .npz") from error
    return scipy.io
