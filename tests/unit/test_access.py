"""Certificates, passwords and rights of the secure overlay, without its servers."""

import base64
import json
import os
import ssl
import stat
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from access import certificates, kafka_rights
from access.elasticsearch_rights import NotUpError, RefusedError, Security, reader, writer
from access.secret_files import KAFKA_USERS, LOGINS, SecretFiles
from runtime.kafka_client import AclOperation, ResourceType

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to other users")


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secrets")
    files = SecretFiles(folder)
    assert files.create_missing()
    files.deliver()
    return folder


@pytest.fixture
def folder(first: Path, tmp_path: Path) -> Path:
    """Return a folder in which everything exists."""
    subprocess.run(["cp", "-a", f"{first}/.", tmp_path], check=True)
    return tmp_path


@needs_root
def test_a_second_run_changes_nothing_and_a_lost_file_comes_back_with_the_same_content(folder: Path) -> None:
    before = _contents(folder)
    (folder / "sink/kafka_password").unlink()
    # What a kill leaves of a file that was being written.
    (folder / "sink/.kafka_password.new").write_bytes(b"half")
    (folder / "kafka/kafka.pem").unlink()
    files = SecretFiles(folder)
    assert files.create_missing() == []
    files.deliver()
    assert _contents(folder) == before


@needs_root
def test_a_deleted_certificate_alone_is_created_again(folder: Path) -> None:
    before = _contents(folder)
    (folder / "own/kafka").unlink()
    files = SecretFiles(folder)
    assert files.create_missing() == ["kafka"]
    files.deliver()
    changed = {name for name, content in _contents(folder).items() if content != before[name]}
    assert changed == {"own/kafka", "kafka/kafka.pem"}


@needs_root
def test_a_certificate_that_ends_within_a_month_is_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = (folder / "own/authority").read_bytes()
    monkeypatch.setattr(certificates, "DAYS", 29)
    ending = certificates.new_certificate(authority, "kafka", ("kafka",))
    monkeypatch.undo()
    assert not certificates.is_valid(ending, authority)
    (folder / "own/kafka").unlink()
    (folder / "own/kafka").write_bytes(ending)
    assert SecretFiles(folder).create_missing() == ["kafka"]
    assert certificates.is_valid((folder / "own/kafka").read_bytes(), authority)


@needs_root
def test_each_container_has_only_its_own_secrets_and_only_its_user_can_read_them(folder: Path) -> None:
    own = {path.name: path.read_bytes() for path in (folder / "own").iterdir()}
    assert stat.S_IMODE((folder / "own").stat().st_mode) == 0o700
    passwords = [content for name, content in own.items() if name.endswith(("password", "key"))]
    assert len(set(passwords)) == len(passwords) == len(KAFKA_USERS) + len(LOGINS) + 2
    for user in ("producer", "stream", "sink", "page"):
        delivered = folder / user / "kafka_password"
        assert delivered.read_bytes() == own[f"kafka-{user}-password"]
        assert (delivered.stat().st_uid, stat.S_IMODE(delivered.stat().st_mode)) == (10001, 0o400)
        held = b"".join(path.read_bytes() for path in (folder / user).iterdir())
        others = {f"kafka-{user}-password", "login-page-password" if user == "page" else ""}
        assert not any(content in held for name, content in own.items() if name not in others)
    key = folder / "kafka/kafka.pem"
    assert (key.stat().st_uid, stat.S_IMODE(key.stat().st_mode)) == (1000, 0o400)
    authority_key = certificates.key_of(own["authority"])
    assert authority_key.startswith(b"-----BEGIN PRIVATE KEY-----")
    copies = [content for name, content in _contents(folder).items() if not name.startswith("own/")]
    assert not any(authority_key in content for content in copies)


