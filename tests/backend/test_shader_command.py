"""``wgpu-nn shader``: what it says of files, and that it runs them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wgpu_nn.cli import main
from wgpu_nn.gpu import adapters
from wgpu_nn.testing import tint
from wgpu_nn.testing.portability import beyond, check_on, check_with_tint
from wgpu_nn.wgsl import read

DOUBLE = """@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
override SIZE: u32 = 64;
@compute @workgroup_size(SIZE) fn main(@builtin(global_invocation_id) id: vec3u) {
    if (id.x < arrayLength(&out)) { out[id.x] = 2.0 * x[id.x]; }
}
"""


@pytest.fixture
def double(tmp_path: Path) -> Path:
    path = tmp_path / "double.wgsl"
    path.write_text(DOUBLE)
    return path


def test_check_says_which_files_are_portable(double: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = double.with_name("broken.wgsl")
    broken.write_text(DOUBLE.replace("2.0", "two"))
    assert main(["shader", "check", "--tint", "off", str(double)]) == 0
    found = capsys.readouterr().out
    assert f"{double}: portable" in found and f"{adapters()[0]}: ok" in found
    assert main(["shader", "check", "--tint", "off", str(double), str(broken)]) == 1
    found = capsys.readouterr().out
    assert f"{broken}: does not compile" in found and "shader broken.wgsl:5:49: no definition in scope" in found


def test_a_feature_that_is_needed_is_named() -> None:
    text = "enable f16;\n" + DOUBLE.replace("f32", "f16").replace("2.0", "2.0h")
    adapter = adapters()[0]
    if "shader-f16" not in adapter.features:
        pytest.skip("no f16 here")
    verdict = check_on(adapter, "half.wgsl", text)
    assert verdict.needs == ("shader-f16",) and not verdict.error


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("= 64;", "= 300;", ("workgroups of 300 along x, above 256", "workgroups of 300, above 256")),
        ("(SIZE)", "(SIZE, 8)", ("workgroups of 512, above 256",)),
        ("(SIZE)", "(1, 1, 65)", ("workgroups of 65 along z, above 64",)),
        (
            "override",
            "var<workgroup> t: array<vec4f, 2000>;\noverride",
            ("32000 bytes of workgroup memory, above 16384",),
        ),
        ("override", "var<workgroup> t: array<vec4f, 1024>;\noverride", ()),
    ],
)
def test_more_than_the_default_limits_is_named(old: str, new: str, what: tuple[str, ...]) -> None:
    assert beyond(read(DOUBLE.replace(old, new))) == what


def test_more_storage_buffers_than_by_default_are_named() -> None:
    names = [f"b{i}" for i in range(9)]
    text = "\n".join(f"@group(0) @binding({i}) var<storage, read_write> {n}: array<f32>;" for i, n in enumerate(names))
    text += f"@compute @workgroup_size(1) fn main() {{ {' '.join(f'{n}[0] = 1.0;' for n in names)} }}"
    adapter = adapters()[0]
    if adapter.limits["max-storage-buffers-per-shader-stage"] < 9:
        pytest.skip("the adapter has no more than the default")
    (need,) = check_on(adapter, "many.wgsl", text).needs
    assert need.startswith("more than the default limits: ") and "StorageBuffers" in need


def test_tint_is_asked_where_it_is(double: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pydawn")
    if not tint.available():
        pytest.skip("Dawn opens no adapter here")
    assert check_with_tint("double.wgsl", DOUBLE).portable
    assert main(["shader", "check", str(double)]) == 0
    assert "  Tint: ok" in capsys.readouterr().out


def test_run_reads_and_writes_arrays(double: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given, result = double.with_name("x.npy"), double.with_name("out.npy")
    np.save(given, np.arange(6, dtype=np.float32))
    words = ["shader", "run", str(double), "--input", f"x={given}", "--constant", "SIZE=4"]
    assert main([*words, "--output", "out=f32[2,3]"]) == 0
    assert "out: float32[2, 3]\n[[ 0.  2.  4.]\n [ 6.  8. 10.]]" in capsys.readouterr().out
    assert main([*words, "--output", f"out=f32[6]:{result}", "--groups", "2"]) == 0
    np.testing.assert_array_equal(np.load(result), np.arange(6) * 2)
    assert main([*words, "--output", "out=f32[6]", "--groups", "1x1"]) == 1
    assert "output out: expected all 6 elements to be written, got 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "out=f64[6]"], "expected NAME=TYPE[SHAPE]"),
        (["--output", "out"], "expected NAME=VALUE"),
        (["--output", "out=f32[6]", "--input", "x=nowhere.npy"], "expected a .npy file"),
        (["--output", "out=f32[6]", "--constant", "SIZE=many"], "expected a number, true or false"),
        (["--output", "out=f32[6]", "--groups", "2xb"], "expected workgroups like 8 or 8x8x1"),
    ],
)
def test_words_that_make_no_sense_are_answered(
    words: list[str], message: str, double: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["shader", "run", str(double), *words]) == 2
    assert message in capsys.readouterr().err


def test_test_hands_over_to_pytest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []
    monkeypatch.setattr(pytest, "main", lambda words: given.append(words) or 5)
    assert main(["shader", "test", "-k", "blur", str(tmp_path)]) == 5
    assert given == [["-p", "wgpu_nn.testing.plugin", "-k", "blur", str(tmp_path)]]
