"""A port that a service cannot listen on is reported with its setting."""

import socket

import pytest

from live_page import __main__ as live_page
from runtime.listening import ListenError, require_port


def test_a_port_in_use_is_reported_with_its_setting_and_host() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(ListenError) as error:
            require_port("127.0.0.1", port, host_setting="PAGE_HOST", port_setting="PAGE_PORT")
    assert str(error.value) == (
        f"PAGE_PORT={port} is in use at 127.0.0.1: stop what listens there, or set another port"
    )
    require_port("127.0.0.1", port, host_setting="PAGE_HOST", port_setting="PAGE_PORT")


@pytest.mark.parametrize("host", ["192.0.2.1", "a..b"])
def test_an_address_of_another_machine_is_reported_with_its_setting(host: str) -> None:
    with pytest.raises(ListenError, match=f"^PAGE_HOST={host} is not an address of this machine"):
        require_port(host, 8090, host_setting="PAGE_HOST", port_setting="PAGE_PORT")


def test_a_page_whose_port_is_in_use_ends_without_claiming_to_be_ready(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sys.argv", ["live_page"])
    monkeypatch.setattr("runtime.logs.configure", lambda *_: None)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        monkeypatch.setenv("PAGE_PORT", str(port))
        assert live_page.main() == 2
    assert f"PAGE_PORT={port} is in use" in caplog.text
    assert "ready" not in caplog.text
