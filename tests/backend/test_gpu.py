"""The device: which adapter, the order of the stream, its memory, and what its failures turn into."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import wgpu

from wgpu_nn import Device, arange, full, ones, tensor, zeros
from wgpu_nn.backends.wgpu import Wgpu
from wgpu_nn.dtype import F32
from wgpu_nn.errors import AdapterError, DeviceLimitError, KindError, OutOfMemoryError, ShaderError
from wgpu_nn.gpu import Adapter, Gpu, Kernel, adapter, adapters, choose
from wgpu_nn.gpu.limits import limits_of
from wgpu_nn.gpu.pool import size_class

ROOT = Path(__file__).parents[2]


@pytest.fixture
def own() -> Iterator[Gpu]:
    """A device of its own, which a test may spoil."""
    gpu = Gpu(choose()[0])
    yield gpu
    gpu.destroy()


# --- adapters ----------------------------------------------------------------------------------------------------------
def fakes() -> tuple[Adapter, ...]:
    rows = [("NVIDIA H100", "discrete"), ("Intel Arc", "integrated"), ("llvmpipe (LLVM 15)", "software")]
    return tuple(Adapter(i, name, kind, "Vulkan", "", None) for i, (name, kind) in enumerate(rows))  # pyright: ignore[reportArgumentType]


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "adapters", fakes)
    monkeypatch.delenv("WGPU_NN_ADAPTER", raising=False)


def test_the_best_adapter_is_taken_unless_one_is_named(three: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose()[0].index == 0 and "best" in choose()[1]
    for wanted, index in ((1, 1), ("2", 2), ("arc", 1), ("LLVM", 2), ("software", 2), ("integrated", 1), ("h100", 0)):
        assert choose(wanted)[0].index == index
    monkeypatch.setenv("WGPU_NN_ADAPTER", "llvm")
    assert choose()[0].index == 2 and "WGPU_NN_ADAPTER" in choose()[1]
    assert choose("arc")[0].index == 1, "what is asked for by name goes before the variable"
    monkeypatch.setenv("WGPU_NN_ADAPTER", "")
    assert choose()[0].index == 0


def test_an_adapter_that_is_not_there_is_named_with_those_that_are(
    three: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        AdapterError, match=r"asked for index 3, got 3 adapter\(s\); there are 0: NVIDIA H100 \(discrete, Vulkan\); 1: "
    ):
        choose(3)
    with pytest.raises(AdapterError, match="asked for 'radeon', which matches none; there are 0: NVIDIA"):
        choose("radeon")
    monkeypatch.setenv("WGPU_NN_ADAPTER", "radeon")
    with pytest.raises(AdapterError, match="WGPU_NN_ADAPTER asks for 'radeon'"):
        choose()


def test_a_machine_without_adapters_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "adapters", lambda: ())
    with pytest.raises(
        AdapterError, match=r"none answers on this machine; install a Vulkan driver .*mesa-vulkan-drivers"
    ):
        choose()


def test_the_adapters_of_this_machine_are_numbered_best_first(gpu_device: Device) -> None:
    kinds = [a.kind for a in adapters()]
    assert [a.index for a in adapters()] == list(range(len(kinds))) and "software" not in kinds[:-1]
    assert Device("wgpu:0") == Device("wgpu:0") and gpu_device == Device()
    assert Device(f"wgpu:{gpu_device.gpu.adapter.name}") == gpu_device
    with pytest.raises(AdapterError, match="no such adapter"):
        Device("wgpu:no such adapter")


# --- the stream --------------------------------------------------------------------------------------------------------
@pytest.mark.unwatched("counts submits, and a device that watches submits each launch")
def test_an_upload_does_not_overtake_a_recorded_launch(gpu_device: Device) -> None:
    gpu, backend = gpu_device.gpu, gpu_device.backend
    assert isinstance(backend, Wgpu)
    x = backend.upload(np.ones(64, np.float32), F32)
    gpu.stream.flush()
    before = gpu.counts.copy()
    y = backend.run("add", x, 1.0)
    gpu.stream.upload(x.buffer, np.full(64, 50, np.float32))
    z = backend.run("add", x, 1.0)
    assert gpu.counts.since(before).submits == 0, "the upload is recorded in its turn"
    assert backend.download(y).tolist() == [2.0] * 64 and backend.download(z).tolist() == [51.0] * 64


def test_an_upload_into_a_reused_block_waits_for_its_last_user(gpu_device: Device) -> None:
    # The freed block is leased again at once, while the launch that reads it is not yet submitted.
    for i in range(50):
        x = full((1000,), float(i), gpu_device) + 0.0
        y = x + 1.0
        del x
        z = tensor(np.full(1000, -1, np.float32), gpu_device)
        assert y[0].item() == i + 1 and z[0].item() == -1


@pytest.mark.unwatched("counts submits, and a device that watches submits each launch")
def test_a_thousand_launches_run_in_order_in_few_submits(gpu_device: Device) -> None:
    gpu = gpu_device.gpu
    x = zeros((33,), gpu_device)
    gpu_device.sync()
    before = gpu.counts.copy()
    for i in range(1000):
        x = x * 1.0 + 1.0 if i % 2 else x + 1.0
    assert x.tolist() == [1000.0] * 33
    since = gpu.counts.since(before)
    assert since.launches == 1500 and since.submits <= 1500 // 64 + 2 and since.reads == 1


def test_a_read_sees_all_that_was_recorded_before_it_and_nothing_after(gpu_device: Device) -> None:
    x = arange(10, device=gpu_device)
    y = x + 1
    first = y.numpy()
    z = y * 2
    assert first.tolist() == list(range(1, 11)) and z.tolist() == [2 * v for v in first]


def test_only_what_a_view_shows_is_read(gpu_device: Device) -> None:
    x = arange(1000, device=gpu_device)
    gpu_device.sync()
    before = gpu_device.gpu.counts.copy()
    assert x[500:503].tolist() == [500, 501, 502] and x[7].item() == 7
    assert gpu_device.gpu.counts.since(before).launches == 0, "contiguous views are read in place"


def test_views_launch_nothing(gpu_device: Device) -> None:
    x = ones((4, 6), gpu_device)
    before = gpu_device.gpu.counts.copy()
    x.t()[1:3].unsqueeze(0).expand(5, 2, 4)[::-2].flip(1)
    x.reshape(2, 2, 6).permute(2, 0, 1)
    assert gpu_device.gpu.counts.since(before).launches == 0


def test_a_large_array_goes_there_and_back(gpu_device: Device) -> None:
    x = np.random.default_rng(0).integers(-(2**31), 2**31 - 1, 3_000_017).astype(np.int32)
    np.testing.assert_array_equal(tensor(x, gpu_device).numpy(), x)
    assert tensor(np.zeros((0, 3)), gpu_device).numpy().shape == (0, 3)
    with pytest.raises(KindError, match="upload: a GPU holds no f64"):
        gpu_device.backend.upload(np.zeros(2), next(iter(Device("numpy:f64").backend.dtypes.values())))


# --- memory ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("nbytes", [1, 255, 256, 257, 1000, 4096, 5000, 10**6, 2**20, 2**20 + 1, 10**8])
def test_a_size_class_holds_its_bytes_with_a_quarter_of_waste_at_most(nbytes: int) -> None:
    size = size_class(nbytes)
    assert size >= nbytes and size % 16 == 0 and size <= max(256, 1.25 * nbytes + 16)
    assert size_class(size) == size


def test_a_loop_reuses_its_buffers(gpu_device: Device) -> None:
    gpu = gpu_device.gpu
    x = ones((5000,), gpu_device)
    for _ in range(3):
        x = (x * 1.5 + 0.5) / 2.0
    gc.collect()
    gpu_device.sync()
    before, counts = gpu.pool.stats(), gpu.counts.copy()
    for _ in range(100):
        x = (x * 1.5 + 0.5) / 2.0
    gpu_device.sync()
    after, since = gpu.pool.stats(), gpu.counts.since(counts)
    assert after.created == before.created and after.live_bytes == before.live_bytes
    assert since.bind_groups <= 6 and since.pipelines == 0 and since.launches == 300


def test_freed_tensors_return_their_memory(own: Gpu) -> None:
    device = Device.of(Wgpu(own))
    x = [ones((1000 * i,), device) for i in range(1, 6)]
    live = own.pool.stats().live_bytes
    assert live >= 4 * 15000
    del x
    gc.collect()
    stats = own.pool.stats()
    assert stats.live_bytes == 0 and stats.pooled_bytes == live
    own.stream.trim()
    assert own.pool.stats().blocks == 0
    assert ones((3,), device).tolist() == [1, 1, 1]


@pytest.mark.unwatched("counts buffers, and a check has its own")
def test_memory_that_runs_out_once_is_found_by_emptying_the_pool(own: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device.of(Wgpu(own))
    x = ones((10_000,), device)
    del x
    gc.collect()
    assert own.pool.stats().pooled_bytes > 0
    create, calls = own.raw.create_buffer, []

    def once(**options: object) -> wgpu.GPUBuffer:
        calls.append(options)
        if len(calls) == 1:
            raise wgpu.GPUOutOfMemoryError("Not enough memory left.")
        return create(**options)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(own.raw, "create_buffer", once, raising=False)
    y = full((50_000,), 2.0, device)
    assert len(calls) == 2 and own.pool.stats().pooled_bytes == 0
    monkeypatch.undo()
    assert y.sum().item() == 100_000


@pytest.mark.parametrize(
    "error", [wgpu.GPUOutOfMemoryError("no"), wgpu.GPUValidationError("Not enough memory left.")], ids=["type", "text"]
)
def test_memory_that_has_run_out_is_an_error_and_work_goes_on(
    error: Exception, own: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device.of(Wgpu(own))
    x = ones((100,), device)

    def never(**options: object) -> None:
        raise error

    monkeypatch.setattr(own.raw, "create_buffer", never, raising=False)
    with pytest.raises(
        OutOfMemoryError, match=r"allocate .* bytes: the device is out of memory; free tensors or use a smaller batch"
    ):
        zeros((77_777,), device)
    monkeypatch.undo()
    assert (x + zeros((100,), device)).sum().item() == 100


# --- shaders -----------------------------------------------------------------------------------------------------------
BROKEN = """// One invocation does nothing well.
@compute @workgroup_size(1)
fn main() {
    let x: u32 = wrong(3);
}
"""


@pytest.mark.parametrize(
    "code",
    [BROKEN, BROKEN.replace("wrong(3)", "1.5"), BROKEN.replace("u32 =", "u32 = =")],
    ids=["name", "type", "syntax"],
)
def test_a_shader_that_does_not_compile_is_shown_with_file_line_and_caret(
    code: str, trust: str, gpu_device: Device
) -> None:
    kernel = Kernel(f"broken {hash(code)}", code, "w", False, "broken.wgsl")
    with pytest.raises(ShaderError) as caught:
        gpu_device.gpu.pipeline(kernel)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("shader broken.wgsl:4:")
    column = int(lines[0].split(":")[2])
    assert lines[1] == "  " + code.splitlines()[3] and lines[2].index("^") == column + 1
    assert ones((2,), gpu_device).sum().item() == 2, "the device works on"


OUTSIDE = """@group(0) @binding(0) var<storage, read_write> data: array<u32>;
@compute @workgroup_size(1)
fn main() {
    for (var i = 0u; i < 64u; i++) { data[i] = data[i + 1000000u] + 1u; }
    data[4000000u] = 77u;
}
"""


@pytest.mark.unwatched("reaches out of bounds on purpose", "bounds")
@pytest.mark.parametrize("by", ["kernel", "switch"])
def test_a_checked_kernel_that_reaches_out_of_bounds_stays_in_them(by: str, gpu_device: Device) -> None:
    from wgpu_nn import switches

    gpu = gpu_device.gpu
    buffer = gpu.pool.lease(256)
    gpu.stream.upload(buffer, np.zeros(64, np.uint32))
    kernel = Kernel("outside", OUTSIDE, "w", False, "outside.wgsl", trusted=by == "switch")
    with switches.checked_shaders.set(by == "switch"):
        gpu.stream.launch(kernel, [buffer], (1, 1, 1))
        found = np.frombuffer(gpu.stream.read(buffer, 0, 256), np.uint32)
    # Reads are clamped or give zero: each element is a small number, whatever came first.
    assert found[:-1].max() <= 65


def test_trusted_and_checked_modules_are_compiled_once_each(
    gpu_device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wgpu_nn import switches

    gpu = gpu_device.gpu
    kernel = Kernel("once", "@compute @workgroup_size(1) fn main() { }", "w", False, "once.wgsl")
    # wgpu-py's own way of making modules adds the checks; a driver may keep accesses in bounds without them.
    create, checked_modules = gpu.raw.create_shader_module, []
    monkeypatch.setattr(
        gpu.raw, "create_shader_module", lambda **o: checked_modules.append(o) or create(**o), raising=False
    )
    before = gpu.counts.pipelines
    made = []
    for checked in (False, True, False, True):
        with switches.checked_shaders.set(checked):
            made.append(gpu.pipeline(kernel))
    assert gpu.counts.pipelines - before == 2 and made[0] is made[2] and made[1] is made[3] and made[0] is not made[1]
    assert len(checked_modules) == 1
    gpu.pipeline(Kernel("a user's", kernel.code, "w", False, "user.wgsl", trusted=False))
    assert len(checked_modules) == 2, "what is not ours is always checked"


def test_a_grid_beyond_the_devices_limit_is_refused(gpu_device: Device) -> None:
    gpu = gpu_device.gpu
    kernel = Kernel("once", "@compute @workgroup_size(1) fn main() { }", "w", False, "once.wgsl")
    most = gpu.limits["max-compute-workgroups-per-dimension"]
    with pytest.raises(DeviceLimitError, match="max-compute-workgroups-per-dimension"):
        gpu.stream.launch(kernel, [gpu.pool.lease(16)], (1, most + 1, 1))


# --- failures and threads ----------------------------------------------------------------------------------------------
LOST = """
import numpy as np
from wgpu_nn import Device, ones, tensor
from wgpu_nn.backends.wgpu import Wgpu
from wgpu_nn.errors import DeviceLostError
from wgpu_nn.gpu import Gpu, choose

