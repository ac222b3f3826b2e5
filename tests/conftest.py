"""Fixtures for all tests: the devices, and the variants of shaders that a test of kernels runs under; the report of those."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import fuzz
from wgpu_nn import Device, switches
from wgpu_nn.errors import AdapterError

fuzz.load()
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Jobs in the background ignore SIGINT and hand that down; tests press Ctrl-C on processes that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)

BACKEND = Path(__file__).parent / "backend"
# A GPU's kernels run on a software adapter as well, slowly: the portable limits of WebGPU (spec section 3.6.2).
PORTABLE: dict[str, Any] = {"invocations": 256, "storage": 16384}
# A device that watches (WGPU_NN_DEBUG) launches texts of its own, which are checked either way.
TRUST = ("trusted", "checked") if switches.debug.value == "off" else ("checked",)
MODES = tuple(f"{variant}-{trust}" for variant in ("software", "gpu") for trust in TRUST)

REPORT, LAST = "--shader-report", "test_shader_gaps.py"
left_out = pytest.StashKey[set[Path]]()  # files of which tests were collected and then deselected


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(REPORT, action="store_true", help="show which variants of the WGSL bodies tests run alone")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[left_out] = set()


def pytest_deselected(items: list[pytest.Item]) -> None:
    for item in items:
        item.config.stash[left_out].add(item.path)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if BACKEND in item.path.parents or item.path.name in ("test_tiny.py", "test_spec_page.py"):
            item.add_marker(pytest.mark.gpu)
        mark = item.get_closest_marker("unwatched")
        if mark is not None and switches.debug.value in (mark.args[1:] or switches.debug.values.keys() - {"off"}):
            item.add_marker(pytest.mark.skip(reason=f"WGPU_NN_DEBUG={switches.debug.value}: {mark.args[0]}"))
    items.sort(key=lambda item: item.path.name == LAST)  # it looks at what the others have run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.getoption(REPORT):
        from tests.shader_report import RUNS, gaps, table

        terminalreporter.section("WGSL bodies that ran alone")
        for line in (*table(RUNS), "", "Gaps:", *gaps(RUNS)):
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def gpu_device() -> Device:
    """The best adapter of the machine; a machine without one fails the test, with the advice of what to install."""
    try:
        return Device()
    except AdapterError as error:
        pytest.fail(str(error))


@pytest.fixture(scope="session")
def gpu_variants(gpu_device: Device) -> dict[str, Device]:
    """The same adapter twice: with the kernels of software adapters, and with those of GPUs."""
    return _variants(gpu_device)


@pytest.fixture
def fresh_variants(gpu_device: Device) -> dict[str, Device]:
    """The same, with nothing planned yet: for tests that change planners."""
    return _variants(gpu_device)


def _variants(device: Device) -> dict[str, Device]:
    from wgpu_nn.backends.wgpu import Wgpu
    from wgpu_nn.kernels import Target

    halves = "shader-f16" in device.gpu.features
    return {
        name: Device.of(Wgpu(device.gpu, Target(software=name == "software", halves=halves, **PORTABLE), tuned=True))
        for name in ("software", "gpu")
    }


@pytest.fixture(scope="session")
def step_launches(gpu_device: Device) -> int:
    """Launches of a captured training step of the spec page's network: one more where kernels bind eight buffers only."""
    return 19 if gpu_device.gpu.limits["max-storage-buffers-per-shader-stage"] > 8 else 20


@pytest.fixture
def timestamps(gpu_device: Device) -> None:
    """For tests that time launches: with the limits of every device there is nothing to time them by."""
    if "timestamp-query" not in gpu_device.gpu.features:
        pytest.skip("this device has no timestamps")


@pytest.fixture(params=MODES)
def any_device(request: pytest.FixtureRequest, gpu_variants: dict[str, Device]) -> Iterator[Device]:
    """Every variant of the kernels, each trusted and checked."""
    variant, trust = request.param.split("-")
    with switches.checked_shaders.set(trust == "checked"):
        yield gpu_variants[variant]


@pytest.fixture(params=["software", "gpu", "gpu-eager"])
def each_way(request: pytest.FixtureRequest, gpu_device: Device) -> Device:
    """The kernels of software adapters, and those of GPUs as fused steps choose them and as eager mode does."""
    from wgpu_nn.backends.wgpu import Wgpu
    from wgpu_nn.kernels import Target

    halves = "shader-f16" in gpu_device.gpu.features
    target = Target(software=request.param == "software", halves=halves, **PORTABLE)
    return Device.of(Wgpu(gpu_device.gpu, target, tuned=request.param != "gpu-eager"))


@pytest.fixture(params=TRUST)
def trust(request: pytest.FixtureRequest) -> Iterator[str]:
    """Shaders without bounds checks, and with them."""
    with switches.checked_shaders.set(request.param == "checked"):
        yield request.param


@pytest.fixture(scope="session")
def cpu() -> Device:
    return Device("numpy")


@pytest.fixture(scope="session")
def exact() -> Device:
    """The oracle: NumPy in double precision."""
    return Device("numpy:f64")


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator that depends on the test's name alone, so that tests can be run in any order."""
    return np.random.default_rng(list(request.node.nodeid.encode()))
