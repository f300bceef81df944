"""What is changed between two runs inside a real ComfyUI, and who is told: ``in_host.py dice told`` and ``changes``.

``test_in_host_dice_changes.py`` says what must come of it.
"""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

QUICK = {"steps": 3, "sampler_name": "euler", "scheduler": "karras", "padding": 4, "shift": 3}


def told(pack: Any) -> dict[str, Any]:
    """The samplers that step in the direction of the unconditional branch, under both of our samplers."""
    import comfy.samplers
    import torch

    loaded = pack.load()
    names = [name for name in comfy.samplers.KSampler.SAMPLERS if name.endswith("_cfg_pp")]

    def clip(name: str, *scales: float) -> Any:
        guidance = dict(zip(("reference_guidance", "audio_guidance", "emotion_guidance"), scales, strict=True))
        return pack.sampled(loaded, custom={**QUICK, **guidance, "sampler_name": name})[0]["samples"].clone()

    out: dict[str, Any] = {"samplers": {}}
    for name in names:
        made = clip(name, 2.0, 3.0, 3.0)
        out["samplers"][name] = [bool(torch.isfinite(made).all()), float(made.std())]
    plain = clip("euler", 2.0, 3.0, 3.0)
    out["euler"] = float(plain.std())
    out["guided"] = _away(clip("euler_cfg_pp", 2.0, 3.0, 3.0), plain)
    nobody = clip("euler", 0.0, 0.0, 0.0)
    out["nobody alone"] = _away(clip("euler_cfg_pp", 0.0, 0.0, 0.0), nobody)
    rows = [0]
    hook = loaded[0].model.diffusion_model.conv_in.register_forward_pre_hook(_counted(rows))
    clip("euler_cfg_pp", 1.0, 1.0, 1.0)
    hook.remove()
    out["passes without guidance"] = rows[0] / (12 * 3)
    out["seen"] = _seen(pack, loaded)
    out["portrait"] = _portrait(pack)
    return out


def _away(made: Any, plain: Any) -> float:
    return float((made - plain).abs().mean() / plain.std())


def _counted(rows: list[int]) -> Callable[..., None]:
    def count(_module: Any, given: tuple) -> None:
        rows[0] += len(given[0])

    return count


def _seen(pack: Any, loaded: tuple) -> dict[str, Any]:
    """A function on the MODEL that looks at guidance and halves it."""
    import torch

    met: list[dict] = []

    def halved(args: dict) -> Any:
        met.append(args)
        return 0.5 * args["denoised"]

    model = loaded[0].clone()
    model.set_model_sampler_post_cfg_function(halved)
    one = {**QUICK, "steps": 1, "reference_guidance": 2.0, "audio_guidance": 3.0, "emotion_guidance": 3.0}
    whole = pack.sampled(loaded, custom=one)[0]["samples"]
    half = pack.sampled((model, loaded[1]), custom=one)[0]["samples"]
    args = met[0]
    chain = args["uncond_denoised"] + 3.0 * (args["cond_denoised"] - args["uncond_denoised"])
    return {
        "keys": sorted(args),
        "half": _away(2 * half, whole),
        "frames": [len(args["input"]), len(args["cond"]), len(args["uncond"])],
        "scale": args["cond_scale"],
        "chain": float((chain - args["denoised"]).abs().mean() / args["denoised"].std()),
        "finite": bool(torch.isfinite(args["uncond_denoised"]).all()),
    }


