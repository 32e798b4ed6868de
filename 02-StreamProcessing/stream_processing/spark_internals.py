"""Accesses JVM objects and private classes of Spark and Delta Lake, which their Python API does not expose.

An upgrade of Spark or Delta Lake can break all of this without a deprecation; the project uses them in no other module.
"""

import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from typing import Any, Final, TypeVar

from py4j.java_gateway import JavaGateway, JavaObject
from py4j.protocol import Py4JError, Py4JJavaError
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkRuntimeError
from pyspark.java_gateway import launch_gateway
from pyspark.sql import SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from runtime.logs import relay
from stream_processing.lease import StoredObject, StoreError, UnsupportedError

_STATE_STORE_SAVE: Final = "StateStoreSave"
_RELAY_TIMEOUT: Final = 1.0
"""Seconds; a child process of a killed Java may keep its output open."""
_relays: Final[list[threading.Thread]] = []
_T = TypeVar("_T")


def jvm(session: SparkSession) -> Any:
    """Return py4j's view of the session's JVM: its classes by their full names."""
    view = session._jvm
    assert view is not None
    return view


# The Java process.


class JavaStartError(Exception):
    """Java has ended as it started; the message says what to check."""


def start_java(config: Mapping[str, str], *, relayed: bool = False) -> None:
    """Start the Java process with Spark's configuration, unless it runs. Raises `JavaStartError`.

    What Java writes is `relayed` to the log of this process, or goes directly to the same standard error.

    It is in a process group of its own: a signal to the job's group, such as that of Ctrl-C, would end Spark beside the
    queries that are being stopped.
    """
    if java_process() is not None:
        return
    conf = SparkConf()
    for name, value in config.items():
        conf.set(name, value)
    output: AbstractContextManager[dict[str, int]] = _output_of_java() if relayed else nullcontext({})
    try:
        with output as streams:
            gateway = launch_gateway(conf, {"process_group": 0, **streams})  # type: ignore[no-untyped-call]
    except PySparkRuntimeError as error:
        if error.getErrorClass() != "JAVA_GATEWAY_EXITED":
            raise
        _wait_for_output()
        home = os.environ.get("JAVA_HOME")
        raise JavaStartError(
            "Java has ended before Spark was ready; its own message is above. Check that this machine has the memory of"
            f" SPARK_DRIVER_MEMORY={config.get('spark.driver.memory')}, and that"
            f" {f'JAVA_HOME={home}' if home else '`java`, as JAVA_HOME is not set,'} is Java 17"
        ) from None
    # Delta Lake prints there, without time and level, what it has deleted; all logs go to the standard error.
    java = gateway.jvm.java
    java.lang.System.setOut(java.io.PrintStream(java.io.OutputStream.nullOutputStream()))
    SparkContext._ensure_initialized(gateway=gateway)


@contextmanager
def _output_of_java() -> Iterator[dict[str, int]]:
    """Relay what a process writes that is started with these streams, in a thread until that process has ended."""
    reading, writing = os.pipe()

    def relay_lines() -> None:
        with os.fdopen(reading, encoding="utf-8", errors="replace") as lines:
            relay(lines, "java")

    thread = threading.Thread(target=relay_lines, name="output of Java", daemon=True)
    _relays.append(thread)
    thread.start()
    try:
        yield {"stdout": writing, "stderr": writing}
    finally:
        os.close(writing)


def _wait_for_output() -> None:
    """Wait until the output of a Java process that has ended is in the log."""
    for thread in _relays:
        thread.join(_RELAY_TIMEOUT)
    _relays.clear()


def java_process() -> "subprocess.Popen[bytes] | None":
    """Return the Java process that Python started; None if there is none."""
    gateway = SparkContext._gateway
    return None if gateway is None else gateway.proc


def kill_java() -> None:
    """Kill the Java process, if there is one, and wait until it has ended."""
    process = java_process()
    if process is not None:
        process.kill()
        process.wait()
        _wait_for_output()
        _forget_java()


def end_java(timeout: float) -> None:
    """Let the Java process end, in which Spark is stopped; kill it after `timeout` seconds."""
    process = java_process()
    if process is None:
        return
    assert process.stdin is not None
    process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout)
    kill_java()


def silence(session: SparkSession) -> None:
    """Let Spark and py4j log nothing from now on: each batch that is interrupted would leave some stack traces."""
    session.sparkContext.setLogLevel("OFF")
    logging.getLogger("py4j").setLevel(logging.CRITICAL)
    # py4j logs each call that Java no longer answers, with its stack trace, directly to the root logger.
    logging.getLogger().addFilter(lambda record: record.name != "root")


@contextmanager
def muted(session: SparkSession, *loggers: str) -> Iterator[None]:
    """Let these loggers of Java log nothing during the `with` block."""
    log4j = jvm(session).org.apache.logging.log4j
    levels = {name: log4j.LogManager.getLogger(name).getLevel() for name in loggers}
    try:
        for name in loggers:
            log4j.core.config.Configurator.setLevel(name, log4j.Level.OFF)
        yield
    finally:
        for name, level in levels.items():
            log4j.core.config.Configurator.setLevel(name, level)


