"""Fetches pinned Maven artifacts with the Ivy that pyspark ships.

``python -m build_tools.jars DESTINATION`` fetches the jars that the stream job needs in addition to Spark's own, when
the image is built or the local stack is set up. The job downloads nothing when it starts.

A list has one artifact a line: ``group:artifact:version[:classifier] sha256:<hex> [size:<bytes>]``. Only the listed
artifacts are fetched (no transitive resolution), and a file with another checksum is rejected.
"""

import argparse
import hashlib
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

from build_tools import truststore

PINNED_JARS = Path(__file__).parents[1] / "02-StreamProcessing" / "jars.txt"
"""The jars of the stream job itself."""

_FAST_START = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
"""For a Java process that runs for seconds: these options save 40 % of its CPU time."""
_TIMEOUTS = ("-Dsun.net.client.defaultConnectTimeout=20000", "-Dsun.net.client.defaultReadTimeout=30000")
"""In milliseconds; by default Ivy waits for an answer without limit."""
_ATTEMPTS = 3
_SETTINGS = """<ivysettings><settings defaultResolver="central"/><resolvers>
<ibiblio name="central" m2compatible="true" usepoms="false"/></resolvers></ivysettings>"""
"""Ivy's default repository, without POMs: the artifacts are pinned, and Ivy takes minutes to parse some POMs."""
_CACHE_PATTERN = "[artifact]-[revision](-[classifier]).[ext]"
_DOWNLOADED = re.compile(r"\[SUCCESSFUL ] ([^#\s]+)#([^;\s]+);([^!\s]+)!")
"""Ivy's line for an artifact: its group, name and version."""


class JarError(Exception):
    """A pinned jar cannot be downloaded, or has another checksum than the pinned one."""


@dataclass(frozen=True)
class Jar:
    """One pinned artifact."""

    group: str
    artifact: str
    version: str
    sha256: str
    classifier: str = ""
    """The Maven classifier; empty for the artifact's main jar."""
    size: int = 0
    """In bytes; 0 if the list does not state it."""

    @property
    def file_name(self) -> str:
        """The file name that Maven gives it; Elasticsearch's security policy refers to it."""
        return f"{self.artifact}-{self.version}{self.classifier and '-'}{self.classifier}.jar"

    def is_intact(self, folder: Path) -> bool:
        """Return whether `folder` contains this jar with the pinned checksum."""
        try:
            with (folder / self.file_name).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256
        except FileNotFoundError:
            return False


def read_pins(path: Path) -> list[Jar]:
    """Read a list of pinned jars; raises `JarError` with the number of a malformed line."""
    jars = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        try:
            coordinates, rest = line.split(" sha256:")
            checksum, _, size = rest.partition(" size:")
            group, artifact, version, *classifier = coordinates.split(":")
            jars.append(Jar(group, artifact, version, checksum, "".join(classifier), int(size or 0)))
        except ValueError:
            raise JarError(
                f"{path}:{number}: expected group:artifact:version[:classifier] sha256:<hex> [size:<bytes>]"
            ) from None
    return jars


def fetch(
    jars: Sequence[Jar],
    destination: Path,
    *,
    java: Sequence[str] = ("java",),
    ivy: Path | None = None,
    parallel: int = 6,
    on_jar: Callable[[Jar], object] = lambda _: None,
) -> None:
    """Fetch every jar into `destination`, skipping those that are there and intact.

    `java` is the command that runs Ivy, with options such as a trust store; `ivy` is Ivy's jar, by default that of the
    installed pyspark. `parallel` processes of it run at once. `on_jar` is called once per jar, as it becomes available.
    Raises `JarError` if a jar cannot be downloaded or has another checksum, or `destination` cannot be written;
    completed downloads are kept for the next attempt.
    """
    try:
        destination.mkdir(parents=True, exist_ok=True)
        command = [*java, *_FAST_START, *_TIMEOUTS, "-cp", str(ivy or installed_ivy())]
        _fetch_missing(jars, destination, command, parallel, on_jar)
    except OSError as error:
        raise JarError(f"cannot write to {destination}: {error.strerror or error}") from None


def _fetch_missing(
    jars: Sequence[Jar], destination: Path, java: Sequence[str], parallel: int, on_jar: Callable[[Jar], object]
) -> None:
    missing = []
    for jar in jars:
        if jar.is_intact(destination):
            on_jar(jar)
        else:
            missing.append(jar)
    shares = [share for n in range(parallel) if (share := missing[n::parallel])]
    with (
        tempfile.TemporaryDirectory(prefix="jars-") as scratch,
        ThreadPoolExecutor(max_workers=parallel) as pool,
    ):
        runs = [
            pool.submit(_fetch_share, share, destination, Path(scratch, str(n)), java, on_jar)
            for n, share in enumerate(shares)
        ]
        for run in runs:
            run.result()


