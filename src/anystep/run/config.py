"""One typed description of a run. A run directory holds it as JSON, and the run can be repeated from it."""

import dataclasses
import json
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
from annotated_types import Ge, Interval
from torch import nn

from anystep.codecs import CODECS, Auto, Codec
from anystep.core.errors import UsageError, did_you_mean
from anystep.core.fields import Checked, Fraction, PositiveFloat, check_value, field_types, require
from anystep.core.registry import Registry, check_option
from anystep.data import SOURCES, Dataset, Source
from anystep.flow.condition import ConditionSpec
from anystep.flow.coupling import CouplingConfig
from anystep.flow.penalties import PENALTIES, WEIGHTS, Haar, NoWeight, Own, Penalty, Weight
from anystep.networks import NETWORKS, NetworkConfig
from anystep.objectives import OBJECTIVES, Objective
from anystep.run.averages import Width

Count = Annotated[int, Ge(1)]
#: decay of a moving average, per update
Decay = Annotated[float, Interval(ge=0, lt=1)]


@dataclass(frozen=True)
class InitConfig(Checked, section="init"):
    """Initial weights: random, or those of a trained run (fine-tuning, or a ready teacher)."""

    run: str | None = None
    """Run directory whose weights initialise the network, and its teacher if the method has one."""
    weights: Literal["ema", "raw"] = "ema"
    """`ema`: that run's evaluation EMA; `raw`: its trained parameters."""


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
    """Last fraction of the run, in [0, 1], over which the rate falls linearly to 0; Frans et al. 2024 has none. Depends
    on `images`."""


@dataclass(frozen=True)
class EmaConfig(Checked, section="ema"):
    """EMAs of the parameters: one predicts targets, one is evaluated; others allow to choose a width after training."""

    target: Decay = 0.999
    """Decay per update of the EMA that predicts self-consistency targets (Frans et al. 2024: 0.999; short runs want
    0.95 to 0.99)."""
    evaluation: Decay = 0.999
    """Decay per update of the EMA that is sampled from and evaluated (Frans et al. 2024: 0.999)."""
    warmup: bool = True
    """Use decay min(decay, (1 + n) / (10 + n)) at update n, so that the initial weights are forgotten sooner."""
    profiles: tuple[Width, ...] = ()
    """Relative widths of power averages to store (Karras et al. 2024: 0.05 0.1), so that `--weights` of `sample` and
    `evaluate` can be any width after training. Each takes a network's memory, and on disk a network's size in every
    checkpoint and in every copy."""
    profile_every: Count | None = None
    """Images between copies of these averages in `RUN/profiles`, which are never deleted; None: as checkpoint.every."""

    def check_combinations(self) -> None:
        """Raise UsageError for a repeated width, and for copies of no averages."""
        require(len(set(self.profiles)) == len(self.profiles), "ema.profiles", list(self.profiles), "different widths")
        if self.profile_every is not None and not self.profiles:
            raise UsageError("ema.profile_every does nothing without ema.profiles: set that, e.g. to 0.05 0.1")


@dataclass(frozen=True)
class TrainingConfig(Checked, section="training"):
    """Length, batch, precision and device."""

    images: Count = 1_000_000
    """Length of the run in training examples seen, self-consistency examples included."""
    batch: Count = 256
    """Examples in the global batch of one update."""
    accumulate: Count = 1
    """Micro-batches that an update's batch is computed in; changes memory and rounding, not the random numbers."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of every random quantity of the run."""
    device: str = "auto"
    """`auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`, `mps`."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`bfloat16` computes the network under autocast; parameters, averages and losses stay float32. `auto`: bfloat16
    where the device has it in hardware and the method allows it; decided when the run starts, and kept on resume."""
    matmul_precision: Literal["highest", "high", "medium"] = "highest"
    """float32 matrix products; `high` allows TF32 on GPUs. On CPUs `medium` may be faster or slower: measure."""
    compile: bool = False
    """Compile the networks with `torch.compile`."""
    max_nonfinite: Count = 10
    """Consecutive updates with a non-finite loss or gradient, each skipped and counted, after which the run stops."""

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
    """Images between checkpoints; there is also one at the end of the run and after a stop by a signal."""
    minutes: PositiveFloat | None = 10.0
    """Longest time without a checkpoint; the first comes after a minute. Those by the clock change nothing in the run,
    and are gone when it is complete. None: only those of `every`."""
    keep_last: Count = 2
    """Number of newest checkpoints to keep."""
    keep_every: Count | None = None
    """Also keep the first checkpoint after each multiple of this many images; None keeps only the newest."""


@dataclass(frozen=True)
class PreviewConfig(Checked, section="preview"):
    """Samples that are drawn while a run trains, in `RUN/previews`."""

    num: Annotated[int, Ge(0)] | None = None
    """Samples of the same noises in 1, 4 and M steps after each checkpoint; None: 8 images or 512 vectors; 0: no
    previews. They change nothing in the run, and take at most a twentieth of its time."""


