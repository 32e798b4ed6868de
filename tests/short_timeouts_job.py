"""Runs the stream job with Kafka clients that time out within seconds: ``python -m tests.short_timeouts_job``."""

import sys
from typing import Final

from stream_processing import __main__ as job
from stream_processing import kafka_io

_TIMEOUTS: Final = {
    "kafka.default.api.timeout.ms": "3000",
    "kafka.request.timeout.ms": "2000",
    "kafkaConsumer.pollTimeoutMs": "3000",
    "fetchOffset.numRetries": "1",
}

if __name__ == "__main__":
    connection_options = kafka_io.connection_options
    kafka_io.connection_options = lambda settings: connection_options(settings) | _TIMEOUTS
    sys.exit(job.main())