gpu = Gpu(choose()[0])
device = Device.of(Wgpu(gpu))
x = ones((100,), device)
y = x + 1.0
gpu.destroy()
upload, read = lambda: tensor(np.ones(500_000), device), lambda: y.numpy()
for work in (upload, read, lambda: (x * 3.0).numpy(), lambda: device.sync() or y.numpy()):
    try:
        work()
    except DeviceLostError as error:
        assert "the device was lost" in str(error) and "device.reset() opens it anew" in str(error), error
    else:
        raise SystemExit("no error")
del x, y
again = Device.of(Wgpu(Gpu(choose()[0])))
assert ones((3,), again).sum().item() == 3
print("lives on")
"""


def test_a_lost_device_is_an_error_and_the_process_lives_on() -> None:
    # In a process of its own: a driver that aborts must fail this test, and not end all others.
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOST], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and done.stdout == "lives on\n", done.stdout + done.stderr[-3000:]


def test_threads_share_a_device(gpu_device: Device) -> None:
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            rng = np.random.default_rng(seed)
            for _ in range(25):
                a = rng.standard_normal((17, 23)).astype(np.float32)
                x = tensor(a, gpu_device)
                out = ((x @ x.t()).relu() + 1.0).sum(1)
                np.testing.assert_allclose(out.numpy(), (np.maximum(a @ a.T, 0) + 1).sum(1), rtol=1e-4, atol=1e-4)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors, errors


def test_a_device_gives_what_its_adapter_has(gpu_device: Device) -> None:
    gpu = gpu_device.gpu
    opened = limits_of(gpu.adapter.limits)
    for name in (
        "max-storage-buffer-binding-size",
        "max-buffer-size",
        "max-compute-workgroup-storage-size",
        "max-compute-invocations-per-workgroup",
    ):
        assert gpu.limits[name] == opened[name] <= gpu.adapter.limits[name]
    assert gpu.features <= gpu.adapter.features
    assert gpu.software == (gpu.adapter.kind == "software")
