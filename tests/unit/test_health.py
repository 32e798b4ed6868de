import json
import urllib.error
import urllib.request

import pytest

from runtime.health import Health, serve


def test_health_reports_which_component_fails_and_why() -> None:
    health = Health("kafka", "elasticsearch")
    port = serve(health, "127.0.0.1", 0)
    health.ok("kafka")
    health.failing("elasticsearch", "connection refused")
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health")
    assert error.value.code == 503
    assert json.load(error.value)["parts"] == {"kafka": "ok", "elasticsearch": "connection refused"}
    health.ok("elasticsearch")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as healthy:
        assert json.load(healthy)["status"] == "ok"
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as healthy:
        assert healthy.read().endswith(b"}\n"), "the terminal's prompt comes on a line of its own"
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as metrics:
        assert b"python_info" in metrics.read()
