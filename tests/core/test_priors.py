"""Priors of emotions: files of every kind, hostile ones among them, blends, and their course over time."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import pickletools
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from moee_core.emotion.condition import parse_blend
from moee_core.emotion.priors import (
    MAX_BYTES,
    PUBLISHED_LICENCE,
    Prior,
    blend_priors,
    prior_track,
    priors_in,
    read_prior,
    write_prior,
)
from moee_core.emotion.source import EmotionSource, UnitTrack
from moee_core.emotion.timeline import parse_emotion
from moee_core.emotion.vocabulary import LABELS
from moee_core.errors import CheckpointError, EmotionError

P = 6


def numbers(name: str, *shape: int) -> np.ndarray:
    return np.random.RandomState(len(name) + sum(map(ord, name))).standard_normal(shape or (P,)).astype(np.float32)


def known(*names: str) -> dict[str, Prior]:
    return {name: Prior(mean=numbers(name)) for name in names or LABELS}


def npy(value: Any, protocol: int = 4) -> bytes:
    """As ``np.save`` writes an object, by any protocol."""
    stream = io.BytesIO()
    header = {"descr": "|O", "fortran_order": False, "shape": ()}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + pickle.dumps(np.array(value, dtype=object), protocol=protocol)


def with_pickle(body: bytes) -> bytes:
    head = npy({})
    return head[: head.index(b"\n") + 1] + body


# ---- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:numpy.core")  # of NumPy 2, where it reads what NumPy 1 wrote
@pytest.mark.parametrize("core", [b"numpy._core.", b"numpy.core."])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_published_file(tmp_path: Path, protocol: int, core: bytes):
    """As NumPy 1 and 2 write them, which differ in the name of a module alone; one of them is written here."""
    mu = numbers("mu", 1, 256)
    data = npy({"mu": mu}, protocol)
    for old, new in ((b"numpy._core.", core), (b"numpy.core.", core)):
        for module in (b"multiarray", b"numeric"):
            # protocol 4 and up state the length of a name and of the frame
            before, after = old + module, new + module
            frame = struct.unpack("<Q", data[131:139])[0] if protocol >= 4 else 0
            grown = (len(after) - len(before)) * data.count(before)
            for lead in (lambda name: b"\x8c" + bytes([len(name)]), lambda _: b"c"):
                data = data.replace(lead(before) + before, lead(after) + after)
            if frame and grown:
                data = data[:131] + struct.pack("<Q", frame + grown) + data[139:]
    path = tmp_path / "angry.npy"
    path.write_bytes(data)
    assert core in data
    assert np.array_equal(np.load(path, allow_pickle=True).item()["mu"], mu), "a file that NumPy reads"
    prior = read_prior(path)
    assert prior.mean.dtype == np.float32
    assert np.array_equal(prior.mean, mu[0])
    assert (prior.deviation, prior.about, prior.licence) == (None, "angry.npy", PUBLISHED_LICENCE)


def test_a_file_of_the_size_that_is_published(tmp_path: Path):
    """1,403 bytes, as NumPy 1 writes such an array."""
    data = npy({"mu": numbers("sad", 1, 256)}, 3).replace(b"cnumpy._core.", b"cnumpy.core.")
    (tmp_path / "sad.npy").write_bytes(data)
    assert len(data) == 1403
    assert read_prior(tmp_path / "sad.npy").width == 256


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_deviation_is_taken_too(tmp_path: Path, protocol: int):
    mean, deviation = numbers("m").astype(np.float64), np.asfortranarray(np.abs(numbers("d", 1, P))).astype(">f2")
    (tmp_path / "a.npy").write_bytes(npy({"mu": mean, "sigma": deviation}, protocol))
    prior = read_prior(tmp_path / "a.npy")
    np.testing.assert_array_equal(prior.mean, mean.astype(np.float32))
    assert prior.deviation is not None
    np.testing.assert_array_equal(prior.deviation, deviation[0].astype(np.float32))


@pytest.mark.parametrize("shape", [(P,), (1, P)])
@pytest.mark.parametrize("dtype", ["<f4", "<f8", "<f2", ">f4"])
def test_plain_numbers(tmp_path: Path, shape: tuple[int, ...], dtype: str):
    value = numbers("plain", *shape).astype(dtype)
    np.save(tmp_path / "a.npy", value)
    prior = read_prior(tmp_path / "a.npy")
    assert prior.mean.dtype == np.float32
    np.testing.assert_array_equal(prior.mean, value.reshape(-1).astype(np.float32))
    assert prior.licence == "not stated"


def test_our_own_file(tmp_path: Path):
    path = tmp_path / "deep" / "smug.safetensors"
    prior = Prior(mean=numbers("m"), deviation=np.abs(numbers("d")), about="a smile", licence="CC0")
    write_prior(path, prior)
    found = read_prior(path)
    for name in ("mean", "deviation"):
        np.testing.assert_array_equal(getattr(found, name), getattr(prior, name))
    assert (found.about, found.licence) == ("a smile", "CC0")
    write_prior(path, Prior(mean=numbers("n")))
    assert read_prior(path).deviation is None
    assert [one.name for one in path.parent.iterdir()] == ["smug.safetensors"]
    with pytest.raises(ValueError, match=r"written as \.safetensors, got 'smug\.npy'"):
        write_prior(path.with_suffix(".npy"), prior)


class _Runs:
    """Would leave a file behind if it were unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def hostile(trace: Path) -> dict[str, bytes]:
    touch = b"S'touch " + str(trace).encode() + b"'\n"
    array = pickle.dumps(np.zeros(2, np.float32), protocol=2)
    core = b"numpy._core.multiarray" if b"numpy._core." in array else b"numpy.core.multiarray"
    return {
        "instead": npy(_Runs(trace), 4),
        "inside, protocol 2": npy({"mu": _Runs(trace)}, 2),
        "inside, protocol 5": npy({"mu": _Runs(trace)}, 5),
        "beside": npy({"mu": numbers("mu", 1, 4), "about": _Runs(trace)}, 3),
        "text opcodes": with_pickle(b"cos\nsystem\n(" + touch + b"tR."),
        "inst": with_pickle(b"(" + touch + b"ios\nsystem\n."),
        "obj": with_pickle(b"(cos\nsystem\n" + touch + b"o."),
        "numpy's own ways out": with_pickle(
            b"\x80\x02cnumpy.testing._private.utils\nrunstring\n(X\x01\x00\x00\x001}tR."
        ),
        "an attribute of an allowed module": with_pickle(b"\x80\x04\x8c\x05numpy\x8c\x04load\x93\x8c\x01a\x85R."),
        "a name put together": with_pickle(b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R."),
        "an extension": with_pickle(b"\x80\x02\x82\x01."),
        "persistent": with_pickle(b"\x80\x02U\x01aQ."),
        "a call of an array": with_pickle(array[:-1].replace(b"cnumpy\ndtype", b"cbuiltins\nexec", 1) + b"."),
        "new object": with_pickle(b"\x80\x02cnumpy\nndarray\n)\x81."),
        "state of a name": with_pickle(b"\x80\x02c" + core + b"\n_reconstruct\n}U\x01aU\x01bsb."),
        "another codec": with_pickle(b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00utf_8\x86R."),
    }


@pytest.mark.parametrize("name", hostile(Path("x")))
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("it was unpickled")

    data = hostile(tmp_path / "trace")[name]
    path = tmp_path / "angry.npy"
    path.write_bytes(data)
    for module, attribute in ((os, "system"), (pickle, "loads"), (pickle, "load"), (pickle, "Unpickler")):
        monkeypatch.setattr(module, attribute, never)
    with pytest.raises(CheckpointError, match=r"^'angry\.npy' is (not opened|no prior)") as caught:
        read_prior(path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "trace").exists()


def test_a_hostile_pickle_says_what_it_asked_for(tmp_path: Path):
    path = tmp_path / "angry.npy"
    path.write_bytes(npy({"mu": _Runs(path)}))
    with pytest.raises(CheckpointError, match=r"asks for '(posix|nt)\.system', which no prior needs; nothing"):
        read_prior(path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of pickletools, for texts that make no sense
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_file_cut_off_or_changed_anywhere_is_an_error_or_a_prior(tmp_path: Path, protocol: int):
    """Never another exception, and never memory for what is not there."""
    data = npy({"mu": numbers("mu", 1, 3)}, protocol)
    path = tmp_path / "a.npy"
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(CheckpointError):
            read_prior(path)
    random = np.random.RandomState(1)
    for _ in range(1500):
        changed = bytearray(data)
        for at in random.randint(0, len(data), random.randint(1, 4)):
            changed[at] = random.randint(256)
        path.write_bytes(changed)
        with contextlib.suppress(CheckpointError):
            assert np.isfinite(read_prior(path).mean).all()


def deep(count: int) -> bytes:
    """A tuple in a tuple in a tuple as the shape of an array."""
    body = pickle.dumps(np.array({"mu": np.zeros((1, 3), np.float32)}, dtype=object), protocol=2)
    spot = body.index(b"K\x01K\x03\x86")
    return with_pickle(body[:spot] + b")" + b"\x85" * count + body[spot + 5 :])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is no .npy, it begins with b''"),
        (b"<!DOCTYPE html>", "may have saved a page"),
        (npy({"mu": numbers("a", 2, 3)}), r"is \(P,\) or \(1, P\) floating point numbers, got \(2, 3\)"),
        (npy({"mu": np.zeros((1, 0), np.float32)}), r"got \(1, 0\)"),
        (npy({"mu": np.zeros((1, 3), np.int32)}), "type '<i4' are no prior"),
        (npy({"mu": np.float32(3)}), "something else than numbers"),
        (npy({"mu": [1.0, 2.0]}), "something else than numbers"),
        (npy({"mu": np.full(3, np.nan, np.float32)}), "which is none"),
        (npy({"mu": np.full(3, 1e300)}), "which is none"),
        (npy({"mu": np.ones(3), "sigma": -np.ones(3)}), "which is none"),
        (npy({"mu": np.ones(3), "sigma": np.ones(4)}), "3 numbers, its deviation 4"),
        (npy({"nu": np.ones(3)}), "holds 'nu', a prior of DICE-Talk 'mu'"),
        (npy({"mu": np.ones(3), "more": np.ones(3)}), "holds 'mu, more'"),
        (npy([1, 2]), "describes no dictionary"),
        (npy({"mu": np.ones(3)}) + b"more", "describes no array"),
        (with_pickle(b"\x80\x02}."), "describes no array"),
        (with_pickle(b"\x80\x02K\x01K\x01\x86\x85" + b"\x86" * 3 + b"."), "what is not there"),
        (deep(50000), "do not fill the shape"),
        (b"\0" * (MAX_BYTES + 1), "bytes, a prior a few thousand"),
    ],
)
def test_what_is_no_prior_is_said(tmp_path: Path, data: bytes, message: str):
    path = tmp_path / "angry.npy"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_prior(path)
    assert "angry.npy" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3), np.float32), r"got \(2, 3\)"),
        (np.zeros(3, np.int64), "int64"),
        (np.zeros(3, np.complex64), "complex64"),
        (np.float32(3), r"got \(\)"),
        (np.array([{}, {}], dtype=object), r"holds \(2,\) Python objects"),
    ],
)
def test_plain_numbers_that_are_no_prior(tmp_path: Path, array: Any, message: str):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(CheckpointError, match=message):
        read_prior(tmp_path / "a.npy")


