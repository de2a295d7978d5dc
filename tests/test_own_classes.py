"""A source, a network and an objective of the user's own: trained, and used again by another process."""

import json
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import nn

import anystep
from anystep.codecs import Vectors
from anystep.comparison.compare import Choices, compare
from anystep.core.errors import RunError, UsageError
from anystep.core.registry import import_modules
from anystep.data import Dataset, Digits
from anystep.networks import DiTConfig, MLPConfig
from anystep.objectives import FlowMatching, ImprovedShortcut, Shortcut
from anystep.run.config import Config, PreviewConfig, TrainingConfig, from_json, to_json
from anystep.run.facts import read_config

MINE = '''
from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Gt
from torch import nn

import anystep
from anystep.flow.ladder import instantaneous_schedule
from anystep.objectives import Query, Targets


@dataclass(frozen=True)
class Ring(anystep.Source):
    """Points on a circle."""

    radius: Annotated[float, Gt(0)] = 2.0
    num: int = 256

    def open(self, split: str = "train") -> anystep.Dataset:
        angle = np.random.default_rng(int(split == "train")).uniform(0, 2 * np.pi, self.num)
        points = self.radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return anystep.Dataset.from_arrays("ring", points.astype(np.float32))


class Net(nn.Module):
    """No class of ours: it has neither `num_classes` nor `takes_guidance`."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width + 2, hidden), nn.Tanh(), nn.Linear(hidden, width))

    def forward(self, x, t, d, *_, **__):
        return self.layers(torch.cat([x, t[:, None], d[:, None]], 1))


@dataclass(frozen=True)
class Small(anystep.NetworkConfig):
    hidden: int = 16

    def build(self, shape, *_):
        return Net(shape[0], self.hidden)


@dataclass(frozen=True)
class Late(anystep.Objective):
    """Flow matching with more of late times."""

    power: Annotated[float, Gt(0)] = 2.0
    weighted: bool = True
    kind: Literal["plain", "odd"] = "plain"

    def targets(self, networks, batch, draw, progress):
        t = draw.uniform("time") ** (1 / self.power)
        x_t = (1 - t[:, None]) * batch.x0 + t[:, None] * batch.x1
        return Targets(Query(x_t, t, torch.zeros_like(t)), batch.x1 - batch.x0, torch.zeros_like(t, dtype=torch.long))

    def schedule(self, steps):
        return instantaneous_schedule(steps)


def config(images: int):
    from anystep.run.config import TrainingConfig

    training = TrainingConfig(images=images, batch=64, device="cpu")
    return anystep.Config("mine", Ring(radius=3), Small(), Late(power=1.5), training=training)
'''

AGAIN = """
import json
import anystep
from anystep.cli.main import main
from anystep.report.run import RunSummary
from dataclasses import replace

try:
    anystep.load("stopped")
    raise SystemExit("a run imported a module by itself")
except anystep.RunError as error:
    print(error)
generator = anystep.load("stopped", imports=["mine"], device="cpu")
assert type(generator.objective).__name__ == "Late"
points = generator.generate(steps=2)
assert points.shape == (16, 2)
rows = anystep.evaluate(generator, generator.objective and __import__("mine").Ring(radius=3).open(), steps=[1], num=64)
assert rows[0]["energy"] >= 0, rows

from anystep.run.facts import read_config
config = read_config("stopped")
config = replace(config, training=replace(config.training, images=64 * 16))
anystep.train(config, "stopped", resume=True)
one, other = (anystep.load(run, device="cpu").generate(steps=3, num=8) for run in ("stopped", "whole"))
assert (one == other).all()

for words in ("sample whole --steps 1 2 --num 8", "evaluate whole --steps 1 --num 64", "report whole --steps 1 2",
              "train stopped --resume --images 1536"):
    assert main(words.split()) == 0, words
assert RunSummary.read("whole").method == "Late"
"""


def python(folder: Path, program: str, name: str = "") -> str:
    """Run a program in a new process whose working folder is ``folder``; a file there if it has a name."""
    words = ["-c", program]
    if name:
        (folder / name).write_text(program)
        words = [name]
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def imported(name: str, folder: Path) -> Iterator[Any]:
    """A module of ``folder`` that this process knows in the block only."""
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(folder))
        import_modules([name])
        try:
            yield sys.modules[name]
        finally:
            del sys.modules[name]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("own")
    (place / "mine.py").write_text(MINE)
    with imported("mine", place) as mine:
        anystep.train(mine.config(64 * 8), place / "stopped")
        anystep.train(mine.config(64 * 16), place / "whole")
    return place


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder / "whole", tmp_path / "run"))


