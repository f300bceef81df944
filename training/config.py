"""Training configuration: one TOML file, read strictly into frozen dataclasses.

Every setting has a default in the classes below; an unknown key is an error that names the nearest known one.
``[stages.NAME]`` tables are run in the order autoencoder, audio, reference, experts, gates, sources, decoder.

Raises ``ConfigError`` (a ``ValueError``) for a missing file, broken TOML, unknown or ill-typed settings.
"""

from __future__ import annotations

import dataclasses
import difflib
import sys
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moee_core.emotion.latents import EmotionToLatentsConfig
from moee_core.emotion.units import parse_units
from moee_core.emotion.vocabulary import EXPERTS
from moee_core.errors import MoEEError
from moee_core.networks.config import AudioConfig, AutoencoderConfig, PortraitUNetConfig, SystemConfig

if sys.version_info >= (3, 11):
    import tomllib
else:  # Python 3.10 has no TOML reader in its standard library
    import tomli as tomllib


class ConfigError(MoEEError, ValueError):
    """A training configuration cannot be used."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The cached clips of the face world.

    ``wide_speech`` names the folder of a wider local speech bank (``training/data/wide_speech.py``), from which
    ``wide_share`` of the clips are spoken; empty uses the bank that ships alone.
    ``heard_by`` names a checkpoint whose speech encoder says what the mouths of the clips do, and takes everything
    else out of them that portrait, speech and emotion do not tell: sway, blinks. A model that samples in one step
    draws the mean of what fits its inputs; in such clips one thing fits, and the mean of mouths is itself a mouth.
    ``units``: share of the clips that show action units which no emotion asks for, most of them no emotion at all.
    ``shown``: action units ("12:0.8, R14:0.6") that every clip shows instead, more or less strongly, beside whatever
    else it shows: what an expert of one's own is trained on.
    """

    clips: int = 3600
    frames: int = 20
    image_size: int = 128
    shard: int = 200
    workers: int = 2
    neutral: float = 0.12
    compound: float = 0.16
    blend: float = 0.14
    contempt: float = 0.04
    silent: float = 0.05
    wide_speech: str = ""
    wide_share: float = 0.6
    heard_by: str = ""
    units: float = 0.0
    shown: str = ""

    def __post_init__(self) -> None:
        if self.shown:
            parse_units(self.shown)
        if self.neutral + self.compound + self.blend + self.contempt >= 1:
            raise ValueError("neutral + compound + blend + contempt must leave room for single emotions")
        if not 0.0 <= self.units < 1.0:
            raise ValueError(f"units must be at least 0 and below 1, got {self.units}")


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """What every stage has. ``iterations`` of 0 skips the stage.

    ``ema`` is the decay of the averaged weights (reached after a warm-up), ``clip`` the gradient norm. ``optimiser``
    is adamw or muon (matrices along their orthogonalised momentum, the rest by AdamW).
    """

    iterations: int = 1000
    batch_size: int = 4
    learning_rate: float = 1e-3
    final_rate: float = 0.03
    weight_decay: float = 0.01
    warmup: int = 60
    decay_from: float = 0.6
    ema: float = 0.998
    clip: float = 1.0
    optimiser: str = "adamw"
    save_every: int = 250
    validate_every: int = 500

    def __post_init__(self) -> None:
        if self.optimiser not in ("adamw", "muon"):
            raise ValueError(f"optimiser must be adamw or muon, got {_shown(self.optimiser)}")


@dataclass(frozen=True, kw_only=True)
class AutoencoderStage(StageConfig):
    """``pca_frames`` frames give the closed-form start; ``latent_noise`` makes the decoder forgiving."""

    batch_size: int = 10
    learning_rate: float = 1.5e-3
    pca_frames: int = 2000
    latent_noise: float = 0.08
    edge_weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class AudioStage(StageConfig):
    """Every batch is cut from the speech bank anew; ``frames`` is the length of an example."""

    batch_size: int = 24
    learning_rate: float = 2e-3
    frames: int = 20


