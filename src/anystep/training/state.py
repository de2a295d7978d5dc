"""What a run carries from one update to the next, and how it becomes a checkpoint and comes back."""

import json
import platform
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from anystep.data import Dataset, Normalization, files
from anystep.networks import VelocityNetwork
from anystep.objectives import Networks
from anystep.objectives.base import generator
from anystep.training import checkpoint, optimizer
from anystep.training.checkpoint import Checkpoint
from anystep.training.config import Config
from anystep.training.ema import Ema
from anystep.training.errors import RunError
from anystep.training.log import Meter


@dataclass(frozen=True)
class DataFacts:
    """What a network must know of its data to be sampled from without it; `run.json` holds it."""

    name: str
    kind: str
    shape: tuple[int, ...]
    num_classes: int | None
    class_names: tuple[str, ...] | None
    mean: float
    std: float
    size: int
    fingerprint: str

    @classmethod
    def of(cls, dataset: Dataset) -> "DataFacts":
        """Return the facts of a data set."""
        normalization = dataset.normalization()
        return cls(
            name=dataset.name,
            kind=dataset.kind,
            shape=tuple(dataset.shape),
            num_classes=dataset.num_classes,
            class_names=dataset.class_names,
            mean=normalization.mean,
            std=normalization.std,
            size=len(dataset),
            fingerprint=dataset.fingerprint,
        )

    @classmethod
    def read(cls, run: Path) -> "DataFacts":
        """Read the facts of a run directory. Raises RunError when the file is missing or foreign."""
        path = run / "run.json"
        try:
            values = json.loads(path.read_text())["data"]
            names = values["class_names"]
            tuples = {"shape": tuple(values["shape"]), "class_names": None if names is None else tuple(names)}
            return cls(**(values | tuples))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"cannot read {path}: {checkpoint.reason(error)}") from error

    def write(self, run: Path, version: str) -> None:
        """Write `run.json`: these facts and the versions that made the run."""
        versions = {"anystep": version, "torch": torch.__version__, "python": platform.python_version()}
        text = json.dumps({"versions": versions, "data": asdict(self)}, indent=2)
        files.write_text(run / "run.json", text + "\n")

    @property
    def normalization(self) -> Normalization:
        """Map between stored data and what the network sees."""
        return Normalization(mean=self.mean, std=self.std, kind="image" if self.kind == "image" else "vector")


class State:
    """Network, its two moving averages, optimizer, counters, and the log's open window."""

    def __init__(self, config: Config, facts: DataFacts, device: torch.device) -> None:
        with torch.random.fork_rng(devices=[]):  # initialised on the CPU: no other device is touched, nor its seed
            torch.default_generator.manual_seed(generator(config.training.seed, 0, "init").initial_seed())
            network = config.network.build(facts.shape, facts.num_classes, config.objective.M)
        self.config, self.device = config, device
        self.network: VelocityNetwork = network.to(device).train()
        self.target = Ema(self.network, config.ema.target, config.ema.warmup) if config.objective.uses_target else None
        self.average = Ema(self.network, config.ema.evaluation, config.ema.warmup)
        if config.training.compile:
            self.network.compile()
            if self.target is not None:
                self.target.network.compile()
        self.optimizer = optimizer.build(self.network, config.optimizer)
        self.meter = Meter(config.objective.tags)
        self.step = 0
        self.skipped = 0
        self.skipped_in_a_row = 0

    @property
    def networks(self) -> Networks:
        """The networks as the objective sees them."""
        return Networks(self.network, None if self.target is None else self.target.network)

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context that the network is computed in."""
        if self.config.training.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def apply(self, rate: float) -> None:
        """Step the optimizer with the gradients at hand, then the averages."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        update = self.step - self.skipped
        for average in (self.target, self.average):
            if average is not None:
                average.update(self.network, update)

    def snapshot(self, log_offset: int) -> Checkpoint:
        """Return everything that a resumed run needs. Raises RunError when a part of it is not finite: no way on."""
        groups: dict[str, dict[str, Tensor]] = {
            "network": dict(self.network.state_dict()),
            "ema_evaluation": dict(self.average.network.state_dict()),
            "optimizer": self._moments(),
        }
        if self.target is not None:
            groups["ema_target"] = dict(self.target.network.state_dict())
        for group, tensors in groups.items():
            for name, tensor in tensors.items():
                if not bool(torch.isfinite(tensor).all()):
                    raise RunError(
                        f"stopped at step {self.step}: {group} {name.partition('|')[0]} is not finite; "
                        "checkpoints saved before are good. Try a lower optimizer.lr or optimizer.clip_norm 1"
                    )
        values = {
            "step": self.step,
            "images": self.step * self.config.training.batch,
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
            "log_offset": log_offset,
            "meter": self.meter.state(),
        }
        return Checkpoint(groups, values)

    def restore(self, path: Path) -> int:
        """Go on from a checkpoint directory; returns the log's length then. Raises RunError when it does not fit."""
        found = checkpoint.load(path)
        try:
            self.network.load_state_dict(found.groups["network"])
            self.average.network.load_state_dict(found.groups["ema_evaluation"])
            if self.target is not None:
                self.target.network.load_state_dict(found.groups["ema_target"])
            self._restore_moments(found.groups["optimizer"])
            values = found.values
            self.step, self.skipped = int(values["step"]), int(values["skipped"])
            self.skipped_in_a_row = int(values["skipped_in_a_row"])
            self.meter.restore(values["meter"])
            return int(values["log_offset"])
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            why = checkpoint.misfit(error)
            raise RunError(f"checkpoint {path} does not fit this run's network and config: {why}") from error

    def _moments(self) -> dict[str, Tensor]:
        return {
            f"{name}|{key}": torch.as_tensor(value)
            for name, parameter in self.network.named_parameters()
            for key, value in self.optimizer.state[parameter].items()
        }

    def _restore_moments(self, tensors: Mapping[str, Tensor]) -> None:
        for name, parameter in self.network.named_parameters():
            if tensors:  # a run that was stopped before its first update has no moments yet
                moments = {key: tensors[f"{name}|{key}"].to(parameter.device) for key in ("exp_avg", "exp_avg_sq")}
                self.optimizer.state[parameter] = {"step": tensors[f"{name}|step"], **moments}
