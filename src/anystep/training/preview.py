"""Previews of a run while it trains: the same noises in 1, 4 and M steps, after each checkpoint.

They use the noises of `anystep sample RUN`, which training never draws, so that a run with previews equals one without.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anystep.codecs import sampled
from anystep.core.errors import RunError, reason
from anystep.core.files import write_bytes
from anystep.data import Dataset
from anystep.figures.canvas import MISSING, can_draw, png, to_image
from anystep.figures.grids import steps_figure
from anystep.figures.marginals import marginals
from anystep.figures.scatter import scatter
from anystep.flow.query import Network
from anystep.model.generator import Generator
from anystep.objectives import Objective
from anystep.training.signals import StopRequest
from anystep.training.state import State

#: samples in each number of steps, if the config does not set them: images are few, vectors are points
IMAGES, VECTORS = 8, 512
#: largest fraction of the time that previews take
SHARE = 0.05


class Previews:
    """The previews of a run, PNG files in ``folder``.

    ``say`` gets the reason when one cannot be drawn or written: training does not stop for that.
    """

    def __init__(self, state: State, dataset: Dataset, folder: Path, say: Callable[[str], None]) -> None:
        self.state, self.dataset, self.folder, self.say = state, dataset, folder, say
        self.pictures = state.facts.codec.looks == "picture"
        num = state.config.preview.num
        self.num = (IMAGES if self.pictures else VECTORS) if num is None else num
        self.not_before = 0.0
        lack = state.facts.codec.lacks() or (None if self.pictures or can_draw() else MISSING)
        if self.num and lack:
            say(f"no previews: {lack}")
            self.num = 0

    def draw(self, objective: Objective, stop: StopRequest) -> None:
        """Write a preview of the evaluation EMA, unless there are none, they take too long, or a signal stops it.

        There is always one of the complete run.
        """
        started = time.monotonic()
        complete = self.state.step == self.state.config.training.steps
        if not self.num or (started < self.not_before and not complete):
            return
        generator, samples = self.generator(objective), dict[int, NDArray[np.generic]]()
        for steps in sorted({1, 4, objective.M}):
            if stop.signal is not None:
                return
            samples[steps] = generator.decode(generator.generate(steps=steps, num=self.num))
        try:
            write_bytes(self.folder / f"step-{self.state.step:08d}.png", png(self.figure(samples)))
        except (OSError, RunError) as error:
            self.say(f"cannot write a preview to {self.folder}: {reason(error)}; training goes on")
        now = time.monotonic()
        self.not_before = now + (now - started) / SHARE

    def generator(self, objective: Objective) -> Generator:
        """Return the evaluation EMA, ready to sample from with a phase's objective."""
        state, facts, data = self.state, self.state.facts, self.dataset
        network = cast(Network, state.averages["evaluation"].network)
        usual = (lambda index: data.condition(np.asarray(index) % len(data))) if facts.conditions.features else None
        return Generator.of(facts, network=network, objective=objective, device=state.device, usual=usual)

    def figure(self, samples: dict[int, NDArray[np.generic]]) -> Image.Image:
        """Return images in a row per number of steps, or vectors as points or histograms in front of the data."""
        if self.pictures:
            return steps_figure({"samples": samples})
        rows = self.state.facts.codec.view(sampled(self.dataset, VECTORS))
        data = rows.flatten(1).numpy()
        flat = {steps: values.reshape(len(values), -1) for steps, values in samples.items()}
        return to_image(scatter({"samples": flat}, data) if data.shape[1] == 2 else marginals(flat, data), dpi=100)
