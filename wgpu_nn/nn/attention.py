"""Scaled dot-product attention, fused, and the multi-head layer around it."""

from __future__ import annotations

import math

from pydantic import Field

from wgpu_nn.dtype import Bool
from wgpu_nn.errors import ConfigError, ShapeError
from wgpu_nn.nn.config import Config
from wgpu_nn.nn.dropout import Dropout, DropoutConfig
from wgpu_nn.nn.init import Initializer, KaimingUniform
from wgpu_nn.nn.linear import Linear, LinearConfig
from wgpu_nn.nn.module import Module
from wgpu_nn.shape import size
from wgpu_nn.tensor import Device, Tensor, arange


def scaled_dot_product_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False, scale: float | None = None
) -> Tensor:
    """softmax(q k' scale + mask) v, without storing a score: memory is linear in queries and keys, backward as well.

    q [batch, heads, queries, d], k [batch, key heads, keys, d], v [batch, key heads, keys, e] ->
    [batch, heads, queries, e]. Each head of keys and values serves heads / key heads neighbouring heads of queries
    (Ainslie et al. 2023). ``mask`` broadcasts to [batch, heads, queries, keys]: a Bool one says which keys a query may
    attend to, a Float one is added to the scores. ``causal`` lets query i attend to keys 0 to i, as PyTorch's does also
    where there are more keys than queries. ``scale`` is 1 / sqrt(d) unless given. The result of a query that may attend
    to nothing is 0, and so are its gradients. Second derivatives, and the gradient of a Float mask, do store all scores.
    Shapes that do not fit each other raise ShapeError.

    Source: Dao, FlashAttention-2, 2023.
    """
    return _result_and_lse(q, k, v, mask, causal, scale)[0]


def _result_and_lse(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float | None
) -> tuple[Tensor, Tensor]:
    """Return the result, and the log-sum-exp of each query's scores [batch, heads, queries]."""
    packed = q.run("attention", q, k, v, *(() if mask is None else (mask,)), scale=_scale(q, scale), causal=causal)
    rows, values = q.shape[:3], v.shape[3]
    n = size(rows)
    # Of halves both come in f32, for the gradients' sake.
    out = packed.narrow(0, 0, n * values).reshape(*rows, values).cast(q.dtype)
    return out, packed.narrow(0, n * values, n).reshape(rows)


def _scale(q: Tensor, scale: float | None) -> float:
    if scale is not None:
        return scale
    # The op refuses queries without features, and says so better than a division by zero.
    return 1 / math.sqrt(q.shape[-1]) if q.rank and q.shape[-1] else 1.0


def attention_weights(
    q: Tensor, k: Tensor, mask: Tensor | None = None, causal: bool = False, quiet: bool = False
) -> Tensor:
    """softmax(q k' / sqrt(d) + mask), [batch, heads, queries, keys]: for what needs the weights themselves.

    ``quiet`` adds 1 to the sum of exponentials, so that a query may attend to nothing (Miller 2023).
    """
    scores = q @ k.transpose() * _scale(q, None)
    if mask is not None:
        scores = mask.where(scores, -math.inf) if mask.kind is Bool else scores + mask
    if causal:
        rows, columns = (arange(n, device=q.device) for n in scores.shape[2:])
        scores = (rows.unsqueeze(1) >= columns).where(scores, -math.inf)
    top = scores.max(3, keepdim=True).detach()
    shift = (top == -math.inf).where(0.0, top)
    weights = (scores == -math.inf).where(0.0, (scores - shift).exp())
    total = weights.sum(3, keepdim=True)
    total = total + (-shift).exp() if quiet else (total == 0.0).where(1.0, total)
    return weights / total


def generate_autoregressive_mask(batch: int, length: int, device: Device | None = None) -> Tensor:
    """[batch, length, length] Bool: whether position i may attend to position j, that is j <= i.

    Burn's mask of this name is the opposite: it is true where attention is barred.
    """
    places = arange(length, device=device)
    return (places.unsqueeze(1) >= places).expand(batch, length, length)


