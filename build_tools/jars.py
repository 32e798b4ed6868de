"""Fetches a pinned list of Maven artifacts with the Ivy that pyspark ships.

``python -m build_tools.jars DESTINATION`` brings what the stream job needs on top of Spark's
own jars; the image does so when it is built, the local stack when it is set up. Nothing is
downloaded when the job starts.

A list has one artifact a line: ``group:artifact:version[:classifier] sha256:<hex> [size:<bytes>]``. Only what it
names is fetched (no transitive resolution), and a file whose checksum differs is refused.
"""

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

_SHORT_LIVED = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
"""Options of a Java that runs for seconds: they take 40 % of its processor time away."""
_IMPATIENT = ("-Dsun.net.client.defaultConnectTimeout=20000", "-Dsun.net.client.defaultReadTimeout=30000")
"""Milliseconds: Ivy itself would wait without end where an answer does not come."""
_ATTEMPTS = 3
_SETTINGS = """<ivysettings><settings defaultResolver="central"/><resolvers>
<ibiblio name="central" m2compatible="true" usepoms="false"/></resolvers></ivysettings>"""
"""Ivy's own repository, without the POMs: what to fetch is pinned, and some of them take Ivy minutes to understand."""
_CACHE_PATTERN = "[artifact]-[revision](-[classifier]).[ext]"
_ARRIVED = re.compile(r"\[SUCCESSFUL ] ([^#\s]+)#([^;\s]+);([^!\s]+)!")
"""Ivy's line for an artifact: its group, name and version."""


class JarError(Exception):
    """A pinned jar could not be had, or is not what was pinned."""


@dataclass(frozen=True)
class Jar:
    """One pinned artifact."""

    group: str
    artifact: str
    version: str
    sha256: str
    classifier: str = ""
    """What tells it from the artifact's main jar, if it is another one."""
    size: int = 0
    """Bytes; 0 where the list does not say."""

    @property
    def file_name(self) -> str:
        """Maven's own name for it, which Elasticsearch's security policy goes by."""
        return f"{self.artifact}-{self.version}{self.classifier and '-'}{self.classifier}.jar"

    def is_intact(self, folder: Path) -> bool:
        """Tell whether `folder` holds this jar with the pinned checksum."""
        try:
            with (folder / self.file_name).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256
        except FileNotFoundError:
            return False


def read_pins(path: Path) -> list[Jar]:
    """Read a list of pinned jars; raises `JarError` naming the line that is malformed."""
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
    """Bring every jar into `destination`, in parallel, skipping those already there and intact.

    `java` is the command, with options such as a trust store, that runs Ivy; `ivy` is its jar, without it that of the
    installed pyspark, of which `parallel` run at once. `on_jar` is called once per jar, as it becomes available.
    Raises `JarError` when one cannot be downloaded or fails its checksum, or `destination` cannot be written; what did
    arrive is kept for the next try.
    """
    try:
        destination.mkdir(parents=True, exist_ok=True)
        command = [*java, *_SHORT_LIVED, *_IMPATIENT, "-cp", str(ivy or installed_ivy())]
        _fetch_missing(jars, destination, command, parallel, on_jar)
    except OSError as error:
        raise JarError(f"cannot fill {destination}: {error.strerror or error}") from None


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
        " Check that Maven's central repository can be reached from here, then start again:"
        " what has arrived is kept"
    )


def _fetch_once(
    jars: Sequence[Jar], destination: Path, scratch: Path, java: Sequence[str], on_jar: Callable[[Jar], object]
) -> str:
    """Bring what comes in one run of Ivy; what it said of the rest."""
    scratch.mkdir(parents=True)
    descriptor = scratch / "ivy.xml"
    descriptor.write_text(_descriptor(jars))
    (scratch / "settings.xml").write_text(_SETTINGS)
    retrieved = scratch / "retrieved"
    by_name: Mapping[tuple[str, ...], Jar] = {(jar.group, jar.artifact, jar.version): jar for jar in jars}
    said: list[str] = []
    for line in _run_ivy(java, descriptor, scratch / "cache", retrieved / _CACHE_PATTERN):
        said.append(line)
        if (arrived := _ARRIVED.search(line)) and (jar := by_name.get(arrived.groups())):
            on_jar(jar)
    for jar in jars:
        # Where one is missing Ivy retrieves none, but its cache has the others.
        file = next(
            (scratch / "cache").glob(f"{jar.group}/{jar.artifact}/jars/{jar.file_name}"), retrieved / jar.file_name
        )
        if not file.exists():
            continue
        if not jar.is_intact(file.parent):
            raise JarError(f"{jar.file_name} was downloaded, but its sha256 is not the pinned {jar.sha256}")
        # Copied under another name first: a jar under its own name is always whole.
        partial = destination / f"{jar.file_name}.partial"
        shutil.copyfile(file, partial)
        partial.replace(destination / jar.file_name)
    return next((line.strip() for line in said if "error" in line.lower()), "it was not found")


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
    """Ivy's jar in the pyspark that is installed."""
    spec = importlib.util.find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise JarError("pyspark, which brings Ivy, is not installed")
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
    with tempfile.TemporaryDirectory(prefix="trust-") as scratch:
        try:
            fetch(read_pins(PINNED_JARS), Path(sys.argv[1]), java=["java", *truststore.java_options(Path(scratch))])
        except JarError as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
