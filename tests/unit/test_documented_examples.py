"""The examples of docs/adapting can be pasted: declarations and the rules for them are valid, and panels are shown."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from nicegui import Client, ui

from contract.loading import load
from live_page.charts import Chart
from live_page.settings import PageSettings
from live_page.sources import create_sources
from local_stack.services import ROOT
from observer.snapshot import Snapshot

_PAGES = ROOT / "docs/adapting"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
_LOAD_RULES = """
import pathlib, sys
from elasticsearch_sink_alert.alerting.data_mapper import load
load(pathlib.Path(sys.argv[1]))
"""


def _blocks(page: Path, language: str) -> list[str]:
    return [code for name, code in _BLOCK.findall(page.read_text()) if name == language]


def _tables(page: str) -> str:
    """Return the default declaration with the table of a page, which is its first example."""
    example = _blocks(_PAGES / page, "python")[0]
    name = example.split(" = ")[0]
    declared = (ROOT / "pipeline.py").read_text()
    with_example = declared.replace("\nPIPELINE = ", f"\n{example}\n\nPIPELINE = ")
    return with_example.replace("ITEM_HOURS),", f"ITEM_HOURS, {name}),")


def _check_rules(declaration: Path, rules: Path) -> None:
    """Check rules in a process of its own, which has this declaration."""
    checked = subprocess.run(
        [sys.executable, "-c", _LOAD_RULES, str(rules)],
        env={**os.environ, "PIPELINE": str(declaration)},
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("page", ["table.md", "measure.md", "window.md"])
def test_the_table_of_a_page_can_be_pasted_into_the_default_declaration(page: str, tmp_path: Path) -> None:
    file = tmp_path / "pipeline.py"
    file.write_text(_tables(page))
    assert len(load(file).tables) == len(load(ROOT / "pipeline.py").tables) + 1


def test_the_new_event_is_valid_and_check_prints_what_the_page_shows(tmp_path: Path) -> None:
    page = ROOT / "docs/adapting.md"
    file, rules = tmp_path / "rides/pipeline.py", tmp_path / "rides/data_mapper.yml"
    file.parent.mkdir()
    file.write_text(_blocks(page, "python")[0])
    rules.write_text(_blocks(page, "yaml")[0])
    _check_rules(file, rules)
    command = [sys.executable, "-m", "contract", "check", "rides/pipeline.py"]
    shown = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert f"```text\n{shown.stdout}```" in page.read_text()


@pytest.mark.parametrize("page", ["window.md", "alert-rule.md"])
def test_the_rules_of_a_page_are_valid(page: str, tmp_path: Path) -> None:
    file, rules = tmp_path / "pipeline.py", tmp_path / "data_mapper.yml"
    file.write_text(_tables("window.md"))
    head = "agg_interactions_user:\n  id: user_id\n  alerts:\n"
    for example in _blocks(_PAGES / page, "yaml"):
        rules.write_text(head + example if example.startswith(" ") else example)
        _check_rules(file, rules)


def test_the_panels_of_the_page_can_be_pasted_into_the_overview(tmp_path: Path) -> None:
    file = tmp_path / "overview.py"
    examples = "\n\n".join(_blocks(_PAGES / "page-panel.md", "python"))
    imports = (
        "from live_page.charts import line_options, update_bars\n"
        "from live_page.sources.documents import Documents, Hits\n"
        "from observer.reading_history import ReadingHistory\n"
    )
    file.write_text((ROOT / "live_page/pages/overview.py").read_text() + imports + examples)
    pasted = runpy.run_path(str(file))
    sources = create_sources(PageSettings.read({}, {}))
    sources.history.add(Snapshot(sink_lag=3), 1.0)
    with Client(ui.page("/"), request=None) as client:
        for update in (pasted["_show_lag"](sources.history), pasted["_show_buyers"](sources.documents)):
            update(sources.overview.get())
    lag, _ = (each for each in client.elements.values() if isinstance(each, Chart))
    assert lag.options["series"][0]["data"] == [[1_000, 3]]
