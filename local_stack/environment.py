"""The environment that the stack's processes get: what they need, and nothing of this machine's other set-ups."""

import re
import sys
from collections.abc import Mapping
from typing import Final

from data_producer.settings import ProducerSettings
from elasticsearch_sink_alert.settings import SinkSettings
from stream_processing.settings import StreamProcessingSettings

from live_page.settings import PageSettings

_SETTINGS: Final = frozenset(
    name.upper()
    for settings in (ProducerSettings, StreamProcessingSettings, SinkSettings, PageSettings)
    for name in settings.model_fields
)
_NAMES: Final = re.compile(
    "|".join(
        (
            "PATH|HOME|USER|LOGNAME|SHELL|TMPDIR|TZ|LANG|LANGUAGE|LC_[A-Z]+|XDG_[A-Z_]+",
            # Where a Python that was not installed by the system finds its own libraries.
            "(DY)?LD_LIBRARY_PATH|DYLD_FALLBACK_LIBRARY_PATH",
            "(?i:(https?|all|no|ftp)_proxy)|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE",
            # The machine's own role there, and what the SDK goes by.
            "AWS_[A-Z0-9_]+",
            "JAVA_HOME|CI|TERM|COLORTERM|COLUMNS|LINES|NO_COLOR|FORCE_COLOR|PYTHONUNBUFFERED|PYTHONNOUSERSITE",
            "DISPLAY|WAYLAND_DISPLAY|XAUTHORITY|BROWSER|DBUS_SESSION_BUS_ADDRESS|mirakuru_uuid",
        )
    )
)


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """What of an environment the stack's processes get: every setting of `.env.example`, and what a machine needs."""
    kept = {name: value for name, value in environment.items() if name.upper() in _SETTINGS or _NAMES.fullmatch(name)}
    locale = kept.get("LC_ALL") or kept.get("LC_CTYPE") or kept.get("LANG") or ""
    if sys.platform == "linux" and not re.search(r"utf-?8", locale, re.IGNORECASE):
        # Java would read a path with other letters than English ones wrongly.
        kept["LC_ALL"] = "C.UTF-8"
    return kept
