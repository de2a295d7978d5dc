"""What distances between sets are measured on: one feature space per file, and one line in `FEATURES`."""

from anystep.evaluation.features import data
from anystep.evaluation.features.base import Build

FEATURES: dict[str, Build] = {
    "data": data.build,
}
