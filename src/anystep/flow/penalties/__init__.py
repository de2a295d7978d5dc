"""How far off a prediction is, one penalty a file, and how much that counts: a registry of each."""

from anystep.flow.penalties.base import LossPart, Own, Penalty, RowError
from anystep.flow.penalties.haar import Haar
from anystep.flow.penalties.pseudo_huber import PseudoHuber
from anystep.flow.penalties.squared import Squared
from anystep.flow.penalties.weights import NoWeight, OwnErrorWeight, Weight

PENALTIES: dict[str, type[Penalty]] = {penalty.name: penalty for penalty in (Own, Squared, PseudoHuber, Haar)}
WEIGHTS: dict[str, type[Weight]] = {weight.name: weight for weight in (NoWeight, OwnErrorWeight)}

__all__ = [
    "PENALTIES",
    "WEIGHTS",
    "Haar",
    "LossPart",
    "NoWeight",
    "Own",
    "OwnErrorWeight",
    "Penalty",
    "PseudoHuber",
    "RowError",
    "Squared",
    "Weight",
]
