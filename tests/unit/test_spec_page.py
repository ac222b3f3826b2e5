"""The page that the project was created from, line by line in Python, on every device that is at hand."""

from __future__ import annotations

import inspect
from typing import get_type_hints

import numpy as np
import pytest

from wgpu_nn import Bool, Config, Device, Float, Int, Module, Tensor, models, rand, tensor
from wgpu_nn.errors import ConfigError, KindError, ShapeError
from wgpu_nn.nn import (
    AdaptiveAvgPool2d,
    AdaptiveAvgPool2dConfig,
    Conv2d,
    Conv2dConfig,
    Dropout,
    DropoutConfig,
    Linear,
    LinearConfig,
    ReLU,
)


# --- the page ----------------------------------------------------------------------------------------------------------
class Model(Module):
    conv1: Conv2d
    conv2: Conv2d
    pool: AdaptiveAvgPool2d
    dropout: Dropout
    linear1: Linear
    linear2: Linear
    activation: ReLU

    def forward(self, images: Tensor[3]) -> Tensor[2]:
        batch_size, height, width = images.dims
        x = images.reshape([batch_size, 1, height, width])
        x = self.conv1.forward(x)
        x = self.dropout.forward(x)
        x = self.conv2.forward(x)
        x = self.dropout.forward(x)
        x = self.activation.forward(x)
        x = self.pool.forward(x)
        x = x.reshape([batch_size, 16 * 8 * 8])
        x = self.linear1.forward(x)
        x = self.dropout.forward(x)
        x = self.activation.forward(x)
        return self.linear2.forward(x)

    def features(self, images: Tensor[3]) -> Tensor[4]:
        return self.conv1.forward(images.unsqueeze(1))


class ModelConfig(Config):
    num_classes: int
    hidden_size: int
    dropout: float = 0.5

    def init(self, device: Device) -> Model:
        return Model(
            conv1=Conv2dConfig([1, 8], [3, 3]).init(device),
            conv2=Conv2dConfig([8, 16], [3, 3]).init(device),
            pool=AdaptiveAvgPool2dConfig([8, 8]).init(),
            activation=ReLU(),
            linear1=LinearConfig(16 * 8 * 8, self.hidden_size).init(device),
            linear2=LinearConfig(self.hidden_size, self.num_classes).init(device),
            dropout=DropoutConfig(self.dropout).init(),
        )


@pytest.fixture(params=["numpy", "numpy:f64", "wgpu"])
def device(request: pytest.FixtureRequest) -> Device:
    return request.getfixturevalue("gpu_device") if request.param == "wgpu" else Device(request.param)


@pytest.fixture(params=["page", "package"])
def config(request: pytest.FixtureRequest) -> type:
    """The page's model written here, and the one that the package brings."""
    return ModelConfig if request.param == "page" else models.ModelConfig


def test_the_constructor_takes_the_values_without_defaults_and_builders_override(config: type) -> None:
    made = config(10, 512)
    assert (made.num_classes, made.hidden_size, made.dropout) == (10, 512, 0.5)
    assert made.with_dropout(0.2).dropout == 0.2 and made.dropout == 0.5
    assert made.with_num_classes(3).with_hidden_size(4) == config(3, 4)
    assert config.from_json(made.to_json()) == made
    with pytest.raises(ConfigError, match="hidden_size"):
        config(10)
    with pytest.raises(ConfigError, match="dropouts"):
        made.with_dropouts(0.2)


@pytest.mark.parametrize("shape", [(2, 28, 28), (1, 28, 28), (3, 12, 17)])
def test_the_model_maps_images_to_class_scores(shape: tuple[int, int, int], config: type, device: Device) -> None:
    model = config(10, 32).init(device)
    out = model.forward(rand(shape, device))
    assert out.dims == (shape[0], 10) and out.kind is Float and np.isfinite(out.numpy()).all()
    assert model.num_params() == 8 * 9 + 8 + 16 * 8 * 9 + 16 + 1024 * 32 + 32 + 320 + 10


def test_the_modules_fields_are_those_of_the_page(config: type) -> None:
    model = config(10, 16).init(Device("numpy"))
    assert list(model.fields()) == ["conv1", "conv2", "pool", "dropout", "linear1", "linear2", "activation"]
    text = repr(model)
    assert (
        "conv1: Conv2d(1 -> 8, kernel=[3, 3]" in text
        and "Dropout(prob=0.5)" in text
        and "linear2: Linear(16 -> 10" in text
    )


def test_the_backend_is_chosen_by_the_device_at_run_time(gpu_device: Device) -> None:
    model = ModelConfig(10, 16).init(Device("numpy"))
    images = np.random.default_rng(0).random((2, 28, 28))
    outs = [
        model.to_device(d).forward(tensor(images, d)).numpy()
        for d in (Device("numpy:f64"), Device("numpy"), gpu_device)
    ]
    for out in outs[1:]:
        np.testing.assert_allclose(out, outs[0], rtol=1e-4, atol=1e-5)


def test_the_autodiff_device_trains_and_metrics_run_on_another(gpu_device: Device) -> None:
    train = gpu_device.autodiff()
    model = ModelConfig(10, 16).init(train)
    images, cpu = rand((2, 28, 28), train), Device("numpy")
    out = model.forward(images)
    assert not np.array_equal(out.numpy(), model.forward(images).numpy()), "dropout is active"
    resting = model.valid()
    np.testing.assert_array_equal(resting.forward(images.inner()).numpy(), resting.forward(images.inner()).numpy())
    accuracy = (out.to(cpu).argmax(1) == tensor([3, 4], cpu)).float().mean()
    assert accuracy.device == cpu
    grads = out.log_softmax(1).mean().backward()
    assert all(p.value in grads for p in model.params()) and len(grads) == 8


def test_several_forward_functions_are_checked_alike(device: Device) -> None:
    model = ModelConfig(10, 16).init(device)
    assert model.features(rand((2, 9, 9), device)).shape == (2, 8, 7, 7)
    for fn in (model.forward, model.features):
        with pytest.raises(
            ShapeError, match=rf"Model\.{fn.__name__}\(images\): expected a Tensor\[3\], got rank 2 of shape \[9, 9\]"
        ):
            fn(rand((9, 9), device))
        with pytest.raises(KindError, match=r"expected a Tensor\[3\], got a Int tensor"):
            fn(tensor(np.zeros((1, 9, 9), np.int32), device))


def test_tensor_annotations_name_rank_and_kind() -> None:
    hints = get_type_hints(inspect.unwrap(Model.forward))
    assert hints == {"images": Tensor[3], "return": Tensor[2]}
    assert Tensor[3] == Tensor[3, Float] and len({Tensor[3], Tensor[3, Int], Tensor[3, Bool]}) == 3


def test_the_element_type_is_the_devices(device: Device) -> None:
    wanted = "f64" if device == Device("numpy:f64") else "f32"
    model = ModelConfig(10, 16).init(device)
    assert {t.dtype.name for t in model.state().values()} == {wanted}
    assert tensor([1, 2], device).dtype.name == ("i64" if wanted == "f64" else "i32")
