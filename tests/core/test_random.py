"""Keys of random numbers: distinct keys give distinct numbers, and one key the same numbers for good."""

import hashlib
import threading

import numpy as np
import pytest
import torch

from anystep.core import random
from anystep.core.errors import UsageError
from anystep.core.random import Draw, Keys, preserved_generators


def test_200_000_keys_give_as_many_noises() -> None:
    """Four normals each: a key of 32 bits would collide 4.7 times in so many, one of 128 bits never."""
    keys = Keys(0)
    steps = [keys.normal(step, "noise", (4,), block) for step in range(10_000) for block in range(10)]
    samples = [keys.normal(i, "sample", (4,)) for i in range(100_000)]
    seen = {noise.numpy().tobytes() for noise in (*steps, *samples)}
    assert len(seen) == 200_000


def test_version_1_has_collisions() -> None:
    """Two of the samples of seed 0 are the same noise: torch's CPU generator keeps 32 bits of a seed."""
    one, other = (Keys(0, 1).normal(i, "sample", (1, 8, 8)) for i in (30_209, 34_317))
    assert torch.equal(one, other)
    one, other = (Keys(0, 2).normal(i, "sample", (1, 8, 8)) for i in (30_209, 34_317))
    assert not torch.isclose(one, other).any()


#: the first values of four streams, by version
PINNED = {
    (1, "noise"): (-0.6762813, -0.8955575, 0.1313059, -0.7773145),
    (1, "time"): (0.5652406, 0.4292021, 0.7036646, 0.4406641),
    (1, "sample"): (0.4431401, -0.02619001, -0.07390877, 1.430046),
    (1, "order"): (113, 600, 759, 231),
    (2, "noise"): (0.8680783, -1.268512, -1.075125, -0.428487),
    (2, "time"): (0.9911098, 0.8621621, 0.7702537, 0.8165528),
    (2, "sample"): (-0.8201382, -0.6957119, 1.724075, 0.3484518),
    (2, "order"): (309, 628, 530, 797),
}


@pytest.mark.parametrize(("version", "stream"), PINNED)
def test_streams_are_frozen(version: int, stream: str) -> None:
    """NumPy does not promise its normals across releases: where this fails, version 2 needs another source."""
    keys = Keys(7, version)
    drawn = {
        "noise": keys.normal(5, "noise", (32, 2), 3),
        "time": keys.uniform(5, "time", 32, 3),
        "sample": keys.normal(5, "sample", (1, 8, 8)),
        "order": torch.from_numpy(keys.permutation(5, "order", 1000)),
    }[stream]
    assert drawn.flatten()[:4].tolist() == pytest.approx(PINNED[version, stream], rel=1e-6)


@pytest.mark.parametrize("stream", ["noise", "renoise/3"])
def test_version_2_is_numpys_philox_of_the_hashed_key(stream: str) -> None:
    """The one generator of a thread, its key set, gives what a new generator of that key gives."""
    digest = hashlib.blake2b(f"3/14/2/{stream}".encode(), digest_size=16).digest()
    fresh = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
    Keys(3).uniform(1, "odd", 3)  # half of a 64-bit word is left over
    assert torch.equal(Keys(3).normal(14, stream, (33,), 2), torch.from_numpy(fresh.standard_normal(33, np.float32)))


def test_keys_do_not_run_into_each_other() -> None:
    """Neither digits side by side, (1, 11) and (11, 1), nor a block and a stream's last part."""
    keys = [(1, 11, "a", None), (11, 1, "a", None), (1, 1, "1a", None), (1, 11, "a", 1), (1, 11, "a/1", None)]
    first = {float(Keys(seed).uniform(step, stream, 1, block)) for seed, step, stream, block in keys}
    assert len(first) == len(keys)


def test_threads_do_not_disturb_each_other() -> None:
    expected = [Keys(seed).normal(0, "noise", (1000,)) for seed in range(4)]
    wrong = []

    def check(seed: int) -> None:
        wrong.extend(n for n in range(200) if not torch.equal(Keys(seed).normal(0, "noise", (1000,)), expected[seed]))

    threads = [threading.Thread(target=check, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_an_unknown_version_is_rejected() -> None:
    with pytest.raises(UsageError, match="random keys of version 3 are unknown here: update anystep"):
        Keys(0, 3)


@pytest.mark.parametrize("version", [1, 2])
def test_the_seed_of_initial_weights_is_the_same_in_every_version(version: int) -> None:
    assert Keys(3, version).torch_seed(0, "init") == random.torch_generator(3, 0, "init").initial_seed()


def test_generators_are_put_back() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with preserved_generators(torch.device("cpu")):
        Draw(Keys(0), 0, 8, slice(0, 8)).seed_network()
        torch.rand(100)
    assert torch.equal(torch.rand(3), expected)