@dataclass(frozen=True, kw_only=True)
class DiffusionStage(StageConfig):
    """What stages 1, 2a and 2b share.

    ``window``: frames of a training clip. Time-steps are logit-normal(``time_mean``, ``time_std``) over 0..999, and
    with probability ``time_last`` the last one. ``noise_sharing``: part of the noise common to a clip's frames.
    Drops: ``audio_drop`` zeroes the audio tokens, ``motion_drop`` repeats the portrait as motion frames (first
    window), ``motion_noise`` roughens motion frames. ``other_reference``: probability that the portrait shows another
    emotion than neutral; ``same_reference`` of those show the clip's own. ``mouth_mask``: probability that its mouth
    is masked. ``region_weight``: weights of mouth and eyes in the loss; ``scale_power`` tempers the weight of each
    position by how much it moves;
    ``spatial_weight`` is lambda of the time-step-aware spatial loss (MoEE Eq. 7, pixel L1) on every
    ``spatial_every``-th frame, ``spatial_edges`` the part of differences between neighbouring pixels in it (0 is the
    paper's). Its weight in time is the paper's cosine (``spatial_time`` "cosine"), which forgets the last time-step,
    or "flat", for models that sample in one step: there the squared error alone asks for the mean of all mouths that
    fit, and the absolute one for a mouth.
    ``emotion`` false keeps emotion out of stage 1 altogether, the paper's literal order.
    Until ``short_until`` of the stage, clips are ``short_window`` frames long and ``short_batch_size`` of them make a
    batch: as many frames, but more people, emotions and time-steps in each step. Then whole windows.
    ``rounded``: probability that a window is laid around a frame with rounded lips, of which speech has few and
    which are the last shapes a mouth learns.
    """

    batch_size: int = 3
    window: int = 12
    time_mean: float = 1.0
    time_std: float = 1.3
    time_last: float = 0.15
    noise_sharing: float = 0.2
    audio_drop: float = 0.08
    motion_drop: float = 0.3
    motion_noise: float = 0.1
    other_reference: float = 0.25
    same_reference: float = 0.5
    mouth_mask: float = 0.1
    mouth_weight: float = 3.0
    eye_weight: float = 2.0
    scale_power: float = 0.8
    spatial_weight: float = 0.0
    spatial_time: str = "cosine"
    spatial_every: int = 4
    spatial_edges: float = 0.0
    emotion: bool = True
    short_window: int = 4
    short_batch_size: int = 12
    short_until: float = 0.0
    rounded: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.spatial_time not in ("cosine", "flat"):
            raise ValueError(f"spatial_time must be cosine or flat, got {_shown(self.spatial_time)}")
        if not 0.0 <= self.same_reference <= 1.0:
            raise ValueError(f"same_reference must lie between 0 and 1, got {self.same_reference}")
        if self.spatial_every < 1:
            raise ValueError(f"spatial_every must be at least 1, got {self.spatial_every}")


@dataclass(frozen=True, kw_only=True)
class ExpertsStage(DiffusionStage):
    """Stage 2a. ``init``: experts start as copies of stage 1's emotion attention (``upcycle``) or at ``zero``.

    Masked noisy emotion sampling (MoEE 4.2): with ``other_emotion`` the portrait comes from another emotion of the
    same person and with ``neutral_reference`` from a neutral picture, else from the clip's own emotion; a portrait
    of another emotion or neutral has its mouth masked with ``mask_probability``. ``label_noise``: reading B.
    """

    init: str = "upcycle"
    train_latents: bool = False
    other_emotion: float = 0.3
    neutral_reference: float = 0.5
    mask_probability: float = 0.4
    label_noise: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.init not in ("upcycle", "zero"):
            raise ValueError(f"stages.experts.init must be upcycle or zero, got {self.init!r}")


@dataclass(frozen=True, kw_only=True)
class GatesStage(DiffusionStage):
    """Stage 2b. ``gate_weight``: weight of the cross-entropy that ties the global gates to the known blend."""

    gate_weight: float = 0.1
    local_bias: float = 3.0


