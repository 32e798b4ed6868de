"""`make demo` in a folder with special characters, beside other installations of Java and Spark, and after kill -9."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from local_stack.services import ROOT
from tests.processes import command_line

_OTHER_INSTALLATIONS = {
    "SPARK_HOME": "/opt/another/spark",
    "SPARK_CONF_DIR": "/opt/another/conf",
    "HADOOP_CONF_DIR": "/opt/another/hadoop",
    "PYSPARK_SUBMIT_ARGS": "--master spark://elsewhere:7077 pyspark-shell",
    "PYSPARK_PYTHON": "/opt/another/python",
    "JAVA_TOOL_OPTIONS": "-Xmx8m",
    "_JAVA_OPTIONS": "-Dfile.encoding=latin1 -Xmx8m",
    "CLASSPATH": "/opt/another.jar",
    "KAFKA_OPTS": "-javaagent:/opt/another.jar",
    "LC_ALL": "C",
}


@contextmanager
def _demo(data: Path, *arguments: str, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    settings = {"PRODUCER_RATE": "0.005", "RANDOM_DATA_MAX_USERS": "10", "MATERIALISE_INTERVAL": "2", "COLUMNS": "200"}
    demo = subprocess.Popen(
        [
            sys.executable,
            "-I",
            "-m",
            "local_stack",
            "demo",
            "--no-view",
            "--free-ports",
            "--data",
            str(data),
            *arguments,
        ],
        cwd=ROOT,
        env={**os.environ, **settings, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield demo
    finally:
        if demo.poll() is None:
            demo.terminate()
            demo.communicate(timeout=120)


@pytest.mark.usefixtures("cache")
def test_the_demo_runs_in_a_folder_with_special_characters_beside_other_installations(tmp_path: Path) -> None:
    (tmp_path / "modules" / "pyspark").mkdir(parents=True)
    (tmp_path / "modules" / "pyspark" / "__init__.py").write_text("raise ImportError('another pyspark')\n")
    data = tmp_path / 'it\'s "odd" & é東 1;{x}'
    with _demo(data, "--for", "10", PYTHONPATH=str(tmp_path / "modules"), **_OTHER_INSTALLATIONS) as demo:
        output = demo.communicate(timeout=400)[0]
    assert demo.returncode == 0, output
    rows = {line.rsplit(maxsplit=1)[0].strip(): line.split()[-1] for line in output.splitlines() if line.strip()}
    assert rows["in the lake"] == rows["sent"] != "0"
    assert rows["index agg_interactions_user"] == "10"
    assert rows["dead letters"] == "0"


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("main", "expected"),
    [
        (
            "org.elasticsearch.bootstrap.Elasticsearch",
            "starting again: Elasticsearch was killed by SIGKILL (kill -9, or the",
        ),
        (
            "org.apache.spark.deploy.SparkSubmit",
            "Java, in which Spark runs, has failed: it was killed by SIGKILL: kill -9",
        ),
    ],
    ids=["Elasticsearch", "Spark"],
)
def test_a_killed_process_is_reported_with_its_signal(tmp_path: Path, main: str, expected: str) -> None:
    with _demo(tmp_path) as demo:
        assert demo.stdout is not None
        output = ""
        while "Ctrl-C stops" not in output:
            line = demo.stdout.readline()
            assert line, output
            output += line
        (killed,) = [p for p in psutil.Process(demo.pid).children(recursive=True) if _is(p, main)]
        killed.send_signal(signal.SIGKILL)
        reason = demo.stdout.readline()
        while "ready again" not in output:
            line = demo.stdout.readline()
            assert line, output
            output += line
        demo.send_signal(signal.SIGINT)
        (last_line,) = demo.communicate(timeout=200)[0].strip().splitlines()[-1:]
    assert demo.returncode == 0
    assert last_line.endswith("nothing lost, nothing twice")
    assert reason.startswith("starting again: ")
    assert expected in reason
    assert "JNA" not in reason
    assert "if it was memory" not in reason


def _is(process: psutil.Process, main: str) -> bool:
    command = command_line(process)
    # Another Spark creates the class-data archive.
    return main in command and "ArchiveClassesAtExit" not in " ".join(command)
