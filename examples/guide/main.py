"""The model page of Burn's book, step by step in wgpu_nn: a model, its config, devices, gradients, training, a file.

python examples/guide/main.py

Read it from top to bottom; it runs as it stands. The page is "Model" of the chapter "Basic workflow" at
https://burn.dev/books/burn; what it says of Rust's traits and generics is said here of Python's classes and devices.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from wgpu_nn import Bool, Config, Device, Int, Module, Tensor, float16, tensor
from wgpu_nn.data import ArrayDataset, DataLoader, load_mnist
from wgpu_nn.errors import ConfigError, ShapeError
from wgpu_nn.nn import (
    AdaptiveAvgPool2d,
    AdaptiveAvgPool2dConfig,
    Conv2d,
    Conv2dConfig,
    CrossEntropyLossConfig,
    Dropout,
    DropoutConfig,
    Linear,
    LinearConfig,
    ReLU,
)
from wgpu_nn.optim import AdamConfig
from wgpu_nn.record import load_module, save_module
from wgpu_nn.report import canvas
from wgpu_nn.train import DeviceLoader, capture

parser = argparse.ArgumentParser(description="Walk through the model page, from a class to a prediction.")
parser.add_argument("--short", action="store_true", help="some seconds: fewer digits and epochs")
parser.add_argument("--out", type=Path, default=Path("runs/guide"), help="folder of model, config and picture")
args = parser.parse_args()
args.out.mkdir(parents=True, exist_ok=True)


# --- 1. The module -----------------------------------------------------------------------------------------------------
# A module is a class that declares its fields. Where Rust derives a trait, Python inherits from Module: the fields become
# the constructor's arguments, and whatever has parameters among them can be trained, saved, cloned, moved and printed.
class Model(Module):
    conv1: Conv2d
    conv2: Conv2d
    pool: AdaptiveAvgPool2d
    dropout: Dropout
    linear1: Linear
    linear2: Linear
    activation: ReLU

    # The forward pass is a method like any other. Its annotations are checked at each call: `images` has rank 3, and what
    # is returned has rank 2. You may have several of them, under any names.
    def forward(self, images: Tensor[3]) -> Tensor[2]:
        """[batch, height, width] -> [batch, classes]."""
        batch_size, height, width = images.dims
        x = images.reshape([batch_size, 1, height, width])  # a channel at the second axis

        x = self.conv1.forward(x)  # [batch, 8, _, _]
        x = self.dropout.forward(x)
        x = self.conv2.forward(x)  # [batch, 16, _, _]
        x = self.dropout.forward(x)
        x = self.activation.forward(x)

        x = self.pool.forward(x)  # [batch, 16, 8, 8]
        x = x.reshape([batch_size, 16 * 8 * 8])
        x = self.linear1.forward(x)
        x = self.dropout.forward(x)
        x = self.activation.forward(x)
        return self.linear2.forward(x)  # [batch, classes]

    def features(self, images: Tensor[3]) -> Tensor[4]:
        """[batch, height, width] -> [batch, 8, height - 2, width - 2]: what the first convolution sees."""
        return self.conv1.forward(images.unsqueeze(1))


# --- 2. The config -----------------------------------------------------------------------------------------------------
# A config holds what a model is made from. Fields without a default are the constructor's arguments in their order; each
# field has a method with_<field> that returns a changed copy. It is checked, compared by value, and saved as JSON.
class ModelConfig(Config):
    num_classes: int
    hidden_size: int
    dropout: float = 0.5

    def init(self, device: Device) -> Model:
        """Return the model, its parameters drawn on ``device``."""
        return Model(
            conv1=Conv2dConfig([1, 8], [3, 3]).init(device),
            conv2=Conv2dConfig([8, 16], [3, 3]).init(device),
            pool=AdaptiveAvgPool2dConfig([8, 8]).init(),
            activation=ReLU(),
            linear1=LinearConfig(16 * 8 * 8, self.hidden_size).init(device),
            linear2=LinearConfig(self.hidden_size, self.num_classes).init(device),
            dropout=DropoutConfig(self.dropout).init(),
        )


config = ModelConfig(10, 256).with_dropout(0.2)
config.save(args.out / "config.json")
assert ModelConfig.load(args.out / "config.json") == config
try:
    config.with_dropout("much")
except ConfigError as error:  # errors name the field, what was expected, what came, and the way out
    print(f"ConfigError: {error}\n")

# --- 3. Backends and devices -------------------------------------------------------------------------------------------
# Rust's model is generic over its backend. Here the device that you name brings its backend along, at run time: the best
# GPU of the machine, one that you name (Device("wgpu:nvidia")), or NumPy on the CPU.
gpu, cpu = Device(), Device("numpy")
gpu.seed(1)
print(f"GPU: {gpu.gpu.adapter}\n")
model = config.init(gpu)
print(f"{model}\n")

# The same parameters on another device give the same numbers, but for the last bits.
images = np.random.default_rng(0).random((2, 28, 28), dtype=np.float32)
there, here = model.forward(tensor(images, gpu)), model.to_device(cpu).forward(tensor(images, cpu))
print(f"GPU and CPU differ by {np.abs(there.numpy() - here.numpy()).max():.1e} at most\n")

# --- 4. Tensors: rank, kind, element type ------------------------------------------------------------------------------
# Tensor[3] annotates a Float tensor of rank 3, as Tensor[3, Float] does; Tensor[3, Int] and Tensor[3, Bool] are the others.
labels = tensor([3, 1], gpu)
right = there.argmax(1) == labels
assert (labels.kind, right.kind) == (Int, Bool)
try:
    model.forward(tensor(images[0], gpu))
except ShapeError as error:
    print(f"ShapeError: {error}\n")
# How wide an element is, the device says (f32 on GPUs), or you: halves take half of the memory.
assert there.half().dtype == float16

# --- 5. Gradients ------------------------------------------------------------------------------------------------------
# device.autodiff() is the same device with a tape: what is computed there can be differentiated. Gradients are a value
# that backward() returns. Nothing accumulates in parameters, and nothing has to be set to zero.
training = gpu.autodiff()
model = model.to_device(training)
loss = CrossEntropyLossConfig().init()
cost = loss.forward(model.forward(tensor(images, training)), tensor([3, 1], training))
grads = cost.backward()
print(
    f"{len(grads)} gradients; the largest of conv1's weights: {grads[model.conv1.weight.value].abs().max().item():.2e}\n"
)

# --- 6. Training -------------------------------------------------------------------------------------------------------
# A data set gives items by index, a loader makes batches of it, and DeviceLoader uploads them ahead of the step.
n, epochs = (640, 2) if args.short else (8960, 6)
(x, y), (x_test, y_test) = load_mnist(Path(__file__).parents[1] / "mnist" / "mnist10k.npz")
train_data = DataLoader(ArrayDataset((x[:n] / 255).astype(np.float32), y[:n]), 64, shuffle=True, seed=1)
test_images, test_labels = (x_test / 255).astype(np.float32), y_test
optimizer = AdamConfig(lr=1e-3).init()


# Without @capture the step runs op by op, which is as right. With it the step is traced in its first call, fused, and then
# replayed as a list of launches, in one submit. What it changes is named as its state.
@capture(state=[model, optimizer])
def step(images: Tensor, labels: Tensor) -> Tensor:
    """Make the model better by one batch, and return the loss."""
    cost = loss.forward(model.forward(images), labels)
    optimizer.step(model, cost.backward())
    return cost


def accuracy() -> float:
    """Return the share of test digits that are right. The model at rest has neither gradients nor dropout."""
    resting = model.valid()
    scores = [resting.forward(tensor(part, gpu)).numpy() for part in np.split(test_images, 4)]
    return float((np.concatenate(scores).argmax(1) == test_labels).mean())


for epoch in range(epochs):
    costs = [step(images, labels) for images, labels in DeviceLoader(train_data, training).epoch(epoch)]
    # Reading a number waits for the device: once an epoch is enough.
    print(f"epoch {epoch + 1}: loss {costs[-1].item():.4f}, {accuracy():.2%} of the test digits are right")

# --- 7. Saving ---------------------------------------------------------------------------------------------------------
# Parameters go to a safetensors file that other programs read, whole or not at all; the config tells how to build the model.
save_module(model, args.out / "model.safetensors")

# --- 8. Inference ------------------------------------------------------------------------------------------------------
# Any device will do, the CPU for example: there is no autodiff here, hence no tape, and dropout rests.
served = ModelConfig.load(args.out / "config.json").init(cpu)
load_module(served, args.out / "model.safetensors")
probabilities = served.forward(tensor(test_images[:9], cpu)).softmax(1).numpy()
seen = served.features(tensor(test_images[:9], cpu)).numpy()
for digit, row in zip(test_labels[:3], probabilities):
    print(f"a {digit}: the model says {row.argmax()}, {row.max():.1%} sure")

with canvas(args.out / "picture.png", (9, 4.6), "Test digits, what conv1 sees of them, what the model says") as page:
    grid = page.subplots(4, 9, height_ratios=(1, 1, 1, 0.8))
    for column, (digit, maps, row) in enumerate(zip(test_images, seen, probabilities)):
        grid[0, column].imshow(digit, cmap="gray_r")
        for place, channel in ((1, 0), (2, 5)):
            limit = np.abs(maps[channel]).max()
            grid[place, column].imshow(maps[channel], cmap="RdBu", vmin=-limit, vmax=limit)
        grid[3, column].bar(range(10), row, width=0.8)
        grid[3, column].set(ylim=(0, 1), yticks=[], xticks=[int(row.argmax())])
        grid[3, column].grid(False)
        for axes in grid[:3, column]:
            axes.set_axis_off()
