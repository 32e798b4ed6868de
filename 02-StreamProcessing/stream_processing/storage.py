"""Reads and writes small files on any storage that Hadoop supports."""

from pyspark.sql import SparkSession

from stream_processing.spark_internals import hadoop_file, read_utf8


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
    """Write a small UTF-8 file, replacing an existing one."""
    file_system, path = hadoop_file(session, file)
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
