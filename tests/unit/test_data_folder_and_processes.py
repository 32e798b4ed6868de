"""The local stack's checks before it starts, its processes' environment, and the reported reasons of their exit."""

import io
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from stream_processing.quoting import double_quoted
from stream_processing.session import NoJarsError, start_session
from stream_processing.settings import StreamProcessingSettings

from build_tools.jars import JarError
from local_stack import cache, data_folder, exit_reason, servers, services
from local_stack.__main__ import _fail
from local_stack.data_folder import DataFolderError
from local_stack.environment import inherited
from local_stack.plan import Plan, StackError
from local_stack.preflight import prepare
from local_stack.servers import PortTakenError, require_free
from local_stack.services import ROOT

_FOREIGN = (
    "PYTHONPATH", "PYTHONHOME", "SPARK_HOME", "SPARK_CONF_DIR", "SPARK_DIST_CLASSPATH", "HADOOP_CONF_DIR",
    "HADOOP_HOME", "PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON", "PYSPARK_SUBMIT_ARGS", "JAVA_TOOL_OPTIONS",
    "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH", "KAFKA_OPTS", "KAFKA_HEAP_OPTS", "KAFKA_LOG4J_OPTS",
    "ES_JAVA_OPTS", "ES_PATH_CONF", "LD_PRELOAD",
)  # fmt: skip


def test_processes_inherit_every_setting_and_no_variable_of_another_installation() -> None:
    of_services = (ROOT / ".env.example").read_text().split("--- Docker Compose only")[0]
    settings = re.findall(r"^(?:# )?([A-Z_]+)=", of_services, re.M)
    needed = ("PATH", "HOME", "TMPDIR", "https_proxy", "NO_PROXY", "SSL_CERT_FILE", "AWS_PROFILE", "LC_ALL")
    environment = dict.fromkeys([*settings, *needed, *_FOREIGN], "x.UTF-8")
    assert set(inherited(environment)) == {*settings, *needed}
    assert len(settings) > 40


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere Java uses UTF-8 in any locale")
@pytest.mark.parametrize(
    "locale",
    [{}, {"LANG": "C"}, {"LANG": "de_DE.UTF-8", "LC_ALL": "POSIX"}],
    ids=["none", "C", "POSIX overrides UTF-8"],
)
def test_java_reads_paths_in_utf_8_in_any_locale(locale: dict[str, str]) -> None:
    assert inherited(locale)["LC_ALL"] == "C.UTF-8"
    assert "LC_ALL" not in inherited({"LANG": "de_DE.utf8"})


@pytest.mark.parametrize(
    "name",
    [
        "a file",
        "below a file",
        "a,comma",
        "a${brace}",
        "100%41",
        "a\\b",
        "a#1",
        "a?",
        "a[1]",
        "a|b",
        "a^b",
        "a\x1b[31m",
        "a\nline",
    ],
    ids=[
        "file",
        "below a file",
        "comma",
        "brace",
        "percent",
        "backslash",
        "hash",
        "question mark",
        "bracket",
        "bar",
        "caret",
        "escape",
        "newline",
    ],
)
def test_an_unusable_data_folder_is_one_line_with_the_remedy(tmp_path: Path, name: str) -> None:
    (tmp_path / "a file").write_text("")
    data = tmp_path / "a file" / "data" if name == "below a file" else tmp_path / name
    with pytest.raises(DataFolderError, match=r"^the data folder .*--data") as rejected:
        data_folder.require_usable(data)
    assert str(rejected.value).isprintable()