def wait_for_tasks(session: SparkSession, timeout: float) -> None:
    """Wait until no task runs, or seconds have passed: Spark ends the tasks of a failed job in the background."""
    deadline = time.monotonic() + timeout
    tracker = session.sparkContext._jsc.sc().statusTracker()
    while any(executor.numRunningTasks() for executor in tracker.getExecutorInfos()) and time.monotonic() < deadline:
        time.sleep(0.01)


def stop_java(session: SparkSession) -> None:
    """Stop Spark and wait for the orderly end of its Java process."""
    gateway = _gateway(session)
    session.stop()
    gateway.shutdown()
    gateway.proc.stdin.close()
    gateway.proc.wait()
    _wait_for_output()
    _forget_java()


def _forget_java() -> None:
    """Let the next start be one of a new process."""
    SparkContext._gateway = SparkContext._jvm = None


def max_heap_bytes(session: SparkSession) -> int:
    """Return the size that the driver's heap can grow to."""
    return int(jvm(session).java.lang.Runtime.getRuntime().maxMemory())


# Hadoop's file systems.


def hadoop_file(session: SparkSession, location: str) -> tuple[JavaObject, JavaObject]:
    """Return Hadoop's FileSystem and Path objects for a path or URI."""
    path = jvm(session).org.apache.hadoop.fs.Path(location)
    return path.getFileSystem(session._jsc.hadoopConfiguration()), path


def read_utf8(session: SparkSession, stream: JavaObject) -> str:
    """Read a Java InputStream to its end."""
    return str(jvm(session).org.apache.commons.io.IOUtils.toString(stream, "UTF-8"))


def disable_checksum_files(session: SparkSession) -> None:
    """Keep Hadoop from writing a checksum file beside each local file: they double every directory listing."""
    jvm(session).org.apache.hadoop.fs.FileSystem.getLocal(session._jsc.hadoopConfiguration()).setWriteChecksum(False)


def local_lock(session: SparkSession, folder: str, name: str) -> tuple[str, Callable[[], JavaObject | None]] | None:
    """Return the path of a lock file in `folder`, which is created, and a function that tries to lock it.

    The function returns a lock that the JVM holds until it ends, or None while another process holds it. Return None
    if the folder is not on a file system of this machine.
    """
    file_system, path = hadoop_file(session, folder)
    if file_system.getScheme() != "file":
        return None
    file_system.mkdirs(path)
    lock_file = f"{file_system.makeQualified(path).toUri().getPath()}/{name}"
    channel = jvm(session).java.io.RandomAccessFile(lock_file, "rw").getChannel()
    return lock_file, channel.tryLock


_NOT_FOUND: Final = 404
_PRECONDITION_FAILED: Final = 412
_NOT_IMPLEMENTED: Final = 501
_S3_TIMEOUT: Final = 3_000
"""Milliseconds for one call, its repetitions included: several fit into the time for which a lease is valid."""


def object_store(session: SparkSession, folder: str) -> "S3Objects | None":
    """Return the store of the objects in `folder`; None if that is not in an object store (s3a://)."""
    file_system, path = hadoop_file(session, folder)
    return S3Objects(session, file_system, path) if file_system.getScheme() == "s3a" else None


class S3Objects:
    """Small objects in a folder of a bucket (`ConditionalStore`), written with the client of Hadoop's S3 connector."""

    def __init__(self, session: SparkSession, file_system: JavaObject, folder: JavaObject) -> None:
        self._jvm = jvm(session)
        self._file_system = file_system
        self._bucket: str = file_system.getBucket()
        self._prefix: str = file_system.pathToKey(folder)
        # The connector's own methods send no conditions. It logs that it hands its client out.
        with muted(session, "org.apache.hadoop.fs.s3a.S3AFileSystem"):
            self._client = file_system.getAmazonS3ClientForTesting("lease")

    def get(self, name: str) -> StoredObject | None:
        """Return an object; None if it does not exist. Raises `StoreError`."""
        request = self._jvm.com.amazonaws.services.s3.model.GetObjectRequest(self._bucket, self._key(name))
        return _unless({_NOT_FOUND}, lambda: self._read(request))

    def put_if_absent(self, name: str, text: str) -> str | None:
        """Create an object and return its ETag; None if it exists. Raises `StoreError`."""
        return _unless({_PRECONDITION_FAILED}, lambda: self._put(name, text, "If-None-Match", "*"))

    def put_if_match(self, name: str, text: str, etag: str) -> str | None:
        """Replace the version with this ETag; None if another one is current, or none. Raises `StoreError`."""
        put = partial(self._put, name, text, "If-Match", f'"{etag}"')
        return _unless({_PRECONDITION_FAILED, _NOT_FOUND}, put)

    def delete(self, name: str) -> None:
        """Delete an object. Raises `StoreError`."""
        request = self._jvm.com.amazonaws.services.s3.model.DeleteObjectRequest(self._bucket, self._key(name))
        _unless({_NOT_FOUND}, lambda: self._client.deleteObject(_limited(request)))

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    def _read(self, request: JavaObject) -> StoredObject:
        found = self._client.getObject(_limited(request))
        try:
            text = self._jvm.org.apache.commons.io.IOUtils.toString(found.getObjectContent(), "UTF-8")
            return StoredObject(str(text), str(found.getObjectMetadata().getETag()))
        finally:
            found.close()

    def _put(self, name: str, text: str, condition: str, value: str) -> str:
        content = bytearray(text.encode())
        requests = self._file_system.getRequestFactory()
        # With the connector's own settings, such as encryption.
        stream = self._jvm.java.io.ByteArrayInputStream(content)
        request = requests.newPutObjectRequest(self._key(name), requests.newObjectMetadata(len(content)), stream)
        request.putCustomRequestHeader(condition, value)
        return str(self._client.putObject(_limited(request)).getETag())


