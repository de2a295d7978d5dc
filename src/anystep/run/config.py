"""One typed description of a run. A run directory holds it as JSON and can be re-run from it."""

import dataclasses
import json
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union

from anystep.codecs import CODECS, Auto, Codec
from anystep.core.fields import at_least, in_range, one_of, positive, require
from anystep.data import SOURCES, Source
from anystep.flow.coupling import CouplingConfig
from anystep.networks import NETWORKS, NetworkConfig
from anystep.objectives import OBJECTIVES, Objective
from anystep.run.averages import check_width
from anystep.run.loss import LossConfig

Precision = Literal["float32", "bfloat16"]
MatmulPrecision = Literal["highest", "high", "medium"]


@dataclass(frozen=True)
class InitConfig:
    """What the network begins with: nothing, or the weights of a trained run (fine-tuning, or a ready teacher)."""

    run: str | None = None
    """Run directory whose weights the network begins with; they are the teacher too where a method needs one."""
    weights: Literal["ema", "raw"] = "ema"
    """`ema`: the average that the run kept for evaluation; `raw`: its trained parameters."""

    def __post_init__(self) -> None:
        one_of("init.weights", self.weights, Literal["ema", "raw"])

    def located(self) -> "InitConfig":
        """Return the same with the run's absolute path."""
        return self if self.run is None else dataclasses.replace(self, run=str(Path(self.run).absolute()))


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, weight decay on every parameter as in P1."""

    lr: float = 1e-4
    """Learning rate (P1 Table 3: 1e-4, constant)."""
    weight_decay: float = 0.1
    """Decoupled weight decay; P1 finds it crucial for stability early on (Table 3: 0.1)."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the first and second moments, each in [0, 1)."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    clip_norm: float | None = None
    """Clip the global gradient norm to this; None does not (P1)."""
    warmup: int = 0
    """Images over which the rate rises linearly from 0; P1 has none."""
    decay: float = 0.0
    """Last share of the run, in [0, 1], over which the rate falls linearly to 0; P1 has none. Depends on `images`."""

    def __post_init__(self) -> None:
        positive("optimizer.lr", self.lr)
        in_range("optimizer.weight_decay", self.weight_decay, 0, 10)
        for beta in self.betas:
            in_range("optimizer.betas", beta, 0, 1, open_end=True)
        positive("optimizer.eps", self.eps)
        if self.clip_norm is not None:
            positive("optimizer.clip_norm", self.clip_norm)
        at_least("optimizer.warmup", self.warmup, 0)
        in_range("optimizer.decay", self.decay, 0, 1)


@dataclass(frozen=True)
class EmaConfig:
    """Two moving averages of the parameters, one makes targets, one is evaluated; more to choose from afterwards."""

    target: float = 0.999
    """Decay a step of the average that makes self-consistency targets (P1: 0.999; short runs want 0.95 to 0.99)."""
    evaluation: float = 0.999
    """Decay a step of the average that is sampled from and evaluated (P1: 0.999)."""
    warmup: bool = True
    """Use decay min(decay, (1 + n) / (10 + n)) at update n, so that the start is forgotten sooner."""
    profiles: tuple[float, ...] = ()
    """Relative widths of power averages to keep too (Karras et al. 2024: 0.05 0.1), so that `--weights` of `sample` and
    `evaluate` can be any width after training. Each takes a network's memory, and on disk a network's size in every
    checkpoint and in every copy."""
    profile_every: int | None = None
    """Images between copies of these averages in `RUN/profiles`, which are never deleted; None: as checkpoint.every."""

    def __post_init__(self) -> None:
        in_range("ema.target", self.target, 0, 1, open_end=True)
        in_range("ema.evaluation", self.evaluation, 0, 1, open_end=True)
        for width in self.profiles:
            check_width("ema.profiles", width)
        require(len(set(self.profiles)) == len(self.profiles), "ema.profiles", list(self.profiles), "different widths")
        if self.profile_every is not None:
            at_least("ema.profile_every", self.profile_every, 1)
            if not self.profiles:
                raise ValueError("ema.profile_every does nothing without ema.profiles: set that, e.g. to 0.05 0.1")


