"""The optimizers, a formula each; defaults are PyTorch's."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from wgpu_nn.nn import Config
from wgpu_nn.optim.optimizer import Hyper, Optimizer, decayed
from wgpu_nn.tensor import Tensor


class Sgd(Optimizer):
    """p - lr v, with v = momentum v + (1 - dampening) g, or g + momentum v if nesterov (Sutskever et al. 2013).

    The first v is g.
    """

    def __init__(self, lr: float, momentum: float, dampening: float, nesterov: bool, weight_decay: float) -> None:
        super().__init__(lr)
        self.momentum, self.dampening, self.nesterov, self.weight_decay = momentum, dampening, nesterov, weight_decay
        self.slots = ("velocity",) if momentum else ()

    def hyper(self) -> dict[str, float]:
        # The first step takes the gradient undamped; scaling by what follows from the count keeps one formula for all.
        return {"lr": self.lr, "share": 1.0 if self.steps == 1 else 1.0 - self.dampening}

    def apply_single(
        self, p: Tensor, g: Tensor, state: Mapping[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor]]:
        g = decayed(g, p, self.weight_decay)
        if not self.momentum:
            return p - g * hyper["lr"], {}
        v = state["velocity"] * self.momentum + g * hyper["share"]
        direction = g + v * self.momentum if self.nesterov else v
        return p - direction * hyper["lr"], {"velocity": v}


class SgdConfig(Config):
    """Of Sgd."""

    lr: float = Field(default=1e-3, ge=0.0, description="learning rate")
    momentum: float = Field(default=0.0, ge=0.0, description="share of the last step that the next one keeps")
    dampening: float = Field(default=0.0, description="share of the gradient that momentum leaves out")
    nesterov: bool = Field(default=False, description="look ahead by the momentum (Nesterov)")
    weight_decay: float = Field(default=0.0, ge=0.0, description="decay of the weights (L2 penalty)")

    def init(self) -> Sgd:
        """Return the optimizer."""
        return Sgd(self.lr, self.momentum, self.dampening, self.nesterov, self.weight_decay)


class Adam(Optimizer):
    """p - lr m' / (sqrt(v') + eps), with bias-corrected moments m' and v' (Kingma and Ba 2015).

    Weight decay is coupled (added to the gradient); ``decoupled`` makes it AdamW's (Loshchilov and Hutter 2019).
    """

    slots = ("m", "v")

    def __init__(self, lr: float, betas: tuple[float, float], eps: float, weight_decay: float, decoupled: bool) -> None:
        super().__init__(lr)
        self.betas, self.eps, self.weight_decay, self.decoupled = betas, eps, weight_decay, decoupled

    def hyper(self) -> dict[str, float]:
        b1, b2 = self.betas
        return {
            "rate": self.lr / (1.0 - b1**self.steps),
            "root": (1.0 - b2**self.steps) ** -0.5,
            "keep": 1.0 - self.lr * self.weight_decay,
        }

    def apply_single(
        self, p: Tensor, g: Tensor, state: Mapping[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor]]:
        b1, b2 = self.betas
        if self.decoupled:
            p = p * hyper["keep"]
        else:
            g = decayed(g, p, self.weight_decay)
        m = state["m"] * b1 + g * (1.0 - b1)
        v = state["v"] * b2 + g * g * (1.0 - b2)
        return p - m * hyper["rate"] / (v.sqrt() * hyper["root"] + self.eps), {"m": m, "v": v}


class AdamConfig(Config):
    """Of Adam."""

    lr: float = Field(default=1e-3, ge=0.0, description="learning rate")
    betas: tuple[float, float] = Field(default=(0.9, 0.999), description="decay of the two moments")
    eps: float = Field(default=1e-8, ge=0.0, description="added to the root of the second moment")
    weight_decay: float = Field(default=0.0, ge=0.0, description="decay of the weights (L2 penalty)")

    def init(self) -> Adam:
        """Return the optimizer."""
        return Adam(self.lr, self.betas, self.eps, self.weight_decay, decoupled=False)


class AdamWConfig(Config):
    """Of Adam with decoupled weight decay."""

    lr: float = Field(default=1e-3, ge=0.0, description="learning rate")
    betas: tuple[float, float] = Field(default=(0.9, 0.999), description="decay of the two moments")
    eps: float = Field(default=1e-8, ge=0.0, description="added to the root of the second moment")
    weight_decay: float = Field(default=1e-2, ge=0.0, description="decay of the weights, apart from the gradient")

    def init(self) -> Adam:
        """Return the optimizer."""
        return Adam(self.lr, self.betas, self.eps, self.weight_decay, decoupled=True)
