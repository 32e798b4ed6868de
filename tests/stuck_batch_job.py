"""Runs a stream job that never finishes a batch with the user "stuck", and takes it for stuck after a second.

``python -m tests.stuck_batch_job``
"""

import sys
import threading
from typing import Any

import polars as pl
from stream_processing import __main__ as job
from stream_processing import ingest, progress

if __name__ == "__main__":
    append_rows = vars(ingest)["append_rows"]

    def append(table: Any, interactions: pl.DataFrame, info: Any) -> None:
        if "stuck" in interactions["user_id"]:
            threading.Event().wait()
        append_rows(table, interactions, info)

    vars(ingest)["append_rows"] = append
    vars(progress)["_BATCH_SECONDS"] = 1.0
    sys.exit(job.main())
