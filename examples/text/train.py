"""Text classification: words become vectors, and learned attention says which of them decide.

python examples/text/train.py
python examples/text/train.py --say "my lamp went dead after a week"

Messages to a shop are sorted into four queues. A message is the mean of its words' vectors, weighted by what each word
says of itself: an `Embedding`, one `Linear` for the weights and one for the classes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
from messages import QUEUES, messages

from wgpu_nn import Config, Device, Int, Module, Tensor
from wgpu_nn.data import ArrayDataset, DataLoader
from wgpu_nn.errors import WgpuNNError
from wgpu_nn.metrics import F1, Accuracy
from wgpu_nn.nn import CrossEntropyLossConfig, Dropout, DropoutConfig, Embedding, EmbeddingConfig, Linear, LinearConfig
from wgpu_nn.optim import AdamWConfig
from wgpu_nn.report import canvas
from wgpu_nn.train import Batch, Learner, progress

PAD, UNKNOWN = 0, 1  # tokens: none, and a word that the vocabulary does not have
LENGTH = 32


class Vocabulary:
    """The words that occur at least twice in some texts, and their numbers."""

    def __init__(self, texts: list[str]) -> None:
        words, counts = np.unique(" ".join(texts).split(), return_counts=True)
        self.places = {str(word): i for i, word in enumerate(words[counts > 1], start=2)}

    def __len__(self) -> int:
        return len(self.places) + 2

    def tokens(self, texts: list[str]) -> np.ndarray:
        """Return the first words of each text as numbers, int32 [texts, LENGTH]."""
        found = np.full((len(texts), LENGTH), PAD, np.int32)
        for row, text in zip(found, texts):
            numbers = [self.places.get(word, UNKNOWN) for word in text.split()[:LENGTH]]
            row[: len(numbers)] = numbers
        return found


class Sorter(Module):
    embedding: Embedding
    attention: Linear
    linear: Linear
    dropout: Dropout

    def weights(self, tokens: Tensor[2, Int]) -> Tensor[2]:
        """[batch, length] Int -> [batch, length]: how much each word counts; 1 in all, and 0 where there is none."""
        scores = self.attention.forward(self.embedding.forward(tokens)).squeeze(2)
        return (tokens == PAD).where(-1e9, scores).softmax(1)

    def forward(self, tokens: Tensor[2, Int]) -> Tensor[2]:
        """[batch, length] Int -> [batch, queues]."""
        words = self.dropout.forward(self.embedding.forward(tokens))
        pooled = (words * self.weights(tokens).unsqueeze(2)).sum(1)
        return self.linear.forward(pooled)


class SorterConfig(Config):
    words: int
    d_model: int = 32
    dropout: float = 0.3

    def init(self, device: Device) -> Sorter:
        return Sorter(
            embedding=EmbeddingConfig(self.words, self.d_model).init(device),
            attention=LinearConfig(self.d_model, 1).init(device),
            linear=LinearConfig(self.d_model, len(QUEUES)).init(device),
            dropout=DropoutConfig(self.dropout).init(),
        )


def train(args: argparse.Namespace) -> None:
    texts, labels = messages(768 if args.short else 4096, seed=1)
    test_texts, test_labels = messages(500, seed=2)
    vocabulary = Vocabulary(texts)
    print(f"{len(texts)} messages of {len(vocabulary)} words, such as: {texts[0]}")
    tokens, test_tokens = vocabulary.tokens(texts), vocabulary.tokens(test_texts)
    train_data = DataLoader(ArrayDataset(tokens, labels), 64, shuffle=True, seed=1)
    test_data = DataLoader(ArrayDataset(test_tokens, test_labels), 250, shuffle=False, seed=0)

    device = Device()
    device.seed(1)
    model = SorterConfig(len(vocabulary)).init(device.autodiff())
    optimizer, loss = AdamWConfig(lr=5e-3).init(), CrossEntropyLossConfig().init()
    learner = Learner(model, optimizer, loss, [Accuracy(), F1(average="macro")])
    learner.fit(train_data, test_data, 3 if args.short else 12, show=progress())
    measured = learner.evaluate(test_data)
    print(f"test: {measured['accuracy']:.1%} in the right queue, F1 {measured['f1']:.3f}")

    def scores_and_weights(model: Module, batch: Batch) -> tuple[Tensor, Tensor]:
        (given,) = cast("tuple[Tensor, ...]", batch)
        sorter = cast(Sorter, model)
        return sorter.forward(given).softmax(1), sorter.weights(given)

    scores, weights = learner.predict(test_tokens, scores_and_weights)
    draw(args.out / "picture.png", test_texts, test_labels, scores, weights)
    for said in args.say:
        words = said.lower().replace(",", " ,").replace(".", " .").replace("?", " ?")
        row = learner.predict(vocabulary.tokens([words]), scores_and_weights)[0][0]
        print(f"{said!r}: {QUEUES[row.argmax()]}, {row.max():.0%}")


def draw(path: Path, texts: list[str], labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> None:
    """Draw which queue was taken for which, and some messages, their words the darker the more they count."""
    guesses = scores.argmax(1)
    matrix = np.zeros((len(QUEUES), len(QUEUES)), int)
    np.add.at(matrix, (labels, guesses), 1)
    with canvas(
        path, (12, 4.6), f"{(guesses == labels).mean():.1%} of {len(labels)} messages are in their queue"
    ) as page:
        left, right = page.subplots(1, 2, width_ratios=(1, 2.3))
        left.imshow(matrix, cmap="Blues", aspect="auto")
        for (i, j), count in np.ndenumerate(matrix):
            colour = "white" if count > matrix.max() / 2 else "#1f2430"
            left.text(j, i, str(count), ha="center", va="center", color=colour)
        left.set(title="Test messages", xlabel="taken for", ylabel="is")
        left.set_xticks(range(len(QUEUES)), QUEUES, fontsize=9)
        left.set_yticks(range(len(QUEUES)), QUEUES, fontsize=9)
        left.grid(False)

        right.set(title="What the words count for", xlim=(0, 1), ylim=(0, 1))
        right.set_axis_off()
        right_ones = [np.flatnonzero((labels == k) & (guesses == k)) for k in range(len(QUEUES))]
        chosen = [int(found[turn]) for turn in (0, 1) for found in right_ones if len(found) > turn]
        page.draw_without_rendering()  # words are measured below: from here on the axes stay where they are
        page.set_layout_engine("none")
        for row, i in enumerate(chosen):
            shaded(right, 0.97 - row / 8, QUEUES[guesses[i]], texts[i].split()[:LENGTH], weights[i])


def shaded(axes: Any, y: float, queue: str, words: list[str], weights: np.ndarray) -> None:
    """Write a queue and the words of a message, over two lines if need be, each on a ground as dark as its weight."""
    renderer = axes.figure.canvas.get_renderer()
    axes.text(0, y, queue, fontsize=9, fontweight="bold", va="top")
    x = start = 0.125
    for word, weight in zip(words, weights):
        ground = {"facecolor": "#2563eb", "alpha": min(1.0, 1.6 * float(weight)), "pad": 1.2, "edgecolor": "none"}
        text = axes.text(x, y, word, fontsize=8.5, va="top", bbox=ground)
        width = text.get_window_extent(renderer).transformed(axes.transData.inverted()).width
        if x + width > 1.0:
            x, y = start, y - 0.052
            text.set_position((x, y))
        x += width + 0.011


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Sort messages to a shop into queues.")
    parser.add_argument("--short", action="store_true", help="some seconds: fewer messages and epochs")
    parser.add_argument("--out", type=Path, default=Path("runs/text"), help="folder of the picture")
    parser.add_argument("--say", action="append", default=[], metavar="TEXT", help="sort a message of your own, too")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        train(arguments())
    except WgpuNNError as error:
        sys.exit(f"train: {error}")
