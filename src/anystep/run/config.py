"""One typed description of a run. A run directory holds it as JSON and can be re-run from it."""

import dataclasses
import json
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from annotated_types import Ge, Interval
from torch import nn

from anystep.codecs import CODECS, Auto, Codec
from anystep.core.errors import UsageError
from anystep.core.fields import Checked, Fraction, PositiveFloat, check_value, field_types, require
from anystep.core.registry import Registry, check_option, find_class
from anystep.data import SOURCES, Dataset, Source
from anystep.flow.condition import ConditionSpec
from anystep.flow.coupling import CouplingConfig
from anystep.flow.penalties import PENALTIES, WEIGHTS, Haar, NoWeight, Own, Penalty, Weight
from anystep.networks import NETWORKS, NetworkConfig
from anystep.objectives import OBJECTIVES, Objective
from anystep.run.averages import WIDTH

Precision = Literal["float32", "bfloat16"]
MatmulPrecision = Literal["highest", "high", "medium"]
Count = Annotated[int, Ge(1)]
#: decay a step of a moving average
Decay = Annotated[float, Interval(ge=0, lt=1)]


@dataclass(frozen=True)
class InitConfig(Checked, section="init"):
    """What the network begins with: nothing, or the weights of a trained run (fine-tuning, or a ready teacher)."""

    run: str | None = None
    """Run directory whose weights the network begins with; they are the teacher too where a method needs one."""
    weights: Literal["ema", "raw"] = "ema"
    """`ema`: the average that the run kept for evaluation; `raw`: its trained parameters."""

    def located(self) -> "InitConfig":
        """Return the same with the run's absolute path."""
        return self if self.run is None else dataclasses.replace(self, run=str(Path(self.run).absolute()))


@dataclass(frozen=True)
class OptimizerConfig(Checked, section="optimizer"):
    """AdamW, weight decay on every parameter as in Frans et al. 2024."""

    lr: PositiveFloat = 1e-4
    """Learning rate (Frans et al. 2024, Table 3: 1e-4, constant)."""
    weight_decay: Annotated[float, Interval(ge=0, le=10)] = 0.1
    """Decoupled weight decay; Frans et al. 2024 finds it crucial for stability early on (Table 3: 0.1)."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay of the first and second moments, each in [0, 1)."""
    eps: PositiveFloat = 1e-8
    """Added to the root of the second moment."""
    clip_norm: PositiveFloat | None = None
    """Clip the global gradient norm to this; None does not (Frans et al. 2024)."""
    warmup: Annotated[int, Ge(0)] = 0
    """Images over which the rate rises linearly from 0; Frans et al. 2024 has none."""
    decay: Fraction = 0.0
    """Last share of the run, in [0, 1], over which the rate falls linearly to 0; Frans et al. 2024 has none. Depends on
    `images`."""


@dataclass(frozen=True)
class EmaConfig(Checked, section="ema"):
    """Two moving averages of the parameters, one makes targets, one is evaluated; more to choose from afterwards."""

    target: Decay = 0.999
    """Decay a step of the average that makes self-consistency targets (Frans et al. 2024: 0.999; short runs want 0.95
    to 0.99)."""
    evaluation: Decay = 0.999
    """Decay a step of the average that is sampled from and evaluated (Frans et al. 2024: 0.999)."""
    warmup: bool = True
    """Use decay min(decay, (1 + n) / (10 + n)) at update n, so that the start is forgotten sooner."""
    profiles: tuple[Annotated[float, WIDTH], ...] = ()
    """Relative widths of power averages to keep too (Karras et al. 2024: 0.05 0.1), so that `--weights` of `sample` and
    `evaluate` can be any width after training. Each takes a network's memory, and on disk a network's size in every
    checkpoint and in every copy."""
    profile_every: Count | None = None
    """Images between copies of these averages in `RUN/profiles`, which are never deleted; None: as checkpoint.every."""

    def check_combinations(self) -> None:
        """Raise UsageError for a width twice, and for copies of no averages."""
        require(len(set(self.profiles)) == len(self.profiles), "ema.profiles", list(self.profiles), "different widths")
        if self.profile_every is not None and not self.profiles:
            raise UsageError("ema.profile_every does nothing without ema.profiles: set that, e.g. to 0.05 0.1")


