"""A Hallo base inside a real ComfyUI: what ``in_host.py hallo`` does.

``test_in_host_base.py`` writes the files that are read here, and says what must come of it.
"""

from __future__ import annotations

import importlib
import json
import types
from pathlib import Path
from typing import Any

BASE = "base.safetensors"
EAR = "wav2vec2-tiny"
EXPERT = "happier.safetensors"
SEED, STEPS = 5, 4
"""1000 is a multiple of the steps: then the host's ``simple`` has the time-steps of the library."""


def base(call: Any, classes: dict[str, Any], folder: Path, points: str) -> dict[str, Any]:
    """Load, core's samplers, LoRA, weight types, partial loading, window by window, a picture of 3 to 4, decode.
    ``points`` are those of the sample portrait mira."""
    import comfy.sample
    import comfy.sd
    import torch

    def load(kind: str = "default") -> tuple:
        return call(classes, "MoEELoadModel", checkpoint=BASE, weight_dtype=kind, speech_encoder=EAR)

    model, encoders, vae = load()
    image = call(classes, "MoEESamples", portrait="mira", recording="hello")[0]
    sound = {
        "waveform": torch.randn(1, 1, 3840, generator=torch.Generator().manual_seed(0)) * 0.05,
        "sample_rate": 16000,
    }
    classes["MoEEFacePoints"].hidden = types.SimpleNamespace(unique_id="1")
    library = _library(encoders)
    face = _face(library, image, points)
    portrait = call(classes, "MoEEPortrait", encoders=encoders, vae=vae, image=image, face=face)[0]
    speech, frames, fps = call(classes, "MoEESpeech", encoders=encoders, audio=sound)
    given = {"encoders": encoders, "speech": speech, "vae": vae}

    def conditions(which: Any, emotion: str = "happy") -> tuple:
        return call(classes, "MoEEConditioning", portrait=which, emotion=emotion, **given)

    positive, negative, latent, _ = conditions(portrait)

    def sample(which: Any, name: str = "euler", steps: int = 2, cfg: float = 1.0, made: tuple | None = None) -> Any:
        yes, no, empty = made or (positive, negative, latent)
        noise = comfy.sample.prepare_noise(empty["samples"], 1)
        return comfy.sample.sample(
            which, noise, steps, cfg, name, "simple", yes, no, empty["samples"], seed=1, disable_pbar=True
        )

    out: dict[str, Any] = {"frames": [frames, fps, list(latent["samples"].shape)], "samplers": {}, "weights": {}}
    for name in ("euler", "dpmpp_2m", "uni_pc"):
        made = sample(model, name, STEPS, 3.5)
        out["samplers"][name] = [bool(torch.isfinite(made).all()), list(made.shape), round(float(made.std()), 3)]
    plain = sample(model, steps=1)
    out["repeats"] = bool(torch.equal(plain, sample(model, steps=1)))
    out["guided"] = float((sample(model, steps=1, cfg=3.5) - plain).abs().mean() / plain.abs().mean())
    out["kept"] = _kept(model, lambda which: sample(which, steps=STEPS, cfg=3.5))
    sad = conditions(portrait, "sad")[:3]
    happier = call(classes, "MoEELoadExpert", model=model, expert=str(Path("experts", EXPERT)), strength=1.0)[0]
    out["taught"] = {
        "happy": float((sample(happier, steps=1) - plain).abs().mean() / plain.abs().mean()),
        "sad": bool(torch.equal(sample(happier, steps=1, made=sad), sample(model, steps=1, made=sad))),
    }
    out["emotion of a base that knows none"] = bool(torch.equal(plain, sample(model, steps=1, made=sad)))
    out["lora"] = float((sample(_with_lora(model), steps=1) - plain).abs().mean() / plain.abs().mean())
    for kind in ("fp32", "fp16", "bf16"):
        other = load(kind)[0]
        difference = (sample(other, steps=1) - plain).abs().mean() / plain.abs().mean()
        out["weights"][kind] = [str(other.model.get_dtype()), float(difference)]
    out["partial"] = _partial(load("fp32")[0])

    tall = image[:, :, 64:448]
    shifted = json.loads(points)
    shifted |= {"width": 384, "points": {name: [x - 64, y] for name, (x, y) in shifted["points"].items()}}
    marked = _face(library, tall, json.dumps(shifted))
    upright = call(classes, "MoEEPortrait", encoders=encoders, vae=vae, image=tall, face=marked)[0]
    clip = _clip(call, classes, model, encoders, upright, speech, vae)
    out["3:4"] = [list(clip["samples"].shape), bool(torch.isfinite(clip["samples"]).all())]
    video = call(
        classes, "MoEEVideoCombine", latent=clip, vae=vae, audio=sound, fps=fps, filename_prefix="base", crf=18
    )[0]
    out["video"] = [list(video.get_dimensions()), len(list((folder / "output").rglob("*.mp4")))]

    clip = _clip(call, classes, model, encoders, portrait, speech, vae)
    ours = torch.cat([vae.decode(one[None]) for one in clip["samples"]]).movedim(-1, 1) * 2 - 1
    path = next(Path(root) / BASE for root in [folder / "models" / "moee"])
    system, _ = library("weights.hallo").load_hallo_base(path)
    theirs = _animated(library, system, portrait.person, speech.features_FLD)
    difference = (ours - theirs).abs()
    out["library"] = [float(difference.max()), float(difference.mean()), float(theirs.std()), len(theirs)]
    out["refused"] = _refused(call, classes, image, sound, encoders, vae, face)
    out["ear"] = _ears(call, classes, folder, sound)
    out["insightface"] = _identities(call, classes, encoders, vae, image, face, portrait)
    return out


