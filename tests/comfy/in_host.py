"""Runs inside a real ComfyUI's Python: loads the pack as the host does, carries out one command, prints JSON.

    COMFYUI_PATH=… python tests/comfy/in_host.py BASE COMMAND [ARGUMENT …]

BASE gets the host's output, temp, input, user and models folders. Commands: see the functions below.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

PACK = Path(__file__).resolve().parents[2]
EMBEDDED = "embedded (ships with the pack)"


class Server:
    """The little of the host's server that its executor touches."""

    client_id, last_node_id, last_prompt_id = "test", None, None

    def __init__(self) -> None:
        self.sockets_metadata: dict = {}
        self.sent: list[tuple[str, Any]] = []

    def send_sync(self, event: str, data: Any, _sid: Any = None) -> None:
        self.sent.append((event, data))

    def queue_updated(self) -> None:
        pass


def start(base: Path) -> dict[str, Any]:
    """Import the host, set its folders, load the pack; return its node classes."""
    sys.path.insert(0, os.environ["COMFYUI_PATH"])
    sys.argv = sys.argv[:1]
    from comfy.cli_args import args

    args.cpu = True
    import folder_paths

    folder_paths.models_dir = str(base / "models")
    for name in ("output", "temp", "input", "user"):
        (base / name).mkdir(parents=True, exist_ok=True)
        getattr(folder_paths, f"set_{name}_directory")(str(base / name))
    nodes: Any = importlib.import_module("nodes")  # the host's, not the folder beside us

    assert asyncio.run(nodes.load_custom_node(str(PACK))), "the pack did not load"
    return nodes.NODE_CLASS_MAPPINGS


def call(classes: dict[str, Any], name: str, **given: Any) -> tuple:
    made = classes[name].execute(**given)
    return made.result if hasattr(made, "result") else made.args


def digest(array: Any) -> str:
    import numpy as np

    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def workflow(_classes: dict[str, Any], base: Path, path: str, seed: str = "0") -> dict[str, Any]:
    """Validate and execute an API workflow; the frames' hash comes from the job's latents."""
    import execution
    import numpy as np

    graph = json.loads(Path(path).read_text(encoding="utf-8"))
    for node in graph.values():
        if "seed" in node["inputs"]:
            node["inputs"]["seed"] = int(seed)
    valid, error, outputs, node_errors = asyncio.run(execution.validate_prompt("test", graph, None))
    if not valid:
        return {"valid": False, "error": str(error), "nodes": json.loads(json.dumps(node_errors, default=str))}
    server = Server()
    caches = {"cache_type": execution.CacheType.CLASSIC, "cache_args": {"ram": 0, "lru": 0, "ram_inactive": 0}}
    executor = execution.PromptExecutor(server, **caches)
    executor.execute(graph, "test", {"client_id": "test"}, outputs)
    jobs = sorted((base / "user" / "moee_jobs").glob("*/latents.npy"), key=lambda one: one.stat().st_mtime)
    return {
        "valid": True,
        "success": executor.success,
        "files": sorted(str(one.relative_to(base)) for one in (base / "output").rglob("*.mp4")),
        "latents": digest(np.load(jobs[-1])) if jobs else "",
        "errors": [str(data.get("exception_message")) for event, data in server.sent if event == "execution_error"],
        "previews": sum(event == "progress" for event, _ in server.sent),
    }


def object_info(classes: dict[str, Any], _base: Path, path: str) -> dict[str, Any]:
    """Write what the host's /object_info says of every node to ``path``."""

    def described(name: str, node: Any) -> dict[str, Any]:
        if hasattr(node, "GET_NODE_INFO_V1"):
            return node.GET_NODE_INFO_V1()
        inputs = node.INPUT_TYPES()
        return {
            "input": inputs,
            "input_order": {kind: list(group) for kind, group in inputs.items()},
            "output": list(node.RETURN_TYPES),
            "output_is_list": [False] * len(node.RETURN_TYPES),
            "output_name": list(getattr(node, "RETURN_NAMES", node.RETURN_TYPES)),
            "name": name,
            "display_name": name,
            "description": "",
            "category": getattr(node, "CATEGORY", ""),
            "output_node": bool(getattr(node, "OUTPUT_NODE", False)),
        }

    table = {name: described(name, node) for name, node in classes.items()}
    Path(path).write_text(json.dumps(table, default=str), encoding="utf-8")
    return {"nodes": len(table)}


