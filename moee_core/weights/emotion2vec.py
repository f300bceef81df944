"""A published emotion2vec checkpoint (base, plus base, plus large …) as ``audio.emotion2vec``, loaded strictly.

A folder holds one ``.safetensors`` or ``.pt`` file, with the weights at its top or under "model", as FunASR and
fairseq write them. Finetuned checkpoints have "d2v_model." before every name. Sizes are read from the weights' shapes.
The decoder of the pretraining and the classifier on top are left aside; any other weight that is missing from the
encoder or unknown in it is an error. A ``.pt`` is read with ``weights_only``: one that holds more than weights is
refused, because opening it would run what it holds.

Names and shapes after FunASR's ``funasr/models/emotion2vec`` (MIT) and the names in the published files.

Raises ``CheckpointError`` naming the folder or file and one offending weight.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from torch import Tensor

from ..audio.emotion2vec import KERNELS, Emotion2Vec, Emotion2VecConfig, Emotion2VecFeatures
from ..emotion.vocabulary import quote
from ..errors import CheckpointError
from ..ops import Build
from .checkpoint import check_keys, read_tensors
from .tables import unpickled

AUDIO = "modality_encoders.AUDIO."
NAMES = (  # ours -> published; {} is the same number in both, {+1} is one more, because theirs begin with a transpose
    ("convs.{}.", AUDIO + "local_encoder.conv_layers.{}.0."),
    ("conv_norms.{}.", AUDIO + "local_encoder.conv_layers.{}.2.1."),
    ("project_norm.", AUDIO + "project_features.1."),
    ("project.", AUDIO + "project_features.2."),
    ("positions.{}.", AUDIO + "relative_positional_encoder.{+1}.0."),
    ("extra_tokens", AUDIO + "extra_tokens"),
    ("alibi_scale", AUDIO + "alibi_scale"),
    ("early_norm.", AUDIO + "context_encoder.norm."),
    ("early.{}.", AUDIO + "context_encoder.blocks.{}."),
    ("late.{}.", "blocks.{}."),
)
IN_A_BLOCK = (
    ("qkv.", "attn.qkv."),
    ("out.", "attn.proj."),
    ("norm_1.", "norm1."),
    ("norm_2.", "norm2."),
    ("up.", "mlp.fc1."),
    ("down.", "mlp.fc2."),
)
FINETUNED = "d2v_model."
ENCODER = ("modality_encoders.", "blocks.", "norm.")
"""What belongs to the encoder; a final ``norm.`` would be another architecture."""
IN_IT = "its table 'model' as model.safetensors"
LEFT_ASIDE = (AUDIO + "decoder.",)


def published(name: str) -> str:
    """The published name of one of our weights."""
    for ours, theirs in NAMES:
        match = re.match(re.escape(ours).replace(r"\{\}", r"(\d+)"), name)
        if match is None:
            continue
        number = int(match[1]) if match.groups() else 0
        rest = name[match.end() :]
        if ours in ("early.{}.", "late.{}."):
            part, inside = next((a, b) for a, b in IN_A_BLOCK if rest.startswith(a))
            rest = inside + rest.removeprefix(part)
        return theirs.replace("{}", str(number)).replace("{+1}", str(number + 1)) + rest
    raise KeyError(name)


def load_emotion2vec(folder: str | Path) -> Emotion2VecFeatures:
    """The encoder of a local folder, in float32."""
    path = _file(Path(folder))
    state = _encoder_state(path)
    config = _sizes(path.name, {key: tuple(value.shape) for key, value in state.items()})
    try:
        shapes = Emotion2Vec(config, Build(device="meta")).state_dict()
    except (RuntimeError, ValueError) as error:  # sizes that no network can have
        raise CheckpointError(f"{path.name}: no emotion2vec can be built of its sizes: {error}") from error
    names = {published(key): key for key in shapes}
    check_keys(
        path.name,
        {theirs: tuple(shapes[ours].shape) for theirs, ours in names.items()},
        {key: tuple(value.shape) for key, value in state.items()},
    )
    model = Emotion2Vec(config)
    model.load_state_dict({ours: state[theirs].float() for theirs, ours in names.items()}, strict=True)
    logging.getLogger(__name__).info("emotion features from %s", path)
    return Emotion2VecFeatures(model)


def _file(folder: Path) -> Path:
    for suffix in (".safetensors", ".pt"):
        found = sorted(folder.glob(f"*{suffix}")) if folder.is_dir() else []
        if len(found) > 1:
            raise CheckpointError(f"{quote(folder, 120)} holds {len(found)} {suffix} files; leave one")
        if found:
            return found[0]
    raise CheckpointError(
        f"{quote(folder, 120)} holds no emotion2vec (no .safetensors or .pt file) and no HuBERT (no config.json); "
        "give a folder downloaded from the hub"
    )


def _encoder_state(path: Path) -> dict[str, Tensor]:
    """The encoder's weights by their published names, of a finetuned checkpoint without what stands before them."""
    found: Any = read_tensors(path) if path.suffix == ".safetensors" else unpickled(path, IN_IT)
    for inside in ("state_dict", "model_state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(inside), dict):
            found = found[inside]
    if not isinstance(found, dict):
        raise CheckpointError(
            f"{path.name} is not a table of weights; emotion2vec's hold one, at the top or as 'model'"
        )
    tensors = {str(key): value for key, value in found.items() if isinstance(value, Tensor)}
    if any(key.startswith(FINETUNED) for key in tensors):
        tensors = {key.removeprefix(FINETUNED): v for key, v in tensors.items() if key.startswith(FINETUNED)}
    state = {k: v for k, v in tensors.items() if k.startswith(ENCODER) and not k.startswith(LEFT_ASIDE)}
    scale = state.get(AUDIO + "alibi_scale")
    if scale is not None and scale.dim() == 4:  # as the first releases wrote it
        state[AUDIO + "alibi_scale"] = scale[None]
    return state


def _sizes(name: str, shapes: dict[str, tuple[int, ...]]) -> Emotion2VecConfig:
    def shape(key: str, sides: int) -> tuple[int, ...]:
        if key not in shapes:
            raise CheckpointError(f"{name} is not an emotion2vec encoder: {key!r} is missing ({len(shapes)} weights)")
        if len(shapes[key]) != sides:
            raise CheckpointError(f"{name}: {key!r} has shape {shapes[key]}, emotion2vec's has {sides} sides")
        return shapes[key]

    def count(pattern: str) -> int:
        numbers = [int(match[1]) for key in shapes if (match := re.match(pattern, key))]
        return max(numbers, default=-1) + 1

    channels, _, _ = shape(AUDIO + f"local_encoder.conv_layers.{len(KERNELS) - 1}.0.weight", 3)
    width, grouped, reach = shape(AUDIO + "relative_positional_encoder.1.0.weight", 3)
    blocks = re.escape(AUDIO + "context_encoder.blocks.")
    return Emotion2VecConfig(
        channels=channels,
        width=width,
        hidden=shape("blocks.0.mlp.fc1.weight", 2)[0],
        heads=shape(AUDIO + "alibi_scale", 5)[2],
        early=count(rf"{blocks}(\d+)\."),
        late=count(r"blocks\.(\d+)\."),
        extra=shape(AUDIO + "extra_tokens", 3)[1],
        positions=count(rf"{re.escape(AUDIO)}relative_positional_encoder\.(\d+)\.") - 1,
        reach=reach,
        groups=max(1, width // max(1, grouped)),
    )
