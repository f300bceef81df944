"""DICE-Talk inside a real ComfyUI: what ``in_host.py dice`` and ``in_host.py dice_clip`` do.

``test_in_host_dice.py`` writes the files that are read here, and says what must come of it.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import types
from pathlib import Path
from typing import Any

SMALL, PUBLISHED, EAR, RIFE = "small.safetensors", "published.safetensors", "whisper-tiny", "flownet.pkl"
CUSTOM = {
    "sampling": "custom",
    "steps": 3,
    "sampler_name": "euler",
    "scheduler": "karras",
    "reference_guidance": 2.0,
    "audio_guidance": 3.0,
    "emotion_guidance": 3.0,
    "noise_sharing": 0.0,
    "overlap": 0,
    "shift": 3,
    "padding": 4,
    "strength": 1.0,
    "mask": True,
}


def sound(seconds: float, rate: int = 16000) -> dict[str, Any]:
    """A clap every half second, in noise."""
    import torch

    count = round(seconds * rate)
    wave = torch.randn(1, 1, count, generator=torch.Generator().manual_seed(0)) * 0.02
    for start in range(0, count, rate // 2):
        wave[..., start : start + 200] = 0.8
    return {"waveform": wave, "sample_rate": rate}


class ClipVision:
    """In the place of CLIP: as many numbers as the small network reads, of the picture's colours."""

    def encode_image(self, image: Any, crop: bool = True) -> dict[str, Any]:
        assert not crop
        assert tuple(image.shape) == (1, 224, 224, 3)
        return {"image_embeds": image.mean(dim=(1, 2)).repeat(1, 4)}


def dice(classes: dict[str, Any], folder: Path, part: str = "small") -> dict[str, Any]:
    """One of the parts below; each has a process of its own."""
    for name in ("MoEEDiceSampler", "MoEESampler"):
        classes[name].hidden = types.SimpleNamespace(unique_id="1")
    parts = {"small": small, "published": published, "lengths": lengths, "core": core, "resumed": resumed}
    if part not in parts:
        parts = vars(importlib.import_module("in_host_dice_changes"))
    return parts[part](Pack(classes, folder))


class Pack:
    """The pack's nodes with what most calls need."""

    def __init__(self, classes: dict[str, Any], folder: Path):
        self.classes, self.folder = classes, folder
        self.image = self("MoEESamples", portrait="mira", recording="hello")[0]

    def __call__(self, node: str, /, **given: Any) -> tuple:
        made = self.classes[node].execute(**given)
        return made.result if hasattr(made, "result") else made.args

    def load(self, checkpoint: str = SMALL, kind: str = "fp32", ear: str = "none", **more: Any) -> tuple:
        return self("MoEELoadDiceTalk", checkpoint=checkpoint, weight_dtype=kind, speech_encoder=ear, **more)

    def sampled(self, loaded: tuple, seconds: float = 0.3, **more: Any) -> tuple:
        custom = {**CUSTOM, **more.pop("custom", {})}
        given = {"image": self.image, "audio": sound(seconds), "emotion": "happy", "seed": 5, **more}
        return self("MoEEDiceSampler", model=loaded[0], encoders=loaded[1], sampling=custom, **given)

    def video(self, made: tuple, vae: Any, **more: Any) -> dict[str, Any]:
        """Frames, rate, size, and when the claps of ``sound`` are heard in the file."""
        import numpy as np

        latent, audio, fps = made
        video = self(
            "MoEEVideoCombine", latent=latent, vae=vae, audio=audio, fps=fps, filename_prefix="dice", crf=30, **more
        )[0]
        path = video.get_stream_source()
        frames = [frame.shape for frame in self.library("video.frames").read_video(path)]
        heard = self.library("audio.read").read_audio(path)
        loud = np.flatnonzero(np.abs(heard.samples[0]) > 0.3) / heard.sample_rate
        claps = loud[np.concatenate([[True], np.diff(loud) > 0.2])] if len(loud) else loud
        off = np.abs(claps - np.arange(len(claps)) / 2).max() if len(claps) else 1.0
        rate = self.library("video.frames").video_rate(path)
        return {"frames": len(frames), "fps": rate, "size": list(frames[0][:2]), "claps": len(claps), "off": float(off)}

    def server(self) -> Any:
        """The little of the host's server that its executor touches."""
        return sys.modules["__main__"].Server()

    def library(self, name: str) -> Any:
        """A module of the library as the host loaded it."""
        base = next(name for name in sys.modules if name.endswith(".nodes.dice_sockets")).removesuffix(
            ".nodes.dice_sockets"
        )
        return importlib.import_module(f"{base}.moee_core.{name}")

    def nodes(self, name: str) -> Any:
        return next(module for key, module in sys.modules.items() if key.endswith(f".nodes.{name}"))


