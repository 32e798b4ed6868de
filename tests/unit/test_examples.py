import doctest
import importlib

import pytest

MODULES = [
    "contract.commands",
    "contract.health",
    "contract.http_names",
    "contract.keys",
    "contract.proxies",
    "contract.tables",
    "data_producer.generator",
    "data_producer.pacing",
    "elasticsearch_sink_alert.rules",
    "elasticsearch_sink_alert.versions",
    "live_page.pages.links",
    "live_page.parts",
    "live_page.text",
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_the_docstrings_are_true(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
