"""The pytest plugin: fixtures for shader tests and their options. It loads no wgpu until a fixture is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import numpy as np

    from wgpu_nn.gpu import Gpu
    from wgpu_nn.testing.shader import Shader

ADAPTER, GOLDEN, TIMES = "--wgpu-adapter", "--update-golden", "--shader-times"
_costs = pytest.StashKey[list[Any]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("wgpu_nn", "shader tests")
    group.addoption(
        ADAPTER, metavar="all|NAME", help="the adapter of shader tests: all, software, an index or part of a name"
    )
    group.addoption(GOLDEN, action="store_true", help="write golden files anew instead of comparing with them")
    group.addoption(TIMES, action="store_true", help="show time and bytes of each shader at the end")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_costs] = []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.config.getoption(ADAPTER) == "all" and "_wgpu_adapter" in metafunc.fixturenames:
        from wgpu_nn.gpu import adapters

        found = adapters()
        metafunc.parametrize(
            "_wgpu_adapter", [a.index for a in found], ids=[a.name for a in found], indirect=True, scope="session"
        )


@pytest.fixture(scope="session")
def _wgpu_adapter(request: pytest.FixtureRequest) -> int | str | None:
    """The index or name of the adapter, None for the best one."""
    return getattr(request, "param", request.config.getoption(ADAPTER))


@pytest.fixture(scope="session")
def gpu(_wgpu_adapter: int | str | None) -> Iterator[Gpu]:
    """An open device, one a session and adapter; a machine without an adapter fails the test, and says what to install."""
    from wgpu_nn.errors import AdapterError
    from wgpu_nn.gpu import Gpu, choose

    try:
        adapter, _ = choose(_wgpu_adapter)
    except AdapterError as error:
        pytest.fail(str(error), pytrace=False)
    device = Gpu(adapter)
    yield device
    device.destroy()


@pytest.fixture
def shader(request: pytest.FixtureRequest, gpu: Gpu) -> Callable[..., Shader]:
    """Make a shader: ``shader("file.wgsl")``, beside the test's file, or ``shader(text)``; ``declarations`` is appended."""
    from wgpu_nn.testing.shader import Shader

    costs: list[Any] | None = request.config.stash[_costs] if request.config.getoption(TIMES) else None

    def make(source: str | Path, *, declarations: str = "") -> Shader:
        path: str | Path = source
        if isinstance(source, Path) or (source.endswith(".wgsl") and "\n" not in source):
            path = request.path.parent / source
        made = Shader(gpu, path, declarations=declarations)
        made.costs = costs
        return made

    return make


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Compare with a file: ``golden(array, "name", rtol=1e-6)`` reads ``golden/<test file>/<name>.npy`` beside the test.

    ``pytest --update-golden`` writes it. Tolerances are those of ``assert_close``.
    """
    from wgpu_nn.testing.golden import compare

    folder = request.path.parent / "golden" / request.path.stem
    update = bool(request.config.getoption(GOLDEN))

    def check(array: np.ndarray, name: str, *, ulp: float = 0, rtol: float = 0.0, atol: float = 0.0) -> None:
        compare(folder / f"{name}.npy", array, update, ulp=ulp, rtol=rtol, atol=atol)

    return check


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    costs = config.stash[_costs]
    if not costs:
        return
    terminalreporter.section("shaders")
    by_source: dict[str, list[Any]] = {}
    for cost in costs:
        by_source.setdefault(cost.source, []).append(cost)
    for source, found in sorted(by_source.items(), key=lambda item: -sum(c.seconds for c in item[1])):
        seconds, nbytes = sum(c.seconds for c in found), sum(c.nbytes for c in found)
        terminalreporter.line(
            f"{source:<32} {len(found):>5} runs {seconds / len(found) * 1e6:>10.1f} us each {nbytes / len(found):>12,.0f} bytes"
        )
