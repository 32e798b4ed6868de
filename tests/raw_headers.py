"""Sends records whose header names are not UTF-8: clients of other languages may, the Python client cannot."""

import ctypes
from pathlib import Path

import confluent_kafka

_END, _TOPIC, _VALUE, _KEY, _FLAGS, _HEADER = 0, 1, 4, 5, 7, 9
"""Kinds of arguments of librdkafka's `rd_kafka_producev`."""
_COPY = 2
_PRODUCER = 0


def send(kafka: str, topic: str, name: bytes, key: bytes, value: bytes, times: int = 1) -> None:
    """Send a record with one header of this name, and wait for the acknowledgement."""
    library = ctypes.CDLL(str(_library()))
    for function in (library.rd_kafka_conf_new, library.rd_kafka_new):
        function.restype = ctypes.c_void_p
    config = ctypes.c_void_p(library.rd_kafka_conf_new())
    text = ctypes.create_string_buffer(512)
    assert library.rd_kafka_conf_set(config, b"bootstrap.servers", kafka.encode(), text, len(text)) == 0, text.value
    producer = ctypes.c_void_p(library.rd_kafka_new(_PRODUCER, config, text, len(text)))
    arguments = [_TOPIC, topic.encode(), _FLAGS, _COPY]
    arguments += [_KEY, key, ctypes.c_size_t(len(key)), _VALUE, value, ctypes.c_size_t(len(value))]
    arguments += [_HEADER, name, b"x", ctypes.c_ssize_t(1), _END]
    for _ in range(times):
        assert library.rd_kafka_producev(producer, *arguments) == 0
    assert library.rd_kafka_flush(producer, 30_000) == 0
    library.rd_kafka_destroy(producer)


def _library() -> Path:
    """Return the librdkafka that the Python client brings along: in a folder beside it (Linux), or within (macOS)."""
    package = Path(confluent_kafka.__file__).parent
    folders = (package.with_name("confluent_kafka.libs"), package / ".dylibs")
    return next(file for folder in folders for file in folder.glob("librdkafka*"))
