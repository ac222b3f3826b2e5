"""What users hold: tensors, and the devices that they live on."""

from wgpu_nn.tensor.annotation import TensorType, checked, mentions_tensor
from wgpu_nn.tensor.cell import Cell, host_numbers
from wgpu_nn.tensor.creation import (
    arange,
    bernoulli,
    cat,
    eye,
    full,
    ones,
    ones_like,
    rand,
    randn,
    stack,
    tensor,
    where,
    zeros,
    zeros_like,
)
from wgpu_nn.tensor.device import Device, Rng, default_device, set_default_device
from wgpu_nn.tensor.gradients import Gradients
from wgpu_nn.tensor.tensor import Tensor, read_later

__all__ = [
    "Cell",
    "Device",
    "Gradients",
    "Rng",
    "Tensor",
    "TensorType",
    "arange",
    "bernoulli",
    "cat",
    "checked",
    "default_device",
    "eye",
    "full",
    "host_numbers",
    "mentions_tensor",
    "ones",
    "ones_like",
    "rand",
    "randn",
    "read_later",
    "set_default_device",
    "stack",
    "tensor",
    "where",
    "zeros",
    "zeros_like",
]
