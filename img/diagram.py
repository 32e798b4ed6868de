"""Serves a page with a Mermaid diagram: ``python -m img.diagram FILE PORT``."""

import sys
from pathlib import Path

from nicegui import ui


def main() -> None:
    """Serve until stopped."""
    text = Path(sys.argv[1]).read_text()

    def page() -> None:
        ui.mermaid(text, config={"theme": "neutral"}).classes("w-[1200px] p-6")

    ui.run(page, host="127.0.0.1", port=int(sys.argv[2]), show=False, reload=False, show_welcome_message=False)


if __name__ == "__main__":
    main()