def _portrait(pack: Any) -> dict[str, Any]:
    """The Talking Portrait Sampler: CFG++ at scales that take one, two and three passes; a cache on the MODEL."""
    import torch
    from comfy_extras.nodes_easycache import LazyCacheNode

    model, encoders, vae = pack("MoEELoadModel", checkpoint="embedded (ships with the pack)", weight_dtype="default")
    wave = torch.randn(1, 1, 4000, generator=torch.Generator().manual_seed(0)) * 0.05
    sound = {"waveform": wave, "sample_rate": 16000}
    plain = {"sampling": "custom", "steps": 4, "scheduler": "simple", "noise_sharing": 0.2}

    def clip(which: Any, name: str, emotion: float, audio: float, **more: Any) -> Any:
        chosen = {**plain, "sampler_name": name, "emotion_guidance": emotion, "audio_guidance": audio, **more}
        given = {"encoders": encoders, "portrait": pack.image, "speech": sound, "emotion": "happy", "vae": vae}
        return pack("MoEESampler", model=which, **given, seed=3, sampling=chosen)[0]["samples"].clone()

    out: dict[str, Any] = {}
    for scales in ((1.0, 1.0), (1.0, 1.5), (1.3, 1.5)):
        made, euler = clip(model, "euler_cfg_pp", *scales), clip(model, "euler", *scales)
        out[str(scales)] = [bool(torch.isfinite(made).all()), float(made.std() / euler.std()), _away(made, euler)]
    part = clip(model, "euler_cfg_pp", 1.3, 1.5, guidance_until=0.5, reuse=2)
    out["savings"] = bool(torch.isfinite(part).all())
    rows = [0]
    hook = model.model.diffusion_model.backbone.mid_block.register_forward_pre_hook(_counted(rows))
    out["calls"] = []
    for threshold in (0.0, 3.0, 3.0):
        rows[0] = 0
        cached = LazyCacheNode.execute(model, threshold, 0.0, 1.0, False).args[0]
        clip(cached, "euler", 1.0, 1.0, steps=6)
        out["calls"].append(rows[0])
    hook.remove()
    return out


def changes(pack: Any) -> dict[str, Any]:
    """Whether a clip is sampled, or taken from a job, after something that hangs on the MODEL has changed."""
    import comfy.patcher_extension
    import torch
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode
    from comfy_extras.nodes_easycache import LazyCacheNode

    loaded = pack.load()
    rows = [0]
    hook = loaded[0].model.diffusion_model.conv_in.register_forward_pre_hook(_counted(rows))
    one = {**QUICK, "reference_guidance": 1.0, "audio_guidance": 1.0, "emotion_guidance": 1.0}

    def sampled(model: Any) -> tuple[Any, bool]:
        rows[0] = 0
        return pack.sampled((model, loaded[1]), custom=one)[0]["samples"].clone(), rows[0] > 0

    def windows(length: int) -> Any:
        # called as the oldest host has it: what newer ones add has defaults
        return ContextWindowsManualNode.execute(
            loaded[0], length, 1, "standard_uniform", 1, False, "flat", 0, False
        ).args[0]

    def patched(value: object) -> Any:
        """A wrapper that does nothing, and carries something."""

        def wrapper(executor: Any, *args: Any, **kwargs: Any) -> Any:
            return executor(*args, **kwargs) if value is not None else None

        model = loaded[0].clone()
        model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.PREDICT_NOISE, "test", wrapper)
        return model

    out: dict[str, Any] = {}
    out["at first"] = sampled(loaded[0])[1]
    out["again"] = sampled(loaded[0])[1]
    out["a clone"] = sampled(loaded[0].clone())[1]
    four, first = sampled(windows(4))
    eight, second = sampled(windows(8))
    out["windows"] = [first, second, sampled(windows(4))[1], sampled(windows(8))[1], _away(four, eight)]
    out["caches"] = [
        sampled(LazyCacheNode.execute(loaded[0], threshold, 0.0, 1.0, False).args[0])[1]
        for threshold in (0.1, 0.2, 0.1)
    ]
    out["carried"] = [sampled(patched(value))[1] for value in (1.0, 2.0, 1.0, torch.ones(2), torch.zeros(2))]
    out["not to be told"] = [sampled(patched(threading.Lock()))[1] for _ in range(2)]
    own = pack("MoEEShiftedWindows", model=loaded[0], window=4, shift=2, overlap=1)[0]
    handler = own.model_options["context_handler"]
    before = dict(vars(handler))
    out["own windows"] = [sampled(own)[1], sampled(own)[1]]
    out["left on it"] = sorted(key for key, value in vars(handler).items() if before.get(key, before) != value)
    hook.remove()
    out["no numbers"] = _no_numbers(pack, loaded, one)
    out["mixed"] = _mixed(pack, loaded)
    out["priors"] = _priors(pack)
    return out


