"""The environment of the stack's processes: the variables that they need, and none of other installations."""

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
            # The library path of a Python that the system did not install.
            "(DY)?LD_LIBRARY_PATH|DYLD_FALLBACK_LIBRARY_PATH",
            "(?i:(https?|all|no|ftp)_proxy)|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE",
            # Credentials, region and profile of AWS's SDK.
            "AWS_[A-Z0-9_]+",
            "JAVA_HOME|CI|TERM|COLORTERM|COLUMNS|LINES|NO_COLOR|FORCE_COLOR|PYTHONUNBUFFERED|PYTHONNOUSERSITE",
            "DISPLAY|WAYLAND_DISPLAY|XAUTHORITY|BROWSER|DBUS_SESSION_BUS_ADDRESS|mirakuru_uuid",
        )
    )
)


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """Filter an environment: keep every setting of `.env.example`, and the variables that processes need in general."""
    kept = {name: value for name, value in environment.items() if name.upper() in _SETTINGS or _NAMES.fullmatch(name)}
    locale = kept.get("LC_ALL") or kept.get("LC_CTYPE") or kept.get("LANG") or ""
    if sys.platform == "linux" and not re.search(r"utf-?8", locale, re.IGNORECASE):
        # In another locale Java would read a path with non-ASCII letters wrongly.
        kept["LC_ALL"] = "C.UTF-8"
    return kept
