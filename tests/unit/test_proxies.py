"""Requests to local servers bypass the proxy that the environment names; nothing listens at this one."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from elasticsearch import Elasticsearch
from elasticsearch.exceptions import UnsupportedProductError
from elasticsearch_sink_alert.settings import SinkSettings
from mirakuru import HTTPExecutor

from dashboards.importer import import_objects
from live_page.settings import PageSettings
from runtime import probe

PROXY = "http://127.0.0.1:9"


class _Server(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(503 if self.path == "/failing" else 200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(b'{"success": true, "successCount": 1}')

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def _proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, PROXY)
        monkeypatch.setenv(name.upper(), PROXY)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")


@pytest.mark.parametrize(
    ("argument", "status"), [("{}", 0), ("http://localhost:{}/json/", 0), ("http://localhost:{}/failing", 1)]
)
def test_the_probe_bypasses_the_proxy(port: int, argument: str, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["probe", argument.format(port)])
    assert probe.main() == status


def test_the_probe_prints_the_url_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["probe", "9"])
    assert probe.main() == 1
    assert capsys.readouterr().out.startswith("http://127.0.0.1:9/health: ")


def test_the_dashboard_importer_bypasses_the_proxy(port: int) -> None:
    assert import_objects(f"http://localhost:{port}", b"{}\n", timeout=1) == 1


def test_the_elasticsearch_client_bypasses_the_proxy(port: int) -> None:
    # The error shows that the server has answered.
    with Elasticsearch([f"http://localhost:{port}"], max_retries=0) as client, pytest.raises(UnsupportedProductError):
        client.transport.perform_request("GET", "/")


def test_the_local_stacks_health_check_bypasses_the_proxy(port: int) -> None:
    executor = HTTPExecutor(["true"], url=f"http://127.0.0.1:{port}/health", method="GET", timeout=5)
    executor._set_timeout()
    assert executor.after_start_check()


def test_local_hosts_of_the_settings_are_exempt_from_the_proxy(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "intranet.example.com")
    monkeypatch.setenv("STREAM_URL", "http://stream-processing:9102")
    monkeypatch.setenv("ES_HOST", "http://one:9200, http://two:9200,https://es.example.com")
    monkeypatch.setenv("ALERT_WEBHOOK_URL", "http://receiver:1/hook")
    with pytest.raises(requests.exceptions.ProxyError):
        requests.get(f"http://localhost:{port}/health", timeout=5)
    for settings in (PageSettings, SinkSettings):
        settings.load()
    assert requests.get(f"http://localhost:{port}/health", timeout=5).ok
    for name in ("stream-processing:9102", "two:9200", "receiver:1", "intranet.example.com", "127.0.0.1", "[::1]:9101"):
        assert requests.utils.get_environ_proxies(f"http://{name}/") == {}, name
    for name in ("es.example.com", "hooks.example.com"):
        assert requests.utils.get_environ_proxies(f"http://{name}/")["http"] == PROXY, name