class MultiHeadAttention(Module):
    """concat(head_1, ..., head_n) W_o with head_i = attention(query W_q_i, key W_k_i, value W_v_i).

    Dropout, on autodiff devices, sets attention weights to 0; then all weights are stored. Otherwise attention is fused.

    Source: Vaswani et al., Attention Is All You Need, 2017.
    """

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    dropout: Dropout
    n_heads: int
    quiet_softmax: bool

    def forward(
        self,
        query: Tensor[3],
        key: Tensor[3],
        value: Tensor[3],
        mask_pad: Tensor[2, Bool] | None = None,
        mask_attn: Tensor[3, Bool] | None = None,
        causal: bool = False,
    ) -> Tensor[3]:
        """[batch, queries, d_model], twice [batch, keys, d_model] -> [batch, queries, d_model].

        ``mask_pad`` [batch, keys] says which keys are no padding, ``mask_attn`` [batch or 1, queries, keys] which keys a
        query may attend to. Raises ShapeError where keys and values differ in number.
        """
        if key.shape[:2] != value.shape[:2]:
            raise ShapeError(
                f"multi_head_attention: expected a value for each key, got {list(key.shape)} and {list(value.shape)}"
            )
        q, k, v = (
            self._heads(layer.forward(x)) for layer, x in ((self.query, query), (self.key, key), (self.value, value))
        )
        mask = None if mask_pad is None else mask_pad.reshape(mask_pad.shape[0], 1, 1, mask_pad.shape[1])
        if mask_attn is not None:
            pairs = mask_attn.unsqueeze(1)
            mask = pairs if mask is None else mask & pairs
        if self.dropout.prob and q.device.is_autodiff:
            found = self.dropout.forward(attention_weights(q, k, mask, causal, self.quiet_softmax)) @ v
        else:
            found, lse = _result_and_lse(q, k, v, mask, causal, None)
            if self.quiet_softmax:
                # sum / (1 + sum), of the sum whose logarithm is known.
                found = found * lse.sigmoid().unsqueeze(3)
        batch, queries = query.shape[:2]
        return self.output.forward(found.permute(0, 2, 1, 3).reshape(batch, queries, self.output.weight.shape[0]))

    def _heads(self, x: Tensor) -> Tensor:
        """[batch, length, d_model] -> [batch, heads, length, d_model / heads]."""
        batch, length, d_model = x.shape
        return x.reshape(batch, length, self.n_heads, d_model // self.n_heads).permute(0, 2, 1, 3)

    def extra(self) -> str:
        return f"{self.n_heads} heads of {self.output.weight.shape[0] // self.n_heads}, quiet={self.quiet_softmax}"


class MultiHeadAttentionConfig(Config):
    """Of a MultiHeadAttention layer."""

    d_model: int = Field(gt=0)
    n_heads: int = Field(gt=0)
    dropout: float = Field(default=0.1, ge=0.0, le=1.0)
    quiet_softmax: bool = False
    query_bias: bool = True
    key_bias: bool = True
    value_bias: bool = True
    output_bias: bool = True
    initializer: Initializer = KaimingUniform()

    def init(self, device: Device | None = None) -> MultiHeadAttention:
        """Return the layer with its parameters drawn on ``device``."""
        if self.d_model % self.n_heads:
            raise ConfigError(
                f"MultiHeadAttentionConfig: expected d_model divisible by n_heads, got {self.d_model} and {self.n_heads}"
            )

        def linear(bias: bool) -> Linear:
            return LinearConfig(self.d_model, self.d_model, bias=bias, initializer=self.initializer).init(device)

        return MultiHeadAttention(
            query=linear(self.query_bias),
            key=linear(self.key_bias),
            value=linear(self.value_bias),
            output=linear(self.output_bias),
            dropout=DropoutConfig(self.dropout).init(),
            n_heads=self.n_heads,
            quiet_softmax=self.quiet_softmax,
        )
