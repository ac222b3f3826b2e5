"""The table of vectors that stand for tokens, categories, or whatever else is counted."""

from __future__ import annotations

from pydantic import Field

from wgpu_nn.dtype import Int
from wgpu_nn.errors import KindError
from wgpu_nn.nn.config import Config
from wgpu_nn.nn.init import Initializer, Normal
from wgpu_nn.nn.module import Module, Param
from wgpu_nn.tensor import Device, Tensor, default_device


class Embedding(Module):
    """out[...] = W[index[...]], with W of shape [n_embedding, d_model].

    The gradient of a row is the sum over all places that name it, in a fixed order; rows that nothing names get 0.
    """

    weight: Param

    def forward(self, index: Tensor) -> Tensor:
        """[...] Int -> [..., d_model].

        An index beyond the table gives NaN on a GPU, which cannot raise, and raises IndexRangeError on NumPy; negative
        ones count from its end. Raises KindError for tensors that are not Int.
        """
        if index.kind is not Int:
            raise KindError(f"embedding: expected an Int tensor, got a {index.kind} one; convert it with .int()")
        rows = self.weight.value.index_select(0, index.reshape(index.size))
        return rows.reshape(*index.shape, self.weight.shape[1])

    def extra(self) -> str:
        n_embedding, d_model = self.weight.shape
        return f"{n_embedding} -> {d_model}"


class EmbeddingConfig(Config):
    """Of an Embedding: ``n_embedding`` vectors of ``d_model`` numbers, drawn from N(0, 1)."""

    n_embedding: int = Field(gt=0)
    d_model: int = Field(gt=0)
    initializer: Initializer = Normal()

    def init(self, device: Device | None = None) -> Embedding:
        """Return the layer with its vectors drawn on ``device``."""
        where = default_device() if device is None else device
        fans = (self.n_embedding, self.d_model)
        return Embedding(weight=Param(self.initializer.draw(fans, *fans, where)))
