"""Prepares what servers with logins need: ``python -m access files``, ``kafka``, ``elasticsearch`` or ``show``.

Each command ends when it is done, and changes nothing where everything is as it should be.
"""

from runtime.signals import end_on_interrupt

if __name__ == "__main__":
    end_on_interrupt()

import argparse
import logging
import os
import sys
from functools import partial
from pathlib import Path
from typing import Final

from access import kafka_rights
from access.certificates import CertificateError
from access.elasticsearch_rights import NotUpError, RefusedError, Security, reader, writer
from access.secret_files import KAFKA_USERS, LOGINS, PYTHON_USER, SecretFiles, write
from runtime import logs
from runtime.broken_pipe import exit_status

logger = logging.getLogger("access")

_ALL: Final = Path("/secrets")
_OWN: Final = Path("/run/secrets")


def main() -> int:
    """Run a command; return 1, with the reason in the log, if it fails."""
    parser = argparse.ArgumentParser(prog="access", description="Prepares certificates, passwords and rights.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, description in {
        "files": "create the secrets that are missing, and give each container its own",
        "kafka": "set the users and rights of Kafka at KAFKA_BROKER",
        "elasticsearch": "set Kibana's password, and create the keys of sink and live page, at ES_HOST",
        "show": "print the passwords of people",
    }.items():
        commands.add_parser(name, help=description, description=description)
    command: str = parser.parse_args().command
    logs.configure("INFO")
    try:
        if command == "show":
            return _show()
        if command == "files":
            _create_files()
        elif command == "kafka":
            _set_kafka_rights()
        else:
            _set_elasticsearch_rights()
    except (CertificateError, kafka_rights.RightsError, RefusedError, NotUpError, OSError) as error:
        logger.error("%s", error)
        return 1
    return 0


def _create_files() -> None:
    files = SecretFiles(_ALL)
    created = files.create_missing()
    files.deliver()
    logger.info("created: %s", ", ".join(created) or "nothing, everything existed")


def _set_kafka_rights() -> None:
    topic, group = os.environ["KAFKA_TOPIC"], os.environ["KAFKA_GROUP_ID"]
    kafka_rights.apply(os.environ["KAFKA_BROKER"], _OWN, KAFKA_USERS, kafka_rights.rights(topic, group))


def _set_elasticsearch_rights() -> None:
    # Imported here: the other commands need no declaration.
    from elasticsearch_sink_alert.indexing.index_templates import mappings, write_alias

    elastic, kibana_system = ((_OWN / f"{name}_password").read_text() for name in ("elastic", "kibana_system"))
    security = Security(os.environ["ES_HOST"], elastic, str(_OWN / "ca.pem"))
    security.set_password("kibana_system", kibana_system)
    indices = [index for index, _ in mappings()]
    roles = {"sink": writer(indices, [write_alias(index) for index in indices]), "page": reader(indices)}
    for name, role in roles.items():
        key = _OWN / f"api_key_{name}"
        existing = key.read_text() if key.exists() else None
        if security.ensure_key(name, role, existing, partial(_save, key)):
            logger.info("created the key of the %s", name)
        write(_ALL / name / "es_api_key", key.read_bytes(), PYTHON_USER)


def _save(file: Path, key: str) -> None:
    write(file, key.encode(), os.geteuid())


def _show() -> int:
    files = SecretFiles(_ALL)
    for user, where in LOGINS.items():
        sys.stdout.write(f"{where}: user {user}, password {files.login(user)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(main))
