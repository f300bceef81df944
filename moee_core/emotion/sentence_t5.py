"""Texts as embeddings by a frozen sentence-T5, MoEE's text encoder (sentence-transformers/sentence-t5-base: K = 768).

Shapes (legend for this file): N texts, T tokens, D width of T5, K width of the embedding
    texts -> tokens (N, T) with mask -> states (N, T, D) -> embeddings (N, K), float32 on the CPU, of length 1

Equation (Ni et al. 2021, the mean of the encoder's states): e = W m / |W m|, m the mean of the states under the mask.

The weights are read from a local folder in the layout of the hub, never from the network, and no code of theirs runs:

    config.json, model.safetensors or pytorch_model.bin    T5's encoder (a decoder beside it is left aside)
    tokenizer.json                                         the tokeniser with its rules; spiece.model alone is not read
    sentence_bert_config.json                              max_seq_length, the most tokens of a text
    1_Pooling/config.json                                  must say: the mean of the tokens
    2_Dense/config.json, model.safetensors or .bin         linear D -> K without bias

Raises ``CheckpointError`` for a folder that holds anything else, naming the file or weight; ``EmotionError`` for a text
of more tokens than the encoder was made for.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import CheckpointError, EmotionError
from ..weights.hub_folder import load_folder, read_settings
from .vocabulary import quote

MAX_TOKENS = 256
"""The published models', for a folder that does not say."""
BATCH = 32
"""Texts embedded at once."""
MEAN = "pooling_mode_mean_tokens"
HUB = "download sentence-transformers/sentence-t5-base whole"


class SentenceT5:
    """A frozen sentence-T5. ``width`` is K; ``to`` chooses where it computes."""

    def __init__(self, model: Any, tokenizer: Any, dense_KD: Tensor, max_tokens: int = MAX_TOKENS):
        self.model = model.eval().requires_grad_(False)
        self.tokenizer, self.dense_KD, self.max_tokens = tokenizer, dense_KD, max_tokens

    @property
    def width(self) -> int:
        return self.dense_KD.shape[0]

    def to(self, device: Any) -> SentenceT5:
        self.model.to(device)
        self.dense_KD = self.dense_KD.to(device)
        return self

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """(N, K) embeddings, in the order of the texts."""
        rows = [self._tokens(text) for text in texts]
        parts = [self._embedded(rows[i : i + BATCH]) for i in range(0, len(rows), BATCH)]
        return torch.cat(parts) if parts else torch.zeros(0, self.width)

    def _tokens(self, text: str) -> list[int]:
        tokens = self.tokenizer.encode(text).ids
        if len(tokens) > self.max_tokens:
            raise EmotionError(
                f"the text {quote(text, 40)} has {len(tokens)} tokens, and this sentence-T5 reads {self.max_tokens}; "
                "make it shorter"
            )
        return tokens

    def _embedded(self, rows: list[list[int]]) -> Tensor:
        device = self.dense_KD.device
        longest = max(map(len, rows))
        ids_NT = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=device)
        lengths = torch.tensor([len(row) for row in rows], device=device)
        mask_NT = torch.arange(longest, device=device) < lengths[:, None]
        states_NTD = self.model(input_ids=ids_NT, attention_mask=mask_NT.long()).last_hidden_state
        mean_ND = (states_NTD * mask_NT[..., None]).sum(dim=1) / lengths[:, None]
        return F.normalize(mean_ND @ self.dense_KD.T, dim=-1).cpu()


def load_sentence_t5(folder: str | Path) -> SentenceT5:
    """The encoder of a local folder, in float32 whatever its files hold."""
    folder = Path(folder)
    settings = _json(folder / "config.json", "no sentence-T5")
    if settings.get("model_type") != "t5":
        kind = quote(settings.get("model_type", "unknown"))
        raise CheckpointError(f"{quote(folder, 120)} holds a model of type {kind}, t5 is needed: {HUB}")
    _check_pooling(folder)
    model = load_folder("T5EncoderModel", folder, "T5's encoder", ("decoder.", "lm_head."), HUB)
    dense_KD = _dense(folder / "2_Dense", int(model.config.d_model))
    tokenizer = _tokenizer(folder, model.config)
    limits = folder / "sentence_bert_config.json"
    most = (_json(limits, "").get("max_seq_length") or MAX_TOKENS) if limits.is_file() else MAX_TOKENS
    if not isinstance(most, int) or most < 1:
        raise CheckpointError(f"{quote(limits, 120)}: max_seq_length is {quote(most)}, a number above 0 is needed")
    logging.getLogger(__name__).info("texts are embedded by %s", folder)
    return SentenceT5(model, tokenizer, dense_KD, most)


