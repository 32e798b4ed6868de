"""Serves a page with a Mermaid diagram: ``python -m img.diagram FILE PORT``."""

import argparse
from pathlib import Path

from nicegui import ui


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(prog="img.diagram", description="Serves a page with a Mermaid diagram.")
    parser.add_argument("file", type=Path, help="the diagram's text")
    parser.add_argument("port", type=int)
    args = parser.parse_args()
    text = args.file.read_text()

    def page() -> None:
        ui.mermaid(text, config={"theme": "neutral"}).classes("w-[1200px] p-6")

    ui.run(page, host="127.0.0.1", port=args.port, show=False, reload=False, show_welcome_message=False)


if __name__ == "__main__":
    main()
