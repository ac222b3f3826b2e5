"""Random numbers: the same bits on every backend, the published generator, and the moments of their distributions."""

from __future__ import annotations

import numpy as np
import pytest

from wgpu_nn import Device, bernoulli, rand, randn
from wgpu_nn.backends.threefry import words


def draw(device: Device, op: str, seed: int, stream: int, n: int) -> np.ndarray:
    backend = device.backend
    return backend.download(backend.run(op, seed, stream, shape=(n,)))


# Random123's kat_vectors, threefry2x32 with 13 rounds. Ours has the counter (i, 0), so one of the three applies whole.
def test_the_generator_gives_the_published_words() -> None:
    x, y = words(0, 0, 1)
    assert (int(x[0]), int(y[0])) == (0x9D1C5EC6, 0x8BD50731)


@pytest.mark.parametrize(("seed", "stream"), [(0, 0), (1, 0), (0, 1), (-1, -1), (2**31 - 1, -(2**31)), (2**32 - 1, 7)])
def test_uniform_draws_are_bit_equal_on_all_backends(seed: int, stream: int, any_device: Device, cpu: Device) -> None:
    want = draw(cpu, "uniform", seed, stream, 1003)
    np.testing.assert_array_equal(draw(any_device, "uniform", seed, stream, 1003).view(np.uint32), want.view(np.uint32))


def test_the_first_uniform_numbers_are_the_top_bits_of_the_published_words(gpu_device: Device) -> None:
    assert draw(gpu_device, "uniform", 0, 0, 2).tolist() == [(0x9D1C5EC6 >> 8) / 2**24, (0x8BD50731 >> 8) / 2**24]


def test_an_element_depends_on_its_place_alone(gpu_device: Device) -> None:
    long = draw(gpu_device, "uniform", 5, 6, 999)
    for n in (1, 2, 7, 64):
        np.testing.assert_array_equal(draw(gpu_device, "uniform", 5, 6, n), long[:n])


@pytest.mark.parametrize("name", ["gpu_device", "cpu"])
def test_uniform_numbers_look_uniform(name: str, request: pytest.FixtureRequest) -> None:
    x = draw(request.getfixturevalue(name), "uniform", 1, 2, 200_000).astype(np.float64)
    assert x.min() >= 0 and x.max() < 1
    assert x.mean() == pytest.approx(0.5, abs=5 * np.sqrt(1 / 12 / 200_000))
    assert x.var() == pytest.approx(1 / 12, rel=0.02)
    assert np.all(x * 2**24 == np.floor(x * 2**24))
    assert len(np.unique(x)) > 198_000  # of 2^24 values; 1,190 repeats are expected
    assert np.abs(np.corrcoef(x[:-1], x[1:])[0, 1]) < 0.012
    counts = np.histogram(x, 64, (0, 1))[0]
    assert ((counts - 3125) ** 2 / 3125).sum() < 120  # chi squared with 63 degrees: 120 has a chance of 2e-5


@pytest.mark.parametrize("name", ["gpu_device", "cpu"])
def test_normal_numbers_look_normal(name: str, request: pytest.FixtureRequest) -> None:
    x = draw(request.getfixturevalue(name), "normal", 1, 2, 200_000).astype(np.float64)
    assert np.isfinite(x).all()
    assert x.mean() == pytest.approx(0, abs=5 / np.sqrt(200_000))
    assert x.var() == pytest.approx(1, rel=0.02)
    assert (x**3).mean() == pytest.approx(0, abs=0.05) and (x**4).mean() == pytest.approx(3, abs=0.1)
    assert (np.abs(x) < 1.959964).mean() == pytest.approx(0.95, abs=0.003)
    assert np.abs(np.corrcoef(x[::2], x[1::2])[0, 1]) < 0.016  # the two of a pair


def test_draws_differ_by_seed_and_by_number(gpu_device: Device) -> None:
    seen = {draw(gpu_device, "uniform", s, t, 4).tobytes() for s in range(5) for t in range(5)}
    assert len(seen) == 25


@pytest.mark.parametrize("name", ["gpu_device", "cpu"])
def test_a_seed_fixes_the_sequence_of_draws_on_the_device_and_on_its_autodiff(
    name: str, request: pytest.FixtureRequest
) -> None:
    device: Device = request.getfixturevalue(name)

    def sequence(where: Device) -> list[np.ndarray]:
        return [rand((3,), where).numpy(), randn((2, 2), where).numpy(), bernoulli((9,), 0.3, where).numpy()]

    device.seed(11)
    first = sequence(device)
    second = sequence(device)
    device.seed(11)
    for a, b, c in zip(first, sequence(device.autodiff()), second, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == np.bool_ or not np.array_equal(a, c)


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_bernoulli_is_true_with_its_probability(probability: float, gpu_device: Device) -> None:
    share = bernoulli((100_000,), probability, gpu_device).float().mean().item()
    assert share == pytest.approx(probability, abs=0.01 if 0 < probability < 1 else 0)
