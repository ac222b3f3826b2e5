"""The C library under wgpu-py: ``lib`` as it is, ``libf`` with errors raised, ``ffi``; and its types, declared all at once.

Only gpu/ calls it. wgpu-py is pinned below 0.33, as names and signatures change with its minor version.
"""

from __future__ import annotations

from typing import Any

from cffi import CDefError, FFIError
from wgpu.backends.wgpu_native import _api, _ffi

ffi: Any = _ffi.ffi
lib: Any = _ffi.lib
libf: Any = _api.libf

# The types that opening a device, a launch and a read name, letter by letter as wgpu-py or we write them.
TYPES = (
    "WGPUStringView *",
    "WGPUInstanceExtras *",
    "WGPUInstanceDescriptor *",
    "WGPUChainedStruct *",
    "WGPUChainedStruct * ",
    "WGPUAdapter[]",
    "WGPUAdapterInfo *",
    "WGPUNativeLimits *",
    "WGPULimits *",
    "char []",
    "WGPUQueueDescriptor *",
    "WGPUDeviceExtras *",
    "WGPUDeviceDescriptor *",
    "WGPUDeviceLostCallbackInfo *",
    "WGPUUncapturedErrorCallbackInfo *",
    "WGPURequestDeviceCallbackInfo *",
    "WGPUFeatureName[]",
    "WGPUBufferDescriptor *",
    "WGPUBufferMapCallbackInfo *",
    "WGPUCommandBuffer[1]",
    "WGPUShaderSourceWGSL *",
    "WGPUShaderModuleDescriptor *",
    "WGPUBufferBindingLayout *",
    "WGPUBindGroupLayoutEntry *",
    "WGPUBindGroupLayoutEntry[]",
    "WGPUBindGroupLayoutDescriptor *",
    "WGPUBindGroupLayout[]",
    "WGPUPipelineLayoutDescriptor *",
    "WGPUComputeState *",
    "WGPUComputePipelineDescriptor *",
    "WGPUBindGroupEntry[]",
    "WGPUBindGroupDescriptor *",
    "WGPUSubmissionIndex *",
    "uint32_t[1]",
    "uint8_t []",
    "uint8_t *",
    "uintptr_t",
    "void *",
)
CALLBACKS = (
    "void(WGPUMapAsyncStatus, WGPUStringView, void *, void *)",
    "void(WGPUDevice const *, WGPUDeviceLostReason, WGPUStringView, void *, void *)",
    "void(WGPUDevice const *, WGPUErrorType, WGPUStringView, void *, void *)",
    "void(WGPURequestDeviceStatus, WGPUDevice, WGPUStringView, void *, void *)",
)


def _declare() -> None:
    """Let cffi parse all types as the parameters of one function.

    It would parse each where it is named first, behind all names of the library: 15 ms a type, and half of the time from
    the import to the first launch. What it has parsed it keeps by its text, in a dictionary that has no public name.
    Without that dictionary, or where a release of wgpu-py renames a type, all is only slower; a test would tell.
    """
    known = vars(ffi).get("_parsed_types")
    if not isinstance(known, dict):
        return
    pointers = [f"{name}(*)[{rest}" if rest else f"{name} *" for name, _, rest in (t.partition("[") for t in TYPES)]
    functions = [text.replace("(", "(*)(", 1) for text in CALLBACKS]
    try:
        found = ffi.typeof(f"void(*)({', '.join([*pointers, *functions])})").args
    except (CDefError, FFIError):
        return
    for text, pointer in zip(TYPES, found, strict=False):
        known.setdefault(text, (pointer.item, False))
    for text, function in zip(CALLBACKS, found[len(TYPES) :], strict=True):
        known.setdefault(text, (function, True))


_declare()