def _no_numbers(pack: Any, loaded: tuple, one: dict[str, Any]) -> dict[str, Any]:
    """A MODEL that gives NaN: an error, and nothing kept."""
    import comfy.patcher_extension

    def broken(executor: Any, *args: Any, **kwargs: Any) -> Any:
        return executor(*args, **kwargs) * float("nan")

    model = loaded[0].clone()
    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.PREDICT_NOISE, "test", broken)
    jobs = pack.folder / "user" / "moee_jobs"
    before = set(jobs.glob("*/*"))
    try:
        pack.sampled((model, loaded[1]), custom=one)
        said = "accepted"
    except ValueError as error:
        said = str(error)
    return {"said": said, "kept": len(set(jobs.glob("*/*")) - before)}


def _mixed(pack: Any, loaded: tuple) -> str:
    """The MODEL of one file and the encoders of another of the same kind."""
    from dataclasses import replace

    other = pack.load()
    assert pack.sampled((loaded[0], other[1])), "the same file loaded twice is the same"
    try:
        pack.sampled((loaded[0], replace(other[1], key="another")))
    except ValueError as error:
        return str(error)
    return "accepted"


def _priors(pack: Any) -> dict[str, Any]:
    """A graph that fails because a prior is missing, queued again after the file was put there, and again."""
    import execution
    import numpy as np

    graph = {
        "1": {
            "class_type": "MoEELoadDiceTalk",
            "inputs": {"checkpoint": "small.safetensors", "weight_dtype": "fp32", "speech_encoder": "none"},
        },
        "2": {
            "class_type": "MoEEDicePrior",
            "inputs": {
                "encoders": ["1", 1],
                "source": "emotion",
                "source.emotion": "@smug",
                "strength": 1.0,
                "seed": 0,
            },
        },
        "3": {"class_type": "MoEESaveDicePrior", "inputs": {"prior": ["2", 0], "name": "copy"}},
    }
    folder = pack.folder / "models" / "moee" / "dice_talk" / "priors"
    folder.mkdir(parents=True, exist_ok=True)
    server = pack.server()
    caches = {"cache_type": execution.CacheType.CLASSIC, "cache_args": {"ram": 0, "lru": 0, "ram_inactive": 0}}
    executor = execution.PromptExecutor(server, **caches)

    def run(number: int) -> list[Any]:
        server.sent.clear()
        queued = copy.deepcopy(graph)  # the host writes what it found out of a node into the graph
        valid, error, outputs, _ = asyncio.run(execution.validate_prompt(f"run{number}", queued, None))
        assert valid, error
        executor.execute(queued, f"run{number}", {"client_id": "test"}, outputs)
        said = [str(data.get("exception_message")) for event, data in server.sent if event == "execution_error"]
        cached = [sorted(data["nodes"]) for event, data in server.sent if event == "execution_cached"]
        return [executor.success, said, cached[-1] if cached else [], _value(folder / "copy.safetensors")]

    found = [run(0)]
    np.save(folder / "smug.npy", np.full(6, 2.0, np.float32))
    found += [run(1), run(2), run(3)]
    np.save(folder / "smug.npy", np.full(6, 3.0, np.float32))
    return {"runs": [*found, run(4)]}


def _value(path: Path) -> float | None:
    from safetensors.numpy import load_file

    return float(load_file(path)["mean"][0]) if path.is_file() else None
