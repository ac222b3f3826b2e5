"""The WGSL files and the kernels made of them, as texts: what a body says that it needs, its header supplies."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest

from tests.plans import plan_all
from wgpu_nn.gpu import PARAMS_WORDS, Kernel
from wgpu_nn.kernels.source import folder, library, used

BODIES = sorted(folder().glob("*.wgsl"))
LIBRARY = sorted((folder() / "lib").glob("*.wgsl"))
DECLARED = re.compile(r"(?:^|(?<=; ))(?:fn|const|override|alias|struct) (\w+)", re.MULTILINE)
NAME = re.compile(r"\b[A-Za-z_]\w*\b")


@functools.cache
def planned() -> dict[str, dict[str, Kernel]]:
    """Return every kernel that the case table assembles, by file and text."""
    out: dict[str, dict[str, Kernel]] = {}
    for plans in plan_all():
        for kernel in [*(k for k, _, _ in plans.launches), *plans.constant]:
            out.setdefault(kernel.source, {})[kernel.code] = kernel
    return out


def code_of(text: str) -> str:
    return re.sub(r"//[^\n]*", "", text)


def opening(text: str) -> tuple[str, list[str]]:
    """Return what a body computes, and the names that it needs."""
    comments = re.match(r"(?://[^\n]*\n)+", text)
    assert comments, "opens with no comment"
    lines = [line.removeprefix("//").strip() for line in comments[0].splitlines()]
    first = next((i for i, line in enumerate(lines) if line.startswith("needs:")), None)
    assert first, "the second comment says no needs:"
    needs = " ".join(lines[first:]).removeprefix("needs:")
    return " ".join(lines[:first]), [name.strip() for name in needs.split(",")]


@pytest.mark.parametrize("path", BODIES, ids=lambda p: p.name)
def test_the_cases_reach_every_body(path: Path) -> None:
    assert path.name in planned()


@pytest.mark.parametrize("path", BODIES, ids=lambda p: p.name)
def test_a_body_needs_exactly_what_it_uses_of_its_headers(path: Path) -> None:
    text = path.read_text()
    what, needs = opening(text)
    assert re.match(r"One (invocation|workgroup) ", what) and what.endswith(".")
    body = code_of(text)
    supplied: set[str] = set()
    for kernel in planned()[path.name].values():
        assert kernel.code.startswith(text), "a header must follow the body, so that line numbers are the file's"
        supplied |= set(DECLARED.findall(kernel.code[len(text) :])) - library().keys()
    reached = body + "".join(library()[f] for f in used(body))  # a library function may need the header as well
    wanted = supplied & set(NAME.findall(reached)) - set(DECLARED.findall(reached))
    assert len(set(needs)) == len(needs), "a name stands twice"
    assert set(needs) == wanted, f"too many: {sorted(set(needs) - wanted)}, missing: {sorted(wanted - set(needs))}"


@pytest.mark.parametrize("path", BODIES, ids=lambda p: p.name)
def test_every_header_declares_each_needed_name_once(path: Path) -> None:
    text = path.read_text()
    for kernel in planned()[path.name].values():
        names = DECLARED.findall(kernel.code)
        assert len(names) == len(set(names)), kernel.name
        assert set(opening(text)[1]) <= set(names), kernel.name


@pytest.mark.parametrize("path", [*BODIES, *LIBRARY], ids=lambda p: p.name)
def test_a_file_is_plain_wgsl_and_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    assert not re.search(r"\{\{|\}\}|\{%|^#|\$\{|-32767|^\s*enable ", text, re.MULTILINE)
    assert text.endswith("\n") and "\t" not in text


def test_a_library_function_has_a_comment_or_neighbours_that_explain_it() -> None:
    for path in LIBRARY:
        assert path.read_text().startswith("//"), path.name
    assert len(library()) == sum(
        len(re.findall(r"^(?:fn|const|struct) ", p.read_text(), re.MULTILINE)) for p in LIBRARY
    )


def test_a_kernel_has_just_the_library_functions_that_it_calls() -> None:
    for kernels in planned().values():
        for kernel in kernels.values():
            head, _, tail = kernel.code.partition("\n// --- header: ")
            given = [n for n in DECLARED.findall(tail) if n in library()]
            wanted = used(head + re.sub(r"^fn (\w+)", "", tail, flags=re.MULTILINE))
            assert sorted(given) == sorted(set(given)) and set(given) <= set(wanted), kernel.name


def test_launches_stay_within_the_portable_limits() -> None:
    for plans in plan_all():
        for kernel, words, grid in plans.launches:
            assert len(words) <= PARAMS_WORDS, kernel.name
            assert len(kernel.access) <= 8, kernel.name
            assert all(1 <= n <= 65535 for n in grid), kernel.name


def test_a_new_batch_size_makes_no_new_text() -> None:
    from tests.cases import Arg, Case
    from tests.plans import TARGETS, Plans

    for target in TARGETS.values():
        texts: list[set[str]] = []
        for batch in (64, 36, 4):
            plans = Plans(target)
            plans.case(Case("matmul", (Arg((batch, 1024)), Arg((1024, 512)))))
            plans.case(Case("sum", (Arg((batch, 512)),), {"axes": (0,), "keepdim": False}))
            plans.case(Case("log_softmax", (Arg((batch, 10)),), {"axis": 1}))
            plans.case(Case("add", (Arg((batch, 512)), Arg((512,)))))
            texts.append({k.code for k, _, _ in plans.launches})
        # A split sum may add its second pass; nothing else may come.
        assert len(texts[1] - texts[0]) <= 1 and len(texts[2] - texts[0]) <= 1
