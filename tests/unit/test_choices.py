"""Autotune's memory: what is kept in a file, what is ignored, and who may write to it at once; and its switch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from wgpu_nn import switches
from wgpu_nn.backends import choices
from wgpu_nn.backends.choices import Choices
from wgpu_nn.backends.tuner import bucket
from wgpu_nn.errors import ConfigError

STAMP = {"driver": "1.0", "kernels": "abc"}


def test_a_choice_outlives_the_process(tmp_path: Path) -> None:
    path = tmp_path / "made" / "autotune.json"
    Choices(path, STAMP).keep("matmul 4 x 4", "tile")
    again = Choices(path, STAMP)
    assert again.get("matmul 4 x 4") == "tile" and again.get("matmul 5 x 4") is None


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", '{"format": 1}', '{"choices": ["a"]}', '{"choices": {"a": 1}}', "\xff\x00", "[" * 100_000],
    ids=lambda t: t[:20],
)
def test_a_broken_file_is_ignored_with_a_warning_and_replaced(tmp_path: Path, text: str) -> None:
    path = tmp_path / "autotune.json"
    path.write_bytes(text.encode("latin-1"))
    known = Choices(path, STAMP)
    with pytest.warns(UserWarning, match=r"autotune.json: expected choices of kernels, got .* ignored"):
        assert known.get("a") is None
    known.keep("a", "b")
    assert Choices(path, STAMP).get("a") == "b"


@pytest.mark.parametrize("name", STAMP)
def test_a_file_of_another_driver_or_of_other_kernels_is_stale(tmp_path: Path, name: str) -> None:
    path = tmp_path / "autotune.json"
    Choices(path, STAMP | {name: "old"}).keep("a", "b")
    known = Choices(path, STAMP)
    with pytest.warns(UserWarning, match=f"expected {name} {STAMP[name]}, got old: it is stale; it is ignored"):
        assert known.get("a") is None
    known.keep("c", "d")
    assert Choices(path, STAMP).get("a") is None and Choices(path, STAMP).get("c") == "d"


def test_a_folder_that_cannot_be_written_costs_a_warning_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    known = Choices(tmp_path / "file" / "autotune.json", STAMP)
    with pytest.warns(UserWarning, match="as long as this process"):
        known.keep("a", "b")
    known.keep("c", "d")  # and no second one
    assert known.get("a") == "b" and known.get("c") == "d"


def test_two_processes_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "autotune.json"
    code = (
        "import sys; from pathlib import Path; from wgpu_nn.backends.choices import Choices;"
        f"known = Choices(Path(sys.argv[1]), {STAMP!r});"
        "[known.keep(f'{sys.argv[2]} {n}', sys.argv[2]) for n in range(40)]"
    )
    running = [subprocess.Popen([sys.executable, "-W", "error", "-c", code, path, name]) for name in ("x", "y")]
    assert [p.wait(120) for p in running] == [0, 0]
    found = json.loads(path.read_text())["choices"]
    wanted = {f"{name} {n}": name for name in ("x", "y") for n in range(40)}
    assert found.items() <= wanted.items()
    # What one of them writes last, while the other stands between its read and its write, is lost, and measured again.
    counts = sorted(sum(value == name for value in found.values()) for name in ("x", "y"))
    assert counts[1] == 40 and counts[0] >= 20
    assert [p.name for p in tmp_path.iterdir()] == ["autotune.json"]


def test_without_platformdirs_the_warning_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    choices.cache_folder.cache_clear()
    try:
        with pytest.warns(UserWarning, match=r"platformdirs.*pip install 'wgpu-nn\[tune\]'"):
            assert choices.cache_folder() is None
    finally:
        choices.cache_folder.cache_clear()
    known = Choices(None, STAMP)
    known.keep("a", "b")
    assert known.get("a") == "b"


def test_the_version_of_kernels_follows_the_shaders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    version = choices.kernels_version.__wrapped__
    before = version()
    assert version() == before
    monkeypatch.setattr(choices, "folder", lambda: tmp_path)
    without = version()
    (tmp_path / "a.wgsl").write_text("fn f() {}")
    assert len({before, without, version()}) == 3


def test_a_bucket_is_at_most_half_as_large_again() -> None:
    assert [bucket(n) for n in (0, 1, 7, 16, 17, 24, 25, 33, 48, 100, 1000, 4096, 4097)] == [
        *(0, 1, 7, 16, 24, 24, 32, 48, 48, 128, 1024, 4096, 6144)
    ]
    assert all(n <= bucket(n) < 1.5 * n and bucket(bucket(n)) == bucket(n) for n in range(1, 5000))


def test_the_switch_knows_its_values(monkeypatch: pytest.MonkeyPatch) -> None:
    before = switches.autotune.value
    with switches.autotune.set("once"):
        assert switches.autotune.value == "once"
        with pytest.raises(ConfigError, match=r"WGPU_NN_AUTOTUNE: expected off .*, on .*, once .*, got 'yes'"):
            switches.autotune.value = "yes"
        with pytest.raises(ConfigError), switches.autotune.set("maybe"):
            pass
    assert switches.autotune.value == before
    monkeypatch.setenv("WGPU_NN_A_CHOICE", "B")
    assert switches.Choice("WGPU_NN_A_CHOICE", {"a": "first", "b": "second"}, "a test").value == "b"
    monkeypatch.setenv("WGPU_NN_A_CHOICE", "")
    assert switches.Choice("WGPU_NN_A_CHOICE", {"a": "first", "b": "second"}, "a test").value == "a"
