"""A kernel as data: WGSL text and the bindings that it declares; and its compilation into a pipeline."""

from __future__ import annotations

import re
from dataclasses import dataclass

import wgpu
from wgpu.backends.wgpu_native import GPUShaderModule
from wgpu.backends.wgpu_native._api import new_struct_p, to_c_string_view

from wgpu_nn.errors import ShaderError
from wgpu_nn.gpu.native import ffi, lib, libf

PARAMS_BYTES = 256  # one launch's parameters: 16 vec4u of a uniform buffer, at a dynamic offset
PARAMS_WORDS = PARAMS_BYTES // 4


@dataclass(frozen=True, slots=True)
class Kernel:
    """What defines a shader.

    ``access`` has one letter per storage binding, in order: ``r`` for read, ``w`` for read_write. With ``params`` the
    next binding is a uniform block of PARAMS_BYTES. ``trusted`` says that the text is ours: it may run without bounds
    checks. Line numbers of errors are those of ``source``, the file that the text begins with.
    """

    name: str
    code: str
    access: str
    params: bool
    source: str
    trusted: bool = True


def compile_module(device: wgpu.GPUDevice, kernel: Kernel, trusted: bool) -> wgpu.GPUShaderModule:
    """Compile WGSL; trusted modules have no bounds clamps and no loop limits (30% faster in matmul on an H100)."""
    try:
        if not trusted:
            return device.create_shader_module(label=kernel.name, code=kernel.code)
        text = to_c_string_view(kernel.code)
        source = new_struct_p("WGPUShaderSourceWGSL *", code=text)
        source[0].chain.next = ffi.NULL
        source[0].chain.sType = lib.WGPUSType_ShaderSourceWGSL
        label = to_c_string_view(kernel.name)
        descriptor = new_struct_p(
            "WGPUShaderModuleDescriptor *", nextInChain=ffi.cast("WGPUChainedStruct *", source), label=label
        )
        raw = libf.wgpuDeviceCreateShaderModuleTrusted(device._internal, descriptor, 0)
        return GPUShaderModule(kernel.name, raw, device)
    except wgpu.GPUError as error:
        if "device is lost" in str(error):  # which is no fault of the text
            raise
        raise shader_error(kernel, str(error)) from None


def shader_error(kernel: Kernel, message: str) -> ShaderError:
    """Return the compiler's message with the file, line and column in front, and the line itself with a caret."""
    place = re.search(r"wgsl:(\d+):(\d+)", message)
    if place is None:
        return ShaderError(f"shader {kernel.source}: does not compile: {message}")
    line, column = int(place[1]), int(place[2])
    text = next(iter(kernel.code.splitlines()[line - 1 : line]), "")  # what is wrong may be the end
    reason = next((r.strip() for r in re.findall(r"(?:parsing error|error): (.+)", message)), "does not compile")
    return ShaderError(
        f"shader {kernel.source}:{line}:{column}: {reason}\n  {text}\n  {' ' * (column - 1)}^\n{message}"
    )