def _library(encoders: Any) -> Any:
    """Modules of the library as the host loaded them."""
    pack = type(encoders).__module__.removesuffix(".nodes.sockets")
    return lambda name: importlib.import_module(f"{pack}.moee_core.{name}")


def _face(library: Any, image: Any, points: str) -> Any:
    """What Face Points gives, without its preview."""
    import sys

    sockets = next(module for name, module in sys.modules.items() if name.endswith(".nodes.sockets"))
    picture = (image[0] * 255).round().byte().numpy()
    found = library("renderer.points").parse_points(points, picture.shape[1], picture.shape[0])
    return sockets.FaceOnPicture(key="test", picture=picture, points=found)


def _with_lora(model: Any) -> Any:
    import comfy.sd
    import torch

    key = next(
        name for name in model.model.state_dict() if "mid_block" in name and "spatial" in name and "to_q" in name
    )
    rows, columns = model.model.state_dict()[key].shape
    generator = torch.Generator().manual_seed(2)
    parts = {"A": (4, columns), "B": (rows, 4)}
    lora = {
        key.replace(".weight", f".lora_{part}.weight"): torch.randn(shape, generator=generator)
        for part, shape in parts.items()
    }
    return comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0.0)[0]


def _kept(model: Any, sample: Any) -> dict[str, Any]:
    """How often a portrait's keys and values are worked out in a run, with the store of the run and without, and how
    far the two are from each other."""
    denoiser = model.model.diffusion_model
    times: list[int] = []
    whole = denoiser.kept_portrait

    def counted(*given: Any) -> Any:
        times.append(1)
        return whole(*given)

    denoiser.kept_portrait = counted
    kept, runs = sample(model), len(times)
    without = model.clone()
    without.remove_wrappers_with_key("outer_sample", "moee_kept")
    plain = sample(without)
    del denoiser.kept_portrait
    return {
        "times": [runs, len(times) - runs],
        "difference": float((kept - plain).abs().max()),
        "spread": float(plain.std()),
    }


def _partial(model: Any) -> dict[str, list[str]]:
    """Modules with weights that the host could not stream, at three budgets; and parents with weights."""
    import torch

    found: dict[str, list[str]] = {"left": [], "parents": []}
    for budget in (0, 1 << 20, 1 << 40):
        patcher = model.clone()
        patcher.load(torch.device("cpu"), lowvram_model_memory=budget)
        for name, module in patcher.model.named_modules():
            own = list(module.parameters(recurse=False))
            if own and not hasattr(module, "comfy_cast_weights"):
                found["left"].append(name)
            if own and list(module.children()):
                found["parents"].append(name)
        patcher.detach()
    return found


def _clip(call: Any, classes: dict[str, Any], model: Any, encoders: Any, portrait: Any, speech: Any, vae: Any) -> Any:
    """The sampler node, window by window."""
    classes["MoEESampler"].hidden = types.SimpleNamespace(unique_id="1")
    custom = {
        "sampling": "custom",
        "steps": STEPS,
        "sampler_name": "euler",
        "scheduler": "simple",
        "emotion_guidance": 1.0,
        "audio_guidance": 3.5,
        "noise_sharing": 0.0,
    }
    return call(
        classes,
        "MoEESampler",
        model=model,
        encoders=encoders,
        portrait=portrait,
        speech=speech,
        emotion="neutral",
        seed=SEED,
        sampling=custom,
        vae=vae,
    )[0]


def _animated(library: Any, system: Any, person: Any, features: Any) -> Any:
    """The same clip by the library alone."""
    import torch

    hallo = library("systems.hallo")
    settings = hallo.HalloSampling(num_inference_steps=STEPS)
    frames = system.animate(
        person,
        len(features),
        lambda wanted: system.audio_tokens(features, wanted),
        hallo.numbered_noise(SEED),
        settings,
    )
    return torch.cat(list(frames))


