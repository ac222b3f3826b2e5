"""The harness for anybody's WGSL: what it runs, and that it finds bugs that were planted and none that are not there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wgpu_nn import Device
from wgpu_nn.errors import DeviceLimitError, KindError, SanitizerError, ShaderError, ShapeError
from wgpu_nn.gpu import Gpu, adapters
from wgpu_nn.testing import Out, Shader, assert_close
from wgpu_nn.testing.golden import compare
from wgpu_nn.testing.launch import stages
from wgpu_nn.testing.memory import Held

ROOT = Path(__file__).parents[2]
HEAD = """@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
var<workgroup> tile: array<f32, 8>;
@compute @workgroup_size(8)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(local_invocation_index) k: u32) {
"""
GUARDED = "    if (id.x >= arrayLength(&out)) { return; }\n"
X = np.arange(10, dtype=np.float32)


@pytest.fixture
def gpu(gpu_device: Device) -> Gpu:
    return gpu_device.gpu


def made(gpu: Gpu, body: str, head: str = HEAD) -> Shader:
    return Shader(gpu, f"{head}{body}\n}}\n")


def ran(gpu: Gpu, body: str, groups: int | None = None) -> np.ndarray:
    return made(gpu, body).run({"x": X, "out": Out(10)}, groups)


def test_a_clean_shader_gives_its_result_and_no_report(gpu: Gpu) -> None:
    body = GUARDED + "    out[id.x] = 2.0 * x[id.x];"
    np.testing.assert_array_equal(ran(gpu, body), 2 * X)
    made(gpu, body).find_races({"x": X, "out": Out(10)})


def test_a_read_out_of_bounds_is_named(gpu: Gpu) -> None:
    with pytest.raises(SanitizerError) as caught:
        ran(gpu, GUARDED + "    out[id.x] = x[id.x + 1u];")
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("shader text:7:17: expected accesses within bounds, got 1 outside")
    assert lines[1:] == [
        "  line 7:17: x[id.x + 1u]: read at index 10, of 10 elements, of storage x, by invocation (9, 0, 0)"
    ]


def test_a_write_out_of_bounds_is_named_and_changes_nothing_beside(gpu: Gpu) -> None:
    with pytest.raises(
        SanitizerError, match=r"out\[i32\(id.x\) - 1\]: write at index -1, of 10 .* invocation \(0, 0, 0\)"
    ):
        ran(gpu, "    if (id.x < 11u) { out[i32(id.x) - 1] = 1.0; }")


def test_an_index_out_of_workgroup_memory_is_named(gpu: Gpu) -> None:
    with pytest.raises(SanitizerError, match=r"tile\[k \+ 1u\]: write at index 8, of 8 elements, of workgroup tile"):
        ran(gpu, "    tile[k + 1u] = 1.0; if (id.x < 10u) { out[id.x] = 1.0; }")


def test_what_goes_through_a_pointer_is_listed_as_not_watched(gpu: Gpu) -> None:
    shader = made(gpu, GUARDED + "    let p = &out;\n    (*p)[id.x] = x[id.x];")
    np.testing.assert_array_equal(shader.run({"x": X, "out": Out(10)}), X)
    assert shader.unseen() == (7,)


def test_an_output_that_is_left_unwritten_is_named(gpu: Gpu) -> None:
    with pytest.raises(SanitizerError, match=r"output out: expected all 10 elements .* got 2 .* the first at \[8\]"):
        ran(gpu, GUARDED + "    out[id.x] = x[id.x];", groups=1)
    shader = made(gpu, GUARDED + "    out[id.x] = x[id.x];")
    kept = shader.run({"x": X, "out": Out((2, 5), initial=-1)}, 1)
    np.testing.assert_array_equal(kept, [[0, 1, 2, 3, 4], [5, 6, 7, -1, -1]])


@pytest.mark.parametrize(("word", "side"), [(63, "before"), (64 + 5, "behind")])
def test_writes_beside_a_buffer_are_seen_by_canaries(word: int, side: str, gpu: Gpu) -> None:
    held = Held(stages(gpu), "out", Out(5))
    assert (held.read().view(np.uint32) == 0xFFE5FFE5).all()
    words = np.frombuffer(gpu.stream.read(held.lease, 0, 4 * (64 + 5 + 64)), np.uint32).copy()
    words[word] = 0
    gpu.stream.upload(held.lease, words)
    with pytest.raises(
        SanitizerError, match=rf"binding out: .* 1 word\(s\) {side} it .* the first at word {word - 64}"
    ):
        held.read()


@pytest.mark.parametrize(
    "body",
    [
        "    if (id.x == 0u || id.x == 8u) { out[0] = f32(id.x); }",  # both write there
        GUARDED + "    out[id.x] = out[0] + 1.0;",  # one reads what another writes
    ],
)
def test_a_race_is_found(body: str, gpu: Gpu) -> None:
    with pytest.raises(SanitizerError, match=r"expected the same results in any order, got .* of out that differ"):
        made(gpu, body).find_races({"x": X, "out": Out(10, initial=0)}, orders=6)


def test_a_missing_barrier_is_found(gpu: Gpu) -> None:
    head = HEAD.replace("f32, 8>", "f32, 128>").replace("size(8)", "size(128)")
    body = "    tile[k] = f32(id.x);{}\n    out[id.x] = tile[127u - k];"
    buffers = {"x": X, "out": Out(256)}
    used = "    let unused = x[0];"
    with pytest.raises(SanitizerError, match="expected the same results in any order"):
        made(gpu, used + body.format(""), head).find_races(buffers)
    made(gpu, used + body.format(" workgroupBarrier();"), head).find_races(buffers)


def test_other_workgroup_sizes_must_give_the_same(gpu: Gpu) -> None:
    head = HEAD.replace("workgroup_size(8)", "workgroup_size(SIZE)") + GUARDED
    buffers = {"x": X, "out": Out(10)}
    good = Shader(gpu, f"override SIZE = 4; {head} out[id.x] = x[id.x]; }}")
    good.find_races(buffers, sizes=[({"SIZE": 3}, None), ({"SIZE": 8}, 2)])
    bad = Shader(gpu, f"override SIZE = 4; {head} out[id.x] = f32(k); }}")
    with pytest.raises(SanitizerError, match=r"differ with \{'SIZE': 3\}"):
        bad.find_races(buffers, sizes=[({"SIZE": 3}, None)])


def test_groups_are_derived_from_the_shape_of_the_output(gpu: Gpu) -> None:
    text = """@group(0) @binding(0) var<storage, read_write> out: array<vec2u>;
    @compute @workgroup_size(2, 3) fn main(@builtin(global_invocation_id) id: vec3u) {
        if (id.x < 5u && id.y < 7u) { out[id.y * 5u + id.x] = id.xy; }
    }"""
    out = Shader(gpu, text).run({"out": Out((7, 10), np.uint32)}).reshape(7, 5, 2)
    np.testing.assert_array_equal(out[..., 0], np.broadcast_to(np.arange(5), (7, 5)))
    np.testing.assert_array_equal(out[..., 1], np.broadcast_to(np.arange(7)[:, None], (7, 5)))


def test_several_outputs_groups_uniforms_and_entry_points(gpu: Gpu) -> None:
    text = """struct P { scale: f32, shift: f32 }
    @group(2) @binding(5) var<uniform> p: P;
    @group(0) @binding(3) var<storage, read_write> a: array<f32>;
    @group(1) @binding(0) var<storage, read_write> b: array<i32>;
    @id(7) override START: i32;
    @compute @workgroup_size(1) fn one(@builtin(workgroup_id) g: vec3u) {
        a[g.x] = p.scale * f32(g.x) + p.shift; b[g.x] = START + i32(g.x);
    }
    @compute @workgroup_size(1) fn two(@builtin(workgroup_id) g: vec3u) { b[g.x] = 1; }"""
    shader = Shader(gpu, text)
    p = np.array([2, 1], np.float32)
    a, b = shader.run({"p": p, "a": Out(3), "b": Out(3, np.int32)}, entry="one", constants={"START": -4})
    np.testing.assert_array_equal(a, [1, 3, 5])
    np.testing.assert_array_equal(b, [-4, -3, -2])
    np.testing.assert_array_equal(shader.run({"b": Out(2, np.int32)}, entry="two", constants={"START": 0}), [1, 1])
    with pytest.raises(ShaderError, match="expected a compute entry point, got one, two; name one"):
        shader.run({"b": Out(2, np.int32)}, 2)


def test_a_broken_text_shows_file_line_and_caret(gpu: Gpu, tmp_path: Path) -> None:
    path = tmp_path / "broken.wgsl"
    path.write_text(f"{HEAD}    out[id.x] = y[id.x];\n}}\n")
    with pytest.raises(ShaderError) as caught:
        Shader(gpu, path).run({"x": X, "out": Out(10)})
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("shader broken.wgsl:6:17: no definition in scope")
    assert lines[1].index("y[id.x]") == lines[2].index("^")
    error = Shader(gpu, path).fails_to_compile("no definition in scope for identifier: `y`", line=6)
    assert isinstance(error, ShaderError)
    with pytest.raises(AssertionError, match="expected an error on line 5"):
        Shader(gpu, path).fails_to_compile(line=5)
    with pytest.raises(AssertionError, match="expected not to compile, but it does"):
        made(gpu, "    out[id.x] = 1.0;").fails_to_compile()
    for text in ("fn", "@compute @workgroup_size(1) fn main() {", "/* no end", "struct A", "}"):
        Shader(gpu, text + "\n").fails_to_compile()


def test_wrong_arrays_and_names_are_refused(gpu: Gpu) -> None:
    shader = made(gpu, GUARDED + "    out[id.x] = x[id.x];")
    with pytest.raises(KindError, match=r"binding x expected float32 .* got float64; pass x.astype"):
        shader.run({"x": X.astype(np.float64), "out": Out(10)})
    with pytest.raises(ShaderError, match="expected buffers x, out, got y, out; see to x, y"):
        shader.run({"y": X, "out": Out(10)})
    with pytest.raises(ShapeError, match="at least one element"):
        shader.run({"x": X[:0], "out": Out(10)})
    with pytest.raises(ShaderError, match="x expected read_write for an Out, got read"):
        shader.run({"x": Out(10), "out": Out(10)})
    with pytest.raises(DeviceLimitError, match="expected at most 65535 workgroups"):
        shader.run({"x": X, "out": Out(10)}, 65536)
    with pytest.raises(ShaderError, match="expected a WGSL file"):
        Shader(gpu, "nowhere.wgsl")
    np.testing.assert_array_equal(shader.run({"x": [1, 2], "out": Out(2)}), [1, 2])  # lists take the binding's type


def test_a_shader_compiles_once_for_all_its_runs(gpu: Gpu) -> None:
    body = GUARDED + "    out[id.x] = 3.0 * x[id.x];"
    ran(gpu, body)
    before = gpu.counts.copy()
    for _ in range(3):
        ran(gpu, body)
    done = gpu.counts.since(before)
    assert done.pipelines == 0 and done.launches == 3


def test_a_cost_has_time_and_bytes(gpu: Gpu) -> None:
    if "timestamp-query" not in gpu.features:
        pytest.skip("no timestamps")
    cost = made(gpu, GUARDED + "    out[id.x] = x[id.x];").measure({"x": X, "out": Out(10)})
    assert cost.nbytes == 80 and cost.seconds > 0 and cost.bandwidth == 80 / cost.seconds


def test_close_arrays_pass_and_others_show_where() -> None:
    e = np.array([[1, 2, np.nan], [np.inf, 1e-40, 0]], np.float32)
    assert_close(e, e)
    assert_close(np.nextafter(e, np.float32(np.inf)), e.astype(np.float64), ulp=1)
    with pytest.raises(AssertionError) as caught:
        assert_close(e + np.array([[0, 1e-3, 0], [0, 0, 0.5]], np.float32), e, rtol=1e-6, name="it")
    assert str(caught.value).splitlines() == [
        "it: 2 of 6 elements differ (allowed: 1e-06 relative)",
        "  worst at [1, 2]: expected 0.0, got 0.5, 0.5 apart, 3.57e+44 ulp",
        "  where:",
        "    .#.",
        "    ..#",
    ]
    with pytest.raises(AssertionError, match=r"expected shape \[2\], got \[1\]"):
        assert_close([1], [1, 2])
    with pytest.raises(AssertionError, match="4 of 4 elements differ"):
        assert_close([np.nan, np.inf, -np.inf, 0], [0, np.nan, np.inf, np.inf], atol=9, rtol=9, ulp=9)


def test_the_example_project_passes_without_the_framework(tmp_path: Path, gpu_device: Device) -> None:
    folder = tmp_path / "shader_tests"
    shutil.copytree(ROOT / "examples" / "shader_tests", folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "conftest.py").write_text(
        "import sys\ndef pytest_unconfigure():\n"
        "    print('loaded', sorted(m for m in sys.modules if m in ('wgpu_nn.tensor', 'wgpu_nn.ops', 'pydantic')))\n"
    )
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\naddopts = --strict-config\n")
    given = ["-p", "wgpu_nn.testing.plugin", "-q", "-p", "no:cacheprovider", "--shader-times", "--wgpu-adapter", "all"]
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", code, *given], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{12 * len(adapters())} passed" in done.stdout and "loaded []" in done.stdout
    timed = "timestamp-query" in gpu_device.gpu.features
    assert ("double.wgsl" in done.stdout and "us each" in done.stdout) == timed


def test_golden_files_are_written_when_asked_and_compared_else(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.npy"
    with pytest.raises(AssertionError, match="write it with pytest --update-golden"):
        compare(path, X, False, ulp=0, rtol=0, atol=0)
    compare(path, X, True, ulp=0, rtol=0, atol=0)
    compare(path, X, False, ulp=0, rtol=0, atol=0)
    with pytest.raises(AssertionError, match=r"golden a.npy: 1 of 10 elements differ"):
        compare(path, np.where(X == 3, 4, X).astype(np.float32), False, ulp=0, rtol=0, atol=0.5)
    with pytest.raises(AssertionError, match="expected float32, got float64"):
        compare(path, X.astype(np.float64), False, ulp=0, rtol=0, atol=0)


def test_the_plugin_loads_no_wgpu_before_a_fixture_is_used() -> None:
    code = "import sys, wgpu_nn.testing.plugin; print(sorted({'wgpu', 'numpy', 'pydantic', 'wgpu_nn.gpu'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
