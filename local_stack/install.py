"""Sets up the virtual environment of the demo or of the tests: ``python -I local_stack/install.py demo`` or ``tests``.

make runs it with the machine's Python, so it uses the standard library alone. It creates the virtual environment,
installs the pinned Python packages and this project (editable), and for the demo downloads the jars, all in parallel
under one progress bar. An up-to-date environment takes a moment. A clone that was moved, renamed or copied is set up
again. Of two set-ups of one clone the second waits for the first.
"""

import argparse
import fcntl
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distributions
from pathlib import Path
from typing import Final

if __name__ == "__main__":
    # Until `main` can clean up, Ctrl-C just ends this.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

ROOT: Final = Path(__file__).resolve().parents[1]
VENV: Final = ROOT / ".venv"
sys.path.insert(0, str(ROOT))

from build_tools.jars import JarError  # noqa: E402
from local_stack import cache, pip_runner  # noqa: E402
from local_stack.installer import Installer, InstallError  # noqa: E402
from local_stack.pip_runner import Pip, PipError  # noqa: E402
from local_stack.progress import ByteProgress  # noqa: E402
from local_stack.system_java import JavaError, has_wheel, system_java  # noqa: E402
from runtime.broken_pipe import exit_status  # noqa: E402

_VERSIONS: Final = ((3, 11), (3, 12), (3, 13))
_REQUIREMENTS: Final = {"demo": "local_stack/requirements.txt", "tests": "tests/requirements.txt"}
_BOOTSTRAP: Final = "local_stack/bootstrap.txt"
"""pip, which reports bytes from 24.1 on, and setuptools, which builds Spark's source package and this project."""
_PROJECT: Final = "pyproject.toml"
_PACKAGE_BYTES: Final = {"demo": 525_000_000, "tests": 675_000_000}
"""Size of the Python packages on Linux, for the bar's total; corrected by what pip reports. The tests' include the
demo's."""
_PIN: Final = re.compile(r"^([\w.-]+)==(\S+)( ;)?", re.MULTILINE)
"""An entry of a requirements.txt: name, version, and whether it depends on the platform."""
_STAMP: Final = VENV / "installed.json"
_LOG: Final = VENV / "install.log"
_LOCK: Final = ROOT / ".venv.lock"
"""Outside the virtual environment, which is emptied; never deleted, or two set-ups could each lock another file."""


class SetUpError(Exception):
    """The set-up cannot go on; the message has the reason and the remedy."""


