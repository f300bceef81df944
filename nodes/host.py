"""Everything that knows ComfyUI's model management: our networks as ComfyUI's, devices, folders, progress.

Shapes (legend for this file):
    F frames of a window, n guidance branches in one call, x (n F, Z, h, w), audio (n F, S, A), emotion (n F, M, D),
    shares (n F, E)

The denoiser becomes a native MODEL: core's samplers, LoRA, previews, context windows and partial loading treat it as
their own. The other networks have patchers of their own, so that the host can move each where it likes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_management as mm
import comfy.model_patcher
import comfy.ops
import comfy.supported_models_base
import comfy.utils
import folder_paths
import torch
from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor, nn

from ..moee_core.diffusion.sampler import Reuse
from ..moee_core.errors import CheckpointError
from ..moee_core.experts.file import ExpertFile, check_fits, load_expert
from ..moee_core.experts.mixture import Routing
from ..moee_core.experts.own import called, from_file
from ..moee_core.jobs import fingerprint
from ..moee_core.networks.config import PortraitUNetConfig
from ..moee_core.networks.portrait_unet import EmotionContext, KeptConditions, PortraitUNet
from ..moee_core.networks.reference_net import ReferenceFeatures
from ..moee_core.ops import Build
from ..moee_core.weights.checkpoint import state_hash
from ..moee_core.weights.emo_talker import EMBEDDED as EMBEDDED_EMOTALKER
from ..moee_core.weights.hub_folder import holds
from .kept import KEPT, Run, keep_over_runs
from .sockets import PersonRead

FOLDER = "moee"
EMBEDDED = "embedded (ships with the pack)"
EMBEDDED_FILE = Path(__file__).parents[1] / "moee_core" / "assets" / "embedded.safetensors"
MEMORY_FACTOR = 1.0
CHECKPOINT = "moee_checkpoint"
WEIGHT_DTYPES = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp8_e4m3fn": torch.float8_e4m3fn,
}
"""What a user may ask for; anything else is the host's choice."""
PER_FRAME = ("moee_audio", "moee_emotion", "moee_shares")
"""Conditions with one row per frame, which the host cuts for context windows by itself."""


def register_folder() -> None:
    """models/moee, beside what extra_model_paths.yaml may have added."""
    default = str(Path(folder_paths.models_dir) / FOLDER)
    paths = list(folder_paths.folder_names_and_paths.get(FOLDER, ([], set()))[0])
    folder_paths.folder_names_and_paths[FOLDER] = ([*paths, *([] if default in paths else [default])], {".safetensors"})


def checkpoints() -> list[str]:
    return [EMBEDDED, *(name for name in folder_paths.get_filename_list(FOLDER) if _kind(name) not in KINDS)]


HUBERT, ENCODERS = "hubert", "encoders"
"""Folders within ``FOLDER`` for whole folders downloaded from the hub."""
DICE, RIFE = "dice_talk", "rife"
KINDS = ("experts", "emotalker", HUBERT, ENCODERS, DICE, RIFE)
"""Folders within ``FOLDER`` for files of other kinds than a talking-portrait model."""


def _kind(name: str) -> str:
    return Path(name).parts[0]


SHIPPED = " (ships with the pack)"
EXPERTS = EMBEDDED_FILE.parent / "experts"


def expert_files() -> list[str]:
    """What ships, and what the user put into models/moee/experts."""
    shipped = [path.stem + SHIPPED for path in sorted(EXPERTS.glob("*.safetensors"))]
    return [*shipped, *_own_files()]


def expert_path(name: str) -> str:
    if name.endswith(SHIPPED):
        return str(EXPERTS / f"{Path(name.removesuffix(SHIPPED)).name}.safetensors")
    return folder_paths.get_full_path_or_raise(FOLDER, name)


def _own_files() -> list[str]:
    return [name for name in folder_paths.get_filename_list(FOLDER) if _kind(name) == "experts"]


def emotalkers() -> list[str]:
    return [EMBEDDED, *(name for name in folder_paths.get_filename_list(FOLDER) if _kind(name) == "emotalker")]


def emotalker_path(name: str) -> str:
    return str(EMBEDDED_EMOTALKER) if name == EMBEDDED else folder_paths.get_full_path_or_raise(FOLDER, name)


def hubert_folders() -> dict[str, Path]:
    """Name to folder of every HuBERT in models/moee/hubert."""
    folders = [root / HUBERT for root in roots()]
    found = (path.parent for folder in folders if folder.is_dir() for path in sorted(folder.glob("*/config.json")))
    return {path.name: path for path in found}