def savings(classes: dict[str, Any], _base: Path) -> dict[str, Any]:
    """Speed by choice in the sampler node: whose passes go through the whole network, and what comes of it."""
    import torch

    model, encoders, vae = call(classes, "MoEELoadModel", checkpoint=EMBEDDED, weight_dtype="default")
    image, *_ = call(classes, "MoEESamples", portrait="mira", recording="hello")
    sound = {
        "waveform": torch.randn(1, 1, 12000, generator=torch.Generator().manual_seed(0)) * 0.05,
        "sample_rate": 16000,
    }
    classes["MoEESampler"].hidden = type("Hidden", (), {"unique_id": "1"})
    backbone = model.model.diffusion_model.backbone
    window = encoders.config.window_frames
    rows = {"whole": 0, "last block": 0}

    def count(what: str) -> Any:
        def hook(_module: Any, given: tuple) -> None:
            rows[what] += len(given[0])

        return hook

    backbone.mid_block.register_forward_pre_hook(count("whole"))
    backbone.up_blocks[-1].register_forward_pre_hook(count("last block"))
    custom = {"sampling": "custom", "steps": 4, "sampler_name": "euler", "scheduler": "simple", "noise_sharing": 0.2}
    custom |= {"emotion_guidance": 1.3, "audio_guidance": 1.5}
    arms = {
        "off": {},
        "until 0.5": {"guidance_until": 0.5},
        "from 0.5": {"guidance_from": 0.5},
        "reuse": {"reuse": 2},
        "both": {"reuse": 2, "guidance_until": 0.5},
        "carry": {"carry_latents": True},
    }
    made, passes = {}, {}
    for name, more in arms.items():
        rows.update({"whole": 0, "last block": 0})
        given = {"model": model, "encoders": encoders, "portrait": image, "vae": vae, "speech": sound, "seed": 3}
        made[name] = call(classes, "MoEESampler", **given, emotion="happy", sampling={**custom, **more})[0]["samples"]
        windows = -(-len(made[name]) // window)
        passes[name] = [count / window / windows for count in rows.values()]
    off = made["off"]
    return {
        "frames": len(off),
        "passes": passes,
        "finite": all(bool(torch.isfinite(one).all()) for one in made.values()),
        "away": {name: float((one - off).abs().mean() / off.std()) for name, one in made.items()},
    }


def clip(classes: dict[str, Any], _base: Path, seconds: str, portrait: str = "mira", seed: str = "0") -> dict[str, Any]:
    """Sample the demo recording, cut or repeated to ``seconds``; peak anonymous memory over the loaded state."""
    import torch

    model, encoders, vae = call(classes, "MoEELoadModel", checkpoint=EMBEDDED, weight_dtype="default")
    image, audio, _ = call(classes, "MoEESamples", portrait=portrait, recording="demo")
    wave, rate = audio["waveform"], audio["sample_rate"]
    count = int(float(seconds) * rate)
    repeated = wave.repeat(1, 1, -(-count // wave.shape[-1]))[..., :count]
    sampler = classes["MoEESampler"]
    sampler.hidden = type("Hidden", (), {"unique_id": "1"})
    before = anonymous()
    made = call(
        classes,
        "MoEESampler",
        model=model,
        encoders=encoders,
        portrait=image,
        speech={"waveform": repeated, "sample_rate": rate},
        emotion="0 neutral; 1 happy; 3 sad",
        seed=int(seed),
        sampling={"sampling": "recommended"},
        vae=vae,
    )
    sampled = anonymous(peak=True)
    call(
        classes,
        "MoEEVideoCombine",
        latent=made[0],
        vae=vae,
        audio=made[1],
        fps=25.0,
        filename_prefix="clip",
        crf=18,
    )
    highest = anonymous(peak=True)
    samples = made[0]["samples"]
    return {
        "frames": len(samples),
        "latents": digest(samples.numpy()),
        "finite": bool(torch.isfinite(samples).all()),
        "sound_mb": repeated.numel() * 4 / 1e6,
        "before_mb": before,
        "peak_sampling_mb": sampled,
        "peak_mb": highest,
    }


_peak = [0.0]


def anonymous(peak: bool = False) -> float:
    """Anonymous resident memory in MB; with ``peak`` the highest a watching thread has seen."""

    def now() -> float:
        text = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(text.split("RssAnon:")[1].split()[0]) / 1024

    if not _peak[0]:
        import threading
        import time

        def watch() -> None:
            while True:
                _peak[0] = max(_peak[0], now())
                time.sleep(0.02)

        _peak[0] = now()
        threading.Thread(target=watch, daemon=True).start()
    return max(_peak[0], now()) if peak else now()


def native(classes: dict[str, Any], _base: Path) -> dict[str, Any]:
    """Core's samplers, schedulers, context windows, LoRA, attention override, preview, cancel, weight types."""
    import comfy.context_windows
    import comfy.lora
    import comfy.model_management as mm
    import comfy.sample
    import comfy.sd
    import latent_preview
    import torch
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode

    model, encoders, vae = call(classes, "MoEELoadModel", checkpoint=EMBEDDED, weight_dtype="default")
    sound = {
        "waveform": torch.randn(1, 1, 16000, generator=torch.Generator().manual_seed(0)) * 0.05,
        "sample_rate": 16000,
    }

    def conditions(portrait: str, emotion: str) -> tuple:
        image, *_ = call(classes, "MoEESamples", portrait=portrait, recording="hello")
        return call(
            classes, "MoEEConditioning", encoders=encoders, portrait=image, speech=sound, emotion=emotion, vae=vae
        )

    positive, negative, latent, _ = conditions("mira", "happy")

    def sample(
        which: Any, name: str = "euler", schedule: str = "simple", steps: int = 2, cfg: float = 1.0, **more: Any
    ):
        zeros = more.get("latent", latent)["samples"]
        noise = comfy.sample.prepare_noise(zeros, 1)
        pair = more.get("pair", (positive, negative))
        return comfy.sample.sample(
            which,
            noise,
            steps,
            cfg,
            name,
            schedule,
            *pair,
            zeros,
            seed=1,
            disable_pbar=True,
            callback=more.get("callback"),
        )

    out: dict[str, Any] = {"table": {}}
    for name in ("euler", "dpmpp_2m", "uni_pc", "lcm"):
        for schedule in ("simple", "sgm_uniform", "karras"):
            made = sample(model, name, schedule, 3, 1.5)
            out["table"][f"{name} {schedule}"] = [bool(torch.isfinite(made).all()), round(float(made.std()), 3)]
    plain = sample(model, steps=1)
    out["cfg 1 repeats"] = bool(torch.equal(plain, sample(model, steps=1)))
    windows = ContextWindowsManualNode.execute(
        model, 12, 4, comfy.context_windows.ContextSchedules.STATIC_STANDARD, 1, False,
        comfy.context_windows.ContextFuseMethods.PYRAMID, 0, False,
    ).args[0]  # fmt: skip
    cut = sample(windows)
    out["context windows"] = [list(cut.shape), bool(torch.isfinite(cut).all())]

    weights = model.model.state_dict()
    key = next(name for name in weights if "experts.3.to_q.weight" in name)
    rows, columns = weights[key].shape
    generator = torch.Generator().manual_seed(2)
    lora = {
        key.replace(".weight", ".lora_A.weight"): torch.randn(4, columns, generator=generator),
        key.replace(".weight", ".lora_B.weight"): torch.randn(rows, 4, generator=generator),
    }
    patched, _ = comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0.0)
    sad = conditions("mira", "sad")[:2]
    out["lora keys"] = len(comfy.lora.model_lora_keys_unet(model.model, {}))
    out["lora on happy changes happy"] = float((sample(patched, steps=1) - plain).abs().max())
    out["lora on happy changes sad"] = float(
        (sample(patched, steps=1, pair=sad) - sample(model, steps=1, pair=sad)).abs().max()
    )
    seen = [0]
    watched = model.clone()

    def override(function: Any, *args: Any, **given: Any) -> Any:
        seen[0] += 1
        return function(*args, **given)

    watched.model_options["transformer_options"]["optimized_attention_override"] = override
    sample(watched, steps=1)
    out["attention calls seen"] = seen[0]
    formats = model.model.latent_format
    previewer = latent_preview.Latent2RGBPreviewer(formats.latent_rgb_factors, formats.latent_rgb_factors_bias, None)
    out["preview"] = list(previewer.decode_latent_to_preview(plain).size)

    def cancel(step: int, *_more: Any) -> None:
        mm.interrupt_current_processing()

    try:
        sample(model, steps=4, callback=cancel)
        out["cancel"] = "not seen"
    except BaseException as error:
        out["cancel"] = type(error).__name__
    out["weights"] = {}
    for kind in ("fp16", "bf16", "fp8_e4m3fn"):
        other = call(classes, "MoEELoadModel", checkpoint=EMBEDDED, weight_dtype=kind)[0]
        out["weights"][kind] = [str(other.model.get_dtype()), float((sample(other, steps=1) - plain).abs().mean())]
    amara = conditions("amara", "happy")
    second = sample(model, steps=1, pair=amara[:2])
    out["second portrait differs"] = float((second - plain).abs().mean())
    out["first portrait again"] = bool(torch.equal(plain, sample(model, steps=1)))
    out["own"] = _own(classes, model, sample, conditions)
    short = {"samples": torch.zeros(10, *latent["samples"].shape[1:])}
    wrong: dict[str, dict[str, Any]] = {
        "short latent": {"latent": short},
        "text conditioning": {"pair": ([[torch.zeros(1, 77, 768), {}]],) * 2},
    }
    for name, given in wrong.items():
        try:
            sample(model, **given)
            out[name] = "accepted"
        except ValueError as error:
            out[name] = str(error)
    return out


def _own(classes: dict[str, Any], model: Any, sample: Any, conditions: Any) -> dict[str, Any]:
    """The expert that ships beside the six, under core's sampler."""
    import torch

    smirk = call(classes, "MoEELoadExpert", model=model, expert="smirk (ships with the pack)", strength=1.0)[0]
    half = call(classes, "MoEELoadExpert", model=model, expert="smirk (ships with the pack)", strength=0.5)[0]
    calm, asked = (conditions("mira", emotion)[:2] for emotion in ("neutral", "@smirk"))
    plain, shown = sample(smirk, steps=1, pair=calm), sample(smirk, steps=1, pair=asked)
    try:
        sample(model, steps=1, pair=asked)
        refused = "accepted"
    except ValueError as error:
        refused = str(error)
    return {
        "uncalled": bool(torch.equal(plain, sample(model, steps=1, pair=calm))),
        "called": float((shown - plain).abs().mean()),
        "at half strength": float((sample(half, steps=1, pair=asked) - plain).abs().mean()),
        "guided": bool(torch.isfinite(sample(smirk, steps=2, cfg=1.5, pair=asked)).all()),
        "counted": len(smirk.get_additional_models()) if hasattr(smirk, "get_additional_models") else -1,
        "not loaded": refused,
    }


def partial(classes: dict[str, Any], _base: Path) -> dict[str, Any]:
    """Load the denoiser at three budgets; what stays behind must be what the host streams."""
    import torch

    model = call(classes, "MoEELoadModel", checkpoint=EMBEDDED, weight_dtype="fp32")[0]
    model.load_device = torch.device("cpu")
    out: dict[str, Any] = {}
    for budget in (0, 1 << 20, 1 << 40):
        patcher = model.clone()
        patcher.load(torch.device("cpu"), lowvram_model_memory=budget)
        left = []
        for name, module in patcher.model.named_modules():
            own = list(module.parameters(recurse=False))
            streamed = hasattr(module, "comfy_cast_weights")
            if own and not streamed:
                left.append(name)
        out[str(budget)] = {
            "not streamable": left,
            "streamed": sum(getattr(m, "comfy_cast_weights", False) is True for m in patcher.model.modules()),
            "parameters on parents": [
                name
                for name, module in patcher.model.named_modules()
                if list(module.children()) and list(module.parameters(recurse=False))
            ],
        }
        patcher.detach()
    return out


def landmarks(classes: dict[str, Any], base: Path, path: str) -> dict[str, Any]:
    """Meshes (F, 478, 3) of a .npy file as the host's MediaPipe node would give them, through our nodes."""
    import numpy as np
    import torch

    meshes = np.load(path)
    faces = [[{"landmarks_xy": mesh[:, :2], "landmarks_3d": mesh * 0.4}] for mesh in meshes]
    given = {"frames": faces, "image_size": (512, 512), "connection_sets": {}}
    motion, frames = call(classes, "MoEEMotionFromVideo", fps=25.0, calm_at=-1.0, face_landmarks=given)
    portrait = call(classes, "MoEESamples", portrait="mira", recording="hello")[0]
    face, _ = call(classes, "MoEEFacePoints", image=portrait, points="", face_landmarks=given)
    prefix = "video/landmarks"
    call(classes, "MoEERenderMotion", face=face, motion=motion, filename_prefix=prefix, crf=18)
    try:
        call(classes, "MoEEMotionFromVideo", fps=25.0, calm_at=-1.0, images=torch.zeros(2, 64, 64, 3))
        refused = ""
    except Exception as error:  # shown to the test as the user would see it
        refused = str(error)
    return {
        "frames": frames,
        "open": float(motion.curve("open").max()),
        "chin": list(face.points.points["chin"]),
        "video": [one.name for one in (base / "output" / "video").glob("*.mp4")],
        "refused": refused,
    }


def hallo(classes: dict[str, Any], folder: Path, points: str) -> dict[str, Any]:
    """A Hallo base; see ``in_host_base.py``."""
    beside: Any = importlib.import_module("in_host_base")
    return beside.base(call, classes, folder, points)


def dice(classes: dict[str, Any], folder: Path, *more: str) -> dict[str, Any]:
    """DICE-Talk; see ``in_host_dice.py``."""
    beside: Any = importlib.import_module("in_host_dice")
    return beside.dice(classes, folder, *more)


def main() -> int:
    base, command = Path(sys.argv[1]).resolve(), sys.argv[2]
    arguments = sys.argv[3:]
    classes = start(base)
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    commands = {
        "workflow": workflow,
        "savings": savings,
        "object_info": object_info,
        "clip": clip,
        "native": native,
        "partial": partial,
        "landmarks": landmarks,
        "hallo": hallo,
        "dice": dice,
    }
    with torch.inference_mode():
        result = commands[command](classes, base, *arguments)
    sys.stdout.write("\nRESULT " + json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