def small(pack: Pack) -> dict[str, Any]:
    """The one that ships, in small: seeds, weight types, guidance, priors, LoRA, partial loading, the library."""
    import torch

    model, encoders, vae, licence = pack.load()
    loaded = (model, encoders)
    first = pack.sampled(loaded)
    plain = first[0]["samples"].clone()
    out: dict[str, Any] = {"licence": licence, "latent": [list(plain.shape), float(plain.std())]}
    out["video"] = pack.video(first, vae)
    out["finished"] = bool(torch.equal(plain, pack.sampled(loaded)[0]["samples"]))
    forget(pack)
    out["repeats"] = bool(torch.equal(plain, pack.sampled(loaded)[0]["samples"]))
    out["another seed"] = away(pack.sampled(loaded, seed=6)[0]["samples"], plain)
    out["another emotion"] = away(pack.sampled(loaded, emotion="sad")[0]["samples"], plain)
    heard = pack("MoEEEmotionFromVoice", strength=1.0)[0]
    out["voice"] = away(pack.sampled(loaded, emotion=heard)[0]["samples"], plain)
    out["timeline"] = away(pack.sampled(loaded, emotion="0 happy; 0.1 sad")[0]["samples"], plain)
    out["types"] = {}
    for kind in ("fp16", "bf16", "fp8_e4m3fn"):
        other = pack.load(kind=kind)
        made = pack.sampled(other)[0]["samples"]
        out["types"][kind] = [str(other[0].model.get_dtype()), away(made, plain)]
    out["lora"] = away(pack.sampled((with_lora(model), encoders))[0]["samples"], plain)
    out["passes"] = passes(pack, loaded)
    out["partial"] = partial(pack.load()[0])
    out["library"] = beside_library(pack, loaded, vae, first)
    out["priors"] = priors(pack, loaded, plain)
    out["off"] = away(pack.sampled(loaded, custom={"mask": False})[0]["samples"], plain)
    return out


def away(made: Any, plain: Any) -> float:
    return float((made - plain).abs().mean() / plain.std())


def forget(pack: Pack) -> None:
    """Jobs that are finished are not sampled again."""
    import shutil

    shutil.rmtree(pack.folder / "user" / "moee_jobs", ignore_errors=True)


def with_lora(model: Any) -> Any:
    import comfy.sd
    import torch

    key = next(name for name in model.model.state_dict() if "mid_block" in name and "attn1.to_q" in name)
    rows, columns = model.model.state_dict()[key].shape
    generator = torch.Generator().manual_seed(2)
    sizes = {"A": (4, columns), "B": (rows, 4)}
    lora = {
        key.replace(".weight", f".lora_{one}.weight"): torch.randn(size, generator=generator)
        for one, size in sizes.items()
    }
    return comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0.0)[0]