@dataclass(frozen=True)
class TrainingConfig:
    """Length, batch, numbers and device."""

    images: int = 1_000_000
    """Length of the run in training examples seen, self-consistency rows included."""
    batch: int = 256
    """Examples in the global batch of one update."""
    accumulate: int = 1
    """Micro-batches that an update's batch is computed in; changes memory and rounding, not the draws."""
    seed: int = 0
    """Seed of every random quantity of the run."""
    device: str = "auto"
    """`auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`, `mps`."""
    precision: Precision = "float32"
    """`bfloat16` computes the network under autocast; parameters, averages and losses stay float32."""
    matmul_precision: MatmulPrecision = "highest"
    """float32 matrix products; `high` allows TF32 on GPUs. On CPUs `medium` may be faster or slower: measure."""
    compile: bool = False
    """Compile the networks with `torch.compile`."""
    max_nonfinite: int = 10
    """Updates in a row with a non-finite loss or gradient, each skipped and counted, after which the run stops."""

    def __post_init__(self) -> None:
        at_least("training.images", self.images, 1)
        at_least("training.batch", self.batch, 1)
        at_least("training.accumulate", self.accumulate, 1)
        divides = self.batch % self.accumulate == 0
        require(divides, "training.accumulate", self.accumulate, f"a divisor of training.batch ({self.batch})")
        at_least("training.seed", self.seed, 0)
        one_of("training.precision", self.precision, Precision)
        one_of("training.matmul_precision", self.matmul_precision, MatmulPrecision)
        at_least("training.max_nonfinite", self.max_nonfinite, 1)

    @property
    def steps(self) -> int:
        """Number of updates: images / batch, rounded up."""
        return -(-self.images // self.batch)


@dataclass(frozen=True)
class CheckpointConfig:
    """When checkpoints are written and which are kept."""

    every: int = 250_000
    """Images between checkpoints; the end of the run and a stop by a signal make one too."""
    keep_last: int = 2
    """Newest checkpoints kept."""
    keep_every: int | None = None
    """Keep for good the first checkpoint after each multiple of this many images; None keeps only the newest."""

    def __post_init__(self) -> None:
        at_least("checkpoint.every", self.every, 1)
        at_least("checkpoint.keep_last", self.keep_last, 1)
        if self.keep_every is not None:
            at_least("checkpoint.keep_every", self.keep_every, 1)


@dataclass(frozen=True)
class LogConfig:
    """What is logged beside the run's own `log.jsonl`, which is always written."""

    every: int = 10_000
    """Images between log records; a record holds means over what came since the last."""
    tensorboard: bool = False
    """Write TensorBoard events too (extra `tensorboard`)."""

    def __post_init__(self) -> None:
        at_least("log.every", self.every, 1)


@dataclass(frozen=True)
class Config:
    """A whole run: where examples come from, what is trained on them, and how."""

    recipe: str
    data: Source
    network: NetworkConfig
    objective: Objective
    codec: Codec = field(default_factory=Auto)
    init: InitConfig = field(default_factory=InitConfig)
    coupling: CouplingConfig = field(default_factory=CouplingConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        objective, encoding = self.objective, self.network.step_encoding
        if objective.uses_step and encoding == "none":
            raise ValueError(
                f"objective {objective.name} needs a network that is told the step: set network.step_encoding to "
                + ("continuous" if objective.any_step else "log2 or continuous")
            )
        if objective.any_step and encoding == "log2":
            raise ValueError(
                f"objective {objective.name} asks for steps of any size, and network.step_encoding log2 knows powers "
                "of two only: set it to continuous"
            )
        if objective.takes_guidance != self.network.guidance_input:
            raise ValueError(
                f"objective {objective.name} "
                + ("needs a network that is told" if objective.takes_guidance else "trains a network that is not told")
                + f" the guidance scale: set network.guidance_input to {objective.takes_guidance}"
            )
        if objective.predicts == "noise" and self.network.prediction != "noise":
            raise ValueError(f"objective {objective.name} needs network.prediction noise, got velocity")
        if self.training.batch // self.training.accumulate % objective.group:
            raise ValueError(
                f"objective {objective.name} compares rows in groups of {objective.group}: training.batch / "
                f"training.accumulate must be a multiple, got {self.training.batch // self.training.accumulate}"
            )
        objective.check_batch(self.training.batch)
        self.loss.check(objective)
        if objective.uses_jvp and self.training.compile:
            raise ValueError(
                f"objective {objective.name} differentiates in forward mode, which torch.compile cannot: leave "
                "training.compile out"
            )

    def located(self) -> "Config":
        """Return the same run with absolute paths, so that it can be trained from anywhere."""
        return dataclasses.replace(self, data=self.data.located(), init=self.init.located())


#: sections whose type a name chooses
REGISTRIES: Mapping[str, Mapping[str, type]] = {
    "data": SOURCES,
    "codec": CODECS,
    "network": NETWORKS,
    "objective": OBJECTIVES,
}
#: of `config.json`; files of 0.1.0 have no number
VERSION = 2


def upgrade(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a `config.json`, without its version, as this release has them; 0.1.0's have no version.

    Raises ValueError for a version that this release does not know.
    """
    now = dict(values)
    version = now.pop("version", 1)
    if version not in (1, VERSION):
        raise ValueError(f"config.version is {version!r}, and this anystep reads up to {VERSION}: use a newer one")
    if version == 1:
        data = now.get("data")
        if isinstance(data, Mapping) and "flip" in data:
            now["data"] = {name: value for name, value in data.items() if name != "flip"}
            if data["flip"]:
                now["codec"] = {"name": "pixels", "mirror": data["flip"]}
    return now


def to_json(config: Config) -> dict[str, Any]:
    """Return the complete config as plain JSON values; sections with a choice of type carry its ``name``."""
    result: dict[str, Any] = {"version": VERSION}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            name = {"name": value.name} if f.name in REGISTRIES else {}  # type: ignore[attr-defined]
            value = name | {option.name: getattr(value, option.name) for option in _options(value)}
        result[f.name] = value
    return typing.cast(dict[str, Any], json.loads(json.dumps(result)))


def from_json(values: Mapping[str, Any]) -> Config:
    """Return the config that `to_json` wrote. Raises ValueError that names the field at fault."""
    types = typing.get_type_hints(Config)
    sections: dict[str, Any] = {}
    for name, value in upgrade(values).items():
        _known("config", name, types)
        if name == "recipe":
            sections[name] = _value("recipe", value, str)
        elif not isinstance(value, Mapping):
            raise ValueError(f"config.{name} must be an object, got {value!r}")
        elif name in REGISTRIES:
            sections[name] = _named(name, value, REGISTRIES[name])
        else:
            sections[name] = _section(name, value, types[name])
    missing = [f.name for f in dataclasses.fields(Config) if f.name not in sections and _required(f)]
    if missing:
        raise ValueError(f"config lacks {', '.join(missing)}")
    return Config(**sections)


def _options(section: Any) -> "list[dataclasses.Field[Any]]":
    """Return the fields that a user can set; the statistics of a codec are not."""
    return [f for f in dataclasses.fields(section) if f.init]


def _required(f: "dataclasses.Field[Any]") -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def _named(section: str, values: Mapping[str, Any], registry: Mapping[str, type]) -> object:
    name = str(values.get("name"))
    if name not in registry:
        raise ValueError(f"{section}.name must be one of {', '.join(registry)}, got {name!r}")
    return _section(section, {k: v for k, v in values.items() if k != "name"}, registry[name])


def _section(section: str, values: Mapping[str, Any], kind: Callable[..., Any]) -> object:
    types = typing.get_type_hints(kind)
    allowed = {f.name: types[f.name] for f in _options(kind)}
    for name in values:
        _known(section, name, allowed)
    checked = {name: _value(f"{section}.{name}", value, allowed[name]) for name, value in values.items()}
    try:
        return kind(**checked)
    except TypeError:
        required = [f.name for f in _options(kind) if _required(f) and f.name not in checked]
        raise ValueError(f"{section} lacks {', '.join(required)}") from None
    except ValueError as error:  # a field's own check may not know which section it is in
        text = str(error)
        raise ValueError(text if text.startswith(f"{section}.") else f"{section}.{text}") from error


def _known(where: str, name: str, allowed: Mapping[str, Any]) -> None:
    if name not in allowed:
        near = get_close_matches(name, allowed, n=2)
        raise ValueError(f"unknown field {where}.{name}" + (f"; did you mean {' or '.join(near)}?" if near else ""))


def _value(field_name: str, value: Any, kind: Any) -> Any:
    """Check a JSON value against a field's type: bool, int, float, str, Literal, tuple, or one of these or None."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, UnionType):
        if value is None and NoneType in args:
            return None
        return _value(field_name, value, next(a for a in args if a is not NoneType))
    if origin is Literal:
        if value not in args:
            raise ValueError(f"{field_name} must be one of {', '.join(map(str, args))}, got {value!r}")
        return value
    if origin is tuple and isinstance(value, list):
        if Ellipsis not in args and len(value) != len(args):
            raise ValueError(f"{field_name} must have {len(args)} values, got {len(value)}")
        return tuple(_value(field_name, item, args[0]) for item in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, origin or kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{field_name} must be {getattr(kind, '__name__', kind)}, got {value!r}")
    return value
