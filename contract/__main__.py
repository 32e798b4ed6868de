"""Checks a declaration, or prints JSON Schemas of its messages: ``python -m contract check [FILE]`` or ``schema``."""

from runtime.signals import end_on_interrupt

if __name__ == "__main__":
    end_on_interrupt()

import argparse
import json
import sys
from pathlib import Path

from contract.json_schema import schemas
from contract.loading import DeclarationError, declared_file, load
from runtime.broken_pipe import exit_status


def main() -> int:
    """Print what is wrong with the declaration, a line each (status 1), or what it declares, or its schemas."""
    parser = argparse.ArgumentParser(prog="contract", description="Checks the declaration of a pipeline.")
    parser.add_argument("command", choices=["check", "schema"], help="check it, or print JSON Schemas of its messages")
    parser.add_argument("file", nargs="?", type=Path, help="without it, that of the setting PIPELINE, or pipeline.py")
    args = parser.parse_args()
    file: Path = args.file or declared_file()
    try:
        pipeline = load(file)
    except DeclarationError as error:
        print(error, file=sys.stderr)
        return 1
    if args.command == "schema":
        print(json.dumps(schemas(pipeline), indent=2))
        return 0
    print(f"{file}: event {pipeline.event.name} ({', '.join(pipeline.event.names)})")
    for table in pipeline.tables:
        print(f"  {table.name} ({', '.join(column.name for column in table.columns)})")
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(main))