def test_another_process_loads_samples_evaluates_resumes_and_reports(folder: Path) -> None:
    written = json.loads((folder / "whole" / "config.json").read_text())
    assert written["data"] == {"name": "mine:Ring", "radius": 3.0, "num": 256}
    assert written["network"] == {"name": "mine:Small", "hidden": 16}
    assert written["objective"] == {"name": "mine:Late", "power": 1.5, "weighted": True, "kind": "plain"}
    said = python(folder, AGAIN)
    assert "stopped/config.json: mine:Small is in a module that is not imported: --import mine" in said


def test_classes_of_a_script_are_found_by_itself_and_by_another_process(folder: Path) -> None:
    main = "\nif __name__ == '__main__':\n    anystep.train(config(64 * 2), 'script')\n    anystep.load('script')\n"
    python(folder, MINE + main, "train_mine.py")
    assert json.loads((folder / "script" / "config.json").read_text())["data"]["name"] == "train_mine:Ring"
    with imported("train_mine", folder):
        anystep.load(folder / "script", imports=["train_mine"]).generate(steps=1, num=2)


@pytest.fixture
def mine(folder: Path) -> Iterator[Any]:
    with imported("mine", folder) as module:
        yield module


def test_processes_of_a_comparison_know_own_classes(mine: Any, tmp_path: Path) -> None:
    """The second time runs and scores are found again."""
    base = anystep.with_method(mine.config(64 * 4), "flow_matching")
    choices = Choices(methods=["flow_matching", "live_reflow"], steps=[1], num=16)
    for _ in range(2):
        found = compare(base, tmp_path / "compared", choices, jobs=2, imports=["mine"])
        assert not found.failures(), found.failures()
        assert found.complete


def test_a_class_that_has_changed_since_the_run_is_one_clear_line(run: Path, mine: Any) -> None:
    path = run / "config.json"
    values = json.loads(path.read_text())
    assert to_json(read_config(run)) == values
    for change, message in (
        ({"gone": 1}, r"objective mine:Late has changed since the run: restore its fields \(gone\)"),
        ({"power": None}, r"objective mine:Late has changed since the run: restore its fields \(power\)"),
        ({"power": None, "exponent": 2.0}, r"has changed since the run: restore its fields \(exponent, power\)"),
    ):
        objective = {k: v for k, v in (values["objective"] | change).items() if v is not None}
        path.write_text(json.dumps(values | {"objective": objective}))
        with pytest.raises(RunError, match=f"^{path}: .*{message}"):
            anystep.load(run)
    with pytest.raises(UsageError, match=r"objective.power must be greater than 0, got -1"):
        from_json(values | {"objective": {"name": "mine:Late", "power": -1}})
    assert from_json(values | {"objective": {"name": "mine:Late"}}).objective == mine.Late()
    with pytest.raises(UsageError, match="mine has no class Later"):
        from_json(values | {"objective": {"name": "mine:Later"}})


