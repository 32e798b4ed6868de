"""Small files and folders on whatever storage Hadoop knows."""

from py4j.java_gateway import JavaObject
from pyspark.sql import SparkSession


def names_in(session: SparkSession, folder: str) -> list[str]:
    """The names of what is in a folder; none where there is no such folder."""
    file_system, path = _at(session, folder)
    if not file_system.exists(path):
        return []
    return [status.getPath().getName() for status in file_system.listStatus(path)]


def read_text(session: SparkSession, file: str) -> str:
    """The content of a small UTF-8 file; raises what Hadoop does where it cannot be read."""
    file_system, path = _at(session, file)
    jvm = session._jvm
    assert jvm is not None
    stream = file_system.open(path)
    try:
        return str(jvm.org.apache.commons.io.IOUtils.toString(stream, "UTF-8"))
    finally:
        stream.close()


def read_text_if_there(session: SparkSession, file: str) -> str | None:
    """As `read_text`; None where there is no such file."""
    return read_text(session, file) if modified_at(session, file) is not None else None


def write_text(session: SparkSession, file: str, text: str) -> None:
    """Write a small UTF-8 file, in place of one that may be there."""
    file_system, path = _at(session, file)
    stream = file_system.create(path, True)
    try:
        stream.write(bytearray(text.encode()))
    finally:
        stream.close()


def remove(session: SparkSession, location: str) -> None:
    """Remove a file, or a folder with all that is in it, if it is there."""
    file_system, path = _at(session, location)
    file_system.delete(path, True)


def modified_at(session: SparkSession, file: str) -> float | None:
    """When a file was written, epoch seconds; None where there is no such file."""
    file_system, path = _at(session, file)
    return file_system.getFileStatus(path).getModificationTime() / 1000 if file_system.exists(path) else None


def _at(session: SparkSession, location: str) -> tuple[JavaObject, JavaObject]:
    jvm = session._jvm
    assert jvm is not None
    path = jvm.org.apache.hadoop.fs.Path(location)
    return path.getFileSystem(session._jsc.hadoopConfiguration()), path
