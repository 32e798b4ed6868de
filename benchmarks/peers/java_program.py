"""Compiles and runs a Java program of one source file, with Eclipse's compiler: the stack's Java comes without one."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from benchmarks.peers.processes import running
from benchmarks.stack import Stack
from local_stack import cache
from local_stack.cache import CACHE, Download
from local_stack.environment import inherited
from local_stack.java import JAVA

JARS: Final = Path(__file__).with_name("jars")
FOLDER: Final = CACHE / "peers"
_COMPILER: Final = Download("a Java compiler", JARS / "compiler.txt", FOLDER / "compiler")
_JVM: Final = ("-Xmx1g", "-XX:+UseParallelGC")
"""The stream job's own heap and collector."""


@dataclass(frozen=True)
class JavaProgram:
    """A source file beside this one, and the jars that it needs."""

    source: str
    libraries: Download
    more_libraries: tuple[str, ...] = ()
    """Class path entries that other downloads have brought."""
    options: tuple[str, ...] = ()

    def set_up(self, console: Console) -> None:
        """Download the compiler and the jars."""
        cache.fill(_COMPILER, self.libraries, console=console)

    @contextmanager
    def run(self, stack: Stack, name: str, arguments: Sequence[str]) -> Iterator[int]:
        """Compile it, and run it during the `with` block, with a log called `name`."""
        source = Path(__file__).with_name(self.source)
        classes = stack.data / name / "classes"
        class_path = os.pathsep.join([str(classes), f"{self.libraries.folder}/*", *self.more_libraries])
        self._compile(source, classes)
        command = [str(JAVA), *_JVM, *self.options, "-cp", class_path, source.stem, *arguments]
        with running(command, stack.data / f"{name}.log", inherited(os.environ)) as pid:
            yield pid

    def _compile(self, source: Path, classes: Path) -> None:
        # Eclipse's compiler takes no wildcards.
        jars = os.pathsep.join(str(jar) for jar in sorted(self.libraries.folder.glob("*.jar")))
        command = [str(JAVA), "-cp", f"{_COMPILER.folder}/*", "org.eclipse.jdt.internal.compiler.batch.Main"]
        subprocess.run([*command, "-17", "-nowarn", "-cp", jars, "-d", str(classes), str(source)], check=True)
