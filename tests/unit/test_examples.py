import doctest
import importlib
from pathlib import Path

import pytest

from local_stack.services import ROOT

_SOURCES = ("contract", "01-DataProducer", "02-StreamProcessing", "03-ElasticsearchSink-Alert", "live_page", "observer")


def _modules_with_examples() -> list[str]:
    paths = [path for folder in _SOURCES for path in sorted((ROOT / folder).rglob("*.py"))]
    return [_module(path.relative_to(ROOT)) for path in paths if ">>> " in path.read_text()]


def _module(path: Path) -> str:
    # The services' folders are on the path themselves.
    parts = path.parts[1:] if path.parts[0][0].isdigit() else path.parts
    return ".".join(parts).removesuffix(".py")


@pytest.mark.parametrize("name", _modules_with_examples())
def test_the_examples_in_the_docstrings_are_true(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
