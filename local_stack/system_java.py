"""The machine's own Java 17, for platforms that have none as a Python package."""

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
    """No Java that everything here runs on; the message says what to install."""


def has_wheel() -> bool:
    """Whether Java comes with the Python packages on this machine (see requirements.in)."""
    return sys.platform != "linux" or platform.machine() == "x86_64"


def system_java() -> Path:
    """The folder of the machine's own Java, from JAVA_HOME or PATH. Raises `JavaError` where there is none of 17."""
    seen = []
    for java in _candidates():
        home, version = _home_and_version(java)
        if home is not None and version == str(VERSION):
            return Path(home)
        seen.append(f"{java} is {version or 'no Java'}")
    found = "; ".join(dict.fromkeys(seen)) or "there is none"
    raise JavaError(
        f"Java {VERSION} is needed, which no Python package has for {sys.platform} on {platform.machine()} ({found}): "
        f"install it (apt-get install openjdk-{VERSION}-jre-headless), or set JAVA_HOME to it"
    )


def _candidates() -> Iterator[Path]:
    if home := os.environ.get("JAVA_HOME"):
        yield Path(home, "bin", "java")
    if java := shutil.which("java"):
        yield Path(java)
    # Where Linux distributions keep several side by side.
    yield from sorted(Path("/usr/lib/jvm").glob(f"*{VERSION}*/bin/java"))


def _home_and_version(java: Path) -> tuple[str | None, str | None]:
    command = [str(java), "-XshowSettings:properties", "-version"]
    try:
        output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stderr
    except (OSError, subprocess.SubprocessError):
        return None, None
    properties = dict(re.findall(r"^ +(java\.home|java\.specification\.version) = (.*)$", output, re.MULTILINE))
    return properties.get("java.home"), properties.get("java.specification.version")
