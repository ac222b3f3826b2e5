"""Our own kernels under Tint, the second compiler: it is stricter than naga about barriers, for one."""

from __future__ import annotations

import pytest

from tests.plans import plan_all
from wgpu_nn.errors import ShaderError
from wgpu_nn.gpu import Kernel
from wgpu_nn.testing import tint

pytest.importorskip("pydawn", reason="the extra dawn is not installed")


@pytest.fixture(scope="module", autouse=True)
def opened() -> None:
    if not tint.available():
        pytest.skip("Dawn opens no adapter here")


def test_every_kernel_compiles_eager_and_captured() -> None:
    # One text of each name and header: others differ in their sizes.
    chosen: dict[tuple[str, str, bool], Kernel] = {}
    for plans in plan_all():
        for kernel in [*(k for k, _, _ in plans.launches), *plans.constant]:
            chosen.setdefault((kernel.source, kernel.name, kernel.params), kernel)
    assert len(chosen) > 500
    failed: list[str] = []
    for kernel in chosen.values():
        try:
            tint.compile_with_tint(f"{kernel.source} ({kernel.name})", kernel.code)
        except ShaderError as error:
            failed.append(str(error))
    assert not failed, "\n".join(failed[:5])


def test_what_naga_lets_pass_is_refused_with_line_and_caret() -> None:
    text = """@compute @workgroup_size(4)
fn main(@builtin(local_invocation_index) i: u32) {
    if (i == 0u) { workgroupBarrier(); }
}
"""
    with pytest.raises(ShaderError) as caught:
        tint.compile_with_tint("barrier.wgsl", text)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("shader barrier.wgsl:3:20: 'workgroupBarrier' must only be called from uniform control")
    assert lines[1].index("workgroupBarrier") == lines[2].index("^")
