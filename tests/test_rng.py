import numpy as np
import torch

from baco.rng import stream, torch_stream


def test_streams_are_reproducible_and_independent():
    assert stream(0, "assign").random() == stream(0, "assign").random()
    draws = {(seed, name): stream(seed, name).random() for seed in (0, 1) for name in ("assign", "init", "ties")}
    assert len(set(draws.values())) == 6
    first, second = stream(0, "assign").random(10_000), stream(0, "init").random(10_000)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03


def test_torch_streams_too():
    one, again, other = torch_stream(3, "sampling"), torch_stream(3, "sampling"), torch_stream(4, "sampling")
    first = torch.rand(4, generator=one)
    torch.testing.assert_close(first, torch.rand(4, generator=again), rtol=0, atol=0)
    assert not torch.equal(first, torch.rand(4, generator=other))


def test_global_generators_are_left_alone():
    np.random.seed(0)  # noqa: NPY002 - the global state is what is checked
    torch.manual_seed(0)
    expected = np.random.random(), torch.rand(1)  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    stream(0, "assign").random()
    torch.rand(5, generator=torch_stream(0, "init"))
    assert (np.random.random(), torch.rand(1)) == expected  # noqa: NPY002
