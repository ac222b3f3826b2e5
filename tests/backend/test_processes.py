"""Processes that fork, spawn and end with a device open: clear errors, exit code 0, and nothing on stderr."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import nightly

ROOT = Path(__file__).parents[2]
START = """
import os, sys, threading
import numpy as np
from wgpu_nn import Device, ones, tensor
from wgpu_nn.nn import LinearConfig
from wgpu_nn.optim import AdamConfig
from wgpu_nn.train import capture
device = Device("wgpu")
x = tensor(np.ones(1000, np.float32), device)
"""
# How a script ends: everything at once is still under way.
ENDS = {
    "recorded": "y = x + 1.0",
    "submitted": "y = x * 2.0; device.gpu.stream.flush()",
    "uploads": "ys = [tensor(np.ones(n, np.float32), device) for n in (3, 70_000, 1_000_000)]",
    "uploads sent": "ys = [tensor(np.ones(n, np.float32), device) for n in (3, 70_000)]; device.gpu.stream.flush()",
    "readback": "later = (x + 1.0).numpy_later()",
    "readback kept by a global": "class Box: pass\nBox.later = (x + 1.0).numpy_later(); sys.modules['kept'] = Box",
    "captured": "step = capture(lambda a: (a * 2.0).sum(), calls_per_submit=4); out = [step(x) for _ in range(6)]",
    "training": """
model, optimizer = LinearConfig(10, 10).init(device.autodiff()), AdamConfig(lr=0.1).init()
@capture(state=[model, optimizer])
def step(a):
    cost = (model.forward(a) ** 2.0).mean()
    optimizer.step(model, cost.backward())
    return cost
kept = [step(tensor(np.ones((4, 10), np.float32), device.autodiff())).numpy_later() for _ in range(5)]""",
    "a thread at work": """
def work():
    y = x
    while True:
        y = y * 0.5 + 1.0
threading.Thread(target=work, daemon=True).start()
(x + 1.0).numpy()""",
    "a thread that reads": """
def work():
    while True:
        (x + 1.0).numpy()
threading.Thread(target=work, daemon=True).start()
(x + 1.0).numpy()""",
    "a cycle": "a = [x + 1.0]; a.append(a); later = a[0].numpy_later(); b = [later]; b.append(b)",
    "a destroyed device": "later = (x + 1.0).numpy_later(); device.gpu.destroy()",
    "a device that was lost": "later = (x + 1.0).numpy_later(); device.gpu.raw.destroy()",
    "a reset device": "later = (x + 1.0).numpy_later(); device.reset(); y = ones((5,), device) + 1.0",
    "an error": """
later = (x + 1.0).numpy_later()
device.limit_memory(0)
try:
    ones((100_000,), device)
except MemoryError:
    pass""",
    "sys.exit": "later = (x + 1.0).numpy_later(); sys.exit(0)",
}  # fmt: skip


def run(script: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    # Python 3.12 warns of every fork beside threads; what comes of those is tested here.
    given = [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", script]
    return subprocess.run(given, cwd=ROOT, capture_output=True, text=True, timeout=timeout)


@pytest.mark.parametrize("end", ENDS)
def test_a_process_ends_well_with_work_in_flight(end: str) -> None:
    for _ in range(10 if nightly() else 1):
        done = run(START + ENDS[end])
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


USES = [
    *("x + 1.0", "x.numpy()", "later.result()", "ones((9,), device)", "tensor(np.ones(9, np.float32), device)"),
    *("device.sync()", "Device('wgpu')", "device.reset()", "step(x)"),
]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_a_forked_child_is_told_what_to_do_and_its_parent_goes_on() -> None:
    script = f"""{START}
y, later, step = x + 1.0, (x * 2.0).numpy_later(), capture(lambda a: a + 1.0)
step(x).numpy()
pid = os.fork()
if pid == 0:
    for use in {USES!r}:
        try:
            eval(use)
        except Exception as error:
            print(type(error).__name__, error, flush=True)
    del x, y, later
    sys.exit(7)  # through all that happens at exit
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
assert y.sum().item() == 2000 and later.result().sum() == 2000 and step(x)[0].item() == 2
"""
    done = run(script)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == len(USES)
    for line in lines:
        assert line.startswith("DeviceError device: expected the process that opened it, got a fork of that; start")


@pytest.mark.skipif(sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="needs on_exit of glibc")
def test_a_forked_child_leaves_out_what_a_driver_has_registered_for_the_end() -> None:
    script = f"""
import ctypes
library = ctypes.CDLL(None)
library.on_exit(library.abort, None)
{START}
pid = os.fork()
if pid == 0:
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
os._exit(0)  # past our own driver's end
"""
    done = run(script)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_a_fork_while_threads_work_ends_too() -> None:
    script = f"""{START}
def work():
    while True:
        (x + 1.0).numpy()
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
for _ in range(3):
    (x * 2.0).numpy()
    pid = os.fork()
    if pid == 0:
        del x
        sys.exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""
    done = run(script)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_a_device_may_be_named_first_in_the_child() -> None:
    script = """
import os
import wgpu_nn
pid = os.fork()
x = wgpu_nn.ones((10,), wgpu_nn.Device("wgpu")) + 1.0
assert x.sum().item() == 20
if pid:
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""
    done = run(script)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("method", ["spawn", *(["forkserver"] if sys.platform != "win32" else [])])
def test_spawned_processes_have_a_device_each(method: str, tmp_path: Path) -> None:
    script = tmp_path / "spawning.py"
    script.write_text(
        f"""
import multiprocessing, sys
sys.path.insert(0, {str(ROOT)!r})

def work(n):
    from wgpu_nn import Device, full
    return float((full((100,), float(n), Device("wgpu")) + 1.0).sum().item())

if __name__ == "__main__":
    from wgpu_nn import Device, ones
    assert ones((3,), Device("wgpu")).sum().item() == 3
    with multiprocessing.get_context({method!r}).Pool(1) as pool:
        assert pool.map(work, range(2)) == [100.0, 200.0]
        pool.close()
        pool.join()
    assert ones((3,), Device("wgpu")).sum().item() == 3
"""
    )
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=180)
    assert (done.returncode, done.stderr) == (0, "")
