"""The five parts of iSM, one after the other as its poster has them: `+ot` is a model with every part up to it."""

from dataclasses import replace

from anystep.core.errors import UsageError
from anystep.flow.coupling import CouplingConfig
from anystep.flow.penalties import Haar, Own
from anystep.objectives import ImprovedShortcut
from anystep.run.config import Config

#: in the poster's order; each takes those before it along
PARTS = {
    "+guidance": "improved shortcut, guided at every t",
    "+interval": "guidance without effect before t = objective.interval",
    "+wavelet": "the loss in whitened Haar bands",
    "+ot": "noise given to data by optimal transport over 1,024 rows",
    "+twin_ema": "averages of decay 0.95 for targets, 0.9999 to be sampled",
}
#: rows of an assignment: iSM's 32 batches of 32
POOL = 1024
#: decays an update of the two averages (second-hand)
TARGET, EVALUATION = 0.95, 0.9999


def with_parts(config: Config, last: str) -> Config:
    """Return an improved shortcut model's run with the parts up to ``last``; a penalty or coupling of its own stays.

    Before `+twin_ema` the averages are those of ``config``. Raises ValueError when ``config`` has another method.
    """
    objective = config.objective
    if not isinstance(objective, ImprovedShortcut):
        raise UsageError(f"{last} is a part of improved_shortcut, and this is a run of {objective.name}")
    there = list(PARTS)[: list(PARTS).index(last) + 1]
    if "+interval" not in there:
        config = replace(config, objective=replace(objective, interval=0.0))
    if "+wavelet" in there and config.penalty == Own():
        config = replace(config, penalty=Haar())
    if "+ot" in there and config.coupling.batches == 0:
        config = replace(config, coupling=CouplingConfig(batches=max(1, round(POOL / config.training.batch))))
    if "+twin_ema" in there:
        config = replace(config, ema=replace(config.ema, target=TARGET, evaluation=EVALUATION))
    return config