def text_encoders() -> dict[str, Path]:
    """Name to folder of every sentence encoder in models/moee/encoders: those with a linear map after the mean."""
    return {name: path for name, path in encoder_folders().items() if (path / "2_Dense").is_dir()}


def voice_encoders() -> dict[str, Path]:
    """Name to folder of the other encoders there, and of every HuBERT in models/moee/hubert."""
    speech, folders = speech_encoders(), encoder_folders().items()
    found = {name: path for name, path in folders if name not in speech and not (path / "2_Dense").is_dir()}
    return {**hubert_folders(), **found}


def speech_encoders() -> dict[str, Path]:
    """Name to folder of every wav2vec 2.0 in models/moee/encoders."""
    return {name: path for name, path in encoder_folders().items() if holds(path, "wav2vec2")}


def encoder_folders() -> dict[str, Path]:
    folders = [root / ENCODERS for root in roots()]
    return {path.name: path for one in folders if one.is_dir() for path in sorted(one.iterdir()) if path.is_dir()}


def roots() -> list[Path]:
    """Every folder that is models/moee, by what extra_model_paths.yaml says too."""
    return [Path(root) for root in folder_paths.folder_names_and_paths[FOLDER][0]]


def add_expert(model: Any, path: str, strength: float) -> Any:
    """A clone of the MODEL whose expert is changed by the file's differences, or which has an expert of the author's
    own beside the six."""
    expert = load_expert(path)
    if CHECKPOINT not in model.model_options:
        raise CheckpointError("this MODEL is not a talking-portrait model; connect Load Talking Portrait Model")
    state = {key: value.shape for key, value in model.model.diffusion_model.state_dict().items()}
    check_fits(expert, Path(path).name, model.model_options[CHECKPOINT], state)
    clone = model.clone()
    if expert.own:
        _add_own(clone, expert, strength)
        return clone
    patches = {f"diffusion_model.{key}": (value,) for key, value in expert.for_denoiser().items()}
    clone.add_patches(patches, strength)
    return clone


OWN = "moee_own_experts"
"""In the transformer options: @name -> (patcher, what it is by content)."""
DEEP = "moee_deep"
"""In the transformer options: the ``Reuse`` of a window, whose deep features the denoiser keeps between steps."""
OWN_CONDITION = "moee_own_"
"""Begins the names of conditions that say how strong an expert of one's own is in every frame."""


def _add_own(clone: Any, expert: ExpertFile, strength: float) -> None:
    """Its network becomes an additional model of the MODEL, so that the host loads and counts it along."""
    kinds = (torch.float16, torch.bfloat16, torch.float32)
    stored = clone.model.get_dtype()
    offload = clone.offload_device
    build = Build(
        operations=comfy.ops.manual_cast,
        attention=attention,
        dtype=stored if stored in kinds else torch.float16,
        device=offload,
    )
    network = from_file(expert, clone.model.diffusion_model, build, strength)
    content = fingerprint([*(expert.deltas[key] for key in sorted(expert.deltas)), strength])
    patcher = patcher_of(network, network.state_dict(), clone.load_device, offload)
    options = clone.model_options.setdefault("transformer_options", {})
    loaded = {**options.get(OWN, {}), expert.emotion: (patcher, content)}
    clone.model_options["transformer_options"] = {**options, OWN: loaded}
    clone.set_additional_models(OWN, [patcher for patcher, _ in loaded.values()])


def checkpoint_path(name: str) -> str:
    return str(EMBEDDED_FILE) if name == EMBEDDED else folder_paths.get_full_path_or_raise(FOLDER, name)


def attention(
    q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None, *, transformer_options: dict | None = None
) -> Tensor:
    """The host's choice of kernel; overrides in ``transformer_options`` see every call."""
    return optimized_attention(q, k, v, heads, mask=mask, transformer_options=transformer_options or {})


class Shared(comfy.conds.CONDRegular):
    """A condition that all frames have in common: never repeated, cut by a context window or concatenated."""

    def __init__(self, value: Any):
        super().__init__([value])  # in a list, where the host's window code finds no tensor to cut

    def _copy_with(self, cond: list) -> Shared:
        return Shared(cond[0])

    def process_cond(self, batch_size: int, **_unused: object) -> Shared:
        return self

    def can_concat(self, other: Shared) -> bool:
        return self.cond[0] is other.cond[0]

    def concat(self, _others: list) -> list:
        return self.cond

    def size(self) -> list[int]:
        return list(self.cond[0].latent.shape)