def main() -> int:
    """Set up the target that the command line names; status 1, with the reason in one line, if that fails."""
    parser = argparse.ArgumentParser(prog="local_stack.install", description="Sets up the virtual environment.")
    parser.add_argument("target", choices=[*_REQUIREMENTS], help="what it is for")
    target: str = parser.parse_args().target
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _require_usable()
        if not _is_current(target):
            with _locked() as lock:
                # Another one may have done it meanwhile.
                if not _is_current(target):
                    _set_up(target, lock)
    except (SetUpError, InstallError, PipError, JarError, JavaError) as error:
        print(f"cannot set up: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        raise
    except OSError as error:
        print(f"cannot set up: {error.filename or ROOT}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _require_usable() -> None:
    if sys.version_info[:2] not in _VERSIONS:
        raise SetUpError(
            f"Python 3.11, 3.12 or 3.13 is needed, and this is {sys.version.split()[0]}: install one of them, or pass "
            "its path with make PYTHON=/path/to/python3.13"
        )
    for character in (os.pathsep, "\n"):
        if character in str(ROOT):
            raise SetUpError(f"the path {str(ROOT)!r} has a {character!r}, which Java cannot take: move the clone")


@contextmanager
def _locked() -> Iterator[int]:
    """Wait until no other set-up of this clone runs; yields the file descriptor of the lock.

    The processes that write to the environment inherit it: those that a killed set-up has left still hold the lock.
    """
    with _LOCK.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another set-up of this clone to end", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def _is_current(target: str) -> bool:
    stamp = _read_stamp()
    return stamp == {**stamp, **_identity(), **_fingerprints(target)} and (target != "demo" or not _missing_jars())


def _read_stamp() -> dict[str, str]:
    """Return the environment's folder and Python, and the fingerprints of what is installed; empty if there is none."""
    try:
        stamp = json.loads(_STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) and _python().exists() else {}


def _write_stamp(stamp: dict[str, str]) -> None:
    new = _STAMP.with_suffix(".new")
    new.write_text(json.dumps(stamp, indent=1))
    new.replace(_STAMP)


def _identity() -> dict[str, str]:
    """Return the folder and the Python version that a virtual environment works for."""
    return {"folder": str(ROOT), "python": f"{sys.version_info[0]}.{sys.version_info[1]}"}


def _fingerprints(target: str) -> dict[str, str]:
    """Return the SHA-256 of the pins of `target` and of the project's own packaging."""
    pins = (ROOT / _REQUIREMENTS[target]).read_bytes() + (ROOT / _BOOTSTRAP).read_bytes()
    project = (ROOT / _PROJECT).read_bytes()
    return {target: hashlib.sha256(pins).hexdigest(), "project": hashlib.sha256(project).hexdigest()}


def _missing_jars() -> list[cache.Download]:
    return [download for download in cache.ALL if download.missing()]


def _python() -> Path:
    return VENV / "bin" / "python"


def _site_packages() -> Path:
    return VENV / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def _set_up(target: str, lock: int) -> None:
    if target == "demo":
        cache.require_writable()
    if not has_wheel():
        system_java()
    stamp = _ensure_environment(lock)
    started_at = time.monotonic()
    downloaded = _install(target, lock, packages=stamp.get(target) != _fingerprints(target)[target])
    _write_stamp({**stamp, **_fingerprints(target)})
    print(f"set up in {time.monotonic() - started_at:.0f} s: {downloaded / 1e6:,.0f} MB", flush=True)


def _ensure_environment(lock: int) -> dict[str, str]:
    """Create the virtual environment unless there is one for this folder and Python. Returns its stamp."""
    stamp = _read_stamp()
    if stamp == {**stamp, **_identity()}:
        return stamp
    if stamp:
        print(f"setting up again: {VENV} was created for {stamp.get('folder')}, Python {stamp.get('python')}")
    _create_environment(lock)
    _write_stamp(_identity())
    return _identity()


def _create_environment(lock: int) -> None:
    command = [sys.executable, "-I", "-m", "venv", "--clear", str(VENV)]
    created = subprocess.run(command, env=pip_runner.environment(), pass_fds=(lock,), capture_output=True, text=True)
    if created.returncode:
        lines = (created.stdout + created.stderr).strip().splitlines()
        raise SetUpError(
            f"Python's venv module does not work ({lines[-1] if lines else 'no output'}): "
            f"install it (python{sys.version_info[0]}.{sys.version_info[1]}-venv on Debian and Ubuntu)"
        )


def _missing_package_bytes(target: str) -> int:
    """Estimate the size of the pinned packages of `target` that are not installed."""
    if _has_packages(target):
        return 0
    installed = _PACKAGE_BYTES["demo"] if target == "tests" and _has_packages("demo") else 0
    return _PACKAGE_BYTES[target] - installed


def _has_packages(target: str) -> bool:
    """Return whether the pinned versions are installed, apart from those that only some platforms need."""
    pins = {
        (_normalised(name), version)
        for name, version, platform in _PIN.findall((ROOT / _REQUIREMENTS[target]).read_text())
        if not platform
    }
    return pins <= {(_normalised(each.name), each.version) for each in distributions(path=[str(_site_packages())])}


def _normalised(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def _install(target: str, lock: int, *, packages: bool) -> int:
    """Bring what is missing, with the pinned `packages` only if they have changed. Returns the bytes downloaded."""
    missing = _missing_jars() if target == "demo" else []
    jar_bytes = sum(jar.size for download in missing for jar in download.missing())
    expected = jar_bytes + (_missing_package_bytes(target) if packages else 0)
    visible = sys.stdout.isatty() and not os.environ.get("CI")
    if not visible:
        size = f": about {expected / 1e6:,.0f} MB, unless some of it is in pip's cache" if expected else ""
        print(f"setting up{size} (log: {_LOG})", flush=True)
    progress = ByteProgress(sys.stdout, expected, visible=visible)
    _LOG.write_text("")
    pip = Pip(_python(), _LOG, progress, descriptors=(lock,))
    installer = Installer(pip, progress, _site_packages(), VENV / "downloads")
    try:
        if packages:
            installer.install(ROOT / _BOOTSTRAP, ROOT / _REQUIREMENTS[target], missing)
            pip.check()
        else:
            installer.fetch_jars(missing)
        progress.show_step("this project")
        pip.install_editable(ROOT)
    finally:
        progress.close()
        installer.close()
    return progress.done


if __name__ == "__main__":
    sys.exit(exit_status(main))
