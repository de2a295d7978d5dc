"""Classifier-free guidance. One convention: the scale ``W``, where W = 1 means none.

``v_W = v_null + W (v_condition - v_null)``. Improved shortcut models are written with the increment ``w = W - 1``.
A network that takes W as an input predicts ``v_W`` itself; any other is evaluated twice.
"""

from collections.abc import Sequence
from math import isfinite
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from anystep.core.errors import UsageError
from anystep.core.fields import require
from anystep.flow.condition import Condition, cat, same
from anystep.flow.path import expand
from anystep.flow.query import Network, null


def guide(v_condition: Tensor, v_null: Tensor, scale: float | Tensor) -> Tensor:
    """Return ``v_null + scale (v_condition - v_null)``; ``scale`` is W, one number or one per example, [B]."""
    by = expand(scale, v_null) if isinstance(scale, Tensor) else scale
    return v_null + by * (v_condition - v_null)


def guided_velocity(network: Network, x: Tensor, t: Tensor, d: Tensor, condition: Condition, scale: float) -> Tensor:
    """Return the guided velocity, with the conditional and the null examples in one forward pass of 2B examples.

    ``scale = 1`` is the plain pass of B examples, ``scale = 0`` the null pass. A network that takes W as an input
    gets it, in one pass of B examples; null examples, which guidance does not change, get W = 1.

    Raises UsageError for guidance without a condition, or of a network without ``null``.
    """
    if scale == 1:
        return network(x, t, d, condition)
    if condition is None:
        raise UsageError("guidance needs a condition: pass `condition` or set guidance to 1")
    nothing = null(network, condition)
    if scale == 0:
        return network(x, t, d, nothing)
    if getattr(network, "takes_guidance", False):
        W = torch.full_like(t, scale).masked_fill(same(condition, nothing), 1.0)
        return network(x, t, d, condition, W)
    both = network(torch.cat([x, x]), torch.cat([t, t]), torch.cat([d, d]), cat(condition, nothing))
    v_condition, v_null = both.chunk(2)
    return guide(v_condition, v_null, scale)


NullTraining = Literal["trained", "untrained", "never"]


class GuidanceRule(NamedTuple):
    """What guidance means at one sampling step of a trained model.

    ``as_trained``: the scale W to apply so that samples are guided as in training. ``built_in``: the scale that the
    predicted velocity already has, 1 for none; applying another W would guide twice. ``null``: whether "nothing given"
    was trained at this step; "untrained" (but trained at other steps) is a warning, "never" an error, and ``remedy`` is
    the option to train with instead.
    """

    as_trained: float = 1.0
    built_in: float = 1.0
    null: NullTraining = "trained"
    remedy: str = "train with objective.label_drop 0.1"


def guidance_scales(
    rules: Sequence[GuidanceRule], requested: float | None, twice: bool = False
) -> tuple[list[float], list[str]]:
    """Return the scale W of each sampling step, and warnings. ``requested`` None: as trained; 1: no guidance.

    For conditional networks. Raises UsageError for a scale that is not finite, and unless ``twice`` when it would
    guide a step that has guidance already, or needs a null condition that was never trained.
    """
    if requested is None:
        return [rule.as_trained for rule in rules], []
    require(isfinite(requested), "guidance", requested, "finite")
    if requested == 1:
        return [1.0] * len(rules), []
    scales = [requested] * len(rules)
    allow = "omit guidance, or allow it explicitly (--guide-twice)"
    never = [rule for rule in rules if rule.null == "never"]
    built_in = [rule.built_in for rule in rules if rule.built_in != 1]
    untrained = sum(rule.null == "untrained" for rule in rules)
    if never and not twice:
        hint = f"training built in guidance {built_in[0]:g}" if built_in else never[0].remedy
        raise UsageError(f"guidance {requested:g} needs the null condition, which was never trained: {hint}; {allow}")
    if built_in and not twice:
        where = "these steps" if len(built_in) == len(rules) else f"{len(built_in)} of these {len(rules)} steps"
        has = f"guidance {built_in[0]:g} is already built into {where}"
        raise UsageError(f"{has}: guiding by {requested:g} would guide twice; {allow}")
    if never:
        return scales, [f"guidance {requested:g} uses the null condition, which was never trained"]
    if untrained:
        where = "these steps" if untrained == len(rules) else f"{untrained} of these {len(rules)} steps"
        trained = f"trained at d = 0 only, not at {where} (with more steps all have d = 0)"
        return scales, [f"guidance {requested:g} uses the null condition, which was {trained}"]
    return scales, []