class Denoiser(PortraitUNet):
    """The denoiser as ComfyUI calls it. Parameter names are the checkpoint's, so LoRA keys follow by themselves."""

    def __init__(
        self,
        *,
        config: PortraitUNetConfig,
        operations: Any,
        dtype: torch.dtype | None = None,
        device: Any = None,
        **_unused: object,
    ):
        super().__init__(config, Build(operations=operations, attention=attention, dtype=dtype, device=device))
        self.dtype = dtype

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        control: object = None,
        transformer_options: dict | None = None,
        *,
        moee_audio: Tensor,
        moee_emotion: Tensor,
        moee_shares: Tensor,
        moee_reference: list,
        **others: Any,
    ) -> Tensor:
        options = transformer_options or {}
        loaded = {name: patcher.model for name, (patcher, _) in options.get(OWN, {}).items()}
        asked = {key[len(OWN_CONDITION) :]: value for key, value in others.items() if key.startswith(OWN_CONDITION)}
        branches = len(options.get("cond_or_uncond", [0]))
        given: ReferenceFeatures | PersonRead = moee_reference[0]  # one in all branches of a call: Shared.can_concat
        run: Run = options.get(KEPT) or Run(steady=False)
        how = (branches, x.shape, x.dtype, x.device)
        if isinstance(given, PersonRead):
            more = self._person(given, moee_audio.to(x), branches, x, run)
        else:
            reference = run.of(given, how, lambda: _to(given, x).batched(branches))
            more = {"reference": reference, "audio_NSA": moee_audio.to(x)}
        routing = Routing.of(moee_shares.float().cpu()).to(x.device)
        reuse: Reuse | None = options.get(DEEP)
        together = (tuple(options.get("cond_or_uncond", ())), x.shape)  # whose passes run in this call, as in the last
        return super().forward(
            x,
            timesteps,
            frames=x.shape[0] // branches,
            emotion=EmotionContext(
                latents_NMD=moee_emotion.to(x), routing=routing, own=tuple(called(loaded, asked, x.device))
            ),
            options=options,
            deep=None if reuse is None else reuse.of(together),
            **more,
        )

    def _person(self, given: PersonRead, audio_NSA: Tensor, branches: int, x: Tensor, run: Run) -> dict[str, Any]:
        """What is read of a person, and of what is said, in the branches of a call: in a steady run as the layers made
        of it the first time."""
        located = given.located_1Dhw
        added = None if located is None else located.to(x).expand(x.shape[0], -1, -1, -1)
        how = (branches, x.shape, x.dtype, x.device)
        features = run.of(given.features, how, lambda: _to(given.features, x))
        if not run.steady or torch.is_grad_enabled():
            return {
                "reference": features.batched(branches),
                "audio_NSA": audio_NSA,
                "identity_BKC": given.identity_1KC.to(x).expand(branches, -1, -1),
                "regions": given.regions.to(x.device).frames(x.shape[0]),
                "added_NCHW": added,
            }

        def made() -> KeptConditions:
            portrait = self.kept_portrait(features, given.identity_1KC.to(x), given.regions.to(x.device))
            heard = None if located is None else audio_NSA  # who knows nobody hears nothing: see conditions.py
            return self.kept(portrait, features.batched(branches), heard)

        return {"reference": run.of(given, how, made), "added_NCHW": added}


def moved(reference: ReferenceFeatures, device: torch.device) -> ReferenceFeatures:
    """The same features on another device."""
    return replace(
        reference,
        sites=tuple(site.to(device) for site in reference.sites),
        latent=reference.latent.to(device),
        motion=None if reference.motion is None else tuple(part.to(device) for part in reference.motion),
    )


def _to(reference: ReferenceFeatures, like: Tensor) -> ReferenceFeatures:
    return ReferenceFeatures(
        sites=tuple(site.to(like) for site in reference.sites),
        latent=reference.latent.to(like.device, torch.float32),
        motion=None if reference.motion is None else tuple(part.to(like) for part in reference.motion),
    )


