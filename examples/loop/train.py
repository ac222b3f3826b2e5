"""A model trained, evaluated, saved and plotted in a loop of one's own: 30 lines beside the command line.

python examples/loop/train.py
"""

import argparse
from pathlib import Path

from wgpu_nn import Device, Tensor, stack
from wgpu_nn.data import ArrayDataset, DataLoader, load_mnist
from wgpu_nn.models import ModelConfig
from wgpu_nn.nn import CrossEntropyLossConfig
from wgpu_nn.optim import AdamConfig
from wgpu_nn.record import save_module
from wgpu_nn.report import canvas
from wgpu_nn.train import DeviceLoader, capture

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--short", action="store_true", help="some seconds: fewer digits and epochs")
parser.add_argument("--out", type=Path, default=Path("runs/loop"), help="folder of model and picture (runs/loop)")
args = parser.parse_args()

n, epochs = (640, 2) if args.short else (9000, 6)
digits = load_mnist(Path(__file__).parents[1] / "mnist" / "mnist10k.npz")
train, test = (DataLoader(ArrayDataset(x[:n] / 255, y[:n]), 64, shuffle=True, seed=1) for x, y in digits)
device = Device()
model = ModelConfig(num_classes=10, hidden_size=128).init(device.autodiff())
optimizer, loss, history = AdamConfig().init(), CrossEntropyLossConfig().init(), []


@capture(state=[model, optimizer])  # traced in the first call, then replayed with one submit
def step(images: Tensor, labels: Tensor) -> Tensor:
    cost = loss.forward(model.forward(images), labels)
    optimizer.step(model, cost.backward())
    return cost


for epoch in range(epochs):
    costs = [step(x, y) for x, y in DeviceLoader(train, device.autodiff()).epoch(epoch)]
    right = [(model.valid().forward(x).argmax(1) == y).float().mean() for x, y in DeviceLoader(test, device).epoch(0)]
    history.append([stack(costs).mean().item(), stack(right).mean().item()])
    print(f"epoch {epoch + 1}: loss {history[-1][0]:.4f}, accuracy {history[-1][1]:.2%}")
with canvas(args.out / "picture.png", title="Digits in a loop of 30 lines") as page:
    for axes, name, values in zip(page.subplots(1, 2), ("loss", "test accuracy"), zip(*history)):
        axes.plot(range(1, epochs + 1), values, marker="o")
        axes.set(title=name, xlabel="epoch")
save_module(model, args.out / "model.safetensors")