@pytest.mark.parametrize("section", ["data", "network", "objective"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("subprocess:Popen", "subprocess:Popen is not a subclass of "),
        ("os:system", "os:system is not a subclass of "),
        ("antigravity:fly", "antigravity:fly is in a module that is not imported: --import antigravity"),
        ("evil:Thing", "evil:Thing is in a module that is not imported: --import evil"),
        ("anystep.run.config:InitConfig", "is not a subclass of "),
    ],
)
def test_a_strangers_config_runs_no_code(
    section: str, name: str, message: str, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run / "evil.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.chdir(run)
    monkeypatch.setattr("subprocess.Popen.__init__", lambda *_, **__: pytest.fail("called"))
    values: dict[str, Any] = to_json(Config("x", Digits(), DiTConfig(), FlowMatching()))
    values[section] = {"name": name, "args": ["touch", "bad"]}
    (run / "config.json").write_text(json.dumps(values))
    (run.parent / "hand.json").write_text(json.dumps(values))
    before = set(sys.modules)
    with pytest.raises(RunError, match=message):
        anystep.load(str(run)) if section != "data" else read_config(run)  # a network is built without its data
    with pytest.raises(UsageError, match=message):
        read_config(run.parent / "hand.json")
    assert set(sys.modules) == before and not Path("bad").exists()


class Bare(nn.Module):
    """A network without anything that the library asks about."""

    def forward(self, x: torch.Tensor, t: torch.Tensor, d: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        return torch.ones_like(x)


def config(**sections: Any) -> Config:
    return Config(**{"recipe": "x", "data": Digits(), "network": MLPConfig(), "objective": FlowMatching()} | sections)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"data": Dataset.from_arrays("mine", np.zeros((4, 2), np.float32))},
            r"data must be a Source, got a Dataset: write a dataclass that derives from Source, with an open\(split\)",
        ),
        ({"data": Digits}, "data must be a Source, got the class Digits, not an object of it"),
        ({"data": "digits"}, "data must be a Source, got 'digits'"),
        ({"network": Bare()}, r"network must be a NetworkConfig, got an nn.Module: pass TheConfig\(\), of"),
        ({"objective": "shortcut"}, "objective must be an Objective, got 'shortcut'"),
        ({"training": {"images": 3}}, r"training must be a TrainingConfig, got \{'images': 3\}"),
        ({"recipe": 3}, "recipe must be text, got 3"),
    ],
)
def test_what_is_no_section_says_what_to_pass(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        config(**sections)


def test_the_lines_that_a_bare_network_needs_are_right(
    mine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are run as they stand."""
    with pytest.raises(UsageError) as caught:
        config(network=Bare())
    _, lines = str(caught.value).split("\n\n")
    program = tmp_path / "bare.py"
    program.write_text(f"""
from dataclasses import dataclass
import anystep, mine
Bare = lambda *_: mine.Net(2, 8)
{lines}
from dataclasses import replace
config = replace(mine.config(64), network=TheConfig())
anystep.train(config, "bare")
assert anystep.with_method(config, "shortcut").network == TheConfig()
""")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(program), run_name="__main__")


@dataclass(frozen=True)
class Own(anystep.NetworkConfig):
    """All that a config of a network needs."""

    def build(self, *_: object) -> nn.Module:
        return Bare()


@dataclass(frozen=True)
class WithoutStep(Own):
    """It says that it does not read d."""

    step_encoding: Literal["none"] = "none"


def test_a_network_needs_only_build_and_says_which_input_it_lacks() -> None:
    own = Own()
    assert (own.step_encoding, own.guidance_input, own.prediction, own.attends) == ("any", False, "velocity", False)
    assert own.with_inputs(step_encoding="log2", time_scale=3.0, guidance_input=False, prediction="velocity") == own
    for wrong in ({"guidance_input": True}, {"prediction": "noise"}):
        ((name, value),) = wrong.items()
        with pytest.raises(UsageError, match=rf"^network\.{name} must be {value!r}, and Own has no such field"):
            own.with_inputs(**wrong)
    config(network=own, objective=Shortcut())
    with pytest.raises(UsageError, match=r"shortcut needs network.step_encoding log2 or continuous, got none"):
        config(network=WithoutStep(), objective=Shortcut())
    with pytest.raises(UsageError, match=r"improved_shortcut needs network.guidance_input True, got False"):
        config(network=own, objective=ImprovedShortcut())


def test_guidance_of_a_bare_network_says_what_is_missing() -> None:
    noise, label = torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64)
    assert torch.equal(anystep.sample(Bare(), noise, steps=4), torch.ones(3, 2))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"Bare has no method null\(condition\), which guidance"):
        anystep.sample(Bare(), noise, condition=label, guidance=2)  # type: ignore[arg-type]


def test_texts_are_paths(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    made = config(
        data=anystep.find_recipe("two_moons-shortcut").data,
        training=TrainingConfig(64, 64, device="cpu", precision="float32"),
        preview=PreviewConfig(num=0),
    )
    assert anystep.train(made, "run").step == 1
    drawn = anystep.load("run").generate(steps=4)
    assert torch.equal(drawn, anystep.load(Path("run")).generate(steps=4, seed=0, index=range(16)))
    assert read_config("run") == replace(made, codec=Vectors())  # what its default became
