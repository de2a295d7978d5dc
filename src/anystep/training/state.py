"""Everything that changes from one update to the next, saved in checkpoints and restored from them."""

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from anystep.core.errors import RunError, misfit
from anystep.core.random import Keys
from anystep.flow.query import Network
from anystep.objectives import Networks
from anystep.run import checkpoint
from anystep.run.checkpoint import Checkpoint
from anystep.run.config import Config
from anystep.run.facts import DataFacts
from anystep.run.log import Meter
from anystep.run.weights import Trained, power_name
from anystep.training.ema import Ema, PowerEma
from anystep.training.initial import load_weights
from anystep.training.optimizer import build_optimizer

#: counts of updates in `state.json`
COUNTERS = ("step", "updates", "skipped", "skipped_in_a_row")


class State:
    """Network, EMAs, teacher, state of penalty and weight, optimizer, counters, and the log's current window."""

    def __init__(self, config: Config, facts: DataFacts, device: torch.device) -> None:
        self.keys = Keys(config.training.seed, facts.key_version)
        with torch.random.fork_rng(devices=[]):  # initialised on the CPU: no other device's generator is touched
            torch.default_generator.manual_seed(self.keys.torch_seed(0, "init"))
            network = config.network.build(facts.shape, facts.conditions, config.objective.M)
            parts = {"penalty": config.penalty, "weight": config.weight}
            about = (facts.shape, config.objective.tags, config.objective.marked, device)
            #: state of the penalty and the weight, over all phases
            self.loss = nn.ModuleDict({name: part.start(*about) for name, part in parts.items()})
        self.config, self.facts, self.device = config, facts, device
        self.network: nn.Module = network.to(device).train()
        decays = {"evaluation": config.ema.evaluation}
        if config.objective.uses_target:
            decays["target"] = config.ema.target
        self.averages = {name: Ema(self.network, decay, config.ema.warmup) for name, decay in decays.items()}
        self.averages |= {power_name(width): PowerEma(self.network, width) for width in config.ema.profiles}
        self.teacher: nn.Module | None = None
        if config.training.compile:
            self.network.compile()
            if "target" in self.averages:
                self.averages["target"].network.compile()
        self.optimizer = build_optimizer(self.network, self.loss, config.optimizer)
        self.meter = Meter(config.objective.tags)
        self.step = 0
        self.updates = 0
        self.skipped = 0
        self.skipped_in_a_row = 0

    @property
    def networks(self) -> Networks:
        """The networks as the objective sees them."""
        target = self.averages["target"].network if "target" in self.averages else None
        return Networks(*(cast(Network, network) for network in (self.network, target, self.teacher)))

    def autocast(self) -> AbstractContextManager[object]:
        """Return the network's context: autocast for bfloat16, unless the method needs float32."""
        if self.config.training.precision == "bfloat16" and not self.config.objective.exact:
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()

    def apply(self, rate: float) -> None:
        """Step the optimizer with the present gradients, then the EMAs."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        for average in self.averages.values():
            average.update(self.network, self.updates)
        self.updates += 1

    def initialise_from(self, trained: Trained) -> None:
        """Start from the weights of a trained run, which is also the teacher if the method has one."""
        load_weights(self.network, self.config, self.facts, trained)
        self._restart_averages()
        if self.config.objective.uses_teacher:
            self._set_teacher(self.network.state_dict())

    def update_teacher(self) -> None:
        """Make the evaluation EMA the teacher; the student continues from it, and so do its EMAs.

        The optimizer keeps its moments: the parameters move a little, and their gradients hardly change in size.
        """
        weights = self.averages["evaluation"].network.state_dict()
        self._set_teacher(weights)
        self.network.load_state_dict(weights)
        self._restart_averages()

    def _restart_averages(self) -> None:
        for average in self.averages.values():
            average.network.load_state_dict(self.network.state_dict())
        self.updates = 0

    def _set_teacher(self, weights: Mapping[str, Tensor]) -> None:
        if self.teacher is None:
            self.teacher = copy.deepcopy(self.averages["evaluation"].network)  # never compiled, frozen, in eval mode
            if self.config.training.compile:
                self.teacher.compile()
        self.teacher.load_state_dict(weights)

    def snapshot(self, log_offset: int) -> Checkpoint:
        """Return everything that a resumed run needs. Raises RunError when a part of it is not finite."""
        groups: dict[str, dict[str, Tensor]] = {
            "network": self.network.state_dict(),
            "optimizer": self._moments(self.network),
            **{f"ema_{name}": average.network.state_dict() for name, average in self.averages.items()},
        }
        if self.teacher is not None:
            groups["teacher"] = self.teacher.state_dict()
        if loss := {**self.loss.state_dict(), **self._moments(self.loss)}:
            groups["penalty"] = loss
        values = {name: getattr(self, name) for name in COUNTERS}
        images = self.step * self.config.training.batch
        return self._finite(groups, {**values, "images": images, "log_offset": log_offset, "meter": self.meter.state()})

    def profiles(self) -> Checkpoint:
        """Return the power-function EMAs alone. Raises RunError when one is not finite."""
        names = map(power_name, self.config.ema.profiles)
        groups = {f"ema_{name}": self.averages[name].network.state_dict() for name in names}
        return self._finite(groups, {"step": self.step, "updates": self.updates})

    def _finite(self, groups: Mapping[str, Mapping[str, Tensor]], values: Mapping[str, Any]) -> Checkpoint:
        for group, tensors in groups.items():
            for name, tensor in tensors.items():
                if not bool(torch.isfinite(tensor).all()):
                    raise RunError(
                        f"stopped at step {self.step}: {group} {name.partition('|')[0]} is not finite; "
                        "earlier checkpoints are intact. Try a lower optimizer.lr or optimizer.clip_norm 1"
                    )
        return Checkpoint(groups, values)

    def restore(self, path: Path) -> int:
        """Restore a checkpoint; returns the length of the log then. Raises RunError when it does not fit."""
        found = checkpoint.read(path)
        groups, values = found.groups, found.values
        try:
            self.network.load_state_dict(groups["network"])
            for name, average in self.averages.items():
                average.network.load_state_dict(groups[f"ema_{name}"])
            if "teacher" in groups:
                self._set_teacher(groups["teacher"])
            self._restore_moments(self.network, groups["optimizer"])
            bands = {f"penalty.{name}": tensor for name, tensor in groups.get("loss", {}).items()}  # Haar, of 0.1.0
            loss = bands | dict(groups.get("penalty", {}))
            self.loss.load_state_dict({name: tensor for name, tensor in loss.items() if "|" not in name})
            self._restore_moments(self.loss, loss)
            for name in COUNTERS:
                setattr(self, name, int(values[name]))
            self.meter.restore(values["meter"])
            return int(values["log_offset"])
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            why = misfit(error)
            raise RunError(f"checkpoint {path} does not fit this run's network and config: {why}") from error

    def _moments(self, module: nn.Module) -> dict[str, Tensor]:
        return {
            f"{name}|{key}": torch.as_tensor(value)
            for name, parameter in module.named_parameters()
            for key, value in self.optimizer.state[parameter].items()
        }

    def _restore_moments(self, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        for name, parameter in module.named_parameters():
            if f"{name}|step" in tensors:  # absent before the first update, and for unused parameters
                moments = {key: tensors[f"{name}|{key}"].to(parameter.device) for key in ("exp_avg", "exp_avg_sq")}
                self.optimizer.state[parameter] = {"step": tensors[f"{name}|step"], **moments}
