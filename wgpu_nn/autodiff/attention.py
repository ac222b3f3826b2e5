"""Gradients of attention, first by its own ops (Dao 2023), and again by the formulas of those in primitive ops."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from wgpu_nn.shape import size

if TYPE_CHECKING:
    from wgpu_nn.autodiff.backend import Term

Formula = Callable[..., "Term"]


def unpacked(packed: Term, q: Term, v: Term) -> tuple[Term, Term]:
    """Return the result [batch, heads, queries, values] and the log-sum-exp [batch, heads, queries] of attention."""
    rows, values = q.shape[:3], v.shape[3]
    n = size(rows)
    return packed.narrow(0, 0, n * values).reshape(*rows, values), packed.narrow(0, n * values, n).reshape(rows)


def _saved(g: Term, out: Term, q: Term, v: Term) -> tuple[Term, Term, Term]:
    """Return the cotangent of the result, the log-sum-exp, and the part of the scores' cotangent that rows share."""
    (y, lse), (gy, glse) = unpacked(out, q, v), unpacked(g, q, v)
    return gy, lse, (gy * y).sum(3) - glse


def of_queries(g: Term, out: Term, q: Term, k: Term, v: Term, *mask: Term, scale: float, causal: bool) -> Term:
    gy, lse, delta = _saved(g, out, q, v)
    return g.run("attention_grad_q", gy, q, k, v, lse, delta, *mask, scale=scale, causal=causal)


def of_keys(g: Term, out: Term, q: Term, k: Term, v: Term, *mask: Term, scale: float, causal: bool) -> Term:
    gy, lse, delta = _saved(g, out, q, v)
    return g.run("attention_grad_k", gy, q, k, v, lse, delta, *mask, scale=scale, causal=causal)


def of_values(g: Term, out: Term, q: Term, k: Term, v: Term, *mask: Term, scale: float, causal: bool) -> Term:
    gy, lse, _ = _saved(g, out, q, v)
    return g.run("attention_grad_v", gy, q, k, lse, *mask, scale=scale, causal=causal)


def of_mask(g: Term, out: Term, q: Term, k: Term, v: Term, mask: Term, scale: float, causal: bool) -> Term:
    """The cotangent of all scores, which is as large as a mask for each batch and head."""
    gy, lse, delta = _saved(g, out, q, v)
    return _score_grad(gy, q, k, v, lse, delta, mask, scale=scale, causal=causal)


# --- formulas in primitive ops: they store all scores, and have gradients of any order --------------------------------
def _repeated(x: Term, q: Term) -> Term:
    """Each head of keys or values for all heads of queries that share it."""
    (b, heads, n, d), shared = x.shape, q.shape[1]
    if heads == shared:
        return x
    return x.unsqueeze(2).expand(b, heads, shared // heads, n, d).reshape(b, shared, n, d)


def _shared(x: Term, k: Term) -> Term:
    """The sum over the heads of queries that share a head of keys."""
    (b, shared, n, d), heads = x.shape, k.shape[1]
    return x if heads == shared else x.reshape(b, heads, shared // heads, n, d).sum(2)


def _weights(q: Term, k: Term, lse: Term, mask: Sequence[Term], scale: float, causal: bool) -> Term:
    s = q @ _repeated(k, q).transpose() * scale
    for m in mask:
        s = s + m if m.dtype == s.dtype else m.where(s, -math.inf)
    if causal:
        rows, columns = (q.run("arange", 0, 1, shape=(n,)) for n in s.shape[2:])
        s = (rows.unsqueeze(1) >= columns).where(s, -math.inf)
    barred = s == -math.inf
    # NOTE: barred twice: a row without keys has -inf - -inf in between, and 0 times that is no gradient.
    return barred.where(0.0, barred.where(0.0, s - lse.unsqueeze(3)).exp())


def _score_grad(
    g: Term, q: Term, k: Term, v: Term, lse: Term, delta: Term, *mask: Term, scale: float, causal: bool
) -> Term:
    p = _weights(q, k, lse, mask, scale, causal)
    return p * (g @ _repeated(v, q).transpose() - delta.unsqueeze(3))


def _grad_q(
    g: Term, q: Term, k: Term, v: Term, lse: Term, delta: Term, *mask: Term, scale: float, causal: bool
) -> Term:
    return _score_grad(g, q, k, v, lse, delta, *mask, scale=scale, causal=causal) @ _repeated(k, q) * scale


def _grad_k(
    g: Term, q: Term, k: Term, v: Term, lse: Term, delta: Term, *mask: Term, scale: float, causal: bool
) -> Term:
    ds = _score_grad(g, q, k, v, lse, delta, *mask, scale=scale, causal=causal)
    return _shared(ds.transpose() @ q, k) * scale


def _grad_v(g: Term, q: Term, k: Term, lse: Term, *mask: Term, scale: float, causal: bool) -> Term:
    return _shared(_weights(q, k, lse, mask, scale, causal).transpose() @ g, k)


def _differentiated(formula: Formula, i: int, d: Term, out: Term, *xs: Term, **attrs: object) -> Term:
    """Return the gradient of operand ``i`` by a tape of its own around ``formula``."""
    from wgpu_nn.autodiff.backend import Autodiff, Node, Term, Tracked

    tape = Autodiff(d.backend)
    leaf = Node(xs[i].handle)
    given = [Term(tape, Tracked(x.handle, leaf if n == i else None)) for n, x in enumerate(xs)]
    found = tape.backward(formula(*given, **attrs).handle, d.handle)
    return Term(d.backend, found[leaf])


def _rules(formula: Formula, operands: int) -> tuple[Formula, ...]:
    return tuple(functools.partial(_differentiated, formula, i) for i in range(operands))


RULES: dict[str, Sequence[Formula]] = {
    "attention": (of_queries, of_keys, of_values, of_mask),
    "attention_grad_q": _rules(_grad_q, 7),
    "attention_grad_k": _rules(_grad_k, 7),
    "attention_grad_v": _rules(_grad_v, 5),
}