@dataclass(frozen=True, kw_only=True)
class SourcesStage(StageConfig):
    """How other sources come to say what labels say: the encoders of action units, text and voice learn to give the
    latents that the label encoder gives for the same emotion, everything else frozen. Off unless ``iterations``.

    ``contrast``: weight of the symmetric InfoNCE between sources of the same emotion, at temperature 0.07 (MoEE
    states no alignment; off). ``readable``: weight of what cannot be read in the latents about the action units of
    a face, by units and by text, which then also learn to say the same of it (0: emotions alone). ``ear`` names an
    EmoTalker checkpoint whose listener is taken over, "" the one that ships; ``voice_noise``: standard deviation of
    the manner that is added to its normalised statistics, for voices it has never heard. ``takes`` limits how many
    recordings it hears; 0 is all. ``text_encoder`` names the folder of the sentence-T5 that a model with text =
    "sentence-t5" reads by; it learns from ``texts`` sentences of the grammar, which are embedded once. Weights do
    not decay, because the modality embeddings of sources and labels are one table, and labels must stay as they
    are.
    """

    iterations: int = 0
    batch_size: int = 128
    weight_decay: float = 0.0
    contrast: float = 0.0
    readable: float = 0.0
    ear: str = ""
    voice_noise: float = 0.6
    takes: int = 0
    text_encoder: str = ""
    texts: int = 2000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.texts < 1:
            raise ValueError(f"texts must be at least 1, got {self.texts}")
        for name in ("contrast", "readable"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if self.weight_decay:
            raise ValueError(f"weight_decay must be 0 here, or labels would change; got {self.weight_decay}")


@dataclass(frozen=True, kw_only=True)
class SourceOdds:
    """How often a batch is told its emotion by what: labels, action units, text, or two or three of these at once."""

    label: float = 1.0
    action_units: float = 0.0
    text: float = 0.0
    several: float = 0.0

    def __post_init__(self) -> None:
        odds = (self.label, self.action_units, self.text, self.several)
        if min(odds) < 0 or abs(sum(odds) - 1) > 1e-6:
            raise ValueError(f"label, action_units, text and several are shares that add up to 1, got {odds}")


@dataclass(frozen=True, kw_only=True)
class DecoderStage(DiffusionStage):
    """The last stage: what one sampling step draws. Off unless ``iterations`` are given.

    ``whole``: the networks that make the one-step estimate learn along with the decoder, the pictures weighted by
    ``spatial_weight`` against the latents. ``kept_every``: part of the pictures that are also decoded from true
    latents (2: every other). ``critic`` (with ``whole``): how hard a critic of latents pulls estimates towards real
    ones, in units of the latent loss's own slope (0: no critic); ``critic_rate`` is its learning rate and
    ``critic_penalty`` the weight of its gradient penalties. ``hard``: part of the samples drawn from clips in which
    lips round while an emotion is strong (0: as they come), the last thing that such a model learns. ``beside``: part
    of the samples told by action units or words that show units beside an emotion (0: as they come). ``emphasis``
    names emotions, apart by commas, that ``emphasis_share`` of the clips show most of: those that the model does worst.
    ``changed_weight``: what a place gets beside the weight of its region where a frame is as far from the portrait as
    frames are on average: an expression that the portrait shows and the frame does not is erased there (0: off).
    """

    iterations: int = 0
    spatial_edges: float = 1.0
    whole: bool = False
    kept_every: int = 2
    critic: float = 0.0
    critic_rate: float = 2e-4
    critic_penalty: float = 1.0
    hard: float = 0.0
    beside: float = 0.0
    emphasis: str = ""
    emphasis_share: float = 0.0
    changed_weight: float = 0.0
    sources: SourceOdds = field(default_factory=SourceOdds)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.changed_weight < 0:
            raise ValueError(f"changed_weight must be 0 or more, got {self.changed_weight:g}")
        if self.critic < 0 or (self.critic and not self.whole):
            raise ValueError(f"critic must be 0, or positive with whole = true, got {self.critic}")
        for name in ("hard", "beside", "emphasis_share"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}")
        unknown = [name for name in self.emphasised if name not in EXPERTS]
        if unknown:
            raise ValueError(f"emphasis knows {', '.join(EXPERTS)}, not {unknown[0]!r}")
        if bool(self.emphasised) != bool(self.emphasis_share):
            raise ValueError(
                f"emphasis and emphasis_share go together, got {self.emphasis!r} and {self.emphasis_share}"
            )

    @property
    def emphasised(self) -> tuple[str, ...]:
        """The names in ``emphasis``."""
        return tuple(name.strip() for name in self.emphasis.split(",") if name.strip())


@dataclass(frozen=True, kw_only=True)
class StagesConfig:
    autoencoder: AutoencoderStage = field(default_factory=AutoencoderStage)
    audio: AudioStage = field(default_factory=AudioStage)
    reference: DiffusionStage = field(default_factory=DiffusionStage)
    experts: ExpertsStage = field(default_factory=ExpertsStage)
    gates: GatesStage = field(default_factory=GatesStage)
    sources: SourcesStage = field(default_factory=SourcesStage)
    decoder: DecoderStage = field(default_factory=DecoderStage)


@dataclass(frozen=True, kw_only=True)
class SystemTables:
    """``[system.…]``: the sizes of the model that is trained."""

    unet: PortraitUNetConfig
    emotion: EmotionToLatentsConfig
    audio: AudioConfig
    autoencoder: AutoencoderConfig

    def build(self, image_size: int, window: int) -> SystemConfig:
        return SystemConfig(
            unet=self.unet,
            emotion=self.emotion,
            audio=self.audio,
            autoencoder=self.autoencoder,
            image_size=image_size,
            window_frames=window,
        )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The whole file. ``precision`` is bf16 (autocast), fp32, or auto: bf16 where this machine is faster with it;
    ``threads`` 0 leaves PyTorch's choice.

    ``processes``: CPU processes of one thread that share every batch. ``start_from`` names a checkpoint whose weights
    the run goes on from; its experts become one again by their mean, and stages with no iterations keep its weights.
    If only the last two stages have iterations, the model goes on as it is.
    """

    name: str
    system: SystemTables
    seed: int = 0
    precision: str = "auto"
    device: str = "cpu"
    threads: int = 0
    processes: int = 1
    cache: str = "cache"
    runs: str = "runs"
    start_from: str = ""
    data: DataConfig = field(default_factory=DataConfig)
    stages: StagesConfig = field(default_factory=StagesConfig)

    def __post_init__(self) -> None:
        if self.precision not in ("auto", "bf16", "fp32"):
            raise ValueError(f"precision must be auto, bf16 or fp32, got {_shown(self.precision)}")


def load_config(path: str | Path) -> TrainConfig:
    """Read and check one TOML file."""
    return from_table(TrainConfig, read_table(path), "")


def read_table(path: str | Path) -> dict[str, Any]:
    """A TOML file as it is. Its ``system_kind``, where given, says which system's configuration it holds."""
    path = Path(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the training configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def from_table(kind: Any, table: Any, where: str) -> Any:
    """A dataclass from a TOML table, strictly: unknown and ill-typed settings are errors with their full name."""
    if not isinstance(table, dict):
        raise ConfigError(f"{where or 'the file'} must be a table, got {type(table).__name__}")
    hints = typing.get_type_hints(kind)
    known = {f.name: f for f in dataclasses.fields(kind)}
    values = {}
    for key, value in table.items():
        name = f"{where}.{key}" if where else key
        name = name if len(name) <= 80 else name[:79] + "…"
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)[:120]}"
            raise ConfigError(f"{name}: no such setting in {kind.__name__}{hint}")
        values[key] = _value(hints[key], value, name)
    missing = [
        name
        for name, f in known.items()
        if name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{where or 'the file'}: missing setting {missing[0]!r}")
    try:
        return kind(**values)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{where}: {error}" if where else str(error)) from error


def _value(hint: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_table(hint, value, name)
    origin = typing.get_origin(hint)
    if origin is tuple:
        inner = typing.get_args(hint)[0]
        if not isinstance(value, list):
            raise ConfigError(f"{name} must be a list, got {_shown(value)}")
        return tuple(_value(inner, item, f"{name}[{i}]") for i, item in enumerate(value))
    if origin in (typing.Union, types.UnionType):
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigError(f"{name} must be {hint.__name__}, got {_shown(value)}")
    return value


def to_dict(config: Any) -> dict[str, Any]:
    """Plain nested dict with lists, for JSON and metadata."""
    return dataclasses.asdict(config)


def _shown(value: Any) -> str:
    """A setting's value, short enough for a one-line message."""
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
