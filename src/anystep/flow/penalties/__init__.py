"""How far off a prediction is, one penalty per file, and how much that counts: a registry of each."""

from anystep.core.registry import Registry
from anystep.flow.penalties.base import Own as Own
from anystep.flow.penalties.base import Penalty as Penalty
from anystep.flow.penalties.constant import ConstantWeight as ConstantWeight
from anystep.flow.penalties.haar import Haar as Haar
from anystep.flow.penalties.learned import LearnedWeight as LearnedWeight
from anystep.flow.penalties.level_average import LevelAverageWeight as LevelAverageWeight
from anystep.flow.penalties.own_error import OwnErrorWeight as OwnErrorWeight
from anystep.flow.penalties.pseudo_huber import PseudoHuber as PseudoHuber
from anystep.flow.penalties.squared import Squared as Squared
from anystep.flow.penalties.weights import NoWeight as NoWeight
from anystep.flow.penalties.weights import RisingWeight as RisingWeight
from anystep.flow.penalties.weights import Weight as Weight

PENALTIES: Registry[type[Penalty]] = Registry(
    {"own": Own, "squared": Squared, "pseudo_huber": PseudoHuber, "haar": Haar}
)
WEIGHTS: Registry[type[Weight]] = Registry(
    {
        "none": NoWeight,
        "own_error": OwnErrorWeight,
        "level_average": LevelAverageWeight,
        "learned": LearnedWeight,
        "constant": ConstantWeight,
    }
)
