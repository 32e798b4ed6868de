"""What the lake, Kafka and Elasticsearch use of their disks, as far as they can be asked."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from elasticsearch import Elasticsearch

from observer.status import Disk

_BLOCK: Final = 512
"""Bytes: the unit of `st_blocks` on every system."""


def disk_of_folder(name: str, folder: Path) -> Disk:
    """Return the disk of a folder of this machine. Raises OSError."""
    return Disk(name, sum(_sizes(folder)), shutil.disk_usage(folder).free)


def disk_of_elasticsearch(client: Elasticsearch) -> Disk:
    """Return the disk of the node that has the least of it left. Raises `ElasticsearchException`."""
    nodes: Any = client.cat.allocation(format="json", bytes="b")
    return _disk_of_nodes(nodes)


def _disk_of_nodes(nodes: Sequence[Mapping[str, Any]]) -> Disk:
    """Return all that the indices use, and the least that is free on a node.

    >>> _disk_of_nodes([{"disk.indices": "10", "disk.avail": "70"}, {"disk.indices": None, "disk.avail": None}])
    Disk(name='Elasticsearch', used=10, free=70)
    """
    # Shards that are on no node have a line without numbers.
    known = [(int(node["disk.indices"]), int(node["disk.avail"])) for node in nodes if node.get("disk.avail")]
    used, free = [used for used, _ in known], [free for _, free in known]
    return Disk("Elasticsearch", sum(used), min(free)) if known else Disk("Elasticsearch", None, None)


def _sizes(folder: Path) -> Iterator[int]:
    """Yield what each file takes on the disk: less than its size if it is sparse, as Kafka's indices are."""
    for path, _, names in os.walk(folder):
        for name in names:
            # A file may be deleted meanwhile.
            with suppress(FileNotFoundError):
                yield os.stat(os.path.join(path, name), follow_symlinks=False).st_blocks * _BLOCK  # noqa: PTH116, PTH118