@dataclass(frozen=True)
class TrainingConfig(Checked, section="training"):
    """Length, batch, numbers and device."""

    images: Count = 1_000_000
    """Length of the run in training examples seen, self-consistency rows included."""
    batch: Count = 256
    """Examples in the global batch of one update."""
    accumulate: Count = 1
    """Micro-batches that an update's batch is computed in; changes memory and rounding, not the draws."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of every random quantity of the run."""
    device: str = "auto"
    """`auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`, `mps`."""
    precision: Precision = "float32"
    """`bfloat16` computes the network under autocast; parameters, averages and losses stay float32."""
    matmul_precision: MatmulPrecision = "highest"
    """float32 matrix products; `high` allows TF32 on GPUs. On CPUs `medium` may be faster or slower: measure."""
    compile: bool = False
    """Compile the networks with `torch.compile`."""
    max_nonfinite: Count = 10
    """Updates in a row with a non-finite loss or gradient, each skipped and counted, after which the run stops."""

    def check_combinations(self) -> None:
        """Raise UsageError unless micro-batches are of one size."""
        divides = self.batch % self.accumulate == 0
        require(divides, "training.accumulate", self.accumulate, f"a divisor of training.batch ({self.batch})")

    @property
    def steps(self) -> int:
        """Number of updates: images / batch, rounded up."""
        return -(-self.images // self.batch)


@dataclass(frozen=True)
class CheckpointConfig(Checked, section="checkpoint"):
    """When checkpoints are written and which are kept."""

    every: Count = 250_000
    """Images between checkpoints; the end of the run and a stop by a signal make one too."""
    keep_last: Count = 2
    """Newest checkpoints kept."""
    keep_every: Count | None = None
    """Keep for good the first checkpoint after each multiple of this many images; None keeps only the newest."""


@dataclass(frozen=True)
class LogConfig(Checked, section="log"):
    """What is logged beside the run's own `log.jsonl`, which is always written."""

    every: Count = 10_000
    """Images between log records; a record holds means over what came since the last."""
    tensorboard: bool = False
    """Write TensorBoard events too (extra `tensorboard`)."""


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
    penalty: Penalty = field(default_factory=Own)
    weight: Weight = field(default_factory=NoWeight)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        check_value("recipe", self.recipe, str)
        for section, base in SECTIONS.items():
            value = getattr(self, section)
            check_option(section, value, base, _misplaced(value))
        objective = self.objective
        for name, allowed in objective.network_inputs().items():
            value = getattr(self.network, name)
            if value not in allowed and value != "any":
                needs = " or ".join(map(str, allowed))
                raise UsageError(f"objective {objective.name} needs network.{name} {needs}, got {value}")
        if self.training.batch // self.training.accumulate % objective.group:
            raise UsageError(
                f"objective {objective.name} compares rows in groups of {objective.group}: training.batch / "
                f"training.accumulate must be a multiple, got {self.training.batch // self.training.accumulate}"
            )
        objective.check_batch(self.training.batch)
        check_loss(objective, self.penalty, self.weight)
        if objective.uses_jvp and self.training.compile:
            raise UsageError(
                f"objective {objective.name} differentiates in forward mode, which torch.compile cannot: leave "
                "training.compile out"
            )

    def check(self, conditions: ConditionSpec) -> None:
        """Raise UsageError when the method or the coupling needs another kind of condition than the data has."""
        self.objective.check(conditions)
        self.coupling.check(conditions)

    def located(self) -> "Config":
        """Return the same run with absolute paths, so that it can be trained from anywhere."""
        return dataclasses.replace(self, data=self.data.located(), init=self.init.located())


@dataclass(frozen=True)
class ModelConfig:
    """The sections of a run's config that its trained network is built again from; its data source is none of them."""

    network: NetworkConfig
    objective: Objective
    init: InitConfig
    ema: EmaConfig
    training: TrainingConfig


def check_loss(objective: Objective, penalty: Penalty, weight: Weight) -> None:
    """Raise UsageError when a phase of the method has no error that a penalty replaces, or no rows to weigh."""
    changed = {"penalty": penalty != Own(), "weight": weight != NoWeight()}
    for method in (phase.objective for phase in objective.phases()):
        for section, name in (("penalty", penalty.name), ("weight", weight.name)):
            if changed[section] and not method.per_row:
                raise UsageError(
                    f"{section} {name} acts on the error of each row, and {method.name} has none: it compares groups "
                    "of rows; leave it out"
                )
        if penalty.replaces_error and type(method).error is not Objective.error:
            raise UsageError(
                f"penalty {penalty.name} replaces the squared error, and {method.name} has an error of its own: leave "
                "it out"
            )


#: section -> the class that it is, or that its classes derive from
SECTIONS: Mapping[str, type] = {name: kind for name, kind in typing.get_type_hints(Config).items() if name != "recipe"}


def _misplaced(value: object) -> str | None:
    """Return what to pass in place of a data set or a network, which a config cannot write down; None for the rest."""
    if isinstance(value, Dataset):
        return "a Dataset: write a dataclass that derives from Source, with an open(split) that returns it"
    if isinstance(value, nn.Module):
        name = type(value).__name__
        return (
            f"an nn.Module: pass TheConfig(), of\n\n@dataclass(frozen=True)\nclass TheConfig(anystep.NetworkConfig):\n"
            f"    def build(self, shape, conditions, M=128):\n        return {name}(...)"
        )
    return None


T = TypeVar("T")

#: sections whose class a name chooses
REGISTRIES: Mapping[str, Registry[Any]] = {
    "data": SOURCES,
    "codec": CODECS,
    "network": NETWORKS,
    "objective": OBJECTIVES,
    "penalty": PENALTIES,
    "weight": WEIGHTS,
}
#: of config.json; 0.1.0 wrote none
VERSION = 2


def to_json(config: Config) -> dict[str, Any]:
    """Return the complete config as plain JSON values; sections with a choice of class have its ``name``."""
    result: dict[str, Any] = {"version": VERSION, "recipe": config.recipe}
    for section in SECTIONS:
        value = getattr(config, section)
        name = {"name": REGISTRIES[section].written(type(value))} if section in REGISTRIES else {}
        result[section] = name | {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
    return typing.cast(dict[str, Any], json.loads(json.dumps(result)))


def from_json(values: Mapping[str, Any], *, complete: bool = False) -> Config:
    """Return the config that `to_json` wrote. Raises UsageError that names the field at fault.

    Fields that are left out have their defaults. A ``complete`` config, that of a run, has all fields of the user's own
    classes: these have changed where one is missing.
    """
    return _made(Config, values, complete)


def model_from_json(values: Mapping[str, Any]) -> ModelConfig:
    """Return the sections of `ModelConfig` of a run's complete config. The classes of other sections are not needed."""
    wanted = {f.name for f in dataclasses.fields(ModelConfig)}
    found = {name: value for name, value in upgrade(values).items() if name in wanted}
    defaults: dict[str, Any] = {name: {} for name in ("init", "ema", "training")}
    return _made(ModelConfig, {"version": VERSION, **defaults, **found}, complete=True)


def _made(kind: type[T], values: Mapping[str, Any], complete: bool) -> T:
    """Return the sections of a config, checked, as a ``kind``."""
    known = ("recipe", *SECTIONS)
    made: dict[str, Any] = {}
    for name, value in upgrade(values).items():
        _check_known("config", name, known)
        if name == "recipe":
            made[name] = check_value("recipe", value, str)
        elif not isinstance(value, Mapping):
            raise UsageError(f"config.{name} must be an object, got {value!r}")
        elif name in REGISTRIES:
            made[name] = _chosen(name, value, complete)
        else:
            made[name] = _section(name, value, SECTIONS[name])
    missing = [f.name for f in dataclasses.fields(kind) if f.name not in made and _required(f)]  # type: ignore[arg-type]
    if missing:
        raise UsageError(f"config lacks {', '.join(missing)}")
    return kind(**made)


def upgrade(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a config.json of any version in the sections and names of today, without the version.

    Raises ValueError for a version that is later than ours.
    """
    values = dict(values)
    version = values.pop("version", 1)
    if version not in range(1, VERSION + 1):
        raise UsageError(f"config.version must be at most {VERSION}, got {version!r}: a later anystep wrote this")
    data = values.get("data")
    if version == 1 and isinstance(data, Mapping) and "flip" in data:
        values["data"] = {name: value for name, value in data.items() if name != "flip"}
        if data["flip"]:
            values["codec"] = {"name": "pixels", "mirror": data["flip"]}
    if version == 1 and isinstance(values.get("loss"), Mapping):
        loss = dict(values.pop("loss"))
        if loss.pop("kind", "objective") == "objective":
            values["penalty"] = {"name": Own.name}
        else:
            values["penalty"] = {"name": Haar.name} | {"norm" if f == "penalty" else f: v for f, v in loss.items()}
    return values


def _required(f: "dataclasses.Field[Any]") -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def _chosen(section: str, values: Mapping[str, Any], complete: bool) -> object:
    """Return a section whose class has a name: of the library, or "module:Class" of the user's own."""
    name, registry = str(values.get("name")), REGISTRIES[section]
    given = {field: value for field, value in values.items() if field != "name"}
    if name in registry:
        return _section(section, given, registry[name])
    if ":" not in name:
        raise UsageError(f"{section}.name must be one of {', '.join(registry)}, got {name!r}")
    kind: Any = find_class(name, SECTIONS[section])
    fields = field_types(kind)
    gone, new = [f for f in given if f not in fields], [f for f in fields if f not in given]
    if complete and (gone or new):
        changes = [f"{word}: {', '.join(names)}" for word, names in (("gone", gone), ("new", new)) if names]
        raise UsageError(f"{section} {name} has changed since the run ({'; '.join(changes)}): restore its fields")
    return _section(section, given, kind)


def _section(section: str, values: Mapping[str, Any], kind: Callable[..., Any]) -> object:
    types = field_types(kind)
    for name in values:
        _check_known(section, name, types)
    required = [f.name for f in dataclasses.fields(kind) if f.init and _required(f) and f.name not in values]  # type: ignore[arg-type]
    if required:
        raise UsageError(f"{section} lacks {', '.join(required)}")
    checked = {name: check_value(f"{section}.{name}", value, types[name]) for name, value in values.items()}
    try:
        return kind(**checked)
    except ValueError as error:  # a check of the user's own class may be of any kind
        raise error if isinstance(error, UsageError) else UsageError(f"{section}: {error}") from error


def _check_known(where: str, name: str, allowed: Iterable[str]) -> None:
    if name not in allowed:
        near = get_close_matches(name, allowed, n=2)
        raise UsageError(f"unknown field {where}.{name}" + (f"; did you mean {' or '.join(near)}?" if near else ""))
