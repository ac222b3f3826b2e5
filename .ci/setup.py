"""Makes a machine ready for `make train` or `make test`: virtual environment, package, and an adapter that answers.

    python3 .ci/setup.py train|test      prepares .venv with what that command needs; a second run finds all of it done

It knows interpreters, system packages and stamps; it leaves the job itself to the Makefile. Standard library only, and
plain enough to be parsed by an old Python, which then looks for a newer one.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
WINDOWS = os.name == "nt"
VENV_PYTHON = os.path.join(VENV, "Scripts" if WINDOWS else "bin", "python.exe" if WINDOWS else "python")
COVERS = {"train": ("train", "test"), "test": ("test",)}  # extras whose presence satisfies a command

OLDEST = (3, 11)
PYTHONS = ["python3.13", "python3.12", "python3.11", "python3.14", "python3", "python"]
# Prints one line, `3 11 1`: the version, and whether this interpreter can make an environment that has pip.
DESCRIBE_PYTHON = (
    "import sys, importlib.util as u; "
    "print(sys.version_info[0], sys.version_info[1], int(bool(u.find_spec('venv') and u.find_spec('ensurepip'))))"
)

# OpenGL is not counted: it lacks most of what the shaders need.
LIST_ADAPTERS = """
import wgpu
for adapter in wgpu.gpu.enumerate_adapters_sync():
    info = adapter.info
    if info["backend_type"] in ("Vulkan", "Metal", "D3D12"):
        print("adapter:", info["device"], "/", info["adapter_type"], "/", info["backend_type"])
"""
# Mesa's EGL calls an unset XDG_RUNTIME_DIR an error, on stderr, and goes on unharmed. Any folder of ours quietens it.
QUIET = dict(os.environ, XDG_RUNTIME_DIR=os.environ.get("XDG_RUNTIME_DIR") or VENV)

DEBIAN_DRIVER = ["libvulkan1", "mesa-vulkan-drivers"]
# The first word that is found in ID or ID_LIKE of /etc/os-release decides.
LINUX_DRIVER = [
    ("debian ubuntu", "sudo apt-get install " + " ".join(DEBIAN_DRIVER)),
    ("fedora rhel centos", "sudo dnf install vulkan-loader mesa-vulkan-drivers"),
    ("arch", "sudo pacman -S vulkan-icd-loader vulkan-swrast"),
    ("suse opensuse", "sudo zypper install libvulkan1 libvulkan_lvp"),
    ("gentoo", "sudo emerge media-libs/vulkan-loader media-libs/mesa   (with VIDEO_CARDS=lavapipe and USE=vulkan)"),
    ("nixos", "hardware.graphics.enable = true;   in configuration.nix"),
]


def say(text):
    print("[setup] " + text, flush=True)


def stop(text):
    sys.exit("[setup] " + text.replace("\n", "\n        "))


# --- the system's packages -------------------------------------------------------------------------------------------


def distribution():
    """The words of ID and ID_LIKE in /etc/os-release, or an empty list."""
    words = []
    try:
        with open("/etc/os-release") as lines:
            for line in lines:
                name, _, value = line.strip().partition("=")
                if name in ("ID", "ID_LIKE"):
                    words += value.strip("\"'").lower().split()
    except OSError:
        pass
    return words


def apt_prefix():
    """How to call apt-get without asking anyone: [] as root, ['sudo', '-n'] where sudo needs no password, else None."""
    if not shutil.which("apt-get"):
        return None
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") and subprocess.call(["sudo", "-n", "true"], stderr=subprocess.DEVNULL) == 0:
        return ["sudo", "-n"]
    return None


def apt_install(packages, why):
    """Installs Debian packages if that can be done without asking; returns whether it was."""
    prefix = apt_prefix()
    if prefix is None:
        return False
    say("%s; installing with apt-get: %s" % (why, " ".join(packages)))
    apt = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "Dpkg::Use-Pty=0"]
    # NOTE: a failed update is no reason to stop, one dead third-party source is enough for it; the install decides.
    subprocess.call([*apt, "update"], stdin=subprocess.DEVNULL)
    install = [*apt, "install", "-y", "--no-install-recommends", *packages]
    return subprocess.call(install, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) == 0


# --- Python ----------------------------------------------------------------------------------------------------------


def describe(python):
    """(major, minor, can make environments) of an interpreter, or None if it does not run."""
    try:
        run = subprocess.run([python, "-c", DESCRIBE_PYTHON], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        major, minor, complete = run.stdout.split()
        return int(major), int(minor), complete == b"1"
    except (OSError, ValueError):
        return None


def find_python():
    """The path of a Python that is new enough and can make environments, after installing what it lacks for that."""
    incomplete = None
    for name in [sys.executable, *PYTHONS]:
        path = shutil.which(name) if name else None
        found = describe(path) if path else None
        if path and found and found[:2] >= OLDEST:
            if found[2]:
                return path
            incomplete = incomplete or (path, found)
    if incomplete is None:
        stop(
            "wgpu_nn needs Python %d.%d or newer, and this is Python %d.%d; none was found on PATH.\n"
            "Install one, and if it has a name of its own: make train PYTHON=/path/to/python"
            % (*OLDEST, *sys.version_info[:2])
        )
    path, (major, minor, _) = incomplete
    package = "python%d.%d-venv" % (major, minor)
    of_system = os.path.realpath(path).startswith("/usr/bin/")
    if (
        of_system
        and apt_install([package], "this Python cannot make environments")
        and (describe(path) or (0, 0, False))[2]
    ):
        return path
    stop(
        "%s cannot make virtual environments: its module venv or ensurepip is missing.\n"
        "On Debian and Ubuntu: sudo apt-get install %s   Elsewhere: install Python's venv and pip packages."
        % (path, package)
    )


# --- the environment -------------------------------------------------------------------------------------------------


def venv_answers():
    """Whether .venv has a Python that starts, is new enough and has pip."""
    found = describe(VENV_PYTHON) if os.path.exists(VENV_PYTHON) else None
    if not found or found[:2] < OLDEST:
        return False
    return subprocess.call([VENV_PYTHON, "-c", "import pip"], stderr=subprocess.DEVNULL) == 0


def make_venv():
    if venv_answers():
        return
    python = find_python()
    say("making .venv with " + python)
    code = subprocess.call([python, "-m", "venv", "--clear", VENV])
    if code or not venv_answers():
        stop("could not make the virtual environment in %s; the lines above say why." % VENV)


def digest():
    """What an installed environment depends on: the project file, where the checkout is, and the Python inside."""
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        project = file.read()
    python = describe(VENV_PYTHON) if os.path.exists(VENV_PYTHON) else None
    return hashlib.sha256(project + repr((ROOT, python)).encode()).hexdigest()


def stamp(extra):
    return os.path.join(VENV, "installed-" + extra)


def is_installed(command):
    now = digest()
    for extra in COVERS[command]:
        try:
            with open(stamp(extra)) as file:
                if file.read() == now:
                    return True
        except OSError:
            pass
    return False


def install(command):
    """An editable install of the package with the extra that has the command's name, unless it is there already."""
    if is_installed(command):
        return
    make_venv()
    say("installing wgpu_nn[%s] into .venv, a minute or two the first time" % command)
    start = time.time()
    pip = [VENV_PYTHON, "-m", "pip", "--disable-pip-version-check", "install", "-q", "-e", ".[%s]" % command]
    if subprocess.call(pip, cwd=ROOT, stdin=subprocess.DEVNULL):
        stop("pip could not install the package; its lines above say why. The same command can simply be run again.")
    with open(stamp(command), "w") as file:
        file.write(digest())
    say("installed in %.0f s" % (time.time() - start))


