"""The documentation: its links lead somewhere, and the commands, files and settings that it names exist."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from local_stack.services import ROOT

_FENCE = re.compile(r"^```.*?^```$", re.M | re.S)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_HTML_LINK = re.compile(r'\b(?:href|src|srcset)="([^"]+)"')
_CODE_SPAN = re.compile(r"`([^`\n]+)`")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.M)
_PATH = re.compile(r"(?:[\w.-]+/)+[\w.-]*|[\w.-]+\.(?:md|py|yml|yaml|json|ndjson|in|txt|toml)")
_CREATED_BY_MAKE = (".data", ".venv")
_HEADINGS_OF_A_DECISION = ["Context", "Measurement", "Decision", "Rejected"]
_DECISIONS = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))


def _markdown_files() -> list[Path]:
    files = [*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("docs/*/*.md")]
    return sorted(file for file in files if not file.relative_to(ROOT).parts[0].startswith("."))


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _code(text: str) -> list[str]:
    """Return the code spans and code blocks of a Markdown text."""
    blocks = [block.split("\n", 1)[1].removesuffix("```") for block in _FENCE.findall(text)]
    return blocks + _CODE_SPAN.findall(_FENCE.sub("", text))


def _prose(text: str) -> str:
    return _CODE_SPAN.sub("", _FENCE.sub("", text))


def _anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a Markdown text."""
    anchors: set[str] = set()
    for heading in _HEADING.findall(_FENCE.sub("", text)):
        shown = _LINK.sub(lambda link: link[0][1 : link[0].index("]")], heading)
        anchor = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        repeated = sum(
            known == anchor or re.fullmatch(rf"{re.escape(anchor)}-\d+", known) is not None for known in anchors
        )
        anchors.add(f"{anchor}-{repeated}" if repeated else anchor)
    return anchors


def _broken(file: Path, link: str) -> bool:
    target, _, anchor = link.partition("#")
    found = (file.parent / target).resolve() if target else file
    if not found.exists() or not found.is_relative_to(ROOT):
        return True
    return bool(anchor) and anchor not in _anchors(found.read_text())


_PAGES = pytest.mark.parametrize("file", _markdown_files(), ids=_name)
_GUIDES = pytest.mark.parametrize(
    "file",
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted(ROOT.glob("docs/*.md")),
        *sorted(ROOT.glob("docs/adapting/*.md")),
    ],
    ids=_name,
)


@pytest.fixture(scope="module")
def repository_paths() -> list[str]:
    """Return all files and folders, relative to the top folder."""
    tops = [top for top in ROOT.iterdir() if top.name not in (".git", *_CREATED_BY_MAKE)]
    return [_name(path) for top in tops for path in (top, *top.rglob("*"))]


@_PAGES
def test_every_relative_link_and_image_leads_to_a_file_and_a_heading(file: Path) -> None:
    prose = _prose(file.read_text())
    links = [*_LINK.findall(prose), *_HTML_LINK.findall(prose)]
    assert [link for link in links if not re.match(r"[a-z]+:", link) and _broken(file, link)] == []


