"""Runs the sink with requests that time out within seconds: ``python -m tests.short_timeouts_sink``."""

import sys
from typing import Any, Final

from elasticsearch_sink_alert import __main__ as sink

from local_stack.services import SINK, Service

IMPATIENT_SINK: Final = Service("tests.short_timeouts_sink", SINK.port_setting, SINK.port)
_SECONDS: Final = 3

if __name__ == "__main__":
    connect = vars(sink)["connect"]

    def connect_impatiently(settings: Any, **options: Any) -> Any:
        return connect(settings, **{**options, "timeout": _SECONDS})

    vars(sink)["connect"] = connect_impatiently
    sys.exit(sink.main())