def test_a_header_that_promises_more_than_there_is(tmp_path: Path):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (10**15,)})
    (tmp_path / "a.npy").write_bytes(stream.getvalue() + b"\0" * 12)
    with pytest.raises(CheckpointError, match="do not fill the shape"):
        read_prior(tmp_path / "a.npy")


def test_files_that_are_something_else(tmp_path: Path):
    save_file({"weight": torch.zeros(3)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="holds 'weight', a prior 'mean'"):
        read_prior(tmp_path / "a.safetensors")
    save_file({"mean": torch.zeros(3, dtype=torch.int32)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="not floating point"):
        read_prior(tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"give a \.npy or a \.safetensors"):
        read_prior(tmp_path / "a.txt")
    with pytest.raises(CheckpointError, match="cannot read the prior"):
        read_prior(tmp_path / "none.npy")


def test_no_instruction_is_followed_that_is_not_tested():
    """What NumPy uses is what the reader knows: every instruction of these files, by name."""
    used = set()
    for protocol in (2, 3, 4, 5):
        body = npy({"mu": numbers("mu", 1, 300), "sigma": numbers("mu", 1, 300)}, protocol)
        used |= {code.name for code, _, _ in pickletools.genops(body[body.index(b"\n") + 1 :])}
    assert {"GLOBAL", "STACK_GLOBAL", "BYTEARRAY8", "REDUCE", "BUILD", "SETITEMS", "FRAME"} <= used


# ---- folders --------------------------------------------------------------------------------------------------------


def test_a_folder_of_priors(tmp_path: Path):
    for label in LABELS:
        (tmp_path / f"{label}.npy").write_bytes(npy({"mu": numbers(label, 1, P)}))
    write_prior(tmp_path / "happy.safetensors", Prior(mean=numbers("ours")))
    write_prior(tmp_path / "Smug-face.safetensors", Prior(mean=numbers("smug")))
    save_file({"unet.conv_in.weight": torch.zeros(3)}, tmp_path / "dice.safetensors")
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    found = priors_in(tmp_path)
    assert set(found) == {*LABELS, "@smug_face"}
    np.testing.assert_array_equal(found["happy"].mean, numbers("ours"))
    np.testing.assert_array_equal(found["sad"].mean, numbers("sad"))
    (tmp_path / "anger.npy").write_bytes(npy({"mu": numbers("a", 1, P)}))
    with pytest.raises(CheckpointError, match=r"'angry\.npy' and 'anger\.npy' are both priors of angry"):
        priors_in(tmp_path)


@pytest.mark.parametrize("name", ["2nd.npy", "angry (1).npy", "2nd.safetensors"])
def test_a_name_that_nothing_can_be_called_by_is_said_with_its_folder(tmp_path: Path, name: str):
    path = tmp_path / name
    if path.suffix == ".npy":
        path.write_bytes(npy({"mu": numbers("a", 1, P)}))
    else:
        write_prior(path, Prior(mean=numbers("a")))
    with pytest.raises(CheckpointError) as caught:
        priors_in(tmp_path)
    assert repr(name) in str(caught.value)
    assert tmp_path.name in str(caught.value)
    assert "rename it" in str(caught.value)


def test_what_a_system_leaves_beside_a_file_is_no_prior(tmp_path: Path):
    (tmp_path / "angry.npy").write_bytes(npy({"mu": numbers("a", 1, P)}))
    (tmp_path / "._angry.npy").write_bytes(b"\0\5\x16\7")
    write_prior(tmp_path / ".sad.safetensors", Prior(mean=numbers("a")))
    assert set(priors_in(tmp_path)) == {"angry"}


def test_a_folder_without_priors(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"holds no priors; put angry\.npy, contempt\.npy"):
        priors_in(tmp_path)
    with pytest.raises(CheckpointError, match="is not a folder"):
        priors_in(tmp_path / "none")
    (tmp_path / "sad.npy").write_bytes(b"no prior")
    with pytest.raises(CheckpointError, match=r"sad\.npy"):
        priors_in(tmp_path)


# ---- blends ---------------------------------------------------------------------------------------------------------


def by_hand(weights: dict[str, float]) -> np.ndarray:
    """neutral + intensity (mix - neutral)."""
    intensity = sum(weights.values())
    mix = sum(weight / intensity * numbers(name).astype(np.float64) for name, weight in weights.items())
    return numbers("neutral") + intensity * (mix - numbers("neutral"))


def named(vector: np.ndarray) -> dict[str, float]:
    """An emotion vector as a blend."""
    return {str(label): float(weight) for label, weight in zip(LABELS[1:], vector[1:], strict=True)}


@pytest.mark.parametrize(
    "weights",
    [
        {"happy": 1.0},
        {"happy": 0.5},
        {"happy": 1.5},
        {"happy": 0.6, "sad": 0.4},
        {"angry": 0.2, "contempt": 0.1},
        {"angry": 0.7, "fear": 0.7},
    ],
)
def test_a_blend(weights: dict[str, float]):
    found = blend_priors(weights, known())
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_hand(weights), atol=1e-6)


def test_other_names_of_a_blend():
    priors = {**known(), "@smug": Prior(mean=numbers("smug"))}
    np.testing.assert_array_equal(blend_priors({"neutral": 1.0}, priors), numbers("neutral"))
    np.testing.assert_array_equal(blend_priors({}, priors), numbers("neutral"))
    np.testing.assert_allclose(
        blend_priors({"happily_surprised": 0.8}, priors), by_hand({"happy": 0.4, "surprised": 0.4}), atol=1e-6
    )
    np.testing.assert_array_equal(blend_priors({"anger": 1.0}, priors), numbers("angry"))
    found = blend_priors({"@smug": 0.5, "sad": 0.5}, priors)
    np.testing.assert_allclose(found, by_hand({"smug": 0.5, "sad": 0.5}), atol=1e-6)


def test_what_a_blend_lacks_is_named():
    with pytest.raises(
        EmotionError, match=r"no prior of 'fear' \(there are: happy, neutral\); put fear\.npy or"
    ) as caught:
        blend_priors({"fear": 1.0}, known("happy", "neutral"))
    assert "models/moee/dice_talk/priors" in str(caught.value)
    np.testing.assert_array_equal(blend_priors({"happy": 1.0}, known("happy")), numbers("happy"))
    for weight in (0.5, 1.2):
        with pytest.raises(EmotionError, match="no prior of 'neutral', from which every emotion"):
            blend_priors({"happy": weight}, known("happy"))
    with pytest.raises(EmotionError, match=r"'@smug'.*put smug\.npy"):
        blend_priors({"@smug": 1.0}, known())
    wide = {**known(), "sad": Prior(mean=numbers("sad", 9))}
    with pytest.raises(EmotionError, match=r"'sad' 9; take files"):
        blend_priors({"happy": 1.0}, wide)
    with pytest.raises(EmotionError, match=r"may add up to 1\.5"):
        blend_priors({"happy": 2.0}, known())


# ---- over time ------------------------------------------------------------------------------------------------------


def test_a_timeline_is_followed_frame_by_frame():
    """Eased as the timeline eases, and every frame a blend of its own."""
    timeline = parse_emotion("0 neutral; 0.4 happily_surprised:1.2 ease 0.6; 2 sad:0.5 ease 0")
    frames, fps = 40, 12.5
    found = prior_track(timeline, known(), frames, fps)
    assert found.shape == (frames, P)
    assert found.dtype == np.float32
    vectors = timeline.sample(frames, fps)
    for frame in range(frames):
        np.testing.assert_allclose(found[frame], blend_priors(named(vectors[frame]), known()), atol=1e-5)
    np.testing.assert_array_equal(found[0], numbers("neutral"))
    np.testing.assert_allclose(found[24], by_hand({"happy": 0.6, "surprised": 0.6}), atol=1e-5)
    np.testing.assert_allclose(found[-1], by_hand({"sad": 0.5}), atol=1e-6)
    steps = np.abs(np.diff(found[:25], axis=0)).max()
    assert steps < np.abs(found[24] - found[0]).max() / 2, "it does not jump"


def test_every_way_to_say_an_emotion():
    priors = known()
    expected = np.tile(by_hand({"happy": 0.5}), (3, 1))
    for one in (parse_blend("happy:0.5"), EmotionSource(timeline=parse_emotion("happy:0.5"))):
        np.testing.assert_allclose(prior_track(one, priors, 3, 25), expected, atol=1e-6)
    text = EmotionSource(text="furious")
    expected = by_hand(named(text.vectors(1, 25)[0]))
    np.testing.assert_allclose(prior_track(text, priors, 2, 25)[1], expected, atol=1e-5)
    mood = np.zeros((2, 16), np.float32)
    mood[:, 8 + LABELS.index("sad")] = 0.75
    np.testing.assert_allclose(
        prior_track(EmotionSource(voice=1.0), priors, 2, 25, mood), [by_hand({"sad": 0.75})] * 2, atol=1e-6
    )
    own = {**priors, "@smug": Prior(mean=numbers("smug"))}
    np.testing.assert_allclose(
        prior_track(parse_emotion("@smug:0.5"), own, 1, 25)[0],
        0.5 * numbers("smug") + 0.5 * numbers("neutral"),
        atol=1e-6,
    )
    assert prior_track(parse_blend("happy"), priors, 0, 25).shape == (0, P)


def test_only_what_a_timeline_calls_is_needed():
    assert prior_track(parse_emotion("0 happy; 1 sad ease 0"), known("happy", "sad"), 50, 25).shape == (50, P)
    with pytest.raises(EmotionError, match="no prior of 'fear'"):
        prior_track(parse_emotion("0 happy; 1 fear"), known("happy", "neutral"), 50, 25)
    found = prior_track(parse_emotion("0 happy; 4 fear"), known("happy", "neutral"), 50, 25)
    np.testing.assert_array_equal(found, np.tile(numbers("happy"), (50, 1)))


def test_what_a_prior_cannot_say():
    units = UnitTrack(values=np.zeros((1, 20), np.float32))
    with pytest.raises(EmotionError, match="no action units; leave them out"):
        prior_track(EmotionSource(timeline=parse_emotion("happy"), units=units), known(), 3, 25)
    with pytest.raises(EmotionError, match="parts of the face"):
        prior_track(EmotionSource(text="raise the eyebrows"), known(), 3, 25)
    with pytest.raises(EmotionError, match="mood of the voice"):
        prior_track(EmotionSource(voice=1.0), known(), 3, 25)
    with pytest.raises(ValueError, match=r"is \(P,\)"):
        Prior(mean=np.zeros((2, 2), np.float32))
