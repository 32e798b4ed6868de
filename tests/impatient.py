"""A stream job whose Kafka clients give up within seconds instead of minutes: ``python -m tests.impatient``."""

import sys
from typing import Final

from stream_processing import __main__ as job
from stream_processing import kafka_io

_SHORT: Final = {
    "kafka.default.api.timeout.ms": "3000",
    "kafka.request.timeout.ms": "2000",
    "kafkaConsumer.pollTimeoutMs": "3000",
    "fetchOffset.numRetries": "1",
}

if __name__ == "__main__":
    usual = kafka_io.connection_options
    kafka_io.connection_options = lambda settings: usual(settings) | _SHORT
    sys.exit(job.main())
