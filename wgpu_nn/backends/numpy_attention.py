"""Attention and its gradients in NumPy, with all scores at once; written to be read."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Array = np.ndarray


def _scores(q: Array, k: Array, mask: Array | None, scale: float, causal: bool) -> Array:
    """[batch, heads, queries, keys]; -inf where a query may not attend to a key."""
    s = q @ _repeated(k, q).swapaxes(-1, -2) * scale
    if mask is not None:
        s = np.where(mask, s, -np.inf) if mask.dtype == np.bool_ else s + mask
    return np.where(np.tri(*s.shape[2:], dtype=bool), s, -np.inf) if causal else s


def _repeated(x: Array, q: Array) -> Array:
    """Each head of keys or values for all heads of queries that share it."""
    return np.repeat(x, q.shape[1] // x.shape[1], axis=1) if x.shape[1] else x


def _shared(x: Array, k: Array) -> Array:
    """The sum over the heads of queries that share a head of keys."""
    heads = k.shape[1]
    return x.reshape(x.shape[0], heads, x.shape[1] // heads, *x.shape[2:]).sum(axis=2) if heads else x


def _weights(s: Array, lse: Array) -> Array:
    return np.where(np.isneginf(s), 0, np.exp(s - lse[..., None]))


def attention(q: Array, k: Array, v: Array, mask: Array | None = None, *, scale: float, causal: bool) -> Array:
    """softmax(q k' scale + mask) v, then the log-sum-exp of each row; a row that may attend to nothing is 0."""
    s = _scores(q, k, mask, scale, causal)
    top = s.max(axis=-1, initial=-np.inf)
    shift = np.where(np.isneginf(top), 0, top)
    total = np.exp(s - shift[..., None]).sum(axis=-1)
    lse = shift + np.log(total)
    return np.concatenate([(_weights(s, lse) @ _repeated(v, q)).ravel(), lse.ravel()])


def _score_grad(
    g: Array, q: Array, k: Array, v: Array, lse: Array, delta: Array, mask: Array | None, scale: float, causal: bool
) -> Array:
    p = _weights(_scores(q, k, mask, scale, causal), lse)
    return p * (g @ _repeated(v, q).swapaxes(-1, -2) - delta[..., None])


def attention_grad_q(
    g: Array,
    q: Array,
    k: Array,
    v: Array,
    lse: Array,
    delta: Array,
    mask: Array | None = None,
    *,
    scale: float,
    causal: bool,
) -> Array:
    return _score_grad(g, q, k, v, lse, delta, mask, scale, causal) @ _repeated(k, q) * scale


def attention_grad_k(
    g: Array,
    q: Array,
    k: Array,
    v: Array,
    lse: Array,
    delta: Array,
    mask: Array | None = None,
    *,
    scale: float,
    causal: bool,
) -> Array:
    return _shared(_score_grad(g, q, k, v, lse, delta, mask, scale, causal).swapaxes(-1, -2) @ q, k) * scale


def attention_grad_v(
    g: Array, q: Array, k: Array, lse: Array, mask: Array | None = None, *, scale: float, causal: bool
) -> Array:
    return _shared(_weights(_scores(q, k, mask, scale, causal), lse).swapaxes(-1, -2) @ g, k)


ROUTINES: dict[str, Callable[..., Array]] = {
    "attention": attention,
    "attention_grad_q": attention_grad_q,
    "attention_grad_k": attention_grad_k,
    "attention_grad_v": attention_grad_v,
}