# --- the adapter -----------------------------------------------------------------------------------------------------


def adapters():
    """One line for each adapter that answers, and what the attempt wrote on stderr."""
    run = subprocess.run([VENV_PYTHON, "-c", LIST_ADAPTERS], env=QUIET, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    lines = run.stdout.decode(errors="replace").splitlines()
    return [line for line in lines if line.startswith("adapter:")], run.stderr.decode(errors="replace").strip()


def driver_advice():
    if sys.platform == "darwin":
        return "macOS brings Metal by itself, but not to a virtual machine without GPU passthrough: run on the host."
    if WINDOWS:
        return "Windows brings Direct3D 12 by itself: update Windows and the graphics driver."
    words = distribution()
    for names, line in LINUX_DRIVER:
        if set(names.split()) & set(words):
            return "For a software Vulkan driver: " + line
    return "Install the Vulkan loader and a driver: Mesa's lavapipe is one in software, on any processor."


def find_adapter():
    found, complaint = adapters()
    debian = set(distribution()) & {"debian", "ubuntu"}
    if not found and debian and apt_install(DEBIAN_DRIVER, "no adapter answers"):
        found, complaint = adapters()
    if not found:
        reason = "\n" + complaint if complaint else ""
        stop(
            "no adapter answers, and wgpu_nn runs on Vulkan, Metal or Direct3D 12.%s\n%s\n"
            "With a GPU, its own driver is the better one. Then run the same command again." % (reason, driver_advice())
        )
    say("; ".join(found))


def main():
    if len(sys.argv) != 2 or sys.argv[1] not in COVERS:
        stop("usage: python3 .ci/setup.py train|test")
    install(sys.argv[1])
    find_adapter()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
