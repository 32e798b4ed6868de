"""Compiles and runs a Java program of one source file, with Eclipse's compiler: the stack's Java comes without one."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from benchmarks.peers.processes import JOBS, running
from benchmarks.stack import Stack
from local_stack import cache
from local_stack.cache import CACHE, Download
from local_stack.java import JAVA

JARS: Final = Path(__file__).with_name("jars")
FOLDER: Final = CACHE / "peers"
_COMPILER: Final = Download("a Java compiler", JARS / "compiler.txt", FOLDER / "compiler")
_JVM: Final = ("-Xmx1g", "-XX:+UseParallelGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
"""The heap and the collector are those of the stream job."""


@dataclass(frozen=True)
class JavaProgram:
    """A source file of the jobs, and the jars that it needs."""

    source: str
    libraries: Download
    more_libraries: tuple[str, ...] = ()
    """Jars that other downloads have brought."""
    provides: tuple[str, str] | None = None
    """The interface of which Java's service loader shall find an implementation, and the class that is one."""

    def set_up(self, console: Console) -> None:
        """Download the compiler and the jars."""
        cache.fill(_COMPILER, self.libraries, console=console)

    @contextmanager
    def run(self, stack: Stack, name: str, arguments: Sequence[str]) -> Iterator[int]:
        """Compile it, and run it during the `with` block, with data and a log called `name`."""
        source = JOBS / self.source
        classes = stack.data / name / "classes"
        # Eclipse's compiler takes no wildcards.
        jars = [*map(str, sorted(self.libraries.folder.glob("*.jar"))), *self.more_libraries]
        compiler = [str(JAVA), "-cp", f"{_COMPILER.folder}/*", "org.eclipse.jdt.internal.compiler.batch.Main"]
        options = ["-17", "-nowarn", "-cp", os.pathsep.join(jars), "-d", str(classes)]
        subprocess.run([*compiler, *options, str(source)], check=True)
        if self.provides is not None:
            interface, implementation = self.provides
            services = classes / "META-INF" / "services"
            services.mkdir(parents=True)
            (services / interface).write_text(f"{implementation}\n")
        command = [str(JAVA), *_JVM, "-cp", os.pathsep.join([str(classes), *jars]), source.stem, *arguments]
        with running(command, stack.data / f"{name}.log") as pid:
            yield pid
