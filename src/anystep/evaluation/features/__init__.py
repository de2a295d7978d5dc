"""What distances between sets are measured on: one feature space per file, and one line in `FEATURES`."""

from anystep.evaluation.features.base import Build
from anystep.evaluation.features.classifier import classifier_space
from anystep.evaluation.features.data import data_space
from anystep.evaluation.features.inception import inception_space, paper_space, spatial_space

FEATURES: dict[str, Build] = {
    "data": data_space,
    "classifier": classifier_space,
    "inception": inception_space,
    "inception_paper": paper_space,
    "inception_spatial": spatial_space,
}
