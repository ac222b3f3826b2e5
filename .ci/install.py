"""Installs the package as a user would, into an environment of its own, and holds it to the numbers that were promised.

It knows sizes and times of an installed wheel; what the package computes is left to the tests. Run with any Python that
can make virtual environments: `.venv/bin/python .ci/install.py`.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAX_INSTALL_MB = (
    100.0  # sum of file sizes, 1 MB = 10^6 bytes; byte code is a cache, which only some installers write at once
)
MAX_IMPORT_S = 0.3  # above the start of a bare Python
NOT_OURS = {"pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence.pth"}

INSPECT = """
import sys, pathlib
import wgpu_nn
package = pathlib.Path(wgpu_nn.__file__).parent
print(package)
print(len(list((package / "shaders").rglob("*.wgsl"))))
print((package / "py.typed").exists())
print(*sorted(name for name in sys.modules if name.split(".")[0] in ("wgpu", "_cffi_backend", "matplotlib", "rich")))
"""


def is_ours(entry: Path) -> bool:
    stem = entry.name.removesuffix(".dist-info").rpartition("-")[0] if entry.suffix == ".dist-info" else entry.name
    return stem not in NOT_OURS


def size_mb(entry: Path) -> float:
    files = [entry] if entry.is_file() else [path for path in entry.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files) / 1e6


def best_time(python: Path, code: str, folder: str, runs: int = 5) -> float:
    times: list[float] = []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run([python, "-I", "-c", code], cwd=folder, check=True)
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    failures: list[str] = []

    def hold(what: str, value: str, holds: bool) -> None:
        print(f"install: {what:38} {value:>30}  {'ok' if holds else 'FAILED'}", flush=True)
        if not holds:
            failures.append(what)

    with tempfile.TemporaryDirectory(prefix="wgpu_nn-install-") as folder:
        venv = Path(folder) / "venv"
        python = venv / ("Scripts" if os.name == "nt" else "bin") / "python"
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-compile", ROOT]
        subprocess.run(pip, check=True, stdin=subprocess.DEVNULL)

        # -I and another folder: the checkout itself must not be what is imported.
        run = subprocess.run([python, "-I", "-c", INSPECT], cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
        package, shaders, typed, unwanted = run.stdout.splitlines()
        hold("imported from", "site-packages", Path(package).resolve().is_relative_to(venv.resolve()))
        hold("shaders in the wheel", f"{shaders} files", int(shaders) == len(list(ROOT.glob("shaders/**/*.wgsl"))) > 0)
        hold("py.typed in the wheel", typed, typed == "True")
        hold("import loads no wgpu, no extras", unwanted or "none", not unwanted)

        entries = [entry for entry in Path(package).parent.iterdir() if is_ours(entry)]
        total = sum(map(size_mb, entries))
        hold("site-packages less pip", f"{total:.1f} MB of {MAX_INSTALL_MB:.0f}", total < MAX_INSTALL_MB)
        largest = sorted(entries, key=size_mb, reverse=True)[:5]
        print("install:   largest: " + ", ".join(f"{entry.name} {size_mb(entry):.1f}" for entry in largest))

        best_time(python, "import wgpu_nn", folder, 1)  # the first run reads the disk
        spent = best_time(python, "import wgpu_nn", folder) - best_time(python, "pass", folder)
        hold("import wgpu_nn over bare Python", f"{spent:.3f} s of {MAX_IMPORT_S}", spent < MAX_IMPORT_S)

    if failures:
        sys.exit("install: failed: " + ", ".join(failures))


if __name__ == "__main__":
    main()
