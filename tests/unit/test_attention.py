"""Attention and its layer: fused equals composite, what masks mean, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from wgpu_nn import Bool, Device, Tensor, tensor
from wgpu_nn.errors import ConfigError, KindError, ShapeError
from wgpu_nn.nn import (
    MultiHeadAttention,
    MultiHeadAttentionConfig,
    generate_autoregressive_mask,
    scaled_dot_product_attention,
)
from wgpu_nn.nn.attention import attention_weights

EXACT = Device("numpy:f64")
CLOSE: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-12}  # both in double precision, in another order


def given(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def composite(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """softmax(q k' scale + mask) v by separate ops, with a head of keys for each of the queries."""
    (b, heads), shared = q.shape[:2], k.shape[1]
    k, v = (
        x.unsqueeze(2).expand(b, shared, heads // shared, *x.shape[2:]).reshape(b, heads, *x.shape[2:]) for x in (k, v)
    )
    return attention_weights(q, k, mask, causal) @ v


@settings(max_examples=60, deadline=None)
@drawn(
    st.integers(0, 2), st.integers(1, 2), st.integers(1, 3), st.integers(0, 6), st.integers(1, 6), st.integers(1, 5),
    st.integers(1, 5), st.booleans(), st.sampled_from(["none", "bool", "float", "rows"]), st.integers(0, 99),
)  # fmt: skip
def test_fused_equals_composite_in_value_and_gradients(
    b: int, shared: int, sharing: int, n: int, m: int, d: int, e: int, causal: bool, masked: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    shapes = [(b, shared * sharing, n, d), (b, shared, m, d), (b, shared, m, e)]
    q, k, v = leaves = [tensor(rng.standard_normal(s), EXACT.autodiff()).require_grad() for s in shapes]
    g = tensor(rng.standard_normal((*shapes[0][:3], e)), EXACT.autodiff())
    mask = {
        "none": lambda: None,
        "bool": lambda: tensor(rng.random((b, 1, n, m)) < 0.5, EXACT.autodiff()),
        "float": lambda: tensor(np.where(rng.random((m,)) < 0.3, -math.inf, rng.standard_normal(m)), EXACT.autodiff()),
        "rows": lambda: tensor(rng.random((n, 1)) < 0.5, EXACT.autodiff()),  # some attend to nothing
    }[masked]()
    outs = [scaled_dot_product_attention(q, k, v, mask, causal), composite(q, k, v, mask, causal)]
    np.testing.assert_allclose(outs[0].numpy(), outs[1].numpy(), **CLOSE)
    grads = [(out * g).sum().backward() for out in outs]
    for x in leaves:
        np.testing.assert_allclose(grads[0][x].numpy(), grads[1][x].numpy(), **CLOSE)


def test_a_query_that_may_attend_to_nothing_gives_zeros_and_gets_zeros() -> None:
    q, k, v = (tensor(given(1, 1, 3, 2, seed=n), EXACT.autodiff()).require_grad() for n in range(3))
    seen = tensor(np.array([[True, True, False], [False] * 3, [True] * 3]), EXACT.autodiff())
    bars = tensor(np.where(seen.numpy(), 0.0, -math.inf), EXACT.autodiff()).require_grad()
    for mask in (seen, bars):
        out = scaled_dot_product_attention(q, k, v, mask)
        assert (out.numpy()[0, 0, 1] == 0).all() and np.isfinite(out.numpy()).all()
        grads = out.square().sum().backward()
        assert (grads[q].numpy()[0, 0, 1] == 0).all()
        assert all(np.isfinite(g.numpy()).all() for g in grads)


def test_without_keys_everything_is_zero() -> None:
    q = tensor(given(1, 2, 3, 4), EXACT.autodiff()).require_grad()
    k = tensor(np.zeros((1, 2, 0, 4)), EXACT.autodiff()).require_grad()
    out = scaled_dot_product_attention(q, k, k)
    assert out.shape == (1, 2, 3, 4) and (out.numpy() == 0).all()
    grads = out.sum().backward()
    assert (grads[q].numpy() == 0).all() and grads[k].shape == (1, 2, 0, 4)


@pytest.mark.parametrize("lengths", [(3, 3), (2, 4), (4, 2)])
def test_causal_attention_starts_at_the_first_key(lengths: tuple[int, int]) -> None:
    q, k, v = (tensor(given(1, 1, n, 2, seed=s), EXACT) for s, n in enumerate((lengths[0], lengths[1], lengths[1])))
    mask = tensor(np.tri(*lengths, dtype=bool), EXACT)
    want = scaled_dot_product_attention(q, k, v, mask).numpy()
    np.testing.assert_allclose(scaled_dot_product_attention(q, k, v, causal=True).numpy(), want, **CLOSE)
    np.testing.assert_allclose(want[0, 0, 0], v.numpy()[0, 0, 0])  # the first query sees one key


def test_the_scale_is_one_over_the_root_of_the_features() -> None:
    q, k, v = (tensor(given(1, 1, 3, 4, seed=s), EXACT) for s in range(3))
    for scale, factor in ((None, 0.5), (0.0, 0.0), (2.0, 2.0)):
        w = np.exp(q.numpy() @ k.numpy().swapaxes(2, 3) * factor)
        want = w / w.sum(-1, keepdims=True) @ v.numpy()
        np.testing.assert_allclose(scaled_dot_product_attention(q, k, v, scale=scale).numpy(), want, **CLOSE)


def test_what_does_not_fit_is_refused() -> None:
    def refused(shapes: Any, message: str, mask: np.ndarray | None = None, error: Any = ShapeError) -> None:
        a, b, c = (tensor(np.zeros(s), EXACT) for s in shapes)
        with pytest.raises(error, match=message):
            scaled_dot_product_attention(a, b, c, None if mask is None else tensor(mask, EXACT))

    refused(((3, 2),) * 3, r"attention: expected queries of rank 4 \[batch, heads, queries, features\], got \[3, 2\]")
    refused(((1, 1, 3, 2), (1, 1, 3, 4), (1, 1, 3, 2)), "expected the same batch and the same features")
    refused(((1, 1, 3, 0), (1, 1, 3, 0), (1, 1, 3, 2)), "the same features, 1 or more")
    refused(((1, 3, 3, 2), (1, 2, 3, 2), (1, 2, 3, 2)), "heads of the queries to be a multiple of those of the keys")
    refused(((1, 1, 3, 2), (1, 1, 4, 2), (1, 1, 3, 2)), r"values for each of the keys \[1, 1, 4, 2\]")
    fits = ((1, 1, 3, 2),) * 3
    refused(fits, r"a mask that broadcasts to \[1, 1, 3, 3\], got \[2, 3, 3\]", np.ones((2, 3, 3), bool))
    refused(fits, "do not broadcast", np.ones((2, 3), bool))
    refused(fits, "expected a Bool or Float tensor", np.ones((3, 3), int), KindError)


# --- the layer ---------------------------------------------------------------------------------------------------------
def layer(**options: Any) -> MultiHeadAttention:
    device = EXACT if not options.pop("train", False) else EXACT.autodiff()
    return MultiHeadAttentionConfig(6, 2, **{"dropout": 0.0, **options}).init(device)


def expected(
    mha: MultiHeadAttention, q: np.ndarray, k: np.ndarray, v: np.ndarray, seen: np.ndarray, quiet: bool
) -> np.ndarray:
    """The layer's formula, a head at a time."""

    def project(linear: Any, x: np.ndarray) -> np.ndarray:
        return x @ linear.weight.value.numpy() + (linear.bias.value.numpy() if linear.bias else 0)

    q, k, v = (project(*pair) for pair in ((mha.query, q), (mha.key, k), (mha.value, v)))
    heads: list[np.ndarray] = []
    for h in range(2):
        part = slice(3 * h, 3 * h + 3)
        w = np.where(seen, np.exp(q[..., part] @ k[..., part].swapaxes(1, 2) / math.sqrt(3)), 0)
        heads.append(w / (w.sum(-1, keepdims=True) + quiet) @ v[..., part])
    return project(mha.output, np.concatenate(heads, axis=-1))


@pytest.mark.parametrize("quiet", [False, True])
@pytest.mark.parametrize("masks", ["none", "pad", "pairs", "both", "causal"])
def test_multi_head_attention_is_its_formula(masks: str, quiet: bool) -> None:
    mha = layer(quiet_softmax=quiet, key_bias=False)
    q, k, v = given(2, 4, 6), given(2, 5, 6, seed=1), given(2, 5, 6, seed=2)
    pad = np.array([[True] * 5, [True, True, True, False, False]])
    pairs = np.random.default_rng(3).random((2, 4, 5)) < 0.7
    pairs[..., 0] = True
    seen = np.ones((2, 4, 5), bool)
    options: dict[str, Any] = {}
    if masks in ("pad", "both"):
        seen, options["mask_pad"] = seen & pad[:, None], tensor(pad, EXACT)
    if masks in ("pairs", "both"):
        seen, options["mask_attn"] = seen & pairs, tensor(pairs, EXACT)
    if masks == "causal":
        seen, options["causal"] = np.broadcast_to(np.tri(4, 5, dtype=bool), seen.shape), True
    got = mha.forward(tensor(q, EXACT), tensor(k, EXACT), tensor(v, EXACT), **options).numpy()
    np.testing.assert_allclose(got, expected(mha, q, k, v, seen, quiet), **CLOSE)


@pytest.mark.parametrize("quiet", [False, True])
def test_dropout_of_weights_takes_the_composite_path_and_keeps_the_mean(quiet: bool) -> None:
    mha = layer(train=True, dropout=0.3, quiet_softmax=quiet)
    x = tensor(given(1, 3, 6), EXACT.autodiff())
    drawn = [mha.forward(x, x, x).numpy() for _ in range(800)]
    assert not np.array_equal(drawn[0], drawn[1])
    inner = x.inner()
    mean = mha.valid().forward(inner, inner, inner).numpy()
    spread = np.std(drawn, axis=0) / math.sqrt(800)
    assert (np.abs(np.mean(drawn, axis=0) - mean) < 5 * spread).all()
    mha.forward(x, x, x).sum().backward()


def test_a_quiet_softmax_has_gradients_on_both_paths() -> None:
    x = tensor(given(1, 3, 6), EXACT.autodiff()).require_grad()
    mha = layer(train=True, quiet_softmax=True)
    fused = mha.forward(x, x, x, causal=True).square().sum().backward()[x].numpy()
    mha.dropout.prob = 1e-12  # composite, and no zeros drawn
    np.testing.assert_allclose(mha.forward(x, x, x, causal=True).square().sum().backward()[x].numpy(), fused, **CLOSE)


def test_an_autoregressive_mask_lets_a_position_see_those_before_it() -> None:
    mask = generate_autoregressive_mask(2, 3, EXACT)
    assert mask.kind is Bool
    np.testing.assert_array_equal(mask.numpy(), np.broadcast_to(np.tri(3, dtype=bool), (2, 3, 3)))
    mha, x = layer(), tensor(given(2, 3, 6), EXACT)
    masked = mha.forward(x, x, x, mask_attn=mask).numpy()
    np.testing.assert_allclose(masked, mha.forward(x, x, x, causal=True).numpy(), **CLOSE)


def test_a_layer_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="d_model divisible by n_heads, got 6 and 4"):
        MultiHeadAttentionConfig(6, 4).init(EXACT)
    x = tensor(given(1, 3, 6), EXACT)
    with pytest.raises(ShapeError, match="multi_head_attention: expected a value for each key"):
        layer().forward(x, x, x.narrow(1, 0, 2))
    assert "2 heads of 3" in repr(layer())