def passes(pack: Pack, loaded: tuple) -> dict[str, float]:
    """Of the network, for every window and step."""
    unet, seen = loaded[0].model.diffusion_model, [0]

    def count(_module: Any, given: tuple) -> None:
        seen[0] += len(given[0])

    hook = unet.conv_in.register_forward_pre_hook(count)
    out = {}
    for scales in ((1.0, 1.0, 1.0), (3.0, 3.0, 3.0), (3.0, 6.0, 6.0), (3.0, 6.0, 4.0)):
        seen[0] = 0
        names = ("reference_guidance", "audio_guidance", "emotion_guidance")
        pack.sampled(loaded, custom={**dict(zip(names, scales, strict=True)), "steps": 2, "padding": 4}, seed=9)
        out[str(scales)] = seen[0] / (12 * 2)  # eight frames and four behind them, two steps
    hook.remove()
    return out


def partial(model: Any) -> dict[str, list[str]]:
    """Modules with weights that the host could not stream, at three budgets; and parents with weights."""
    import torch

    found: dict[str, list[str]] = {"left": [], "parents": []}
    for budget in (0, 1 << 14, 1 << 40):
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


def beside_library(pack: Pack, loaded: tuple, vae: Any, made: tuple) -> dict[str, float]:
    """The same clip by the library alone, from picture and recording: latents and decoded frames."""
    import torch

    encoders = loaded[1]
    core, pipeline = pack.library("systems.dice_talk"), pack.library("systems.dice_pipeline")
    system = pack.library("weights.dice_file").load_dice_file(pack.folder / "models/moee/dice_talk" / SMALL)
    waveform = pack.nodes("conditions").waveform_of(made[1])
    mono = torch.from_numpy(pack.library("audio.read").resample_mono(waveform))
    seen = pack.nodes("dice_conditions").seen_portrait(encoders, pack.image, None)
    rows = torch.from_numpy(pack.nodes("dice_conditions").as_prior(encoders, "happy").rows(8, 25.0))

    def encode(pixels: Any) -> Any:
        return vae.encode((pixels.movedim(1, -1) + 1) / 2)

    def decode(latents: Any) -> Any:
        return vae.decode(latents).movedim(-1, 1) * 2 - 1

    features = pack.library("audio.encoder").encode_speech(encoders.ear.model, mono, 8, 25.0).features_TLD
    around = pipeline.DiceAround(encode=encode, decode=decode)
    given = pipeline.dice_conditions(system, seen, features, rows, 8, around)
    settings = core.DiceSampling(steps=3, reference_guidance=2.0, audio_guidance=3.0, overlap=0, shift=3, padding=4)
    noise = pipeline.dice_noise(5, 12, (16, 16, 16))
    theirs, ours = system.sample(given, noise, settings), made[0]["samples"]
    frames = list(pipeline.animate_dice(system, given, around, settings, seed=5))
    difference = (theirs - ours).abs()
    return {
        "largest": float(difference.max()),
        "mean": float(difference.mean()),
        "std": float(theirs.std()),
        "frames": len(frames),
    }