@_PAGES
def test_every_make_target_that_is_named_exists(file: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    commands = re.findall(r"\bmake((?: [a-z-]+\b(?![=/.]))+)", "\n".join(_code(file.read_text())))
    assert {name for command in commands for name in command.split()} - targets == set()


@_GUIDES
def test_every_path_that_is_named_exists(file: Path, repository_paths: list[str]) -> None:
    named = [code.split(":")[0] for code in _CODE_SPAN.findall(_FENCE.sub("", file.read_text()))]
    paths = [path.rstrip("/") for path in named if _PATH.fullmatch(path)]
    paths = [path for path in paths if path.split("/")[0] not in _CREATED_BY_MAKE]
    assert [path for path in paths if not any(f"/{known}".endswith(f"/{path}") for known in repository_paths)] == []


@_GUIDES
def test_every_test_that_is_named_exists(file: Path) -> None:
    named = {code for code in _CODE_SPAN.findall(_FENCE.sub("", file.read_text())) if re.fullmatch(r"test_\w+", code)}
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert named - set(re.findall(r"^def (test_\w+)\(", tests, re.M)) == set()


@_PAGES
def test_every_module_that_is_run_exists(file: Path) -> None:
    modules = set(re.findall(r"python -m ([\w.]+)", "\n".join(_code(file.read_text()))))
    assert {name for name in modules if importlib.util.find_spec(name) is None} == set()


@_GUIDES
def test_every_setting_that_is_named_is_in_the_example_file(file: Path) -> None:
    known = set(re.findall(r"^#? ?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.M))
    named = {
        code.split("=")[0] for code in _CODE_SPAN.findall(file.read_text()) if re.match(r"[A-Z]+_[A-Z_]+(=|$)", code)
    }
    variables_of_make_and_tests = {"TESTS_AT_ONCE", "TEST_SERVERS", "JAVA_HOME"}
    constants = {name for name in named if name.endswith("_") or name == "TABLES"}
    assert named - known - variables_of_make_and_tests - constants == set()


@pytest.mark.parametrize("file", _DECISIONS, ids=_name)
def test_every_decision_has_its_date_status_and_sections_and_is_in_the_index(file: Path) -> None:
    text = file.read_text()
    title = re.match(r"# (\d{4})\. .+\n\n- Date: \d{4}-\d\d-\d\d\n- Status: .+\n\n## ", text)
    assert title is not None
    assert title[1] == file.name[:4]
    assert re.findall(r"^## (.+)$", text, re.M) == _HEADINGS_OF_A_DECISION
    assert f"]({file.name})" in (file.parent / "README.md").read_text()


def test_the_numbers_of_decisions_are_consecutive() -> None:
    assert [int(file.name[:4]) for file in _DECISIONS] == list(range(1, len(_DECISIONS) + 1))


def test_the_readme_is_short_until_how_fast() -> None:
    before, found, _ = (ROOT / "README.md").read_text().partition("\n## How fast\n")
    assert found
    assert len(before.splitlines()) <= 110


def _yaml(path: str) -> Any:
    return YAML(typ="safe").load(ROOT / path)


def test_the_hosted_workflow_runs_the_checks_on_every_supported_python_and_the_gate_once() -> None:
    workflow = _yaml(".github/workflows/ci.yml")
    assert workflow["permissions"] == {"contents": "read"}
    checks, gate = workflow["jobs"]["checks"], workflow["jobs"]["gate"]
    assert checks["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert checks["steps"][-1]["run"].startswith("make lint types unit ")
    assert gate["steps"][-1]["run"] == ".ci/run"
    used = [step["uses"] for job in (checks, gate) for step in job["steps"] if "uses" in step]
    assert all(re.fullmatch(r"[\w/-]+@v\d+", action) for action in used)


def test_the_hosted_workflow_audits_and_lists_the_packages_of_every_image() -> None:
    jobs = _yaml(".github/workflows/ci.yml")["jobs"]
    images = {file.parent.name for file in ROOT.glob("*/Dockerfile")}
    assert set(jobs["audit"]["strategy"]["matrix"]["folder"]) == images
    for job in ("audit", "images"):
        commands = "\n".join(step.get("run", "") for step in jobs[job]["steps"])
        assert "cyclonedx-json" in commands
        used = [step["uses"] for step in jobs[job]["steps"] if "uses" in step]
        assert all(re.fullmatch(r"[\w/-]+@v\d+", action) for action in used)


def test_the_pre_commit_hooks_run_what_make_runs() -> None:
    (repository,) = _yaml(".pre-commit-config.yaml")["repos"]
    commands = [hook["entry"].removeprefix(".venv/bin/python -m ") for hook in repository["hooks"]]
    makefile = (ROOT / "Makefile").read_text()
    assert commands == ["ruff check .", "ruff format --check .", "mypy"]
    assert all(f"$(RUN) -m {command}" in makefile for command in commands)


def test_the_dev_container_runs_the_unit_tests() -> None:
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    assert container["postCreateCommand"] == "make unit"
    assert "3.11" in container["image"]