class NativeModel(comfy.model_base.BaseModel):
    """BaseModel around ``Denoiser``: conditions in, and the check that they belong to this latent."""

    def __init__(self, model_config: Any, device: Any = None):
        make = functools.partial(Denoiser, config=model_config.moee)
        super().__init__(model_config, model_config.prediction, device=device, unet_model=make)

    def extra_conds(self, **given: Any) -> dict[str, comfy.conds.CONDRegular]:
        if any(name not in given for name in (*PER_FRAME, "moee_reference")):
            raise ValueError(
                "this MODEL needs portrait, speech and emotion in its conditioning; take positive and negative from "
                "'Talking Portrait Conditioning', not from a text encoder"
            )
        frames, wanted = given["noise"].shape[0], given["moee_audio"].shape[0]
        if frames != wanted:
            raise ValueError(
                f"the latent has {frames} frames and the conditioning {wanted}; take the latent from the same "
                "'Talking Portrait Conditioning' node"
            )
        device = given["device"]
        own = [name for name in given if name.startswith(OWN_CONDITION)]
        out = {name: comfy.conds.CONDRegular(given[name].to(device)) for name in (*PER_FRAME, *own)}
        # which experts run must be known where the layers are called from, without waiting for the device
        out["moee_shares"] = comfy.conds.CONDRegular(given["moee_shares"].cpu())
        return {**out, "moee_reference": Shared(given["moee_reference"])}


class _LatentFormat(comfy.latent_formats.LatentFormat):
    latent_channels = 16


class _ModelConfig(comfy.supported_models_base.BASE):
    unet_config: dict = {}  # noqa: RUF012  the host's own way to configure
    unet_extra_config: dict = {}  # noqa: RUF012
    latent_format = _LatentFormat
    memory_usage_factor = MEMORY_FACTOR

    def __init__(self, config: PortraitUNetConfig, latent_format: Any = None):
        super().__init__({})
        if latent_format is not None:
            self.latent_format = latent_format
        self.moee = config
        kind = {"scaled_linear": "linear", "linear": "sqrt_linear"}[config.beta_schedule]  # the host's names for them
        self.sampling_settings = {
            "beta_schedule": kind,
            "linear_start": 0.00085,
            "linear_end": 0.012,
            "zsnr": config.zero_snr,
        }
        types = comfy.model_base.ModelType
        self.prediction = types.V_PREDICTION if config.prediction_type == "v_prediction" else types.EPS
        self.latent_format.latent_channels = config.latent_channels


def patcher_class() -> type:
    """The host rebinds this name when it streams weights dynamically, so it is looked up at every call."""
    return getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)


def patcher_of(module: nn.Module, state: dict[str, Tensor], load: Any, offload: Any) -> Any:
    """A patcher with its weights in, all of them or an error."""
    if hasattr(mm, "archive_model_dtypes"):
        mm.archive_model_dtypes(module)
    patcher = patcher_class()(module, load_device=load, offload_device=offload)
    module.load_state_dict(state, strict=True, assign=bool(getattr(patcher, "is_dynamic", lambda: False)()))
    module.eval().requires_grad_(False)
    return patcher


def cast(state: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {key: value.to(dtype) for key, value in state.items()}


def native_model(
    config: PortraitUNetConfig,
    state: dict[str, Tensor],
    weight_dtype: str,
    *,
    latent_format: Any = None,
    content: str = "",
) -> Any:
    """``content``: what the weights are, where working it out of them would take long."""
    load_device, offload = mm.get_torch_device(), mm.unet_offload_device()
    parameters = sum(value.numel() for value in state.values())
    supported = [torch.float16, torch.bfloat16, torch.float32]
    dtype = WEIGHT_DTYPES.get(weight_dtype) or mm.unet_dtype(model_params=parameters, supported_dtypes=supported)
    model_config = _ModelConfig(config, latent_format)
    model_config.set_inference_dtype(dtype, mm.unet_manual_cast(dtype, load_device, supported))
    native = NativeModel(model_config, device=offload)
    patcher = patcher_class()(native, load_device=load_device, offload_device=offload)
    dynamic = bool(getattr(patcher, "is_dynamic", lambda: False)())
    native.diffusion_model.load_state_dict(cast(state, dtype), strict=True, assign=dynamic)
    # kept by clones: which weights a job was sampled with
    patcher.model_options[CHECKPOINT] = content or state_hash(state)
    keep_over_runs(patcher)
    return patcher


def on_device(patcher: Any, call: Callable[[Any, Any], Any], memory: int = 1 << 26) -> Any:
    """Run ``call(module, device)`` with the patcher's weights where the host wants them."""
    mm.load_models_gpu([patcher], memory_required=memory)
    with torch.no_grad():
        return call(patcher.model, patcher.load_device)