def _fetch_share(
    jars: Sequence[Jar], destination: Path, scratch: Path, java: Sequence[str], on_jar: Callable[[Jar], object]
) -> None:
    missing, reason = list(jars), ""
    for attempt in range(_ATTEMPTS):
        reason = _fetch_once(missing, destination, scratch / str(attempt), java, on_jar)
        missing = [jar for jar in missing if not (destination / jar.file_name).exists()]
        if not missing:
            return
    jar = missing[0]
    raise JarError(
        f"could not download {jar.group}:{jar.artifact}:{jar.version}: {reason}."
        " Check that this machine can reach Maven's central repository, then start again:"
        " completed downloads are kept"
    )


def _fetch_once(
    jars: Sequence[Jar], destination: Path, scratch: Path, java: Sequence[str], on_jar: Callable[[Jar], object]
) -> str:
    """Run Ivy once, and keep the jars that it downloads; return its reason for the missing ones."""
    scratch.mkdir(parents=True)
    descriptor = scratch / "ivy.xml"
    descriptor.write_text(_descriptor(jars))
    (scratch / "settings.xml").write_text(_SETTINGS)
    retrieved = scratch / "retrieved"
    by_name: Mapping[tuple[str, ...], Jar] = {(jar.group, jar.artifact, jar.version): jar for jar in jars}
    output: list[str] = []
    for line in _run_ivy(java, descriptor, scratch / "cache", retrieved / _CACHE_PATTERN):
        output.append(line)
        if (downloaded := _DOWNLOADED.search(line)) and (jar := by_name.get(downloaded.groups())):
            on_jar(jar)
    for jar in jars:
        # If one is missing, Ivy retrieves none, but its cache contains the others.
        file = next(
            (scratch / "cache").glob(f"{jar.group}/{jar.artifact}/jars/{jar.file_name}"), retrieved / jar.file_name
        )
        if not file.exists():
            continue
        if not jar.is_intact(file.parent):
            raise JarError(f"{jar.file_name} was downloaded, but its sha256 is not the pinned {jar.sha256}")
        # Copied and then renamed: a jar under its own name is always complete.
        partial = destination / f"{jar.file_name}.partial"
        shutil.copyfile(file, partial)
        partial.replace(destination / jar.file_name)
    return next((line.strip() for line in output if "error" in line.lower()), "not found")


def _descriptor(jars: Sequence[Jar]) -> str:
    dependencies = "\n".join(
        f"<dependency org={quoteattr(jar.group)} name={quoteattr(jar.artifact)} rev={quoteattr(jar.version)}"
        f' transitive="false" force="true" conf="default->default">'
        f'<artifact name={quoteattr(jar.artifact)} type="jar" ext="jar"'
        f"{jar.classifier and f' m:classifier={quoteattr(jar.classifier)}'}/></dependency>"
        for jar in jars
    )
    return (
        '<ivy-module version="2.0" xmlns:m="http://ant.apache.org/ivy/maven">'
        '<info organisation="local" module="pinned"/>'
        '<configurations><conf name="default"/></configurations>'
        f'<dependencies defaultconf="default">{dependencies}</dependencies></ivy-module>'
    )


def installed_ivy() -> Path:
    """Return Ivy's jar in the installed pyspark; raises `JarError` if pyspark is not installed."""
    spec = importlib.util.find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise JarError("pyspark, which ships Ivy, is not installed")
    return next(Path(spec.origin).parent.glob("jars/ivy-*.jar"))


def _run_ivy(java: Sequence[str], descriptor: Path, cache: Path, pattern: Path) -> Iterator[str]:
    command = [*java, "org.apache.ivy.Main", "-ivy", str(descriptor)]
    command += ["-settings", str(descriptor.with_name("settings.xml"))]
    command += ["-cache", str(cache), "-retrieve", str(pattern)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        yield from process.stdout


def main() -> int:
    """Fetch the stream job's jars into the folder that the command line names."""
    parser = argparse.ArgumentParser(prog="build_tools.jars", description="Downloads the jars of the stream job.")
    parser.add_argument("folder", type=Path, help="where to put them; it is created if it does not exist")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="trust-") as scratch:
        try:
            fetch(read_pins(PINNED_JARS), args.folder, java=["java", *truststore.java_options(Path(scratch))])
        except JarError as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
