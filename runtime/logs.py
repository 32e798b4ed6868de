"""The log formats of all services, in which a record's text can neither forge a log line nor control a terminal.

With ``LOG_FORMAT=json`` each line is one JSON object, with the fields of `FIELDS`: what a service logs, what it or a
library prints to standard error, and stack traces of uncaught exceptions. Other processes' output is passed on with
`relay`.
"""

import atexit
import io
import json
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Final

JSON: Final = "json"
FIELDS: Final = ("time", "level", "service", "logger", "message", "topic", "partition", "offset", "exception")
"""The fields of a JSON line in their order. The last four are there where they apply: the coordinates of the record
that the line is about, and the stack trace as text. `log4j2.properties` of the stream job has the same names."""
_COORDINATES: Final = ("topic", "partition", "offset")
_ALWAYS: Final = frozenset(FIELDS) - {*_COORDINATES, "exception"}
_TIME: Final = "%Y-%m-%dT%H:%M:%S"


def escape_controls(text: str) -> str:
    """Return the text with control and invisible characters as escapes: ``\\x1b``, ``\\u202e``.

    >>> print(escape_controls("a\\x1b]0;title\\x07b"))
    a\\x1b]0;title\\x07b
    """
    if text.isprintable():
        return text
    # Not printable: control characters, invisible formats such as those of direction, surrogates, unusual spaces.
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in text
    )


def coordinates(topic: str, partition: int | None = None, offset: int | None = None) -> dict[str, object]:
    """Return the `extra` of a log line about a record, as far as it has a partition and offset.

    >>> coordinates("avroic", 0, 7)
    {'topic': 'avroic', 'partition': 0, 'offset': 7}
    """
    values = (topic, partition, offset)
    return {name: value for name, value in zip(_COORDINATES, values, strict=True) if value is not None}


def to_json(fields: Mapping[str, object]) -> str:
    """Return a JSON object on one line, without control or invisible characters; a lone surrogate becomes U+FFFD.

    >>> print(to_json({"message": "a\\x1b\\x9b\\u2028b"}))
    {"message": "a\\u001b\\u009b\\u2028b"}
    """
    text = json.dumps(fields, ensure_ascii=False, default=str)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    code = ord(char)
    if 0xD800 <= code <= 0xDFFF:
        # The escape of one half of a pair is no text: stores and other parsers reject the whole line.
        return "\\ufffd"
    return f"\\u{code:04x}" if code < 0x10000 else json.dumps(char)[1:-1]


def as_text(line: str) -> list[str]:
    """Return a line of a log in JSON as the lines of the text format, and any other line as it is.

    >>> as_text('{"time": "2026-01-01T00:00:00.000Z", "level": "INFO", "service": "it", "logger": "a", "message": "b"}')
    ['2026-01-01T00:00:00.000Z INFO    a: b']
    """
    fields = _fields(line)
    if fields is None:
        return [line]
    text = f"{fields['time']} {fields['level']:<7} {fields['logger']}: {fields['message']}"
    if exception := fields.get("exception"):
        text += f"\n{exception}"
    return _text_lines(text)


def _fields(line: str) -> dict[str, object] | None:
    """Return the fields of a log line in JSON, None if it is anything else."""
    if not line.startswith("{"):
        return None
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and value.keys() >= _ALWAYS else None


def _text_lines(text: str) -> list[str]:
    # Continuation lines are indented, so that none looks like a log line of its own.
    first, *others = (escape_controls(line.expandtabs(4)) for line in text.split("\n"))
    return [first, *(f"    {line}" for line in others)]


class _TextFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s", _TIME)
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(_text_lines(super().format(record)))


