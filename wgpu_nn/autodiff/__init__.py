"""Reverse-mode gradients as a decorator around any backend."""

from wgpu_nn.autodiff.backend import Autodiff, Node, Term, Tracked
from wgpu_nn.autodiff.rules import NO_GRADIENT, RULES

__all__ = ["NO_GRADIENT", "RULES", "Autodiff", "Node", "Term", "Tracked"]
