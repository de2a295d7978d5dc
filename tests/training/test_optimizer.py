"""The optimizer is torch's AdamW, to the bit, and starts sooner."""

import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor, nn, optim

from anystep.run.config import OptimizerConfig
from anystep.training.optimizer import build_optimizer


def steps(network: nn.Module, optimizer: optim.Optimizer) -> list[Tensor]:
    source = torch.Generator().manual_seed(1)
    for _ in range(5):
        network(torch.randn(16, 5, generator=source)).square().sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        assert optimizer.zero_grad(set_to_none=True) is None
    return [p.detach() for p in network.parameters()]


def test_it_makes_the_steps_of_torchs_own() -> None:
    config = OptimizerConfig(lr=1e-2, betas=(0.9, 0.95), eps=1e-7, weight_decay=0.3)
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 4), nn.Linear(5, 4)
    theirs.load_state_dict(ours.state_dict())
    usual = optim.AdamW(theirs.parameters(), lr=1e-2, betas=(0.9, 0.95), eps=1e-7, weight_decay=0.3)
    optimizer = build_optimizer(ours, nn.Module(), config)
    for one, other in zip(steps(ours, optimizer), steps(theirs, usual), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)
    assert all(p.grad is None for p in ours.parameters())
    assert optimizer.state_dict()["state"].keys() == usual.state_dict()["state"].keys()


PROGRAM = """
import sys
from pathlib import Path
import anystep
from anystep.data import TwoMoons
from anystep.run.config import TrainingConfig
config = anystep.Config(recipe="x", data=TwoMoons(num=100), network=anystep.MLPConfig(hidden=8, depth=1),
                        objective=anystep.FlowMatching(), training=TrainingConfig(images=32, batch=16, device="cpu"))
anystep.train(config, Path(sys.argv[1]))
print("torch._dynamo" in sys.modules)
import torch
torch.optim.Adam([torch.zeros(1)])
anystep.train(config, Path(sys.argv[2]))
print("torch._dynamo" in sys.modules)
"""


def test_a_run_that_compiles_nothing_does_not_load_the_compiler(tmp_path: Path) -> None:
    """torch._dynamo takes longer to load than torch. A torch optimizer made before, which loads it, does no harm."""
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "run"), str(tmp_path / "after another")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