class _JsonFormatter(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "time": f"{time.strftime(_TIME, time.gmtime(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields |= {name: getattr(record, name) for name in _COORDINATES if hasattr(record, name)}
        if exception := self._exception(record):
            fields["exception"] = exception
        return to_json(fields)

    def _exception(self, record: logging.LogRecord) -> str:
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        return "\n".join(filter(None, (record.exc_text, record.stack_info)))


class _JsonHandler(logging.StreamHandler[io.TextIOBase]):
    def __init__(self, service: str) -> None:
        stream = _process_stream()
        if isinstance(stream, io.TextIOWrapper):
            # The escapes by which Python replaces what another encoding does not have are not those of JSON.
            stream.reconfigure(encoding="utf-8")
        super().__init__(stream)
        self.setFormatter(_JsonFormatter(service))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Log which logger and why, instead of a line that cannot be formatted."""
        message = f"a line of {record.name} cannot be logged: {sys.exc_info()[1]!r}: {record.msg!r}"
        # If this cannot be written either, nothing reads the log any more.
        with suppress(Exception):
            self.write_line(self.format(logging.LogRecord(__name__, logging.ERROR, "", 0, message, None, None)))

    def write_line(self, line: str) -> None:
        """Write a line that is formatted already."""
        self.acquire()
        try:
            self.stream.write(f"{line}\n")
            self.flush()
        finally:
            self.release()


class _PrintedLines(io.TextIOBase):
    """Standard error in place of the stream of the process, to which it logs what is printed, line by line."""

    def __init__(self, stream: io.TextIOBase) -> None:
        self.stream = stream
        self._begun = ""
        self._lock = threading.RLock()

    def write(self, text: str) -> int:
        with self._lock:
            *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            if line.strip():
                logging.getLogger("stderr").warning("%s", line)
        return len(text)

    def finish(self) -> None:
        """Log what has no line break yet."""
        if self._begun:
            self.write("\n")

    def flush(self) -> None:
        self.stream.flush()

    def fileno(self) -> int:
        return self.stream.fileno()


def _process_stream() -> io.TextIOBase:
    stream = sys.stderr.stream if isinstance(sys.stderr, _PrintedLines) else sys.stderr
    assert isinstance(stream, io.TextIOBase)
    return stream


def begin(service: str) -> None:
    """Log as JSON from here on, if LOG_FORMAT says so: also what is printed before the settings are read.

    Services call it before their other imports, of which that of the declaration can fail. With arguments it is a
    command, which prints for a person.
    """
    if len(sys.argv) == 1 and format_of_environment() == JSON:
        configure("INFO", JSON, service)


def format_of_environment() -> str:
    """Return LOG_FORMAT from the environment or `.env`, unchecked; empty if it is not set."""
    if named := os.environ.get("LOG_FORMAT"):
        return named
    from runtime import dotenv

    try:
        return dotenv.read_nearest().values.get("LOG_FORMAT", "")
    except dotenv.DotenvError:
        # It is reported when the settings are read.
        return ""


def configure(level: str, log_format: str = "text", service: str = "") -> None:
    """Log to standard error, as text (time in UTC, level, logger, message) or as JSON."""
    handler: logging.Handler
    if log_format == JSON:
        handler = _JsonHandler(service)
        sys.stderr = printed = _PrintedLines(_process_stream())
        atexit.register(printed.finish)
        sys.excepthook = _log_uncaught
        threading.excepthook = _log_uncaught_in_thread
        logging.captureWarnings(capture=True)
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(_TextFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("py4j").setLevel(logging.WARNING)
    logging.getLogger("elasticsearch").setLevel(logging.ERROR)


def report(logger: str, level: int, text: str) -> None:
    """Print a text to standard error, before the settings are known; in JSON it is one log line."""
    if isinstance(sys.stderr, _PrintedLines):
        logging.getLogger(logger).log(level, "%s", text)
    else:
        sys.stderr.write(f"{text}\n")


def relay(lines: Iterable[str], logger: str) -> None:
    """Log what another process writes: log lines in JSON as they are, other lines as warnings of `logger`."""
    for line in (line.rstrip("\r\n") for line in lines):
        handler = next((each for each in logging.getLogger().handlers if isinstance(each, _JsonHandler)), None)
        fields = _fields(line)
        if handler is not None and fields is not None:
            handler.write_line(line if line.isprintable() else to_json(fields))
        elif line.strip():
            logging.getLogger(logger).warning("%s", line)


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        message = traceback.format_exception_only(kind, error)[-1].strip()
        logging.getLogger("uncaught").critical("%s", message, exc_info=(kind, error, trace))


def _log_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
        _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)
