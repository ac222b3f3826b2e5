"""``wgpu-nn explain``: what it says is what planners plan, without an adapter; and bad input is one line."""

from __future__ import annotations

import re

import pytest

from tests.plans import TARGETS, Plans
from wgpu_nn.cli import explain, main
from wgpu_nn.kernels.source import folder
from wgpu_nn.ops import OPS, Category

SIZES = {"[BATCH] M K N": [7, 33, 20], explain.CONV: [2, 3, 9, 8, 4, 3, 1]}


@pytest.mark.parametrize("adapter", TARGETS)
@pytest.mark.parametrize("op", explain.FORMS)
def test_every_op_is_explained_as_it_is_planned(op: str, adapter: str) -> None:
    asked = explain.asked_of(op, SIZES.get(explain.FORMS[op].sizes, [5, 70]), [-1])
    target, title = explain.target_of(adapter)
    lines = explain.explain(asked, target, title, eager=False, wgsl=False)
    plans = Plans(target)
    plans.run(op, [plans.empty(shape, dtype) for shape, dtype in asked.operands], dict(asked.attrs))
    heads = [line for line in lines if re.match(r"\d+\. ", line)]
    assert len(heads) == len(plans.launches) > 0
    for n, (head, (kernel, _, grid)) in enumerate(zip(heads, plans.launches, strict=True), start=1):
        written = not kernel.source.endswith(".wgsl")
        place = f"written by {kernel.source}" if written else f"shaders/{kernel.source}"
        assert head.startswith(f"{n}. {kernel.name}: {place}, planned in wgpu_nn/kernels/")
        assert ((folder().parent if written else folder()) / kernel.source).is_file()
        x, y, z = grid
        place = lines.index(head)
        groups = next(line for line in lines[place:] if line.startswith("   workgroups"))
        assert groups.startswith(f"   workgroups  {x * y * z:,} ({x:,} x {y:,} x {z:,}) of ")
    assert max(len(line) for line in lines if line not in heads) <= explain.WIDTH


def test_all_maps_and_reductions_have_a_form() -> None:
    wanted = {n for n, row in OPS.items() if row.category in (Category.MAP, Category.REDUCE)} - {"cast"}
    assert wanted <= explain.FORMS.keys()


def test_the_sizes_and_the_variant_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "matmul", "4096", "512", "256", "--adapter", "gpu"]) == 0
    out = capsys.readouterr().out
    for text in (
        "matmul f32[4096, 512], f32[512, 256] -> f32[4096, 256], as a captured step",
        "1. matmul 64 x 128: written by wgpu_nn/kernels/block.py, planned in wgpu_nn/kernels/matmul.py",
        "One workgroup computes 64 x 128 outputs",
        "body=block", "rows=4096 columns=256 inner=512", "128 (128 x 1 x 1) of 128 invocations",
        "SUMS=false", "a vec4f 8 MiB read", "4 MiB written",
    ):  # fmt: skip
        assert text in out, text
    assert main(["explain", "matmul", "64", "512", "256", "--adapter", "gpu"]) == 0
    out = capsys.readouterr().out
    assert "shaders/matmul_tile.wgsl" in out and "of 128 invocations (SIDE * SIDE * GROUPS)" in out
    assert main(["explain", "matmul", "4096", "512", "256", "--adapter", "software"]) == 0
    assert "matmul_direct.wgsl" in capsys.readouterr().out


def test_eager_and_captured_variants_may_differ(capsys: pytest.CaptureFixture[str]) -> None:
    found: list[str] = []
    for flags in ([], ["--eager"]):
        assert main(["explain", "matmul", "64", "1024", "512", "--adapter", "gpu", *flags]) == 0
        found.append(capsys.readouterr().out)
    assert "as a captured step" in found[0] and "teams=1" not in found[0]
    assert "as eager mode" in found[1] and "teams=1" in found[1]


def test_the_text_is_printed_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "relu", "70", "--adapter", "gpu", "--wgsl"]) == 0
    assert "@compute @workgroup_size(WORKGROUP)" in capsys.readouterr().out


def test_axes_choose_what_is_folded(capsys: pytest.CaptureFixture[str]) -> None:
    for axes, result in ((["0"], "f32[4, 5]"), (["-1", "0"], "f32[4]"), (["0", "1", "2"], "f32[]")):
        assert main(["explain", "sum", "3", "4", "5", "--adapter", "gpu", "--axes", *axes]) == 0
        assert f"-> {result}, " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["frobnicate", "3"], "expected matmul, conv2d, .* or a map op .*, got 'frobnicate'"),
        (["matmul", "3", "4"], r"matmul: expected \[BATCH\] M K N, got 3 4; wgpu-nn explain matmul 64"),
        (["matmul"], "got none"),
        (["matmul", "3", "0", "4"], "got 3 0 4"),
        (["conv2d", "1", "2", "3", "3", "4", "5"], "expected a kernel within the padded image, got 5 for 3 x 3, pad 0"),
        (["sum", "3", "4", "--axes", "5"], r"sum: expected --axes of \[3, 4\], got \[5\]"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_give(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", *words, "--adapter", "gpu"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and re.search(message, err)


def test_workgroup_sizes_are_products() -> None:
    code = "@compute @workgroup_size(SIDE * SIDE, 2u)\n// --- header: x\nconst SIDE = 8u;\nconst OTHER = 2.5;\n"
    assert explain.workgroup_of(code) == ("SIDE * SIDE, 2u", 128)


@pytest.mark.parametrize("op", ["matmul", "sum", "softmax"])
def test_what_variants_there_are_and_which_is_taken_stands_above_the_launches(op: str) -> None:
    from wgpu_nn import switches

    asked = explain.asked_of(op, [1024, 512, 640] if op == "matmul" else [1024, 2048], [-1])
    target, title = explain.target_of("gpu")

    def shown(known: explain.Known) -> str:
        lines = explain.explain(asked, target, title, eager=False, wgsl=False, known=known)
        text = " ".join(" ".join(lines).split())
        return text[text.index("choice: ") : text.index(" 1. ")]

    def known(key: str) -> str:
        assert key.split()[0] == {"matmul": "matmul", "sum": "reduce", "softmax": "rows"}[op]
        return last

    by_rule = shown(lambda key: None)
    found = re.fullmatch(r"choice: \w+: (.+), by rule, of (\d+): (.+)", by_rule)
    assert found is not None
    first, names = found[1], found[3].split("; ")
    last = names[-1]
    assert first == names[0] != last and len(names) == int(found[2])
    with switches.autotune.set("off"):
        assert f"{first}, by rule (measured: {last}, which WGPU_NN_AUTOTUNE=on takes)" in shown(known)
    with switches.autotune.set("on"):
        assert f": {last}, as measured on this adapter" in shown(known)


def test_operands_in_halves_are_explained_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "add", "5", "70", "--half", "--adapter", "gpu"]) == 0
    shown = capsys.readouterr().out
    assert "f16[5, 70]" in shown and "vec4<f16>" in shown and "One invocation" in shown and "enable" not in shown
