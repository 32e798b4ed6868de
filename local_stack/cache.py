"""The cache of server jars, below the user's cache folder: each is downloaded once."""

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from build_tools import truststore
from build_tools.jars import PINNED_JARS, Jar, JarError, fetch, read_pins

if TYPE_CHECKING:
    from rich.console import Console

_LISTS = Path(__file__).parent / "jars"
_JARS_PER_IVY = 20
"""A Java costs a second of CPU time to start, and a jar a second of waiting."""


def _cache_folder() -> Path:
    # With neither HOME nor an entry for the user, "~" stays as it is, and `require_writable` rejects it.
    return Path(os.environ.get("XDG_CACHE_HOME") or Path(os.path.expanduser("~"), ".cache"))  # noqa: PTH111


CACHE = _cache_folder() / "streaming-analytics-stack"


@dataclass(frozen=True)
class Download:
    """A pinned list of jars and the folder of the cache that it fills."""

    title: str
    pins: Path
    folder: Path

    def missing(self) -> list[Jar]:
        """Return the jars of the list that are not in the folder."""
        return [jar for jar in read_pins(self.pins) if not (self.folder / jar.file_name).exists()]


SPARK = Download("Spark connectors", PINNED_JARS, CACHE / "spark")
KAFKA = Download("Kafka 3.9.1", _LISTS / "kafka.txt", CACHE / "kafka")
ELASTICSEARCH = Download("Elasticsearch 7.17.29", _LISTS / "elasticsearch.txt", CACHE / "elasticsearch" / "lib")
ELASTICSEARCH_NETTY = Download(
    "Elasticsearch's HTTP module",
    _LISTS / "elasticsearch-transport-netty4.txt",
    CACHE / "elasticsearch" / "modules" / "transport-netty4",
)
ALL = (SPARK, KAFKA, ELASTICSEARCH, ELASTICSEARCH_NETTY)


def require_writable() -> None:
    """Raise `JarError` with the remedy if the cache cannot be written."""
    remedy = "set XDG_CACHE_HOME to a folder that can be written"
    if not CACHE.is_absolute():
        raise JarError(f"no cache folder: {CACHE} is relative, or the user has no home (HOME): {remedy}")
    if os.pathsep in str(CACHE):
        raise JarError(f"the cache folder {CACHE} has a {os.pathsep!r} in its path, which Java cannot take: {remedy}")
    try:
        CACHE.mkdir(parents=True, exist_ok=True)
        probe = CACHE / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise JarError(f"the cache folder {CACHE} cannot be written ({error.strerror}): {remedy}") from None


def fetch_missing(
    downloads: Sequence[Download], java: Path, on_jar: Callable[[Jar], object], ivy: Path | None = None
) -> None:
    """Download the missing jars of all lists in parallel. Raises `JarError` with the jar and the remedy."""
    command = [str(java), *truststore.java_options(CACHE)]

    def fetch_list(download: Download) -> None:
        missing = download.missing()
        parallel = max(1, math.ceil(len(missing) / _JARS_PER_IVY))
        fetch(missing, download.folder, java=command, ivy=ivy, parallel=parallel, on_jar=on_jar)

    with ThreadPoolExecutor(max_workers=len(downloads)) as pool:
        for _ in pool.map(fetch_list, downloads):
            pass


def fill(*downloads: Download, console: "Console") -> None:
    """Download the missing jars of the lists, with one progress bar in bytes.

    Raises `build_tools.jars.JarError` with the jar or the folder, and the remedy.
    """
    # Imported late: the set-up imports this module before any package is installed.
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from local_stack.java import JAVA

    require_writable()
    missing = [download for download in downloads if download.missing()]
    if not missing:
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("jars", total=sum(jar.size for each in missing for jar in each.missing()))
        fetch_missing(missing, JAVA, lambda jar: progress.advance(bar, jar.size))
