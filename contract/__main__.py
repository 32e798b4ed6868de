"""Checks a declaration: ``python -m contract check [FILE]``."""

from runtime.signals import end_on_interrupt

if __name__ == "__main__":
    end_on_interrupt()

import argparse
import sys
from pathlib import Path

from contract.loading import DeclarationError, load
from runtime.broken_pipe import exit_status


def main() -> int:
    """Print what is wrong with the declaration, a line each (status 1), or what it declares."""
    parser = argparse.ArgumentParser(prog="contract", description="Checks the declaration of a pipeline.")
    parser.add_argument("command", choices=["check"])
    parser.add_argument("file", nargs="?", type=Path, default=Path("pipeline.py"), help="pipeline.py without a name")
    file: Path = parser.parse_args().file
    try:
        pipeline = load(file)
    except DeclarationError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{file}: event {pipeline.event.name} ({', '.join(pipeline.event.names)})")
    for table in pipeline.tables:
        print(f"  {table.name} ({', '.join(column.name for column in table.columns)})")
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(main))
