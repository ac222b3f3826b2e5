"""wgpu_nn: deep learning on any GPU that WebGPU reaches, from plain WGSL shaders.

Importing the package touches no GPU; the first device that is named does.
"""

from wgpu_nn import errors, switches
from wgpu_nn.dtype import Bool, DType, Float, Int, Kind, float16, float32
from wgpu_nn.nn import Config, Module, Param
from wgpu_nn.tensor import (
    Device,
    Gradients,
    Tensor,
    arange,
    bernoulli,
    cat,
    default_device,
    eye,
    full,
    ones,
    ones_like,
    rand,
    randn,
    set_default_device,
    stack,
    tensor,
    where,
    zeros,
    zeros_like,
)

__version__ = "0.1.0"

__all__ = [
    "Bool",
    "Config",
    "DType",
    "Device",
    "Float",
    "Gradients",
    "Int",
    "Kind",
    "Module",
    "Param",
    "Tensor",
    "arange",
    "bernoulli",
    "cat",
    "default_device",
    "errors",
    "eye",
    "float16",
    "float32",
    "full",
    "ones",
    "ones_like",
    "rand",
    "randn",
    "set_default_device",
    "stack",
    "switches",
    "tensor",
    "where",
    "zeros",
    "zeros_like",
]
