"""The only room that imports wgpu: adapters, the device, its memory, its command stream. No ops, shapes or maths."""

from wgpu_nn.gpu.adapter import Adapter, adapters, choose
from wgpu_nn.gpu.commands import Bound, Prepared, Replay, Transfer, transfer
from wgpu_nn.gpu.device import Counts, Gpu
from wgpu_nn.gpu.kernel import PARAMS_WORDS, Kernel
from wgpu_nn.gpu.limits import PORTABLE, beyond_binding, bindable
from wgpu_nn.gpu.pool import Buffer, PoolStats, Segment
from wgpu_nn.gpu.profile import Launched, Profile, Submit
from wgpu_nn.gpu.readback import Landing
from wgpu_nn.gpu.stages import ComputeStage, ComputeStages, Place, refusal

__all__ = [
    "PARAMS_WORDS",
    "PORTABLE",
    "Adapter",
    "Bound",
    "Buffer",
    "ComputeStage",
    "ComputeStages",
    "Counts",
    "Gpu",
    "Kernel",
    "Launched",
    "Landing",
    "Place",
    "PoolStats",
    "Prepared",
    "Profile",
    "Replay",
    "Segment",
    "Submit",
    "Transfer",
    "adapters",
    "beyond_binding",
    "bindable",
    "choose",
    "refusal",
    "transfer",
]
