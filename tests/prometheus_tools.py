"""Finds Prometheus' programs for the tests: those of this machine, or Debian's packages, unpacked into the cache."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import pytest

from local_stack.cache import CACHE

_FOLDER: Final = CACHE / "prometheus"
_PACKAGES: Final = ("prometheus", "prometheus-alertmanager")
_TIMEOUT: Final = 300


def program(name: str) -> str:
    """Return the path of prometheus, promtool or amtool; skips the test where there is neither it nor apt."""
    if found := shutil.which(name):
        return found
    unpacked = _FOLDER / "usr" / "bin" / name
    if not unpacked.exists():
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            pytest.skip(f"no {name}, and no apt-get to fetch it with")
        _fetch()
    return str(unpacked)


def _fetch() -> None:
    """Download and unpack the packages, without installing them: nothing is started, and no root is needed."""
    CACHE.mkdir(parents=True, exist_ok=True)
    # The first of the parallel test processes fills the cache, the others wait for it.
    with (CACHE / "prometheus.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _FOLDER.exists():
            return
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            folder = Path(scratch)
            downloaded = _apt_get("download", *_PACKAGES, folder=folder)
            if downloaded.returncode and os.geteuid() == 0:
                # The lists of packages may be missing or old.
                _apt_get("update", folder=folder)
                downloaded = _apt_get("download", *_PACKAGES, folder=folder)
            assert downloaded.returncode == 0, downloaded.stderr
            for package in sorted(folder.glob("*.deb")):
                subprocess.run(["dpkg-deb", "--extract", package, folder / "unpacked"], check=True, timeout=_TIMEOUT)
            (folder / "unpacked").rename(_FOLDER)


def _apt_get(command: str, *arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["apt-get", "-qq", command, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT,
    )
