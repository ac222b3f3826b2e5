"""Augmentations: what they may do to images, the same on every device, anew in each captured step, and nothing at rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from wgpu_nn import Device, Tensor, rand, tensor
from wgpu_nn.dtype import float16
from wgpu_nn.errors import ConfigError, KindError, ShapeError
from wgpu_nn.nn import (
    CutMixConfig,
    MixupConfig,
    RandomAffineConfig,
    RandomBrightnessConfig,
    RandomCropConfig,
    RandomEraseConfig,
    RandomFlipConfig,
)
from wgpu_nn.train import capture

X = np.random.default_rng(0).random((13, 2, 7, 5), dtype=np.float32) + np.float32(0.01)
SHARES = np.eye(4, dtype=np.float32)[np.arange(13) % 4]
IMAGES = [
    RandomFlipConfig(),
    RandomFlipConfig(vertical=True),
    RandomCropConfig(padding=2),
    RandomEraseConfig(),
    RandomBrightnessConfig(),
    RandomAffineConfig(degrees=30),
]


def name(config: Any) -> str:
    return type(config).__name__


def augmented(config: Any, device: Device, x: np.ndarray = X, seed: int = 3) -> np.ndarray:
    device.seed(seed)
    return config.init().forward(tensor(x, device.autodiff())).numpy()


@pytest.mark.parametrize("config", IMAGES, ids=name)
def test_a_gpu_gives_what_numpy_gives(config: Any, any_device: Device, cpu: Device) -> None:
    want = augmented(config, cpu)
    assert want.shape == X.shape and not np.array_equal(want, X)
    # sin, cos and the mean differ in their last bits; all else is exact.
    tolerance = 1e-5 if name(config) in ("RandomAffineConfig", "RandomBrightnessConfig") else 0
    np.testing.assert_allclose(augmented(config, any_device), want, atol=tolerance, rtol=0)


@pytest.mark.parametrize("config", [MixupConfig(), CutMixConfig()], ids=name)
def test_mixing_is_the_same_on_a_gpu_and_keeps_shares_whole(config: Any, gpu_device: Device, cpu: Device) -> None:
    found: list[list[np.ndarray]] = []
    for device in (cpu, gpu_device):
        device.seed(5)
        found.append([t.numpy() for t in config.init().forward(*(tensor(a, device.autodiff()) for a in (X, SHARES)))])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)  # a product and a sum, fused or not
    np.testing.assert_allclose(found[0][1].sum(1), 1, rtol=1e-6)


@pytest.mark.parametrize("config", IMAGES, ids=name)
def test_nothing_changes_at_rest(config: Any, cpu: Device) -> None:
    x = tensor(X, cpu)
    assert config.init().forward(x) is x


@pytest.mark.parametrize("config", IMAGES, ids=name)
@pytest.mark.parametrize("shape", [(3, 7, 5), (2, 1, 1, 1), (0, 2, 7, 5), (1, 2, 3, 6, 4)])
def test_any_shape_of_images_is_kept(config: Any, shape: tuple[int, ...], cpu: Device) -> None:
    assert augmented(config, cpu, np.ones(shape, np.float32)).shape == shape


@pytest.mark.parametrize("config", IMAGES, ids=name)
def test_halves_stay_halves_and_are_moved_to_the_same_places(config: Any, cpu: Device) -> None:
    x = np.random.default_rng(4).random((3, 1, 70, 60)).astype(np.float16)
    half = Device("numpy", float_dtype=float16)
    half.seed(3)
    out = config.init().forward(tensor(x, half.autodiff()))
    assert out.dtype == float16
    if name(config) not in ("RandomFlipConfig", "RandomEraseConfig"):  # these toss coins of a half's bits
        want = augmented(config, cpu, x.astype(np.float32))
        np.testing.assert_allclose(out.numpy(), want, atol=2**-10)  # rounded where it is stored


def test_flips_turn_some_images_and_no_others(cpu: Device) -> None:
    for axis, vertical in ((3, False), (2, True)):
        out = augmented(RandomFlipConfig(vertical=vertical), cpu)
        turned = [np.array_equal(a, b) for a, b in zip(out, np.flip(X, axis), strict=True)]
        same = [np.array_equal(a, b) for a, b in zip(out, X, strict=True)]
        assert all(a != b for a, b in zip(turned, same, strict=True)) and any(turned) and any(same)


def test_crops_are_shifts_within_the_padding_and_all_of_them_come(cpu: Device) -> None:
    x = np.broadcast_to(X[:1], (400, 2, 7, 5))
    padded = np.pad(X[0], ((0, 0), (2, 2), (2, 2)))
    windows = {padded[:, i : i + 7, j : j + 5].tobytes(): (i, j) for i in range(5) for j in range(5)}
    found = {windows[np.ascontiguousarray(image).tobytes()] for image in augmented(RandomCropConfig(padding=2), cpu, x)}
    assert len(found) == 25  # each is missed with a chance of (24/25)^400, 8e-8


def test_erased_parts_are_rectangles_of_the_size_asked_for(cpu: Device) -> None:
    x = np.ones((200, 1, 20, 10), np.float32)
    out = augmented(RandomEraseConfig(prob=0.5, scale=(0.2, 0.6), value=-1.0), cpu, x)[:, 0] < 0
    sizes: list[tuple[int, int]] = []
    for mask in out[out.any((1, 2))]:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert (
            mask.sum() == len(rows) * len(columns)
            and np.ptp(rows) + 1 == len(rows)
            and np.ptp(columns) + 1 == len(columns)
        )
        sizes.append((len(rows), len(columns)))
    heights, widths = {h for h, _ in sizes}, {w for _, w in sizes}
    assert heights == set(range(4, 13)) and widths == set(range(2, 7))
    assert 70 < len(sizes) < 130  # of 200 at one half; 4 standard deviations


def test_brightness_scales_and_contrast_keeps_the_mean(cpu: Device) -> None:
    x = 0.4 + 0.1 * X
    lit = augmented(RandomBrightnessConfig(brightness=0.3, contrast=0.0), cpu, x) / x
    factors = lit.mean((1, 2, 3))
    np.testing.assert_allclose(lit, np.broadcast_to(factors[:, None, None, None], x.shape), rtol=1e-6)
    assert 0.7 <= factors.min() < 0.95 and 1.05 < factors.max() <= 1.3
    flat = augmented(RandomBrightnessConfig(brightness=0.0, contrast=0.5), cpu, x)
    np.testing.assert_allclose(flat.mean((1, 2, 3)), x.mean((1, 2, 3)), rtol=1e-6)
    assert augmented(RandomBrightnessConfig(brightness=1.0), cpu, X).max() <= 1


def test_rotations_are_those_of_pillow_inside_of_the_image(cpu: Device) -> None:
    x = np.random.default_rng(1).random((6, 1, 21, 21), dtype=np.float32)
    out = augmented(RandomAffineConfig(degrees=40, translate=(0, 0), scale=(1, 1)), cpu, x, seed=9)
    cpu.seed(9)
    angles = (rand([6], cpu).numpy() * 2 - 1) * 40
    assert angles.std() > 5
    for image, turned, angle in zip(x[:, 0], out[:, 0], angles, strict=True):
        want = np.asarray(Image.fromarray(image).rotate(float(angle), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(turned[6:15, 6:15], want[6:15, 6:15], atol=1e-5)


def test_an_enlarged_image_is_interpolated_and_a_shifted_one_has_zeros(cpu: Device) -> None:
    x = np.arange(5, dtype=np.float32).reshape(1, 1, 1, 5) + 1
    twice = augmented(RandomAffineConfig(degrees=0, translate=(0, 0), scale=(2, 2)), cpu, x)
    np.testing.assert_allclose(twice[0, 0, 0], [2, 2.5, 3, 3.5, 4], atol=1e-6)
    moved = augmented(RandomAffineConfig(degrees=0, translate=(0, 1), scale=(1, 1)), cpu, x)[0, 0, 0]
    assert (moved == 0).any() and moved.max() <= 5


def test_mixed_images_have_the_shares_of_their_targets(cpu: Device) -> None:
    x = np.broadcast_to(np.arange(9, dtype=np.float32).reshape(9, 1, 1, 1), (9, 1, 16, 16))
    for config in (MixupConfig(), CutMixConfig()):
        cpu.seed(1)
        mixed, shares = config.init().forward(
            tensor(x, cpu.autodiff()), tensor(np.eye(9, dtype=np.float32), cpu.autodiff())
        )
        np.testing.assert_allclose(mixed.numpy().mean((1, 2, 3)), shares.numpy() @ np.arange(9), rtol=1e-5, atol=1e-5)
        own = np.diagonal(shares.numpy())
        assert len(np.unique(own)) > 5 and own[4] == 1  # the one in the middle is its own partner


def test_a_captured_step_draws_anew_and_as_eager_mode_does(gpu_device: Device) -> None:
    device = gpu_device.autodiff()
    flip, crop = RandomFlipConfig().init(), RandomCropConfig(padding=1).init()

    def step(x: Tensor) -> Tensor:
        return crop.forward(flip.forward(x)) * 1.0

    x = tensor(X, device)
    gpu_device.seed(2)
    eager = [step(x).numpy() for _ in range(3)]
    gpu_device.seed(2)
    captured = capture(step)
    replayed = [captured(x).numpy() for _ in range(3)]
    assert not np.array_equal(eager[0], eager[1])
    for a, b in zip(eager, replayed, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RandomAffineConfig(translate=(0, 2)),
        lambda: RandomAffineConfig(scale=(1.2, 0.8)),
        lambda: RandomEraseConfig(scale=(-0.1, 0.5)),
        lambda: RandomFlipConfig(prob=1.5),
        lambda: RandomCropConfig(padding=-1),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Any) -> None:
    with pytest.raises(ConfigError):
        make()


def test_what_is_no_batch_of_images_is_refused(cpu: Device) -> None:
    device = cpu.autodiff()
    with pytest.raises(ShapeError, match=r"random_flip: expected Float images"):
        RandomFlipConfig().init().forward(tensor(np.ones((3, 4), np.float32), device))
    with pytest.raises(KindError, match="got Int"):
        RandomFlipConfig().init().forward(tensor(np.ones((3, 4, 4), np.int32), device))
    with pytest.raises(KindError, match="shares of classes"):
        MixupConfig().init().forward(tensor(X, device), tensor(np.arange(13), device))
    with pytest.raises(ShapeError, match="targets for 13 images"):
        CutMixConfig().init().forward(tensor(X, device), tensor(SHARES[:3], device))
