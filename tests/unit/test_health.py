import json
import socket
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


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize(("host", "names"), [("::1", ["[::1]"]), ("::", ["[::1]", "127.0.0.1"])])
def test_health_listens_on_an_ipv6_address(host: str, names: list[str]) -> None:
    port = serve(Health(), host, 0)
    for name in names:
        with urllib.request.urlopen(f"http://{name}:{port}/health") as healthy:
            assert json.load(healthy)["status"] == "ok"


@pytest.mark.parametrize("host", ["\udcff", "a..b", "[::1]", "2001:db8::1"])
def test_a_host_that_is_not_an_address_of_this_machine_is_reported_with_its_setting(
    host: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(SystemExit) as stopped:
        serve(Health(), host, 0)
    assert stopped.value.code == 2
    name = host.encode(errors="backslashreplace").decode()
    assert caplog.messages[0].startswith(f"METRICS_HOST={name} is not an address of this machine (")