def _check_pooling(folder: Path) -> None:
    """Written as one name by newer tools, as a switch for each kind by older ones."""
    path = folder / "1_Pooling" / "config.json"
    settings = _json(path, "no pooling")
    kinds = settings.get("pooling_mode", [name for name in settings if name.startswith("pooling_mode_")])
    if isinstance(kinds, list):
        kinds = [name for name in kinds if settings.get(name)]
    if kinds not in ("mean", [MEAN]):
        raise CheckpointError(f"{quote(path, 120)} pools by {quote(kinds)}; sentence-T5 takes the mean of the tokens")


def _dense(folder: Path, inputs: int) -> Tensor:
    """(K, D) of the linear map after the mean."""
    settings = _json(folder / "config.json", "no linear map after the mean")
    activation = str(settings.get("activation_function", "unknown"))
    if settings.get("bias", True) or not activation.endswith(".Identity"):
        raise CheckpointError(
            f"{quote(folder, 120)} is linear with bias {settings.get('bias', True)} and {quote(activation)} after it; "
            "sentence-T5 has no bias and nothing after it"
        )
    state = _tensors(folder)
    weight = state.pop("linear.weight", None)
    if weight is None or state:
        name, what = ("linear.weight", "lacks") if weight is None else (min(state), "has the unknown")
        raise CheckpointError(f"{quote(folder, 120)} {what} weight {quote(name, 80)}; {HUB}")
    wanted = (settings.get("out_features"), inputs)
    if tuple(weight.shape) != wanted:
        raise CheckpointError(
            f"{quote(folder, 120)}: linear.weight has shape {tuple(weight.shape)}, its config.json and T5's width ask "
            f"for {wanted}"
        )
    return weight.float()


def _tensors(folder: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for name in ("model.safetensors", "pytorch_model.bin"):
        path = folder / name
        if not path.is_file():
            continue
        try:
            if name.endswith(".bin"):
                found = torch.load(path, map_location="cpu", weights_only=True)
            else:
                found = load_file(str(path))
        except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
            raise CheckpointError(
                f"{quote(path, 120)} holds no weights that can be read: {quote(error, 80)}"
            ) from error
        if isinstance(found, dict) and all(isinstance(value, Tensor) for value in found.values()):
            return dict(found)
        raise CheckpointError(f"{quote(path, 120)} is not a table of weights; {HUB}")
    raise CheckpointError(f"{quote(folder, 120)} holds no model.safetensors or pytorch_model.bin; {HUB}")


def _tokenizer(folder: Path, config: Any) -> Any:
    """Read as it is by the library beneath transformers: no class is looked up by a name in a file."""
    from transformers import PreTrainedTokenizerFast

    path = folder / "tokenizer.json"
    if not path.is_file():
        beside = "spiece.model alone needs another library" if (folder / "spiece.model").is_file() else "it is missing"
        raise CheckpointError(f"{quote(folder, 120)} needs tokenizer.json ({beside}); {HUB}")
    try:
        tokenizer: Any = PreTrainedTokenizerFast(tokenizer_file=str(path)).backend_tokenizer
    except Exception as error:  # that library raises the base class itself
        raise CheckpointError(f"{quote(path, 120)} is no tokeniser: {quote(error, 80)}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    ids = tokenizer.encode("a face").ids
    if not ids or ids[-1] != config.eos_token_id:
        raise CheckpointError(f"{quote(path, 120)} does not end a text with T5's token {config.eos_token_id}; {HUB}")
    if tokenizer.get_vocab_size() > config.vocab_size:
        raise CheckpointError(
            f"{quote(path, 120)} knows {tokenizer.get_vocab_size()} tokens and T5 {config.vocab_size}; they are not of "
            "one model"
        )
    return tokenizer


def _json(path: Path, without: str) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"{quote(path.parent, 120)} holds {without} (no {path.name}); {HUB}")
    return read_settings(path)
