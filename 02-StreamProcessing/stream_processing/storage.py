"""Reads and writes small files on any storage that Hadoop supports."""

from typing import Final

from py4j.java_gateway import JavaObject
from pyspark.sql import SparkSession

from stream_processing.spark_internals import hadoop_file, read_utf8

_OBJECT_STORES: Final = frozenset({"s3a"})
"""Where a file appears as a whole, when it is closed."""
_UNFINISHED: Final = ".tmp"
"""The ending of a file that is being written."""


def list_names(session: SparkSession, folder: str) -> list[str]:
    """Return the names of the entries of a folder; empty if the folder does not exist."""
    file_system, path = hadoop_file(session, folder)
    if not file_system.exists(path):
        return []
    return [status.getPath().getName() for status in file_system.listStatus(path)]


def read_text(session: SparkSession, file: str) -> str:
    """Read a small UTF-8 file; raises Hadoop's error if it cannot be read."""
    file_system, path = hadoop_file(session, file)
    stream = file_system.open(path)
    try:
        return read_utf8(session, stream)
    finally:
        stream.close()


def read_text_if_exists(session: SparkSession, file: str) -> str | None:
    """Read a small UTF-8 file; None if it does not exist."""
    return read_text(session, file) if modified_at(session, file) is not None else None


def write_text(session: SparkSession, file: str, text: str) -> None:
    """Write a small UTF-8 file, replacing an existing one; a kill leaves that or the new one, and no part of it.

    Where renaming does not replace a file, as on HDFS, a kill can also leave none.
    """
    file_system, path = hadoop_file(session, file)
    if file_system.getScheme() in _OBJECT_STORES:
        _write(file_system, path, text)
        return
    _, written = hadoop_file(session, f"{file}{_UNFINISHED}")
    _write(file_system, written, text)
    if not file_system.rename(written, path):
        file_system.delete(path, False)
        if not file_system.rename(written, path):
            raise OSError(f"{file} cannot be replaced")


def _write(file_system: JavaObject, path: JavaObject, text: str) -> None:
    stream = file_system.create(path, True)
    try:
        stream.write(bytearray(text.encode()))
    finally:
        stream.close()


def remove(session: SparkSession, location: str) -> None:
    """Delete a file, or a folder with its contents, if it exists."""
    file_system, path = hadoop_file(session, location)
    file_system.delete(path, True)


def modified_at(session: SparkSession, file: str) -> float | None:
    """Return the modification time of a file in epoch seconds; None if it does not exist."""
    file_system, path = hadoop_file(session, file)
    return file_system.getFileStatus(path).getModificationTime() / 1000 if file_system.exists(path) else None