def priors(pack: Pack, loaded: tuple, plain: Any) -> dict[str, Any]:
    """By name, from a file, of a video, drawn, saved and called again."""
    import torch

    encoders = loaded[1]
    video = pack.image[:, :64, :64].repeat(12, 1, 1, 1)

    def made(kind: str, strength: float = 1.0, seed: int = 0, **more: Any) -> tuple:
        source = {"source": kind, **more}
        image, audio = source.pop("image", None), source.pop("audio", None)
        return pack(
            "MoEEDicePrior", encoders=encoders, source=source, strength=strength, seed=seed, image=image, audio=audio
        )

    def clip(prior: Any, which: tuple = loaded) -> Any:
        return pack.sampled(which, emotion=prior)[0]["samples"]

    def why(run: Any) -> str:
        try:
            run()
        except ValueError as error:
            return str(error)
        return "accepted"

    named, about = made("emotion", emotion="happy")
    out: dict[str, Any] = {"about": about, "named": bool(torch.equal(clip(named), plain))}
    weak = made("emotion", strength=0.5, emotion="happy")[0]
    half = pack.sampled(loaded, emotion="happy 0.5")[0]["samples"]
    out["half"] = away(clip(weak), half)
    read, out["video"] = made("video", fps=25.0, draw="mean", image=video, audio=sound(0.6))
    drawn = made("video", seed=3, fps=25.0, draw="sample", image=video, audio=sound(0.6))[0]
    out["read"] = [away(clip(read), plain), away(clip(drawn), clip(read))]
    out["face alone"] = made("video", fps=25.0, draw="mean", image=video)[1]
    out["voice alone"] = made("video", fps=25.0, draw="mean", audio=sound(0.6))[1]
    path = Path(pack("MoEESaveDicePrior", prior=read, name="Smug look")[1])
    out["saved"] = [path.name, path.is_file()]
    again, _ = made("file", file=path.name, draw="mean")
    out["called"] = [away(clip(again), clip(read)), away(clip("@smug_look"), clip(read))]
    changing = made("emotion", emotion="0 happy; 1 sad")[0]
    published = pack.load(PUBLISHED, ear=EAR)[1]
    out["refused"] = {
        "changing": why(lambda: pack("MoEESaveDicePrior", prior=changing, name="x")),
        "nothing": why(lambda: made("video", fps=25.0, draw="mean")),
        "no embedder": why(
            lambda: pack(
                "MoEEDicePrior",
                encoders=published,
                source={"source": "video", "fps": 25.0, "draw": "mean"},
                strength=1.0,
                seed=0,
                image=video,
            )
        ),
        "no such name": why(lambda: clip("@nobody")),
    }
    return out


def published(pack: Pack) -> dict[str, Any]:
    """Whisper, CLIP, a VAE of four channels, any shape of picture, 12.5 frames a second and twice as many."""
    import torch

    vae = four_channels(pack)
    loaded = pack.load(PUBLISHED, ear=EAR, vae=vae, clip_vision=ClipVision())
    few = {"steps": 2, "reference_guidance": 1.0, "audio_guidance": 2.0, "emotion_guidance": 2.0}
    rife = pack("MoEELoadRIFE", file=RIFE)[0]
    face = marked(pack)
    out: dict[str, Any] = {"licence": loaded[3]}
    made = pack.sampled(loaded, 0.3, custom=few, face=face)
    out["latent"] = [list(made[0]["samples"].shape), made[2]]
    out["0.3"] = pack.video(made, vae)
    out["0.3 doubled"] = pack.video(made, vae, interpolation=rife)
    tall = pack.image[:, :, 64:448]
    upright = pack.sampled(loaded, 0.05, custom={**few, "steps": 1}, image=tall, face=marked(pack, 64))
    out["3:4"] = [list(upright[0]["samples"].shape), bool(torch.isfinite(upright[0]["samples"]).all())]

    def why(**more: Any) -> str:
        which = {"loaded": loaded, "face": face, **more}
        try:
            pack.sampled(which.pop("loaded"), 0.05, custom={**few, "steps": 1}, **which)
        except ValueError as error:
            return str(error)
        return "accepted"

    def another_rate() -> str:
        try:
            pack.video((*made[:2], 25.0), vae)
        except ValueError as error:
            return str(error)
        return "accepted"

    other = pack.load()
    out["refused"] = {
        "another rate": another_rate(),
        "no ear": why(loaded=pack.load(PUBLISHED, vae=vae, clip_vision=ClipVision())),
        "no vae": why(loaded=pack.load(PUBLISHED, ear=EAR, clip_vision=ClipVision())),
        "no clip": why(loaded=pack.load(PUBLISHED, ear=EAR, vae=vae)),
        "no face": why(image=torch.full((1, 128, 128, 3), 0.5), face=None),
        "face of another picture": why(image=tall),
        "vae of another model": why(vae=other[2]),
    }
    return out


