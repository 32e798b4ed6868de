"""The set-up: the Python that it uses, when it runs again, and its progress bar."""

import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from build_tools.jars import read_pins
from local_stack import cache, install, system_java
from local_stack.install import SetUpError
from local_stack.pip_runner import Pip
from local_stack.progress import ByteProgress
from local_stack.services import ROOT
from local_stack.system_java import JavaError
from local_stack.system_java import system_java as find_java


def _make(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    for name in ("bash", "make", "sed"):
        if not (path / name).exists():
            (path / name).symlink_to(str(shutil.which(name)))
    environment = {"PATH": str(path)}
    # The folder has no virtual environment unless the test creates one.
    return subprocess.run(
        [str(path / "make"), "-n", "-f", str(ROOT / "Makefile"), *arguments],
        cwd=path,
        env=environment,
        capture_output=True,
        text=True,
    )


def _python(path: Path, name: str, minor: int, *, works: bool = True) -> None:
    """A Python that reports that version; or a shim that runs nothing."""
    code = f"import sys; sys.version_info = (3, {minor}); exec(sys.argv[1])"
    body = f'exec {shlex.quote(sys.executable)} -c {shlex.quote(code)} "$2"'
    (path / name).write_text(f"#!/bin/bash\n{body if works else 'exit 127'}\n")
    (path / name).chmod(0o755)


@pytest.mark.parametrize(
    ("installed", "used"),
    [
        ({"python3.13": 13}, "python3.13"),
        ({"python3.12": 12, "python3.13": 13}, "python3.12"),
        ({"python3.11": 11, "python3.12": 12, "python3": 12}, "python3.11"),
        ({"python3": 12}, "python3"),
    ],
    ids=["only 3.13", "3.12 before 3.13", "3.11 before the default", "only the default"],
)
def test_make_uses_the_first_supported_python(tmp_path: Path, installed: dict[str, int], used: str) -> None:
    for name, minor in installed.items():
        _python(tmp_path, name, minor)
    assert f'"{used}" -I local_stack/install.py demo' in _make(tmp_path, "installed-demo").stdout


def test_make_keeps_the_python_that_the_clone_was_set_up_with(tmp_path: Path) -> None:
    _python(tmp_path, "python3.11", 11)
    _python(tmp_path, "another python", 13)
    (tmp_path / ".venv").mkdir()
    settings = tmp_path / ".venv" / "pyvenv.cfg"
    settings.write_text(f"home = {tmp_path}\nexecutable = {tmp_path / 'another python'}\n")
    assert f'"{tmp_path}/another python" -I' in _make(tmp_path, "installed-demo").stdout
    _python(tmp_path, "python3", 12)
    assert '"python3" -I' in _make(tmp_path, "installed-demo", "PYTHON=python3").stdout
    settings.write_text("executable = /no/longer/there\n")
    assert '"python3.11" -I' in _make(tmp_path, "installed-demo").stdout


def test_make_skips_a_shim_that_runs_nothing(tmp_path: Path) -> None:
    _python(tmp_path, "python3.11", 11, works=False)
    _python(tmp_path, "python3.12", 12)
    assert '"python3.12" -I' in _make(tmp_path, "installed-demo").stdout


@pytest.mark.parametrize("minor", [None, 10, 14], ids=["none", "too old", "too new"])
def test_without_a_supported_python_make_names_all_three(tmp_path: Path, minor: int | None) -> None:
    if minor is not None:
        _python(tmp_path, "python3", minor)
    made = _make(tmp_path, "installed-demo")
    assert made.returncode != 0
    assert "Python 3.11, 3.12 or 3.13 is needed" in made.stderr


@pytest.mark.parametrize("minor", [None, 10, 14], ids=["missing", "too old", "too new"])
def test_a_python_that_does_not_fit_is_reported_in_one_line_with_the_variable_and_the_remedy(
    tmp_path: Path, minor: int | None
) -> None:
    _python(tmp_path, "python3.11", 11)
    chosen = tmp_path / "chosen python"
    if minor is not None:
        _python(tmp_path, chosen.name, minor)
    made = _make(tmp_path, "demo", f"PYTHON={chosen}")
    (line,) = made.stderr.splitlines()
    assert f"PYTHON={chosen} is not Python 3.11, 3.12 or 3.13" in line
    assert "make PYTHON=/path/to/python3.13" in line
    assert (made.returncode, made.stdout) == (2, "")


def test_make_unexports_the_variables_of_other_installations() -> None:
    makefile = (ROOT / "Makefile").read_text()
    unexported = set(" ".join(re.findall(r"^unexport (.*)$", makefile, re.M)).split())
    assert {"PYTHONPATH", "SPARK_HOME", "HADOOP_CONF_DIR", "JAVA_TOOL_OPTIONS", "CLASSPATH"} <= unexported


def test_every_package_is_installed_type_checked_and_searched_for_examples() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    found = project["setuptools"]["packages"]["find"]
    folders = [init.parent for where in found["where"] for init in (ROOT / where).glob("*/__init__.py")]
    not_installed = {"tests", "benchmarks", "chaos", "img"}
    packages = {folder.name for folder in folders} - not_installed
    assert {pattern.removesuffix("*") for pattern in found["include"]} == packages
    assert set(project["mypy"]["packages"]) == packages | not_installed
    testpaths = [ROOT / path for path in project["pytest"]["ini_options"]["testpaths"]]
    assert {folder.name for folder in folders if {folder, folder.parent} & set(testpaths)} == packages | {
        "tests",
        "chaos",
    }


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone that is set up for the tests."""
    for name in (*install._REQUIREMENTS.values(), install._BOOTSTRAP, install._PROJECT):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("a==1\n")
    _relocate(tmp_path, monkeypatch)
    install._python().parent.mkdir(parents=True)
    install._python().touch()
    install._write_stamp({**install._identity(), **install._fingerprints("tests")})
    return tmp_path


def _relocate(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "ROOT", folder)
    monkeypatch.setattr(install, "VENV", folder / ".venv")
    monkeypatch.setattr(install, "_STAMP", folder / ".venv" / "installed.json")
    monkeypatch.setattr(install, "_LOCK", folder / ".venv.lock")


def test_an_up_to_date_clone_is_not_set_up_again(clone: Path) -> None:
    assert install._is_current("tests")
    assert not install._is_current("demo")


def test_the_announced_size_is_that_of_the_packages_that_are_not_installed(clone: Path) -> None:
    (clone / install._REQUIREMENTS["demo"]).write_text(
        "a.b==1 \\\n    --hash=sha256:00\nwin==3 ; sys_platform == 'win32'\n"
    )
    (clone / install._REQUIREMENTS["tests"]).write_text("a.b==1\nnot-here==2\n")
    demo, tests = install._PACKAGE_BYTES["demo"], install._PACKAGE_BYTES["tests"]
    assert (install._missing_package_bytes("demo"), install._missing_package_bytes("tests")) == (demo, tests)
    for name, version in (("A_b", 1), ("not_here", 2)):
        metadata = install._site_packages() / f"{name}-{version}.dist-info" / "METADATA"
        metadata.parent.mkdir(parents=True)
        metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        left = (install._missing_package_bytes("demo"), install._missing_package_bytes("tests"))
        assert left == (0, tests - demo if version == 1 else 0)


def test_the_documentation_states_the_sizes_that_the_set_up_announces() -> None:
    jars = sum(jar.size for download in cache.ALL for jar in read_pins(download.pins))
    demo, tests = install._PACKAGE_BYTES["demo"], install._PACKAGE_BYTES["tests"]
    first, more, alone = (f"{size / 1e6:.0f} MB" for size in (demo + jars, tests - demo, tests))
    stated = {
        "README.md": [f"downloads about {first} ", f"another {more} of test tools"],
        "CONTRIBUTING.md": [
            f"{more} after `make demo`, otherwise about {alone},",
            f"another {jars / 1e6:.0f} MB of jars",
        ],
        "docs/performance.md": [f"downloads about {first} "],
    }
    for file, texts in stated.items():
        words = " ".join((ROOT / file).read_text().split())
        assert [text for text in texts if text not in words] == [], file


def test_the_readme_states_the_times_of_a_start_that_were_measured() -> None:
    measured = re.search(r"with data; without \| (\d+ s); (\d+ s) \|", (ROOT / "docs/performance.md").read_text())
    stated = re.search(r"start takes (\d+ s) with existing data and (\d+ s) with an", (ROOT / "README.md").read_text())
    assert measured is not None
    assert stated is not None
    assert stated.groups() == measured.groups()


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_a_moved_or_copied_clone_is_set_up_again(clone: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    other = clone.with_name(f"{clone.name} {how}")
    (shutil.move if how == "moved" else shutil.copytree)(clone, other)
    _relocate(other, monkeypatch)
    assert not install._is_current("tests")


@pytest.mark.parametrize("change", ["pins", "bootstrap", "project", "python", "no python", "stamp"])
def test_a_changed_clone_is_set_up_again(clone: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    if change == "pins":
        (clone / "tests" / "requirements.txt").write_text("a==2\n")
    elif change == "bootstrap":
        (clone / install._BOOTSTRAP).write_text("pip==2\n")
    elif change == "project":
        (clone / install._PROJECT).write_text('[project]\nversion = "2"\n')
    elif change == "python":
        monkeypatch.setattr(install, "_identity", lambda: {"folder": str(clone), "python": "3.99"})
    elif change == "no python":
        install._python().unlink()
    else:
        install._STAMP.write_text("{not json")
    assert not install._is_current("tests")


_SET_UP = """
import sys
from pathlib import Path
from local_stack import install
from local_stack.pip_runner import Pip
from local_stack.progress import ByteProgress

folder = Path(sys.argv[1])
install.ROOT, install.VENV, install._LOCK = folder, folder / ".venv", folder / ".venv.lock"
install._STAMP = install.VENV / "installed.json"

def set_up(target, lock):
    print("sets up", flush=True)
    # As pip: a process of its own, which ends when its pipe is closed.
    Pip(folder / "pip", folder / "log", ByteProgress(sys.stdout, 0, visible=False), descriptors=(lock,)).check()
    install._write_stamp({**install._identity(), **install._fingerprints(target)})

install._set_up = set_up
sys.argv = ["install", "demo"]
install._missing_jars = list
sys.exit(install.main())
"""


@contextmanager
def _setting_up(clone: Path) -> Iterator["subprocess.Popen[str]"]:
    """A set-up of the clone, whose pip runs until something is written to the pipe `go`."""
    command = [sys.executable, "-c", _SET_UP, str(clone)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def go(clone: Path) -> Path:
    """The pipe that the pips of set-ups wait for."""
    pipe = clone / "go"
    os.mkfifo(pipe)
    (clone / "pip").write_text(f"#!/bin/sh\nread _ < {shlex.quote(str(pipe))}\n")
    (clone / "pip").chmod(0o755)
    return pipe


def _line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.mark.timeout(60)
def test_of_two_set_ups_of_one_clone_the_second_waits_and_finds_all_done(clone: Path, go: Path) -> None:
    with _setting_up(clone) as first:
        assert _line(first) == "sets up\n"
        with _setting_up(clone) as second:
            assert _line(second) == "waiting for another set-up of this clone to end\n"
            go.write_text("\n")
            assert (second.wait(), _line(second)) == (0, "")
        assert first.wait() == 0


@pytest.mark.timeout(60)
def test_a_set_up_waits_for_the_pip_that_a_killed_one_has_left_and_does_it_again(clone: Path, go: Path) -> None:
    with _setting_up(clone) as killed:
        assert _line(killed) == "sets up\n"
        # It opens once pip runs.
        with go.open("w") as pip:
            killed.kill()
            killed.wait()
            with _setting_up(clone) as second:
                assert _line(second) == "waiting for another set-up of this clone to end\n"
                pip.close()
                assert _line(second) == "sets up\n"
                go.write_text("\n")
                assert second.wait() == 0
    with _setting_up(clone) as third:
        assert (third.wait(), _line(third)) == (0, "")


@pytest.mark.parametrize("folder", ["/home/a:b", "/home/a\nb"], ids=["colon", "newline"])
def test_a_path_that_java_cannot_read_is_rejected(monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    monkeypatch.setattr(install, "ROOT", Path(folder))
    with pytest.raises(SetUpError, match="which Java cannot take: move the clone"):
        install._require_usable()


def test_an_unsupported_python_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "_VERSIONS", ((2, 7),))
    with pytest.raises(SetUpError, match="make PYTHON="):
        install._require_usable()


def test_the_bar_counts_the_bytes_that_pip_reports(tmp_path: Path) -> None:
    progress = ByteProgress(io.StringIO(), 1000, visible=False)
    lines = [
        "Collecting a", "Downloading a-1.whl (300 bytes)", "Progress 0 of 300", "Progress 200 of 300",
        "Progress 300 of 300", "Using cached b-1.whl (1.5 kB)", "  Downloading c-1.whl (20 bytes)",
        "Downloading d-1.whl (50 bytes)", "Progress 0 of 50", "Progress 50 of 50", "Downloading e-1.whl (7 bytes)",
    ]  # fmt: skip
    kept = list(Pip(tmp_path / "python", tmp_path / "log", progress).count_bytes(iter(lines)))
    assert progress.done == 300 + 1500 + 20 + 50 + 7
    assert kept == [line for line in lines if not line.startswith("Progress")]


def test_the_bar_shows_the_time_left() -> None:
    progress = ByteProgress(io.StringIO(), 400_000_000, visible=False)
    progress.add(100_000_000)
    assert "100 of 400 MB  1:30 left" in progress.line(30.0)
    progress.add(400_000_000)
    assert "500 of 500 MB" in progress.line(60.0)
    assert "left" not in progress.line(60.0)


def test_the_bar_is_one_line_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "get_terminal_size", lambda **_: os.terminal_size((40, 24)))
    out = io.StringIO()
    progress = ByteProgress(out, 100, visible=True)
    progress.show_step("a step with a name that is longer than the line")
    progress.add(100)
    progress.complete()
    progress.close()
    drawn = out.getvalue().split("\r")
    assert all(len(line.removeprefix("\x1b[K")) < 40 for line in drawn)
    assert "\n" not in out.getvalue()


def test_without_java_17_the_set_up_names_the_package_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho '    java.home = /opt/java' >&2; echo '    java.specification.version = 11' >&2\n")
    java.chmod(0o755)
    monkeypatch.setattr(system_java, "_candidates", lambda: iter([java, tmp_path / "none"]))
    with pytest.raises(JavaError, match=r"Java 17 is needed.*java is 11.*apt-get install openjdk-17") as rejected:
        find_java()
    assert "\n" not in str(rejected.value)
    java.write_text(java.read_text().replace("= 11", "= 17"))
    assert find_java() == Path("/opt/java")
