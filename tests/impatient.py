"""A stream job whose upkeep removes replaced files after seconds, not an hour: ``python -m tests.impatient``."""

import sys

from stream_processing import __main__ as job
from stream_processing import upkeep

if __name__ == "__main__":
    upkeep._SLOWEST_READER = 0.25  # type: ignore[misc]
    sys.exit(job.main())
