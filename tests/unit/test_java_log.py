"""The log of Spark's Java: its configuration with a Java process that runs no Spark."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyspark
import stream_processing
from py4j.java_gateway import GatewayParameters, JavaGateway

from local_stack.java import JAVA
from runtime import logs

_HOSTILE = '"}\n{"level": "ERROR"}\r\x1b]0;owned\x07\x00\x7f\x9b31m\u202eevil\u2028 Łódź 🎉 \\ ${env:PATH} %m {}'
_SHOWN = _HOSTILE.replace("\u202e", "?").replace("\u2028", "?")


@contextmanager
def _java(log_format: str) -> Iterator[tuple[Any, "subprocess.Popen[str]"]]:
    """Run Java with the configuration; yields py4j's view of it, and its process."""
    jars = Path(pyspark.__file__).parent / "jars"
    classes = [str(jar) for name in ("py4j-*.jar", "log4j-api-*.jar", "log4j-core-*.jar") for jar in jars.glob(name)]
    configuration = Path(stream_processing.__file__).with_name("log4j2.properties").as_uri()
    with subprocess.Popen(
        [str(JAVA), f"-Dlog4j2.configurationFile={configuration}", f"-Dlog.format={log_format}",
         "-Dfile.encoding=ascii", "-cp", ":".join(classes), "py4j.GatewayServer", "--die-on-broken-pipe", "0"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8",
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        # It would send a command for each object that Python forgets, also after Java has ended.
        parameters = GatewayParameters(port=int(process.stdout.readline()), enable_memory_management=False)
        gateway = JavaGateway(gateway_parameters=parameters)
        try:
            yield gateway.jvm, process
        finally:
            gateway.close()
            process.stdin.close()
            process.wait(60)


def _logged(log_format: str) -> str:
    with _java(log_format) as (jvm, process):
        logger = jvm.org.apache.logging.log4j.LogManager.getLogger("org.apache.spark.Some")
        logger.warn(_HOSTILE)
        logger.fatal("failed", jvm.java.io.IOException(_HOSTILE))
        logger.info("no warning")
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.close()
        return process.stderr.read()


def test_lines_of_spark_in_json_are_like_those_of_the_service_whatever_their_text() -> None:
    lines = _logged("json").split("\n")
    assert lines.pop() == ""
    assert all(line.isprintable() for line in lines)
    warning, fatal = map(json.loads, lines)
    assert list(warning) == ["time", "level", "service", "logger", "message"]
    assert list(fatal) == [*warning, "exception"]
    assert (warning["level"], fatal["level"]) == ("WARNING", "CRITICAL")
    assert (warning["service"], warning["logger"]) == ("stream_processing", "org.apache.spark.Some")
    assert warning["message"] == _SHOWN
    assert fatal["exception"].startswith(f"java.io.IOException: {_SHOWN}\n\tat ")
    assert logs.as_text(lines[0])[0].startswith(f'{warning["time"]} WARNING org.apache.spark.Some: "}}')


def test_lines_of_spark_are_text_by_default() -> None:
    first, *others = _logged("text").splitlines()
    assert first[10] == "T"
    assert first[23:].startswith('Z WARN    org.apache.spark.Some: "}')
    assert any(line.startswith("java.io.IOException: ") for line in others)
