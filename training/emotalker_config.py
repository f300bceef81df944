"""Training configuration of EmoTalker: one TOML file with ``system_kind = "emo_talker"``, read as strictly as others.

``[stages.NAME]`` tables are run in the order ear, vqvae, transformer, lip: the stand-in for HuBERT, then the three
stages of the paper. Raises ``ConfigError`` for unknown or ill-typed settings.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from moee_core.audio.emotion_ear import EmotionEarConfig
from moee_core.networks.lip_branch import LipBranchConfig
from moee_core.networks.motion_transformer import MotionTransformerConfig
from moee_core.networks.motion_vqvae import MotionVQConfig
from moee_core.systems.emo_talker import EmoTalkerConfig
from training.config import StageConfig

KIND = "emo_talker"
STAGES = ("ear", "vqvae", "transformer", "lip")


@dataclass(frozen=True, kw_only=True)
class MotionDataConfig:
    """Clips of ``frames`` video frames from the committed speech bank, every mood at three levels.

    ``takes`` limits how many recordings each split has, evenly chosen; 0 is all. ``wide_speech`` names the folder of a
    wider local speech bank, of which ``wide_takes`` utterances are trained on as well: more voices.
    """

    frames: int = 96
    takes: int = 0
    wide_speech: str = ""
    wide_takes: int = 1600

    def __post_init__(self) -> None:
        if self.frames < 4 or self.frames % 4:
            raise ValueError(f"frames must be a multiple of 4, got {self.frames}")


@dataclass(frozen=True, kw_only=True)
class EarStage(StageConfig):
    """The listener names emotion (cross-entropy) and level (L1, times ``level_weight``) at every frame.

    A batch is ``batch_size`` clips of ``frames`` frames each. ``noise``: standard deviation of what is added to the
    normalised statistics, without which the ear learns its few voices by heart; ``smoothing`` of the labels likewise.
    """

    batch_size: int = 64
    iterations: int = 600
    learning_rate: float = 2e-3
    frames: int = 8
    noise: float = 0.7
    smoothing: float = 0.05
    level_weight: float = 0.5


@dataclass(frozen=True, kw_only=True)
class VQStage(StageConfig):
    """Stage 1: SmoothL1 + ``commitment`` + ``emotion_weight`` * cross-entropy, the last after ``emotion_from`` of it.

    ``least_scale``: coefficients that vary less than this are not scaled up to unit variance, so that codes are not
    spent on the sway of the head.
    """

    batch_size: int = 64
    iterations: int = 2500
    weight_decay: float = 1e-4
    commitment: float = 0.2
    emotion_weight: float = 0.2
    emotion_from: float = 0.1
    least_scale: float = 0.1


@dataclass(frozen=True, kw_only=True)
class TransformerStage(StageConfig):
    """Stage 2: MSE to the quantised tokens + ``code_weight`` * cross-entropy of their codes.

    ``own``: probability that a token fed back in training is the transformer's own, as it will be in use: fed with
    the truth alone it copies the expression it is handed and never learns to hear one. ``voice_noise``: standard
    deviation of the manner, constant in a clip, that is added to the ear's normalised statistics: other voices.
    """

    batch_size: int = 32
    iterations: int = 3000
    code_weight: float = 1.0
    own: float = 0.5
    voice_noise: float = 0.5


@dataclass(frozen=True, kw_only=True)
class LipStage(StageConfig):
    """Stage 3: MSE of the lip numbers over ``batch_size`` runs of five frames. ``rest``: how often the mouth at rest is
    that of another frame and not closed. ``warp`` and ``tilt``: every run is heard in another voice, with its
    frequencies stretched by up to that share and its spectrum tilted by about that much (``another_voice``)."""

    batch_size: int = 64
    iterations: int = 6000
    rest: float = 0.5
    warp: float = 0.15
    tilt: float = 0.15


@dataclass(frozen=True, kw_only=True)
class EmoTalkerStages:
    ear: EarStage = field(default_factory=EarStage)
    vqvae: VQStage = field(default_factory=VQStage)
    transformer: TransformerStage = field(default_factory=TransformerStage)
    lip: LipStage = field(default_factory=LipStage)


@dataclass(frozen=True, kw_only=True)
class EmoTalkerTables:
    """``[system.…]``: the sizes of the model that is trained; its space is the face world's, ``face``."""

    ear: EmotionEarConfig
    vq: MotionVQConfig
    transformer: MotionTransformerConfig
    lip: LipBranchConfig

    def __post_init__(self) -> None:
        if self.ear.source != "ear":
            raise ValueError("training reads the voice with the ear of the checkpoint; set ear.source to ear")
        self.build()

    def build(self) -> EmoTalkerConfig:
        return EmoTalkerConfig(space="face", ear=self.ear, vq=self.vq, transformer=self.transformer, lip=self.lip)


@dataclass(frozen=True, kw_only=True)
class EmoTalkerTrain:
    """The whole file. ``processes``, ``threads``, ``device``, ``cache`` and ``runs`` as for the other system."""

    name: str
    system_kind: str
    system: EmoTalkerTables
    seed: int = 0
    device: str = "cpu"
    threads: int = 0
    processes: int = 1
    cache: str = "cache"
    runs: str = "runs"
    data: MotionDataConfig = field(default_factory=MotionDataConfig)
    stages: EmoTalkerStages = field(default_factory=EmoTalkerStages)

    def __post_init__(self) -> None:
        if self.system_kind != KIND:
            raise ValueError(f"system_kind must be {KIND}, or left out for MoEE, got {self.system_kind[:40]!r}")
        if self.data.frames % self.system.vq.rate:
            raise ValueError(f"data.frames {self.data.frames} must be a multiple of a token's {self.system.vq.rate}")
