"""What the local stack downloads once and keeps: the server jars, below the user's cache folder."""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from stream_processing import trust
from stream_processing.jars import PINNED_JARS, Jar, fetch, read_pins

from local_stack.java import JAVA

_LISTS = Path(__file__).parent / "jars"

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "streaming-analytics-stack"


@dataclass(frozen=True)
class Download:
    """One pinned list of jars and the folder of the cache that it fills."""

    title: str
    pins: Path
    folder: Path


SPARK = Download("Spark connectors", PINNED_JARS, CACHE / "spark")
KAFKA = Download("Kafka 3.9.1", _LISTS / "kafka.txt", CACHE / "kafka")
ELASTICSEARCH = Download("Elasticsearch 7.17.29", _LISTS / "elasticsearch.txt", CACHE / "elasticsearch" / "lib")
ELASTICSEARCH_NETTY = Download(
    "Elasticsearch's HTTP module",
    _LISTS / "elasticsearch-transport-netty4.txt",
    CACHE / "elasticsearch" / "modules" / "transport-netty4",
)


def fill(*downloads: Download, console: Console) -> None:
    """Download what is missing of the lists, with a progress bar for each that misses something.

    Raises `stream_processing.jars.JarError` with the jar and the remedy when one cannot be had.
    """
    missing = [(d, pins) for d in downloads if (pins := _missing(d))]
    if not missing:
        return
    java = [str(JAVA), *trust.java_options(CACHE)]
    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        for download, pins in missing:
            bar = progress.add_task(download.title, total=len(pins))
            fetch(pins, download.folder, java=java, on_jar=partial(progress.advance, bar))


def _missing(download: Download) -> list[Jar]:
    return [jar for jar in read_pins(download.pins) if not (download.folder / jar.file_name).exists()]
