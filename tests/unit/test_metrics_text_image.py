"""Text metrics against NLTK and published examples, image metrics against SciPy's filters."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from nltk.metrics.distance import edit_distance
from nltk.translate.bleu_score import corpus_bleu
from scipy.ndimage import gaussian_filter

from tests.metric_cases import batches
from wgpu_nn import Device, tensor
from wgpu_nn.errors import DataError, ShapeError
from wgpu_nn.metrics import (
    BLEU,
    CER,
    MSSSIM,
    PSNR,
    SSIM,
    WER,
    Meter,
    Metric,
    RougeL,
    TextMeter,
    TextMetric,
    token_lists,
)

PAIRS = [
    ("the cat sat on the mat", "the cat sat on a mat"),
    ("", "nothing was said"),
    ("a  dog\tbarked loudly at night", "the dog barked at night loudly"),
    ("one two three four five six seven", "one two three four five six seven"),
    ("kitten", "sitting"),
]


def scored(metric: TextMetric, *pairs: tuple) -> float:
    meter = TextMeter(metric)
    for output, reference in pairs:
        meter.update([output], [reference])
    return meter.value()


def test_error_rates_are_edits_over_the_length_of_the_references() -> None:
    characters = sum(edit_distance(x, y) for x, y in PAIRS) / sum(len(y) for _, y in PAIRS)
    words = sum(edit_distance(x.split(), y.split()) for x, y in PAIRS) / sum(len(y.split()) for _, y in PAIRS)
    assert scored(CER(), *PAIRS) == characters
    assert scored(WER(), *PAIRS) == words


def test_edit_distances_of_random_tokens_are_nltks(rng: np.random.Generator) -> None:
    for _ in range(30):
        x, y = (rng.integers(0, 4, rng.integers(0, 15)).tolist() for _ in range(2))
        assert scored(CER(), (x, [*y, 9])) == edit_distance(x, [*y, 9]) / (len(y) + 1)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_bleu_over_a_corpus_is_nltks(n: int) -> None:
    pairs = [(x, y) for x, y in PAIRS if len(x.split()) >= n]  # NLTK counts shorter outputs as having a run of n words
    wanted = corpus_bleu([[y.split()] for _, y in pairs], [x.split() for x, _ in pairs], weights=[1 / n] * n)
    assert scored(BLEU(n), *pairs) == pytest.approx(wanted, rel=1e-12)


def test_bleu_clips_by_the_best_of_several_references() -> None:
    # The examples of Papineni et al. 2002, section 2.1: 2/7 of the unigrams, and 17/18 of a good translation.
    references = ["The cat is on the mat", "There is a cat on the mat"]
    assert scored(BLEU(1), ("the the the the the the the", [r.lower() for r in references])) == pytest.approx(2 / 7)
    good = "It is a guide to action which ensures that the military always obeys the commands of the party"
    guides = [
        "It is a guide to action that ensures that the military will forever heed Party commands",
        "It is the guiding principle which guarantees the military forces always being under the command of the Party",
        "It is the practical guide for the army always to heed the directions of the party",
    ]
    assert scored(BLEU(1), (good, guides)) == pytest.approx(17 / 18)
    wanted = corpus_bleu([[g.split() for g in guides]], [good.split()])
    assert scored(BLEU(), (good, guides)) == pytest.approx(wanted)
    tokens = [good.split(), [g.split() for g in guides]]
    assert scored(BLEU(), (tokens[0], tokens[1])) == pytest.approx(wanted)


def test_rouge_l_is_the_published_example() -> None:
    reference = "police killed the gunman"  # Lin 2004, section 3.2
    assert scored(RougeL(), ("police kill the gunman", reference)) == 0.75
    assert scored(RougeL(), ("the gunman kill police", reference)) == 0.5
    assert scored(RougeL(), ("police kill the gunman", reference), ("", reference)) == 0.375
    # Recall 2/4 and precision 2/3, recall weighing four times as much.
    assert scored(RougeL(beta=2.0), ("the gunman said", reference)) == pytest.approx(
        5 * (2 / 3) * 0.5 / (0.5 + 4 * 2 / 3)
    )


def test_the_common_subsequence_is_the_recursions(rng: np.random.Generator) -> None:
    for _ in range(20):
        x, y = (tuple(rng.integers(0, 3, rng.integers(1, 9)).tolist()) for _ in range(2))

        @functools.cache
        def longest(i: int, j: int, x: tuple[int, ...] = x, y: tuple[int, ...] = y) -> int:
            if i == len(x) or j == len(y):
                return 0
            if x[i] == y[j]:
                return 1 + longest(i + 1, j + 1)
            return max(longest(i + 1, j), longest(i, j + 1))

        assert scored(RougeL(), (x, y)) == pytest.approx(2 * longest(0, 0) / (len(x) + len(y)))


@pytest.mark.parametrize("metric", [CER(), WER(), BLEU(), RougeL()], ids=lambda m: m.name)
def test_text_metrics_of_nothing_are_nan(metric: TextMetric) -> None:
    assert math.isnan(TextMeter(metric).value())
    meter = TextMeter(metric)
    meter.update(["a b c d e"], ["a b c d e"])
    assert meter.value() == (0.0 if metric.better == "lower" else 1.0)
    meter.reset()
    assert math.isnan(meter.value())


def test_bleu_is_0_where_no_run_of_words_matches_or_nothing_was_said() -> None:
    assert scored(BLEU(), ("a b c", "a b c")) == 0.0
    assert scored(BLEU(), ("", "a b c d")) == 0.0


def test_as_many_references_as_outputs_are_asked_for() -> None:
    with pytest.raises(DataError, match="wer: expected a list of outputs and as many references, got one str and 1"):
        TextMeter(WER()).update("the cat", ["the cat"])
    with pytest.raises(DataError, match="got 2 and 1"):
        TextMeter(WER()).update(["the", "cat"], ["the cat"])
    with pytest.raises(DataError, match="bleu-4: expected at least one reference"):
        TextMeter(BLEU()).update(["the"], [[]])


def test_tokens_end_at_the_end_and_have_no_padding(cpu: Device) -> None:
    tokens = tensor([[5, 6, 2, 9], [7, 0, 8, 0], [0, 0, 0, 0]], cpu)
    assert token_lists(tokens, pad=0, end=2) == [[5, 6], [7, 8], []]
    assert scored(WER(), *zip(token_lists(tokens, pad=0), [[5, 6, 2], [7, 8], [1]])) == 2 / 6


def ssim_maps(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return SSIM and its second factor where the window lies within the image, by SciPy's Gaussian in double precision."""

    def mean(z: np.ndarray) -> np.ndarray:
        return gaussian_filter(z, 1.5, radius=5)[5:-5, 5:-5]

    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    second = (2 * cov + 0.03**2) / (vx + vy + 0.03**2)
    return (2 * mx * my + 0.01**2) / (mx**2 + my**2 + 0.01**2) * second, second