def test_a_certificate_of_another_authority_is_not_valid(tmp_path: Path) -> None:
    authority, other = certificates.new_authority(), certificates.new_authority()
    server = certificates.new_certificate(authority, "kafka", ("kafka", "127.0.0.1"))
    assert certificates.is_valid(server, authority)
    assert not certificates.is_valid(server, other)
    file = tmp_path / "server"
    file.write_bytes(server)
    shown = subprocess.run(
        ["openssl", "x509", "-in", str(file), "-noout", "-ext", "subjectAltName,basicConstraints"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "DNS:kafka, IP Address:127.0.0.1" in shown
    assert "CA:FALSE" in shown


def test_each_user_of_kafka_has_rights_on_the_topics_of_its_work_alone() -> None:
    rights = kafka_rights.rights("orders", "sinks")
    written = {(right.principal, right.name) for right in rights if right.operation == AclOperation.WRITE}
    assert written == {
        ("User:producer", "orders"),
        *(("User:stream", f"orders{suffix}") for suffix in ("_aggregated", "_dead_letter")),
        *(("User:sink", f"orders{suffix}") for suffix in ("", "_aggregated", "_dead_letter")),
    }
    assert {right.principal for right in rights} == {f"User:{user}" for user in KAFKA_USERS}
    assert not {right.operation for right in rights} & {AclOperation.ALL, AclOperation.ALTER, AclOperation.DELETE}
    everything = {right.principal for right in rights if right.name == "*" or right.restype == ResourceType.BROKER}
    assert everything == {"User:kafka-ui"}


class _Elasticsearch:
    """A stand-in for the security API of Elasticsearch, over TLS."""

    def __init__(self, folder: Path) -> None:
        authority = certificates.new_authority()
        self.ca_file = folder / "ca.pem"
        self.ca_file.write_bytes(certificates.certificate_of(authority))
        server = folder / "server.pem"
        server.write_bytes(certificates.new_certificate(authority, "elasticsearch", ("localhost",)))
        self.passwords: dict[str, str] = {}
        self.keys: list[dict[str, Any]] = []
        self._http = HTTPServer(("localhost", 0), _handler(self))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(server)
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self.url = f"https://localhost:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever)
        self._thread.start()

    def close(self) -> None:
        """Stop it."""
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def answer(self, method: str, path: str, authorization: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Return status and body of a response."""
        if authorization.startswith("ApiKey "):
            found = [key for key in self.keys if key["encoded"] == authorization[7:]]
            return (200, {"api_key": {"id": found[0]["id"]}}) if found else (401, {"error": "unknown key"})
        if authorization != "Basic " + base64.b64encode(b"elastic:secret").decode():
            return 401, {"error": "unable to authenticate"}
        if path.startswith("/_security/user/"):
            self.passwords[path.split("/")[3]] = body["password"]
            return 200, {}
        if method == "GET":
            return 200, {"api_keys": [key for key in self.keys if path.endswith(f"?id={key['id']}")]}
        if method == "DELETE":
            before = len(self.keys)
            self.keys = [key for key in self.keys if key["name"] != body["name"]]
            return (200 if len(self.keys) < before else 404), {}
        number = str(len(self.passwords) + len(self.keys) + 17)
        self.keys.append({**body, "id": number, "encoded": base64.b64encode(f"{number}:x".encode()).decode()})
        return 200, self.keys[-1]


def _handler(server: _Elasticsearch) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            content = self.rfile.read(int(self.headers.get("content-length", 0)))
            body = json.loads(content or b"{}")
            status, answer = server.answer(self.command, self.path, self.headers.get("authorization", ""), body)
            encoded = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        do_GET = do_POST = do_DELETE = _answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def elasticsearch(tmp_path: Path) -> Iterator[_Elasticsearch]:
    server = _Elasticsearch(tmp_path)
    yield server
    server.close()


def test_a_key_is_kept_while_it_is_valid_for_its_role_and_replaced_otherwise(elasticsearch: _Elasticsearch) -> None:
    security = Security(elasticsearch.url, "secret", str(elasticsearch.ca_file))
    saved: list[str] = []
    sink, page = writer(["agg_users"], ["agg_users_write"]), reader(["agg_users"])
    assert security.ensure_key("sink", sink, None, saved.append)
    assert security.ensure_key("page", page, None, saved.append)
    assert not security.ensure_key("sink", sink, saved[0], saved.append)
    # Elasticsearch lost its data, or a declaration has other tables: the old key is removed.
    wider = writer(["agg_users", "agg_hours"], [])
    assert security.ensure_key("sink", wider, saved[0], saved.append)
    assert not security.ensure_key("sink", wider, saved[-1], saved.append)
    assert security.ensure_key("page", page, "bG9zdDprZXk=", saved.append)
    assert {key["name"]: key["encoded"] for key in elasticsearch.keys} == {"sink": saved[2], "page": saved[3]}
    assert len(elasticsearch.keys) == 2
    (role,) = [key["role_descriptors"]["page"] for key in elasticsearch.keys if key["name"] == "page"]
    assert not {"write", "manage", "all"} & set(role["index"][0]["privileges"])


def test_the_password_of_kibanas_user_is_set_and_a_refusal_names_the_request(elasticsearch: _Elasticsearch) -> None:
    Security(elasticsearch.url, "secret", str(elasticsearch.ca_file)).set_password("kibana_system", "new")
    assert elasticsearch.passwords == {"kibana_system": "new"}
    guessed = Security(elasticsearch.url, "guessed", str(elasticsearch.ca_file))
    with pytest.raises(
        RefusedError, match=r"POST /_security/user/kibana_system/_password .* status 401: .*authenticate"
    ):
        guessed.set_password("kibana_system", "new")


def test_an_elasticsearch_with_the_certificate_of_another_authority_gets_no_password(
    elasticsearch: _Elasticsearch, tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(certificates.certificate_of(certificates.new_authority()))
    security = Security(elasticsearch.url, "secret", str(other), wait=0)
    with pytest.raises(NotUpError, match="certificate verify failed"):
        security.set_password("kibana_system", "new")
    assert elasticsearch.passwords == {}
