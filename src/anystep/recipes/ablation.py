"""The five parts of improved shortcut models (iSM, NeurIPS 2025), added in the order of the authors' poster."""

from dataclasses import replace

from anystep.core.errors import UsageError
from anystep.flow.coupling import CouplingConfig
from anystep.flow.penalties import Haar, Own
from anystep.objectives import ImprovedShortcut
from anystep.run.config import Config

#: in the order of the poster; a model has all parts up to its own
PARTS = {
    "+guidance": "improved shortcut, guided at every t",
    "+interval": "no effect of guidance before t = objective.interval",
    "+wavelet": "the loss in whitened Haar bands",
    "+ot": "noise paired with data by optimal transport over 1,024 examples",
    "+twin_ema": "an EMA of decay 0.95 for targets, of 0.9999 for sampling",
}


def with_parts(config: Config, last: str) -> Config:
    """Return an improved shortcut model's run with the parts up to ``last``.

    A penalty or coupling that ``config`` sets stays, and so do its EMAs before `+twin_ema`. Raises UsageError for
    another method.
    """
    objective = config.objective
    if not isinstance(objective, ImprovedShortcut):
        raise UsageError(f"{last} is a part of improved_shortcut, and this is a run of {objective.name}")
    parts = list(PARTS)[: list(PARTS).index(last) + 1]
    if "+interval" not in parts:
        config = replace(config, objective=replace(objective, interval=0.0))
    if "+wavelet" in parts and config.penalty == Own():
        config = replace(config, penalty=Haar())
    if "+ot" in parts and config.coupling.batches == 0:  # iSM assigns 32 batches of 32
        config = replace(config, coupling=CouplingConfig(batches=max(1, round(1024 / config.training.batch))))
    if "+twin_ema" in parts:  # decays as a reading note has them, unverified
        config = replace(config, ema=replace(config.ema, target=0.95, evaluation=0.9999))
    return config