def over_images(metric: Metric, kind: str, device: Device, scale: float = 1.0) -> float:
    meter, data = Meter(metric), batches(kind)
    for x, y in zip(data.outputs, data.targets):
        meter.update(tensor(x * np.float32(scale), device), tensor(y * np.float32(scale), device))
    return meter.value()


def test_ssim_is_the_mean_of_the_windows_within_the_image(cpu: Device) -> None:
    outputs, targets = (z.astype(np.float64) for z in batches("images").all)
    wanted = np.mean(
        [ssim_maps(x, y)[0].mean() for x, y in zip(outputs.reshape(-1, 13, 17), targets.reshape(-1, 13, 17))]
    )
    assert over_images(SSIM(), "images", cpu) == pytest.approx(wanted, abs=1e-5)
    assert over_images(SSIM(range=255.0), "images", cpu, 255.0) == pytest.approx(wanted, abs=1e-5)


def test_ms_ssim_multiplies_the_scales(cpu: Device) -> None:
    outputs, targets = (z.astype(np.float64)[:, 0] for z in batches("large").all)
    values = []
    for x, y in zip(outputs, targets):
        factors = []
        for scale in range(5):
            ssim, second = ssim_maps(x, y)
            factors.append(ssim.mean() if scale == 4 else second.mean())
            h, w = (n // 2 * 2 for n in x.shape)
            x, y = ((z[:h:2, :w:2] + z[1:h:2, :w:2] + z[:h:2, 1:w:2] + z[1:h:2, 1:w:2]) / 4 for z in (x, y))
        values.append(np.prod(np.array(factors) ** [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]))
    assert over_images(MSSSIM(), "large", cpu) == pytest.approx(np.mean(values), abs=1e-5)


def test_psnr_is_the_mean_over_images_in_decibels(cpu: Device) -> None:
    outputs, targets = (z.astype(np.float64) for z in batches("images").all)
    wanted = np.mean([10 * np.log10(1 / np.mean((x - y) ** 2)) for x, y in zip(outputs, targets)])
    assert over_images(PSNR(), "images", cpu) == pytest.approx(wanted, rel=1e-6)
    assert over_images(PSNR(range=255.0), "images", cpu, 255.0) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("metric, perfect", [(PSNR(), math.inf), (SSIM(), 1.0)], ids=["psnr", "ssim"])
def test_equal_images_are_perfect(metric: Metric, perfect: float, cpu: Device) -> None:
    meter, (_, targets) = Meter(metric), batches("images").all
    meter.update(tensor(targets, cpu), tensor(targets, cpu))
    assert meter.value() == pytest.approx(perfect)


def test_images_that_are_too_small_are_refused(cpu: Device) -> None:
    x = tensor(np.zeros((1, 1, 10, 40), np.float32), cpu)
    with pytest.raises(ShapeError, match="ssim: expected images of at least 11 x 11 pixels"):
        Meter(SSIM()).update(x, x)
    with pytest.raises(ShapeError, match="ms-ssim: expected images of at least 176 x 176 pixels"):
        Meter(MSSSIM()).update(x, x)
