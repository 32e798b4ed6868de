"""Keeps secrets in a folder of their own, and gives each container a copy of those that it needs.

The own folder has the only original of each secret. It is created once, and the copies are written again at each run:
what a run that is killed leaves out, the next one completes. A file appears under its name when it is complete.
"""

import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from access import certificates

_AUTHORITY: Final = "authority"
_OWNER_ONLY: Final = 0o400
_EVERYONE: Final = 0o444
PYTHON_USER, _SERVER = 10001, 1000
"""The users of the project's own images, and of those of Kafka, Elasticsearch and Kibana."""
KAFKA_USERS: Final = ("producer", "stream", "sink", "page", "kafka-ui")
"""The services' users in Kafka; each has a password."""
LOGINS: Final = {"elastic": "Elasticsearch and Kibana", "page": "live page", "kafka-ui": "Kafka UI"}
"""Users of people, and where they log in."""
_KAFKA_UI: Final = """\
auth:
  type: LOGIN_FORM
spring:
  security:
    user:
      name: kafka-ui
      password: "{login}"
kafka:
  clusters:
    - name: local
      bootstrapServers: kafka:19092
      readOnly: true
      properties:
        security.protocol: SASL_SSL
        sasl.mechanism: SCRAM-SHA-512
        sasl.jaas.config: >-
          org.apache.kafka.common.security.scram.ScramLoginModule required
          username="kafka-ui" password="{kafka}";
        ssl.truststore.type: PEM
        ssl.truststore.location: /run/secrets/ca.pem
"""
_KIBANA: Final = """\
elasticsearch.username: kibana_system
elasticsearch.password: "{password}"
xpack.security.encryptionKey: "{key}"
xpack.encryptedSavedObjects.encryptionKey: "{key}"
"""


def _password() -> bytes:
    # Letters, digits, - and _: no program that reads it needs a quote.
    return secrets.token_urlsafe(24).encode()


@dataclass(frozen=True)
class _Copy:
    content: bytes
    owner: int
    mode: int = _OWNER_ONLY


class SecretFiles:
    """The folders of all secrets: `own`, and one for each container, named after its volume."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own = folder / "own"

    def create_missing(self) -> list[str]:
        """Create the secrets that do not exist, replace certificates that end soon, and return their names."""
        self._own.mkdir(mode=0o700, exist_ok=True)
        created = self._create(_AUTHORITY, certificates.new_authority)
        authority = self._read(_AUTHORITY)
        for name, hosts in {
            "kafka": ("kafka", "localhost", "127.0.0.1"),
            "kafka-admin": (),
            "elasticsearch": ("elasticsearch", "localhost", "127.0.0.1"),
        }.items():
            if (self._own / name).exists() and not certificates.is_valid(self._read(name), authority):
                (self._own / name).unlink()
            created += self._create(name, partial(certificates.new_certificate, authority, name, hosts))
        for name in (
            *(f"kafka-{user}" for user in KAFKA_USERS),
            *(f"login-{user}" for user in LOGINS),
            "kibana_system",
        ):
            created += self._create(f"{name}-password", _password)
        created += self._create("kibana-encryption-key", _password)
        return created

    def login(self, user: str) -> str:
        """Return the password of a user of `LOGINS`."""
        return self._read(f"login-{user}-password").decode()

    def deliver(self) -> None:
        """Write the copies into the folders of the containers."""
        for folder, files in self._copies().items():
            target = self._folder / folder
            target.mkdir(exist_ok=True)
            for name, copy in files.items():
                write(target / name, copy.content, copy.owner, copy.mode)

    def _copies(self) -> Mapping[str, Mapping[str, _Copy]]:
        ca = _Copy(certificates.certificate_of(self._read(_AUTHORITY)), 0, _EVERYONE)
        kafka = {user: self._read(f"kafka-{user}-password") for user in KAFKA_USERS}
        elasticsearch, admin = self._read("elasticsearch"), self._read("kafka-admin")
        elastic = self._read("login-elastic-password")
        kibana_system = self._read("kibana_system-password")
        kafka_ui = _KAFKA_UI.format(login=self.login("kafka-ui"), kafka=kafka["kafka-ui"].decode())
        kibana = _KIBANA.format(password=kibana_system.decode(), key=self._read("kibana-encryption-key").decode())
        services = {
            user: {"ca.pem": ca, "kafka_password": _Copy(kafka[user], PYTHON_USER)}
            for user in ("producer", "stream", "sink", "page")
        }
        services["page"]["page_password"] = _Copy(self._read("login-page-password"), PYTHON_USER)
        return {
            **services,
            "kafka": {"ca.pem": ca, "kafka.pem": _Copy(self._read("kafka"), _SERVER)},
            "kafka-access": {
                "ca.pem": ca,
                "admin.crt": _Copy(certificates.certificate_of(admin), PYTHON_USER),
                "admin.key": _Copy(certificates.key_of(admin), PYTHON_USER),
                **{user: _Copy(password, PYTHON_USER) for user, password in kafka.items()},
            },
            # Kafka UI's user is not the same in all its images; the volume is mounted in its container alone.
            "kafka-ui": {"ca.pem": ca, "application.yml": _Copy(kafka_ui.encode(), 0, _EVERYONE)},
            "elasticsearch": {
                "ca.pem": ca,
                "server.crt": _Copy(certificates.certificate_of(elasticsearch), _SERVER),
                "server.key": _Copy(certificates.key_of(elasticsearch), _SERVER),
                "elastic_password": _Copy(elastic, _SERVER),
            },
            "elasticsearch-access": {
                "ca.pem": ca,
                "elastic_password": _Copy(elastic, 0),
                "kibana_system_password": _Copy(kibana_system, 0),
            },
            "kibana": {"ca.pem": ca, "kibana.yml": _Copy(kibana.encode(), _SERVER)},
            "kibana-setup": {"elastic_password": _Copy(elastic, PYTHON_USER)},
        }

    def _create(self, name: str, make: Callable[[], bytes]) -> list[str]:
        if (self._own / name).exists():
            return []
        write(self._own / name, make(), os.geteuid())
        return [name]

    def _read(self, name: str) -> bytes:
        return (self._own / name).read_bytes()


def write(path: Path, content: bytes, owner: int, mode: int = _OWNER_ONLY) -> None:
    """Write a file, or replace it; it never has less than this content, another owner or another mode."""
    new = path.with_name(f".{path.name}.new")
    # Left by a run that was killed: its owner may be another, so that it cannot be opened.
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        os.fchmod(file.fileno(), mode)
        os.fchown(file.fileno(), owner, -1)
        os.fsync(file.fileno())
    new.replace(path)
