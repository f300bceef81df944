"""Training configuration of DICE-Talk: one TOML file with ``system_kind = "dice_talk"``, read as strictly as others.

``[stages.NAME]`` tables are run in the order embedder, denoiser. The paper trains UNet, bank and objective in a single
stage, on priors of an embedder that was trained before. Raises ``ConfigError`` for unknown or ill-typed settings.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from moee_core.emotion.bank import EmotionBankConfig
from moee_core.emotion.prior_embedder import PriorEmbedderConfig
from moee_core.networks.config import VideoUNetConfig
from training.config import DataConfig, StageConfig
from training.emotalker_config import MotionDataConfig

KIND = "dice_talk"
STAGES = ("embedder", "denoiser")


@dataclass(frozen=True, kw_only=True)
class EmbedderStage(StageConfig):
    """InfoNCE over ``batch_size`` pairs of moments (Eq. 7, 8), ``least_frames`` up to the embedder's ``frames`` long.

    ``drop_face`` and ``drop_speech``: how often a row lacks one of them, never both. ``units_noise``: standard
    deviation of what is added to a clip's action units, part of it constant in the clip and part of it frame by frame,
    as a reader of faces errs; ``voice_noise`` likewise of the manner of a voice.
    """

    batch_size: int = 96
    iterations: int = 1500
    learning_rate: float = 1e-3
    temperature: float = 0.1
    least_frames: int = 4
    drop_face: float = 0.25
    drop_speech: float = 0.25
    units_noise: float = 0.06
    voice_noise: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.drop_face, self.drop_speech) < 0 or self.drop_face + self.drop_speech >= 1:
            raise ValueError(
                "drop_face and drop_speech are shares of the rows that lack one of them and must leave some with both, "
                f"got {self.drop_face} and {self.drop_speech}"
            )
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")


@dataclass(frozen=True, kw_only=True)
class DenoiserStage(StageConfig):
    """UNet, adapters, bank and discrimination head together: L = L_den + ``discrimination`` L_cls + ``vq`` L_vq (Eq.
    15). L_vq (Eq. 17) is the part that moves codes and, with ``code_map`` "learned", ``commitment`` times the part that
    moves the map between priors and codes, as published. That map has an easier way to make L_vq small than good codes:
    it sent all priors to 2 of 32. "fixed" keeps it the isometry it starts as, and the second part has nothing to move.
    A bank whose codes are running means (``system.bank.update = "ema_reset"``) asks of ``vq`` only that it is not 0.

    ``prior`` "sampled" (Eq. 6) or "mean"; ``per_frame`` is how often each frame has the prior of the frames around it,
    and not the clip's. ``whole_bank``: how often a batch reads all codes, as in use, and not the nearest one. With
    ``whole_bank`` 1 and ``vq`` 0 the codes are learnable embeddings and nothing more. Drops: speech, picture, emotion,
    all three. ``labelled``: share of a batch that shows one emotion at one level, the rest is regular (1:1).

    Noise: ln sigma normal(``noise_mean``, ``noise_std``) and, with probability ``noise_last``, the largest, where
    sampling starts; ``discrimination_noise`` "flat" counts L_cls alike at all levels, "snr" less where noise hides the
    face. Windows, weights of regions and the loss of pictures as in ``training/config.py:DiffusionStage``.
    """

    batch_size: int = 4
    window: int = 12
    iterations: int = 8000
    learning_rate: float = 1.2e-3
    short_window: int = 4
    short_batch_size: int = 12
    short_until: float = 0.0
    rounded: float = 0.2
    noise_mean: float = 0.7
    noise_std: float = 1.6
    noise_last: float = 0.6
    noise_sharing: float = 0.2
    audio_drop: float = 0.05
    image_drop: float = 0.05
    emotion_drop: float = 0.05
    all_drop: float = 0.05
    other_reference: float = 0.25
    same_reference: float = 0.5
    mouth_weight: float = 4.0
    eye_weight: float = 2.0
    scale_power: float = 0.8
    changed_weight: float = 0.0
    spatial_weight: float = 4.0
    spatial_every: int = 4
    spatial_edges: float = 1.0
    prior: str = "sampled"
    per_frame: float = 0.5
    whole_bank: float = 0.5
    vq: float = 1.0
    code_map: str = "fixed"
    commitment: float = 0.25
    discrimination: float = 0.1
    discrimination_noise: str = "flat"
    labelled: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, allowed in (
            ("prior", ("sampled", "mean")),
            ("code_map", ("fixed", "learned")),
            ("discrimination_noise", ("flat", "snr")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be {allowed[0]} or {allowed[1]}, got {getattr(self, name)!r}")
        drops = self.audio_drop + self.image_drop + self.emotion_drop + self.all_drop
        if not 0 <= drops < 1:
            raise ValueError(f"the drops must leave some batches whole, together they are {drops}")
        if not 0.0 <= self.labelled <= 1.0:
            raise ValueError(f"labelled must lie between 0 and 1, got {self.labelled}")


@dataclass(frozen=True, kw_only=True)
class DiceStages:
    embedder: EmbedderStage = field(default_factory=EmbedderStage)
    denoiser: DenoiserStage = field(default_factory=DenoiserStage)


@dataclass(frozen=True, kw_only=True)
class DiceTables:
    """``[system.…]``: sizes of the model that is trained. ``around``: the file whose autoencoder, speech encoder and
    ear it works with, "" the one that ships."""

    unet: VideoUNetConfig
    bank: EmotionBankConfig
    embedder: PriorEmbedderConfig
    speech_hidden: int = 128
    locator_widths: tuple[int, ...] = (8, 16, 16, 32)
    window_frames: int = 12
    around: str = ""


@dataclass(frozen=True, kw_only=True)
class DiceTrain:
    """The whole file. ``takes`` is what the embedder hears and sees, with ``files`` a folder of coefficient files of
    one's own besides (``training/data/prior_files.py``), ``data`` what the denoiser draws; both with the
    seed ``data_seed``, so that runs of several seeds share them. ``start_from``: a finished model that goes on; with
    ``fresh_emotion`` all of it but what carries emotion behind the embedder: bank, its adapters, discrimination head.
    ``processes``, ``threads``, ``device``, ``cache`` and ``runs`` as for the other systems."""

    name: str
    system_kind: str
    system: DiceTables
    seed: int = 0
    data_seed: int = 0
    start_from: str = ""
    fresh_emotion: bool = False
    device: str = "cpu"
    precision: str = "auto"
    threads: int = 0
    processes: int = 1
    cache: str = "cache"
    runs: str = "runs"
    files: str = ""
    data: DataConfig = field(default_factory=DataConfig)
    takes: MotionDataConfig = field(default_factory=MotionDataConfig)
    stages: DiceStages = field(default_factory=DiceStages)

    def __post_init__(self) -> None:
        if self.system_kind != KIND:
            raise ValueError(f"system_kind must be {KIND}, got {self.system_kind[:40]!r}")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise ValueError(f"precision must be auto, fp32 or bf16, got {self.precision[:40]!r}")