def four_channels(pack: Pack) -> Any:
    """A small autoencoder as Stable Video Diffusion's: four channels, an eighth of the size, not scaled."""
    import torch

    kl, config = pack.library("networks.autoencoder_kl"), pack.library("networks.config")
    ruled, build = pack.library("selfcheck").ruled, pack.library("ops").DEFAULT_BUILD
    sizes = config.AutoencoderKLConfig(block_widths=(16, 16, 16, 16), layers_per_block=1, norm_groups=8)
    state = {key: ruled(key, tuple(value.shape)) for key, value in kl.AutoencoderKL(sizes, build).state_dict().items()}
    vae = pack.nodes("models").BaseVAE(types.SimpleNamespace(autoencoder=sizes), state)
    assert vae.vae_dtype in (torch.float32, torch.bfloat16)
    return vae


def marked(pack: Pack, left: int = 0) -> Any:
    """Where mira's face is, on her picture or on one that begins ``left`` pixels further."""
    import json

    noted = json.loads(pack("MoEESamples", portrait="mira", recording="hello")[2])
    width = 512 if not left else 384
    noted |= {"width": width, "points": {name: [x - left, y] for name, (x, y) in noted["points"].items()}}
    picture = (pack.image[0, :, left : left + width] * 255).round().byte().numpy()
    points = pack.library("renderer.points").parse_points(json.dumps(noted), width, 512)
    return pack.nodes("sockets").FaceOnPicture(key="test", picture=picture, points=points)


def lengths(pack: Pack) -> dict[str, Any]:
    """Frames and sound of recordings from a third of a second to a minute and a half, and what memory they take."""
    anonymous = importlib.import_module("__main__").anonymous  # of in_host.py, which called
    loaded = pack.load()
    quick = {"steps": 1, "reference_guidance": 1.0, "audio_guidance": 1.0, "emotion_guidance": 1.0}
    out: dict[str, Any] = {}
    before = anonymous()
    for seconds in (0.3, 1.0, 24.0, 95.0):
        made = pack.sampled(loaded, seconds, custom=quick)
        found = pack.video(made, loaded[2])
        found["latents_mb"] = made[0]["samples"].numel() * 4 / 1e6
        found["peak_mb"] = anonymous(peak=True) - before
        out[str(seconds)] = found
    return out


def core(pack: Pack) -> dict[str, Any]:
    """Core's samplers, its guider of two scales, previews, Cancel; windows on the other talking-portrait MODEL."""
    import comfy.model_management as mm
    import comfy.sample
    import comfy.samplers
    import torch
    from comfy_extras.nodes_custom_sampler import Guider_DualCFG

    model, encoders, vae, _ = pack.load()
    given = {"encoders": encoders, "image": pack.image, "audio": sound(0.3), "emotion": "happy"}
    positive, silent, negative, latent, audio, fps = pack("MoEEDiceConditioning", **given, padding=4)
    windows = pack("MoEEShiftedWindows", model=model, window=4, shift=3, overlap=0)[0]

    def sample(which: Any, name: str, steps: int = 3, cfg: float = 2.0, callback: Any = None) -> Any:
        noise = comfy.sample.prepare_noise(latent["samples"], 1)
        return comfy.sample.sample(
            which, noise, steps, cfg, name, "karras", positive, silent, latent["samples"], seed=1, disable_pbar=True,
            callback=callback,
        )  # fmt: skip

    out: dict[str, Any] = {"samplers": {}, "fps": fps}
    for name in ("euler", "heun", "dpmpp_2m", "uni_pc", "lcm"):
        made = sample(windows, name)
        out["samplers"][name] = [bool(torch.isfinite(made).all()), list(made.shape), round(float(made.std()), 3)]
    out["without windows"] = bool(torch.isfinite(sample(model, "euler", 1)).all())
    out["overlap"] = away(
        sample(pack("MoEEShiftedWindows", model=model, window=4, shift=3, overlap=2)[0], "euler"),
        sample(windows, "euler"),
    )
    guider = Guider_DualCFG(windows)
    guider.set_conds(positive, silent, negative)
    try:
        guider.set_cfg(3.0, 2.0, nested=False)
    except TypeError:
        guider.set_cfg(3.0, 2.0)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "karras", 3)
    noise = pack.library("systems.dice_pipeline").dice_noise(5, 12, (16, 16, 16))
    dual = guider.sample(
        noise, latent["samples"], comfy.samplers.sampler_object("euler"), sigmas, disable_pbar=True, seed=1
    )
    ours = pack.sampled((model, encoders))[0]["samples"]
    out["dual"] = away(dual[:8], ours)
    out["video"] = pack.video(({**latent, "samples": sample(windows, "euler")}, audio, fps), vae)

    def cancel(_step: int, *_more: Any) -> None:
        mm.interrupt_current_processing()

    try:
        sample(windows, "euler", 4, callback=cancel)
        out["cancel"] = "not seen"
    except BaseException as error:
        out["cancel"] = type(error).__name__
    portrait, around, own = pack("MoEELoadModel", checkpoint="embedded (ships with the pack)", weight_dtype="default")
    yes, no, empty, _ = pack(
        "MoEEConditioning", encoders=around, portrait=pack.image, speech=sound(1.0), emotion="happy", vae=own
    )
    moving = pack("MoEEShiftedWindows", model=portrait, window=12, shift=7, overlap=2)[0]
    made = comfy.sample.sample(
        moving, comfy.sample.prepare_noise(empty["samples"], 1), 2, 1.3, "euler", "simple", yes, no, empty["samples"],
        seed=1, disable_pbar=True,
    )  # fmt: skip
    out["other model"] = [list(made.shape), bool(torch.isfinite(made).all())]
    out["refused"] = refused(pack, model, portrait, encoders, (positive, silent, latent))
    return out