def _refused(
    call: Any, classes: dict[str, Any], image: Any, sound: Any, encoders: Any, vae: Any, face: Any
) -> dict[str, str]:
    """What does not belong together, as a user would see it."""
    import torch

    embedded = "embedded (ships with the pack)"
    _, small, own = call(classes, "MoEELoadModel", checkpoint=embedded, weight_dtype="default")
    drawn = call(classes, "MoEEPortrait", encoders=small, vae=own, image=image)[0]
    deaf = call(classes, "MoEELoadModel", checkpoint=BASE, weight_dtype="default")[1]
    grey = torch.full((1, 128, 128, 3), 0.5)
    tries: dict[str, tuple[str, dict[str, Any]]] = {
        "ear for another model": (
            "MoEELoadModel",
            {"checkpoint": embedded, "weight_dtype": "default", "speech_encoder": EAR},
        ),
        "no ear": ("MoEESpeech", {"encoders": deaf, "audio": sound}),
        "no face": ("MoEEPortrait", {"encoders": encoders, "vae": vae, "image": grey}),
        "insightface for another model": (
            "MoEEPortrait",
            {"encoders": small, "vae": own, "image": image, "insightface": object()},
        ),
        "no analyser": (
            "MoEEPortrait",
            {"encoders": encoders, "vae": vae, "image": image, "face": face, "insightface": object()},
        ),
        "audio encoder for another model": (
            "MoEESpeech",
            {"encoders": small, "audio": sound, "audio_encoder": object()},
        ),
        "no wav2vec": ("MoEESpeech", {"encoders": encoders, "audio": sound, "audio_encoder": object()}),
        "no layers": ("MoEESpeech", {"encoders": encoders, "audio": sound, "audio_encoder_output": {}}),
        "portrait of another model": (
            "MoEEConditioning",
            {"encoders": encoders, "portrait": drawn, "speech": sound, "emotion": "happy", "vae": vae},
        ),
    }
    found = {}
    for name, (node, given) in tries.items():
        try:
            call(classes, node, **given)
            found[name] = "accepted"
        except ValueError as error:
            found[name] = str(error)
    return found


def _ears(call: Any, classes: dict[str, Any], folder: Path, sound: dict[str, Any]) -> dict[str, float]:
    """The same wav2vec 2.0 through transformers, through the host's classes, and its finished layers."""
    import comfy.model_patcher
    import comfy.ops
    import torch
    from comfy.audio_encoders.wav2vec2 import Wav2Vec2Model as Native
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 12,
        "num_attention_heads": 4,
        "intermediate_size": 128,
    }
    torch.manual_seed(3)
    with torch.inference_mode(False):
        public = Wav2Vec2Model(Wav2Vec2Config(**sizes)).eval()
        public.save_pretrained(folder / "models" / "moee" / "encoders" / "wide")
    cpu = torch.device("cpu")
    native = Native(
        embed_dim=32,
        num_heads=4,
        num_layers=12,
        conv_norm=False,
        conv_bias=False,
        do_normalize=False,
        do_stable_layer_norm=False,
        dtype=torch.float32,
        device=cpu,
        operations=comfy.ops.manual_cast,
    )
    native.load_state_dict(public.state_dict(), strict=True)
    patcher = comfy.model_patcher.ModelPatcher(native, load_device=cpu, offload_device=cpu)
    encoder = types.SimpleNamespace(model=native.eval(), patcher=patcher)
    encoders = call(classes, "MoEELoadModel", checkpoint=BASE, weight_dtype="default", speech_encoder="wide")[1]

    def features(**more: Any) -> Any:
        return call(classes, "MoEESpeech", encoders=encoders, audio=sound, **more)[0].features_FLD

    by_folder, by_host = features(), features(audio_encoder=encoder)
    wave = sound["waveform"]
    _, layers = native((wave - wave.mean()) / wave.std())
    finished = features(audio_encoder_output={"encoded_audio_all_layers": layers})
    whole = by_folder.norm()
    return {
        "audio encoder": float((by_host - by_folder).abs().max()),
        "finished layers": float((finished - by_folder).norm() / whole),
        "size": float(by_folder.abs().mean()),
    }


def _identities(
    call: Any, classes: dict[str, Any], encoders: Any, vae: Any, image: Any, face: Any, nobody: Any
) -> dict[str, Any]:
    """An analyser that knows the largest of two faces."""
    import numpy as np
    import torch

    seen = []

    class Analyser:
        def get(self, picture: Any) -> list[dict[str, Any]]:
            seen.append(picture)
            small = {"bbox": np.array([0, 0, 9, 9]), "embedding": np.zeros(512)}
            return [small, {"bbox": np.array([0, 0, 90, 90]), "embedding": np.full(512, 2.0)}]

    known = call(classes, "MoEEPortrait", encoders=encoders, vae=vae, image=image, face=face, insightface=Analyser())[0]
    rgb = (image[0] * 255).round().byte().numpy()
    return {
        "blue first": bool((seen[0][..., ::-1] == rgb).all()),
        "person differs from nobody": float((known.person.known_1KC - nobody.person.known_1KC).abs().mean()),
        "without, a person is nobody": bool(torch.equal(nobody.person.known_1KC, nobody.person.unknown_1KC)),
        "another job": known.key != nobody.key,
    }