@dataclass(frozen=True)
class LogConfig(Checked, section="log"):
    """What is logged; the run's own `log.jsonl` is always written."""

    every: Count = 10_000
    """Images between log records, which hold means over the updates since the last. Before the first of these there are
    records of updates 1, 2, 4, 8, ..."""
    gradients: Count | None = None
    """Images between measurements of the gradient of each kind of example: its norm, and its cosine with that of the
    flow examples. They change nothing in the run; each takes a backward pass and a gradient's memory per kind. None: no
    measurements."""
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
    preview: PreviewConfig = field(default_factory=PreviewConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        check_value("recipe", self.recipe, str)
        for section, base in SECTIONS.items():
            value = getattr(self, section)
            check_option(section, value, base, _misplaced(value))
        objective, training = self.objective, self.training
        for name, allowed in objective.network_inputs().items():
            value = getattr(self.network, name)
            if value not in allowed and value != "any":
                needs = " or ".join(map(str, allowed))
                raise UsageError(f"objective {objective.name} needs network.{name} {needs}, got {value}")
        if training.batch // training.accumulate % objective.group:
            raise UsageError(
                f"objective {objective.name} compares examples in groups of {objective.group}: training.batch / "
                f"training.accumulate must be a multiple, got {training.batch // training.accumulate}"
            )
        objective.check_batch(training.batch)
        for phase in objective.phases():
            check_loss(phase.objective, self.penalty, self.weight)
        if objective.uses_jvp and training.compile:
            raise UsageError(
                f"objective {objective.name} differentiates in forward mode, which torch.compile does not support: "
                "remove training.compile"
            )
        if self.log.gradients is not None and training.compile:
            raise UsageError(
                "log.gradients differentiates a forward pass several times, which torch.compile does not support: "
                "remove training.compile or log.gradients"
            )

    def check(self, shape: tuple[int, ...], conditions: ConditionSpec) -> None:
        """Raise UsageError unless method, coupling, penalty and weight are for examples of this shape and condition."""
        self.objective.check(conditions)
        self.coupling.check(conditions)
        for part in (self.penalty, self.weight):
            part.start(shape, self.objective.tags, self.objective.marked, torch.device("cpu"))

    def located(self) -> "Config":
        """Return the same run with absolute paths, so that it can be trained from any folder."""
        run = self.init.run and str(Path(self.init.run).absolute())
        return dataclasses.replace(self, data=self.data.located(), init=dataclasses.replace(self.init, run=run))


@dataclass(frozen=True)
class ModelConfig:
    """The sections of a run's config that its trained network is built from. The data source is none of them."""

    network: NetworkConfig
    objective: Objective
    init: InitConfig = field(default_factory=InitConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)


def check_loss(method: Objective, penalty: Penalty, weight: Weight) -> None:
    """Raise UsageError when a method has no error that a penalty replaces, or none per example to weigh."""
    for section, name, default in (("penalty", penalty.name, Own.name), ("weight", weight.name, NoWeight.name)):
        if name != default and not method.per_row:
            raise UsageError(
                f"{section} {name} acts on the error of each example, and {method.name} compares groups of examples: "
                f"remove the section {section}"
            )
    if penalty.replaces_error and type(method).error is not Objective.error:
        raise UsageError(
            f"penalty {penalty.name} replaces the squared error, and {method.name} has another error: "
            "remove the section penalty"
        )


#: section -> the class that it is, or that its classes derive from
SECTIONS: Mapping[str, type] = {name: kind for name, kind in typing.get_type_hints(Config).items() if name != "recipe"}


def _misplaced(value: object) -> str | None:
    """Return what to pass instead of a data set or a network, which JSON cannot hold; None for other values."""
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

#: sections whose class is chosen by a name
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


def from_json(values: Mapping[str, Any]) -> Config:
    """Return the config that `to_json` wrote; missing fields have their defaults.

    Raises UsageError that names a wrong field.
    """
    return sections_from_json(Config, values)


def sections_from_json(kind: type[T], values: Mapping[str, Any], *, complete: bool = False) -> T:
    """Return those sections of a config that ``kind`` has; the classes of other sections need not exist here.

    ``complete``: the config of a run, which has every field of your own classes, unless these have changed since.
    """
    fields = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    read = {}
    for name, value in upgrade(values).items():
        _check_known("config", name, ("recipe", *SECTIONS))
        if name in fields:
            read[name] = value if name == "recipe" else _section(name, value, complete)
    _check_required("config", kind, read)
    return kind(**read)


def upgrade(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a config.json of any version with today's sections and names, without the version.

    Raises UsageError for a later version than ours.
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


def _section(section: str, values: object, complete: bool) -> Any:
    if not isinstance(values, Mapping):
        raise UsageError(f"config.{section} must be an object, got {values!r}")
    values, kind = dict(values), SECTIONS[section]
    if section in REGISTRIES:
        name, registry = str(values.pop("name", None)), REGISTRIES[section]
        kind = registry.find(name, kind, f"{section}.name")
        if complete and name not in registry and (changed := values.keys() ^ field_types(kind).keys()):
            raise UsageError(
                f"{section} {name} has changed since the run: restore its fields ({', '.join(sorted(changed))})"
            )
    types = field_types(kind)
    for name in values:
        _check_known(section, name, types)
    _check_required(section, kind, values)
    checked = {name: check_value(f"{section}.{name}", value, types[name]) for name, value in values.items()}
    try:
        return kind(**checked)
    except UsageError:
        raise
    except ValueError as error:  # raised by your own class
        raise UsageError(f"{section}: {error}") from error


def _check_known(where: str, name: str, allowed: Iterable[str]) -> None:
    if name not in allowed:
        raise UsageError(f"unknown field {where}.{name}{did_you_mean(name, allowed)}")


def _check_required(where: str, kind: Any, given: Mapping[str, Any]) -> None:
    missing = [
        f.name
        for f in dataclasses.fields(kind)
        if f.init and f.name not in given and f.default is f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UsageError(f"{where} lacks {', '.join(missing)}")
