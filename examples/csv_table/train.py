"""A table of one's own: a CSV file with gaps and a broken line, read, split, standardised and learnt.

python examples/csv_table/train.py                    writes a CSV file, and learns it
python examples/csv_table/train.py mine.csv --target kind

The file that it writes by itself has measurements of three made-up kinds of seeds. Fields are empty here and there, and
one line is damaged, as it happens: `missing` says what to put into gaps, `skip_bad` passes over what cannot be read.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import numpy as np

from wgpu_nn import Config, Device, Module, Tensor
from wgpu_nn.data import DataLoader, Table, read_csv
from wgpu_nn.errors import WgpuNNError
from wgpu_nn.metrics import F1, Accuracy, ConfusionMatrix
from wgpu_nn.nn import CrossEntropyLossConfig, Dropout, DropoutConfig, Gelu, Linear, LinearConfig
from wgpu_nn.optim import AdamWConfig
from wgpu_nn.report import canvas
from wgpu_nn.train import EarlyStopping, Learner, progress

GAP = np.float32(-1e9)  # what nothing measures
COLUMNS = ("length_mm", "width_mm", "weight_mg", "groove_mm", "hue_deg")
SEEDS = {  # mean and standard deviation of each column, by kind
    "amber": ((6.0, 0.4), (3.3, 0.25), (41.0, 5.0), (5.2, 0.3), (38.0, 6.0)),
    "dusk": ((5.4, 0.4), (3.0, 0.25), (33.0, 5.0), (5.3, 0.3), (30.0, 6.0)),
    "pearl": ((5.6, 0.5), (3.4, 0.30), (39.0, 6.0), (4.7, 0.3), (47.0, 7.0)),
}


def write_seeds(path: Path, n: int, seed: int) -> None:
    """Write ``n`` seeds of each kind as a CSV file: large ones are large in everything, and 2% of the fields are empty."""
    rng = np.random.default_rng(seed)
    rows: list[list[str]] = []
    for kind, columns in SEEDS.items():
        mean, deviation = np.array(columns).T
        size = rng.normal(size=(n, 1)) * np.array([0.7, 0.7, 0.7, 0.5, 0.0])
        values = mean + deviation * (size + rng.normal(size=(n, len(COLUMNS))) * np.sqrt(1 - 0.5 * (size != 0)))
        for row, gaps in zip(values, rng.random((n, len(COLUMNS))) < 0.02):
            rows.append(["" if gap else f"{value:.2f}" for value, gap in zip(row, gaps)] + [kind])
    order = rng.permutation(len(rows))
    rows = [rows[i] for i in order]
    rows[len(rows) // 2][2] = "3 9.1 (?)"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([[*COLUMNS, "kind"], *rows])


class Classifier(Module):
    first: Linear
    second: Linear
    dropout: Dropout
    activation: Gelu

    def forward(self, features: Tensor[2]) -> Tensor[2]:
        x = self.activation.forward(self.first.forward(features))
        return self.second.forward(self.dropout.forward(x))


class ClassifierConfig(Config):
    features: int
    classes: int
    hidden: int = 32
    dropout: float = 0.1

    def init(self, device: Device) -> Classifier:
        return Classifier(
            first=LinearConfig(self.features, self.hidden).init(device),
            second=LinearConfig(self.hidden, self.classes).init(device),
            dropout=DropoutConfig(self.dropout).init(),
            activation=Gelu(),
        )


def train(args: argparse.Namespace) -> None:
    path = args.out / "seeds.csv" if args.table is None else args.table
    if args.table is None:
        write_seeds(path, 80 if args.short else 640, seed=1)
    table = read_csv(path, target=args.target, missing=float(GAP), skip_bad=True)
    print(f"{path}: {len(table)} rows of {list(table.names)}, {table.skipped} passed over")
    for row in table.bad:
        print(f"  {row}")
    part, test = table.split(0.8, stratify=True, seed=1)
    part, test = (filled(rows, part).standardised(filled(part, part)) for rows in (part, test))

    device = Device()
    device.seed(1)
    model = ClassifierConfig(len(table.names), len(table.classes)).init(device.autodiff())
    metrics = [Accuracy(), F1(average="macro"), ConfusionMatrix()]
    optimizer, loss = AdamWConfig(lr=1e-2).init(), CrossEntropyLossConfig().init()
    patience = EarlyStopping("loss", patience=10)
    learner = Learner(model, optimizer, loss, metrics, callbacks=[patience])
    train_data, test_data = DataLoader(part, 64, shuffle=True, seed=1), DataLoader(test, 128, shuffle=False, seed=0)
    learner.fit(train_data, test_data, 3 if args.short else 40, show=progress())
    measured = learner.evaluate(test_data)
    print(f"test: {measured['accuracy']:.1%} right, F1 {measured['f1']:.3f}")
    draw(args.out / "picture.png", table, test, learner.predict(test.x))


def filled(table: Table, by: Table) -> Table:
    """Return the table with each gap filled by its column's median over ``by``."""
    medians = [np.median(column[column != GAP]) for column in by.x.T]
    x = np.where(table.x == GAP, medians, table.x)
    return Table(x.astype(np.float32), table.y, table.names, table.classes)


def draw(path: Path, table: Table, test: Table, scores: np.ndarray) -> None:
    """Draw two columns of the table by class, and what the test rows were taken for."""
    labels, guesses = test.labels, scores.argmax(1)
    n = len(table.classes)
    with canvas(path, (10.5, 4.4), f"{(guesses == labels).mean():.1%} of {len(labels)} test rows are right") as page:
        left, right = page.subplots(1, 2, width_ratios=(1.5, 1))
        first, last = table.x[:, 0], table.x[:, -1]
        for k, name in enumerate(table.classes):
            of = (table.labels == k) & (first != GAP) & (last != GAP)
            left.scatter(first[of], last[of], s=9, alpha=0.6, linewidths=0, label=name)
        left.set(title="The table, two columns of it", xlabel=table.names[0], ylabel=table.names[-1])
        left.legend(markerscale=2)
        matrix = np.zeros((n, n), int)
        np.add.at(matrix, (labels, guesses), 1)
        right.imshow(matrix, cmap="Blues")
        for (i, j), count in np.ndenumerate(matrix):
            colour = "white" if count > matrix.max() / 2 else "#1f2430"
            right.text(j, i, str(count), ha="center", va="center", color=colour)
        right.set(title="Test rows", xlabel="taken for", ylabel="is")
        right.set_xticks(range(n), table.classes)
        right.set_yticks(range(n), table.classes)
        right.grid(False)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Learn a table in a CSV file.")
    parser.add_argument("table", type=Path, nargs="?", help="a file of your own, numbers but for the target")
    parser.add_argument("--target", default="kind", help="the column to learn (kind)")
    parser.add_argument("--short", action="store_true", help="some seconds: fewer data and epochs")
    parser.add_argument("--out", type=Path, default=Path("runs/csv_table"), help="folder of table and picture")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        train(arguments())
    except WgpuNNError as error:
        sys.exit(f"train: {error}")