@pytest.mark.parametrize("name", ["", " ", "loop"], ids=["empty", "blank", "loop"])
def test_a_data_folder_without_a_path_is_one_line_with_the_remedy(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(DataFolderError, match=r"^the data folder .*--data"):
        data_folder.require_usable(data_folder.resolve(str(tmp_path / name) if name == "loop" else name))


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_a_new_data_folder_is_readable_by_its_user_alone_and_an_existing_one_stays_as_it_is(
    tmp_path: Path, umask: int
) -> None:
    new, existing = tmp_path / "new", tmp_path / "existing"
    existing.mkdir(0o755)
    existing.chmod(0o755)
    before = os.umask(umask)
    try:
        for data in (new, existing):
            data_folder.require_usable(data)
    finally:
        os.umask(before)
    assert [stat.S_IMODE(data.stat().st_mode) for data in (new, existing)] == [0o700, 0o755]


def test_a_data_folder_is_locked_until_the_last_process_of_its_stack_has_ended(tmp_path: Path) -> None:
    with data_folder.locked(tmp_path) as descriptor:
        left_behind = subprocess.Popen(["sleep", "600"], pass_fds=(descriptor,))
    try:
        with (
            pytest.raises(DataFolderError, match=rf"{tmp_path} \(process {left_behind.pid}\): stop it, or .*--data"),
            data_folder.locked(tmp_path),
        ):
            pass
    finally:
        left_behind.kill()
        left_behind.wait()
    with data_folder.locked(tmp_path):
        pass


def test_a_data_folder_on_a_full_disk_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    with pytest.raises(DataFolderError, match=r"has 1 MB free, and 537 are needed: free some space"):
        data_folder.require_usable(tmp_path)


@pytest.mark.parametrize(
    "folder", ["/dev/null/.cache", "~/.cache", "/tmp/a:b"], ids=["not a folder", "relative", "colon"]
)
def test_an_unusable_cache_folder_is_one_line(monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    monkeypatch.setattr(cache, "CACHE", Path(folder, "stack"))
    with pytest.raises(JarError, match="set XDG_CACHE_HOME to a folder that can be written"):
        cache.require_writable()


def test_a_job_without_its_jars_says_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(
        NoJarsError, match=rf"jar is not in {tmp_path} or .*: `python -m build_tools.jars FOLDER` .*`make` keeps"
    ):
        start_session(StreamProcessingSettings(spark_jars=tmp_path))


@pytest.mark.parametrize("port", [0, -1, 65536, 99999])
def test_an_invalid_port_is_rejected(port: int) -> None:
    with pytest.raises(PortTakenError, match=f"Kafka cannot use port {port}: ports are 1 to 65535"):
        require_free([(port, "Kafka", "--kafka-port")])


def test_a_listener_on_ipv6_alone_is_detected() -> None:
    with socket.socket(socket.AF_INET6) as listener:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(("::1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(PortTakenError, match=f"needs port {port}, but .* listens there at ::1: .* --kafka-port"):
            require_free([(port, "Kafka", "--kafka-port")])


def test_the_demo_uses_the_ports_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PAGE_PORT", raising=False)
    (tmp_path / ".env").write_text("PAGE_PORT=8123\n")
    assert Plan(tmp_path).page_url == "http://localhost:8123"
    monkeypatch.setenv("PAGE_PORT", "many")
    with pytest.raises(StackError, match="PAGE_PORT='many' is no port"):
        Plan(tmp_path)


@pytest.mark.parametrize(
    ("host", "service", "page"),
    [
        ("::1", "http://[::1]:9101", "http://[::1]:8090"),
        ("127.0.0.2", "http://127.0.0.2:9101", "http://127.0.0.2:8090"),
        ("0.0.0.0", "http://127.0.0.1:9101", "http://localhost:8090"),
        ("::", "http://[::1]:9101", "http://[::1]:8090"),
    ],
)
def test_the_demo_polls_its_services_where_they_listen(
    host: str, service: str, page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("METRICS_HOST", "PAGE_HOST"):
        monkeypatch.setenv(name, host)
    plan = Plan(tmp_path)
    assert (plan.service_urls["data_producer"], plan.page_url) == (service, page)
    settings = plan.service_settings
    assert (settings["METRICS_HOST"], settings["PRODUCER_URL"]) == (host, service)
    executor = services.run(services.PRODUCER, tmp_path, settings)
    assert executor.url.geturl() == f"{service}/health"


@pytest.mark.parametrize("host", ["http://localhost", "localhost:9101", "a/b"])
def test_an_address_that_no_url_can_have_is_reported(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METRICS_HOST", host)
    with pytest.raises(StackError, match=f"^METRICS_HOST='{host}' is no address: set it to one of this machine"):
        Plan(tmp_path)


def test_a_copy_of_the_example_env_file_changes_nothing_of_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    without = Plan(tmp_path)
    expected = without.service_settings
    assert (expected["PRODUCER_RATE"], expected["PRODUCER_CONTROLS"]) == ("0.005", "true")
    shutil.copy(ROOT / ".env.example", tmp_path / ".env")
    assert Plan(tmp_path) == without
    assert without.service_settings == expected


def test_wrong_settings_of_all_services_are_reported_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("PRODUCER_RATE", "SINK_BATCH_SIZE", "STATE_STORE", "KAFKA_BROKER"):
        monkeypatch.delenv(name, raising=False)
    # The demo has its own broker, so the user's is not checked.
    (tmp_path / ".env").write_text(
        "PRODUCER_RATE=fast\nSINK_BATCH_SIZE=0\nSTATE_STORE=redis\nLOG_LEVEL=loud\nPRODUCER_RAET=1\nKAFKA_BROKER=' '\n"
    )
    terminal = io.StringIO()
    with pytest.raises(StackError) as rejected:
        prepare(Plan(tmp_path / "data"), [], Console(file=terminal))
    reason = str(rejected.value)
    for wrong in ("PRODUCER_RATE='fast'", "SINK_BATCH_SIZE='0'", "STATE_STORE='redis'", "LOG_LEVEL='loud'"):
        assert reason.count(f"\n  {wrong}: expected ") == 1, reason
    assert len(reason.splitlines()) == 5
    assert "KAFKA_BROKER" not in reason
    assert "unknown setting PRODUCER_RAET is ignored: did you mean PRODUCER_RATE?" in terminal.getvalue()


def test_a_reason_of_several_lines_is_printed_as_such_and_cannot_control_the_terminal() -> None:
    terminal = io.StringIO()
    assert _fail(Console(file=terminal, width=10), "these are wrong:\n  A='\x1b[31m'\n  B='2'") == 1
    assert terminal.getvalue().splitlines() == ["cannot run: these are wrong:", r"  A='\x1b[31m'", "  B='2'"]


def _exit_reason(tmp_path: Path, status: int | None, *lines: str, before: str = "") -> str:
    log = tmp_path / "it.log"
    log.write_text(before + "".join(f"{line}\n" for line in lines))
    line = exit_reason.describe("It", status, log, len(before.encode()), Path("/data"))
    assert line.isprintable()
    assert line.endswith(f"(log: {log})")
    return line


def test_a_killed_process_is_reported_with_its_signal_and_not_with_a_warning_of_its_start_up(tmp_path: Path) -> None:
    line = _exit_reason(
        tmp_path, -signal.SIGKILL,
        "[2026-11-25T10:00:00,000][WARN ][o.e.b.Natives] unable to load JNA native support library, native methods ...",
        "java.lang.UnsatisfiedLinkError: Unable to load jna",
        "\tat com.sun.jna.Native.loadNativeDispatchLibrary(Native.java:1018)",
        "[2026-11-25T10:00:01,000][WARN ][o.e.b.JNANatives] cannot check if running as root",
    )  # fmt: skip
    assert "It was killed by SIGKILL (kill -9, or the kernel for lack of memory" in line
    assert "JNA" not in line
    assert "UnsatisfiedLinkError" not in line


def test_the_reason_is_the_first_error_since_the_process_started(tmp_path: Path) -> None:
    line = _exit_reason(
        tmp_path, 1, "2026-11-25T10:00:00.000Z INFO    sink: ready", "2026-11-25T10:00:01.000Z ERROR   sink: the cause",
        "2026-11-25T10:00:02.000Z ERROR   sink: a consequence",
        before="2026-11-24T10:00:00.000Z ERROR   sink: of yesterday\n",
    )  # fmt: skip
    assert line.startswith("It has ended with status 1: 2026-11-25T10:00:01.000Z ERROR   sink: the cause (log:")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            ["Traceback (most recent call last):", '  File "x.py", line 1', "ValueError: wrong"],
            "status 1: ValueError: wrong",
        ),
        (["Exception in thread main java.io.IOException: gone", "\tat x.Y(Z.java:1)"], "java.io.IOException: gone"),
        (["Error: Could not find or load main class kafka.Kafka"], "main class kafka.Kafka"),
        (["These settings are wrong:", "  PRODUCER_RATE='x': a number"], "PRODUCER_RATE='x': a number"),
        (["[x] ERROR \x1b]0;title\x07 [/red]"], r"ERROR \x1b]0;title\x07 [/red]"),
        ([], "no output"),
    ],
    ids=["traceback", "exception of Java", "error of the launcher", "settings", "control characters", "no output"],
)
def test_the_reason_is_found_in_every_form_of_error(tmp_path: Path, lines: list[str], expected: str) -> None:
    assert expected in _exit_reason(tmp_path, 1, *lines)


def test_the_reason_of_a_failed_stream_job_is_its_own_line_and_not_those_that_spark_logs_before(tmp_path: Path) -> None:
    line = _exit_reason(
        tmp_path, 1,
        "2026-11-27T00:38:31Z ERROR   org.apache.spark.executor.Executor: Exception in task 0.0 in stage 1.0 (TID 2)",
        "java.lang.IllegalStateException: Cannot fetch offset 0 (GroupId: spark-1, TopicPartition: avroic-1). ",
        "Some data may have been lost because they are not available in Kafka any more; either the",
        "2026-11-27T00:38:31Z ERROR   org.apache.spark.scheduler.TaskSetManager: Task 1 in stage 1.0 failed 1 times;"
        " aborting job",
        "2026-11-27T00:38:32Z ERROR   py4j.clientserver: There was an exception while executing the Python Proxy on",
        "    Traceback (most recent call last):",
        "2026-11-27T00:38:32Z ERROR   org.apache.spark.MicroBatchExecution: Query ingest [id"
        " = 2531897c, runId = 51e8b455] terminated with error",
        "py4j.Py4JException: An exception was raised by the Python Proxy. Return Message: Traceback (most recent call",
        "2026-11-27T00:38:33Z ERROR   stream_processing.job: ingest has failed: the reason",
        "    An exception was raised by the Python Proxy. Return Message: Traceback (most recent call last):",
    )  # fmt: skip
    assert "status 1: 2026-11-27T00:38:33Z ERROR   stream_processing.job: ingest has failed: the reason (log:" in line


def test_the_reason_is_found_in_a_log_in_json(tmp_path: Path) -> None:
    logged = [
        (
            "ERROR",
            "org.apache.spark.executor.Executor",
            "Exception in task 0.0 in stage 1.0 (TID 2)",
            "java.lang.E: e\n",
        ),
        ("WARNING", "stream_processing.job", "a warning", "ValueError: wrong"),
        ("ERROR", "stream_processing.job", "ingest has failed: the reason", None),
        ("INFO", "stream_processing.job", "the last line\n\x1b", None),
    ]
    lines = [
        json.dumps({"time": "2026-11-27T00:38:31.000Z", "level": level, "service": "it", "logger": logger,
                    "message": message} | ({"exception": exception} if exception else {}))
        for level, logger, message, exception in logged
    ]  # fmt: skip
    reason = _exit_reason(tmp_path, 1, *lines)
    assert ": 2026-11-27T00:38:31.000Z ERROR   stream_processing.job: ingest has failed: the reason (log:" in reason
    assert exit_reason.last_line(tmp_path / "it.log", 0) == r"    \x1b"


@pytest.mark.parametrize(
    ("output", "remedy"),
    [
        ("[x] ERROR Error while writing (kafka)\njava.io.IOException: No space left on device", "free some space"),
        ("Terminating due to java.lang.OutOfMemoryError: Java heap space", "run out of heap"),
        ("[x] ERROR Failed to acquire lock on file .lock in /data", "another stack runs on /data"),
    ],
    ids=["disk", "heap", "lock"],
)
def test_a_known_error_has_its_remedy(tmp_path: Path, output: str, remedy: str) -> None:
    assert remedy in _exit_reason(
        tmp_path, 1, *output.splitlines(), "[y] FATAL Shutdown broker because all log dirs failed"
    )


@pytest.mark.parametrize(
    ("path", "written"),
    [
        ("/with a space", "/with a space"),
        ("/quote'\"s", "/quote'\"s"),
        ("/back\\slash", "/back\\\\slash"),
        ("/Łódź", "/\\u0141\\u00f3d\\u017a"),
        ("/🎉", "/\\ud83c\\udf89"),
    ],
    ids=["space", "quotes", "backslash", "letters", "surrogates"],
)
def test_a_path_is_written_as_java_reads_properties(path: str, written: str) -> None:
    assert servers._escape_property(path) == written


@pytest.mark.parametrize(
    "text", ["plain", "with a space", 'quote"s', "back\\slash"], ids=["plain", "space", "quote", "backslash"]
)
def test_an_option_of_java_stays_one_argument_with_any_text(text: str) -> None:
    # Spark's own rules: within double quotes a backslash escapes a double quote or a backslash.
    (option,) = re.findall(r'"((?:[^"\\]|\\.)*)"', double_quoted(f"-Dx={text}"))
    assert re.sub(r"\\(.)", r"\1", option) == f"-Dx={text}"
