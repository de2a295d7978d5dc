"""How far off a prediction is, one penalty per file, and how much that counts: a registry of each."""

from anystep.core.registry import Registry
from anystep.flow.penalties.base import Own, Penalty
from anystep.flow.penalties.haar import Haar
from anystep.flow.penalties.pseudo_huber import PseudoHuber
from anystep.flow.penalties.squared import Squared
from anystep.flow.penalties.weights import NoWeight, OwnErrorWeight, Weight

PENALTIES: Registry[type[Penalty]] = Registry(
    {"own": Own, "squared": Squared, "pseudo_huber": PseudoHuber, "haar": Haar}
)
WEIGHTS: Registry[type[Weight]] = Registry({"none": NoWeight, "own_error": OwnErrorWeight})

__all__ = [
    "PENALTIES",
    "WEIGHTS",
    "Haar",
    "NoWeight",
    "Own",
    "OwnErrorWeight",
    "Penalty",
    "PseudoHuber",
    "Squared",
    "Weight",
]
