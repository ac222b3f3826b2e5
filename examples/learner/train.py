"""A model trained, evaluated, saved, resumable and plotted: 20 lines beside the command line, with the Learner.

python examples/learner/train.py      Ctrl-C stops it, and the same command goes on
"""

import argparse
from pathlib import Path

from wgpu_nn import Device
from wgpu_nn.data import ArrayDataset, DataLoader, load_mnist
from wgpu_nn.metrics import Accuracy
from wgpu_nn.models import ModelConfig
from wgpu_nn.nn import CrossEntropyLossConfig
from wgpu_nn.optim import AdamConfig
from wgpu_nn.report import charts, draw, read_runs
from wgpu_nn.train import Learner, progress

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--short", action="store_true", help="some seconds: fewer digits and epochs")
parser.add_argument("--out", type=Path, default=Path("runs/learner"), help="folder of the run (runs/learner)")
args = parser.parse_args()

n, epochs = (640, 2) if args.short else (9000, 6)
digits = load_mnist(Path(__file__).parents[1] / "mnist" / "mnist10k.npz")
train, test = (DataLoader(ArrayDataset(x[:n] / 255, y[:n]), 64, shuffle=True, seed=1) for x, y in digits)
model = ModelConfig(num_classes=10, hidden_size=128).init(Device().autodiff())
learner = Learner(model, AdamConfig().init(), CrossEntropyLossConfig().init(), [Accuracy()], monitor="accuracy")
learner.fit(train, test, epochs, run=args.out, resume=True, show=progress())
print(learner.evaluate(test))
(args.out / "picture.png").write_bytes(draw("Digits in 20 lines", charts(read_runs([args.out]))[:2]))