def refused(pack: Pack, model: Any, portrait: Any, encoders: Any, made: tuple) -> dict[str, str]:
    import comfy.sample
    import torch

    positive, silent, latent = made
    short = torch.zeros(5, *latent["samples"].shape[1:])

    def core_sample(pair: tuple, zeros: Any) -> Any:
        noise = comfy.sample.prepare_noise(zeros, 1)
        return comfy.sample.sample(model, noise, 1, 1.0, "euler", "karras", *pair, zeros, seed=1, disable_pbar=True)

    tries: dict[str, Any] = {
        "short latent": lambda: core_sample((positive, silent), short),
        "text": lambda: core_sample(([[torch.zeros(1, 77, 768), {}]],) * 2, latent["samples"]),
        "other model": lambda: pack.sampled((portrait, encoders)),
        "overlap": lambda: pack("MoEEShiftedWindows", model=model, window=4, shift=3, overlap=4),
    }
    found = {}
    for name, run in tries.items():
        try:
            run()
            found[name] = "accepted"
        except ValueError as error:
            found[name] = str(error)
    return found


def resumed(pack: Pack) -> dict[str, Any]:
    """A run that ends in its third step goes on behind the second, with the frames of one that was not stopped."""
    import torch

    nodes = pack.nodes("dice")
    loaded, plain = pack.load(), nodes._preview
    six = {"steps": 6}
    whole = pack.sampled(loaded, custom=six)[0]["samples"].clone()
    forget(pack)
    seen: list[int] = []

    def breaking(*given: Any) -> Any:
        def preview(done: int, _total: int, _x0: Any) -> None:
            seen.append(done)
            if done >= 10 and not broken:
                broken.append(done)
                raise KeyboardInterrupt

        return preview

    broken: list[int] = []
    nodes._preview = breaking
    with contextlib.suppress(KeyboardInterrupt):
        pack.sampled(loaded, custom=six)
    files = sorted(one.name for one in (pack.folder / "user" / "moee_jobs").glob("*/*"))
    seen.clear()
    again = pack.sampled(loaded, custom=six)[0]["samples"]
    nodes._preview = plain
    left = sorted(one.name for one in (pack.folder / "user" / "moee_jobs").glob("*/*"))
    return {"same": bool(torch.equal(whole, again)), "begins": seen[0], "ends": seen[-1], "kept": files, "left": left}
