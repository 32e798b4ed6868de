"""Records the data that an older commit of this project leaves behind, for the test of upgrades.

``python tests/old_data/record.py COMMIT FILE`` sets that commit up in a folder of its own (a minute), runs its demo
until interactions are counted in documents, with malformed records too, and packs what its servers and services have
stored.
"""

import json
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import urllib.request
from pathlib import Path
from typing import Any, Final

from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

_FOLDER: Final = Path("/tmp/upgrade")
"""It gets into the logs of the Delta tables."""
_SETTINGS: Final = {"RANDOM_DATA_MAX_USERS": "20", "RANDOM_DATA_MAX_ITEMS": "12", "PRODUCER_RATE": "0.02"}
_STORED: Final = ("kafka/logs", "elasticsearch/data", "warehouse", "checkpoints")
_RULES: Final = tuple(f"03-ElasticsearchSink-Alert/{name}" for name in ("demo_data_mapper.yml", "data_mapper.yml"))
"""The demo's rules: the first one that exists. Rules are the user's, and stay with the data."""
_COUNTED: Final = 500
"""Interactions in the documents before the demo is stopped: the stream job has stored state of several batches."""
_TIMEOUT: Final = 300.0
"""Seconds for them to be counted."""


def main() -> None:
    """Record the data of a commit into an archive."""
    commit, archive = sys.argv[1], Path(sys.argv[2]).absolute()
    shutil.rmtree(_FOLDER, ignore_errors=True)
    clone, data = _FOLDER / "clone", _FOLDER / "data"
    subprocess.run(["git", "clone", "--quiet", ".", str(clone)], check=True)
    subprocess.run(["git", "checkout", "--quiet", commit], cwd=clone, check=True)
    _run_demo(clone, data)
    with tarfile.open(archive, "w:xz", preset=9) as packed:
        for name in _STORED:
            packed.add(data / name, name, filter=_anonymous)
        packed.add(next(filter(Path.exists, map(clone.joinpath, _RULES))), "data_mapper.yml", filter=_anonymous)
    print(f"{archive}: {archive.stat().st_size} bytes")
    shutil.rmtree(_FOLDER)


def _run_demo(clone: Path, data: Path) -> None:
    """Run the demo, let its producer send malformed records, and stop it as Ctrl-C does."""
    settings = "".join(f"{name}={value}\n" for name, value in _SETTINGS.items())
    (clone / ".env").write_text(f"{settings}PRODUCER_CONTROLS=true\n")
    arguments = f"ARGS=--no-view --free-ports --data {data}"
    with subprocess.Popen(
        ["make", "demo", arguments], cwd=clone, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as demo:
        assert demo.stdout is not None
        urls: dict[str, str] = {}
        for line in demo.stdout:
            print(line, end="")
            if found := re.search(r"ready (\S+) .*?(http://[^/\s]+)", line):
                urls[found[1].lower()] = found[2]
            if line.startswith("running"):
                _send_malformed(urls["data_producer"])
                _wait_until_counted(urls["elasticsearch"])
                # The records in flight are processed before it ends.
                demo.send_signal(signal.SIGINT)
                _interrupt_children(demo.pid)


def _send_malformed(producer: str) -> None:
    request = urllib.request.Request(
        f"{producer}/control", data=b'{"malformed": 5}', headers={"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        print(answer.read().decode())


@retry(
    retry=retry_if_exception_type((OSError, LookupError)),
    wait=wait_fixed(0.5),
    stop=stop_after_delay(_TIMEOUT),
    reraise=True,
)
def _wait_until_counted(elasticsearch: str) -> None:
    """Wait until the documents of users count enough interactions."""
    url = f"{elasticsearch}/agg_interactions_user/_search?size=1000"
    with urllib.request.urlopen(url, timeout=10) as answer:
        hits: list[dict[str, Any]] = json.load(answer)["hits"]["hits"]
    counted = sum(hit["_source"]["total_interactions"] for hit in hits)
    if counted < _COUNTED:
        raise LookupError(f"{counted} interactions are counted after {_TIMEOUT:.0f} s, and not {_COUNTED}")


def _interrupt_children(make: int) -> None:
    """Send Ctrl-C's signal to what make has started, which a terminal would do."""
    children = Path(f"/proc/{make}/task/{make}/children").read_text().split()
    subprocess.run(["kill", "-INT", *children], check=True)


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Return the entry without its owner; None for a lock."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return None if entry.name.endswith((".lock", "/osgi.lock")) else entry


if __name__ == "__main__":
    main()
