"""Decides whether a pipeline uses the demo's own alert rules: by a link that the demo leaves beside its warehouse."""

from pathlib import Path
from typing import Final

DEMO_RULES: Final = Path(__file__).resolve().parents[1] / "03-ElasticsearchSink-Alert" / "demo_data_mapper.yml"
"""The data mapper of the demo, unless the user chooses another one."""


def demo_rules_link(data: Path) -> Path:
    """Return the path of the link in the data folder of a local stack."""
    return data / "data_mapper.yml"


def rules_of_demo(warehouse: str) -> Path | None:
    """Return the demo's rules if the demo whose warehouse this is uses them.

    Only the demo's link to this very file counts: whoever can write beside a warehouse does not choose the rules.
    """
    link = demo_rules_link(Path(warehouse).parent)
    try:
        return DEMO_RULES if link.is_symlink() and link.resolve() == DEMO_RULES else None
    except (OSError, RuntimeError, ValueError):
        # A loop of links, or no path at all.
        return None
