"""Reads WGSL texts, and writes checks into them; knows no device. Its own line numbers are those of the text it was given."""

from wgpu_nn.wgsl.bounds import Site, watched
from wgpu_nn.wgsl.declarations import Binding, Declarations, EntryPoint, Override, read
from wgpu_nn.wgsl.order import Order, orders, shuffled

__all__ = [
    "Binding",
    "Declarations",
    "EntryPoint",
    "Order",
    "Override",
    "Site",
    "orders",
    "read",
    "shuffled",
    "watched",
]
