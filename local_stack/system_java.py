"""Finds the machine's own Java 17, for platforms without a Java wheel."""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

VERSION = 17


class JavaError(Exception):
    """There is no suitable Java; the message names what to install."""


def has_wheel() -> bool:
    """Whether Java comes as a wheel on this platform (see requirements.in)."""
    return sys.platform != "linux" or platform.machine() == "x86_64"


def system_java() -> Path:
    """Return the home of the machine's Java 17, from JAVA_HOME or PATH. Raises `JavaError` if there is none."""
    rejected = []
    for java in _candidates():
        home, version = _home_and_version(java)
        if home is not None and version == str(VERSION):
            return Path(home)
        rejected.append(f"{java} is {version or 'no Java'}")
    found = "; ".join(dict.fromkeys(rejected)) or "no Java found"
    raise JavaError(
        f"Java {VERSION} is needed, and {sys.platform} on {platform.machine()} has no wheel of it ({found}): "
        f"install it (apt-get install openjdk-{VERSION}-jre-headless), or set JAVA_HOME to it"
    )


def _candidates() -> Iterator[Path]:
    if home := os.environ.get("JAVA_HOME"):
        yield Path(home, "bin", "java")
    if java := shutil.which("java"):
        yield Path(java)
    # Linux distributions keep several versions here.
    yield from sorted(Path("/usr/lib/jvm").glob(f"*{VERSION}*/bin/java"))


def _home_and_version(java: Path) -> tuple[str | None, str | None]:
    command = [str(java), "-XshowSettings:properties", "-version"]
    try:
        output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stderr
    except (OSError, subprocess.SubprocessError):
        return None, None
    properties = dict(re.findall(r"^ +(java\.home|java\.specification\.version) = (.*)$", output, re.MULTILINE))
    return properties.get("java.home"), properties.get("java.specification.version")