def _limited(request: JavaObject) -> JavaObject:
    request.setSdkClientExecutionTimeout(_S3_TIMEOUT)
    return request


def _unless(statuses: Container[int], request: Callable[[], _T]) -> _T | None:
    """Return the result of a request to S3; None if the server has answered with one of these statuses."""
    try:
        return request()
    except Py4JJavaError as error:
        status = _http_status(error.java_exception)
        if status in statuses:
            return None
        kind = UnsupportedError if status == _NOT_IMPLEMENTED else StoreError
        raise kind(str(error.java_exception.toString())) from None
    except (Py4JError, OSError) as error:
        raise StoreError(f"Java does not answer ({type(error).__name__})") from None


def _http_status(exception: JavaObject) -> int:
    """Return the status of the response that an exception of the S3 client is about; 0 if it is about none."""
    is_response = exception.getClass().getName().startswith("com.amazonaws.services.s3.model.")
    return int(exception.getStatusCode()) if is_response else 0


# Streaming queries.


def exception_causes(query: StreamingQuery) -> list[str]:
    """Return the texts of the Java exceptions that ended the query, from the outermost to the root cause."""
    error = query._jsq.exception()
    cause = error.get() if error.isDefined() else None
    causes = []
    while cause is not None:
        causes.append(str(cause.toString()))
        cause = cause.getCause()
    return causes


def last_execution(session: SparkSession, query_name: str) -> JavaObject:
    """Return Spark's execution of the named query's latest batch.

    `session` is the one that the query was started in: a batch's own session is a copy that knows no queries.
    """
    query = next(query for query in session.streams.active if query.name == query_name)
    return query._jsq.streamingQuery().lastExecution()


def observed_metrics(execution: JavaObject, name: str) -> list[str | None]:
    """Return the values of a `DataFrame.observe`, as texts, as of this execution."""
    row = execution.observedMetrics().apply(name)
    return [None if row.isNullAt(n) else str(row.get(n)) for n in range(row.length())]


def state_store_rows(execution: JavaObject) -> dict[tuple[str, ...], int]:
    """Return the number of rows in the state of each streaming aggregation, by its grouping columns.

    Spark counts the rows of a state store as it writes them, so this costs neither a second state nor a pass over
    anything. The count belongs to the batch's version of the state: a repeated batch gives the same.
    """
    return {
        _names(node.keyExpressions()): int(node.metrics().apply("numTotalStateRows").value())
        for node in _plan_nodes(execution.executedPlan())
        if node.nodeName() == _STATE_STORE_SAVE
    }


def _names(expressions: JavaObject) -> tuple[str, ...]:
    return tuple(str(expressions.apply(n).name()) for n in range(expressions.size()))


def _plan_nodes(plan: JavaObject) -> list[JavaObject]:
    children = plan.children()
    return [plan, *(node for n in range(children.size()) for node in _plan_nodes(children.apply(n)))]


# Delta Lake.


def remove_expired_log_entries(session: SparkSession, table: str, retention_minutes: float) -> None:
    """Write a checkpoint of a Delta table's log, and remove the entries that it covers and that are old enough.

    Delta Lake does this itself at the granularity of days.
    """
    delta = jvm(session).org.apache.spark.sql.delta
    log = delta.DeltaLog.forTable(session._jsparkSession, table)
    log.checkpoint()
    milliseconds = _gateway(session).new_array(jvm(session).long, 1)
    milliseconds[0] = int(retention_minutes * 60_000)
    retention = jvm(session).scala.Predef.wrapLongArray(milliseconds).headOption()
    minute = getattr(delta, "TruncationGranularity$").__getattr__("MODULE$").MINUTE()
    log.cleanUpExpiredLogs(log.unsafeVolatileSnapshot(), retention, minute)


def _gateway(session: SparkSession) -> JavaGateway:
    gateway = session.sparkContext._gateway
    assert gateway is not None
    return gateway
