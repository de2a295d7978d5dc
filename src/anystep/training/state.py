"""What a run carries from one update to the next, and how it becomes a checkpoint and comes back."""

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import cast

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
from anystep.training import optimizer
from anystep.training.ema import Ema, PowerEma
from anystep.training.initial import adopt


class State:
    """Network, its moving averages, its teacher, state of the loss, optimizer, counters, and the log's open window."""

    def __init__(self, config: Config, facts: DataFacts, device: torch.device) -> None:
        self.keys = Keys(config.training.seed, facts.key_version)
        with torch.random.fork_rng(devices=[]):  # initialised on the CPU: no other device is touched, nor its seed
            torch.default_generator.manual_seed(self.keys.torch_seed(0, "init"))
            network = config.network.build(facts.shape, facts.conditions, config.objective.M)
            parts = {"penalty": config.penalty, "weight": config.weight}
            about = (facts.shape, config.objective.tags, config.objective.marked, device)
            #: what the penalty and the weight have seen and learned, over all phases
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
        self.optimizer = optimizer.build(self.network, self.loss, config.optimizer)
        self.meter = Meter(config.objective.tags)
        self.step = 0
        self.updates = 0
        self.skipped = 0
        self.skipped_in_a_row = 0

    @property
    def networks(self) -> Networks:
        """The networks as the objective sees them."""
        target = self.averages.get("target")
        every = (self.network, None if target is None else target.network, self.teacher)
        return Networks(*(cast(Network, network) for network in every))

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context that the network is computed in: autocast, unless the method needs float32."""
        if self.config.training.precision == "float32" or self.config.objective.exact:
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def apply(self, rate: float) -> None:
        """Step the optimizer with the gradients at hand, then the averages."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        for average in self.averages.values():
            average.update(self.network, self.updates)
        self.updates += 1

    def begin_with(self, trained: Trained) -> None:
        """Begin with the weights of a trained run, which is the teacher too where the method has one."""
        adopt(self.network, self.config, self.facts, trained)
        self._start_averages()
        if self.config.objective.uses_teacher:
            self._teach(self.network.state_dict())

    def hand_over(self) -> None:
        """Make the average kept for evaluation the teacher; the student goes on from it, and so do its averages.

        The optimizer keeps its moments: the parameters move a little, their gradients hardly change in size.
        """
        trained = self.averages["evaluation"].network.state_dict()
        self._teach(trained)
        self.network.load_state_dict(trained)
        self._start_averages()

    def _start_averages(self) -> None:
        for average in self.averages.values():
            average.network.load_state_dict(self.network.state_dict())
        self.updates = 0

    def _teach(self, weights: Mapping[str, Tensor]) -> None:
        if self.teacher is None:
            self.teacher = copy.deepcopy(self.averages["evaluation"].network)  # never compiled, frozen, in eval mode
            if self.config.training.compile:
                self.teacher.compile()
        self.teacher.load_state_dict(weights)

    def snapshot(self, log_offset: int) -> Checkpoint:
        """Return everything that a resumed run needs. Raises RunError when a part of it is not finite: no way on."""
        groups: dict[str, dict[str, Tensor]] = {
            "network": dict(self.network.state_dict()),
            "optimizer": self._moments(self.network),
            **{f"ema_{name}": dict(average.network.state_dict()) for name, average in self.averages.items()},
        }
        if self.teacher is not None:
            groups["teacher"] = dict(self.teacher.state_dict())
        if loss := {**self.loss.state_dict(), **self._moments(self.loss)}:
            groups["penalty"] = loss
        self._check_finite(groups)
        values = {
            "step": self.step,
            "images": self.step * self.config.training.batch,
            "updates": self.updates,
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
            "log_offset": log_offset,
            "meter": self.meter.state(),
        }
        return Checkpoint(groups, values)

    def profiles(self) -> Checkpoint:
        """Return the power averages, to be kept for good. Raises RunError when one is not finite."""
        groups = {
            f"ema_{name}": dict(average.network.state_dict())
            for name, average in self.averages.items()
            if isinstance(average, PowerEma)
        }
        self._check_finite(groups)
        return Checkpoint(groups, {"step": self.step, "updates": self.updates})

    def _check_finite(self, groups: Mapping[str, Mapping[str, Tensor]]) -> None:
        for group, tensors in groups.items():
            for name, tensor in tensors.items():
                if not bool(torch.isfinite(tensor).all()):
                    raise RunError(
                        f"stopped at step {self.step}: {group} {name.partition('|')[0]} is not finite; "
                        "checkpoints saved before are good. Try a lower optimizer.lr or optimizer.clip_norm 1"
                    )

    def restore(self, path: Path) -> int:
        """Go on from a checkpoint directory; returns the log's length then. Raises RunError when it does not fit."""
        found = checkpoint.load(path)
        try:
            self.network.load_state_dict(found.groups["network"])
            for name, average in self.averages.items():
                average.network.load_state_dict(found.groups[f"ema_{name}"])
            if "teacher" in found.groups:
                self._teach(found.groups["teacher"])
            self._restore_moments(self.network, found.groups["optimizer"])
            self._restore_loss(found.groups)
            values = found.values
            self.step, self.skipped = int(values["step"]), int(values["skipped"])
            self.updates = int(values["updates"])
            self.skipped_in_a_row = int(values["skipped_in_a_row"])
            self.meter.restore(values["meter"])
            return int(values["log_offset"])
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            why = misfit(error)
            raise RunError(f"checkpoint {path} does not fit this run's network and config: {why}") from error

    def _restore_loss(self, groups: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Restore what penalty and weight have seen and learned; 0.1.0 wrote the energies of Haar bands alone."""
        found = dict(groups.get("penalty", {}))
        if not found:
            found = self.loss.state_dict() | {
                f"penalty.{name}": tensor for name, tensor in groups.get("loss", {}).items()
            }
        moments = {name: found.pop(name) for name in list(found) if "|" in name}
        self.loss.load_state_dict(found)
        self._restore_moments(self.loss, moments)

    def _moments(self, module: nn.Module) -> dict[str, Tensor]:
        return {
            f"{name}|{key}": torch.as_tensor(value)
            for name, parameter in module.named_parameters()
            for key, value in self.optimizer.state[parameter].items()
        }

    def _restore_moments(self, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        for name, parameter in module.named_parameters():
            if f"{name}|step" in tensors:  # there are none before the first update, or of what it never used
                moments = {key: tensors[f"{name}|{key}"].to(parameter.device) for key in ("exp_avg", "exp_avg_sq")}
                self.optimizer.state[parameter] = {"step": tensors[f"{name}|step"], **moments}
