import socket
from collections.abc import Iterator

import pytest
from stream_processing.spark_master import NoMasterError, require_master


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("url", ["spark://127.0.0.1:{}", "spark://127.0.0.1:9,127.0.0.1:{}", "yarn", "local[2]"])
def test_a_reachable_master_and_one_of_another_kind_pass(port: int, url: str) -> None:
    require_master(url.format(port), timeout=0)


@pytest.mark.parametrize("url", ["spark://127.0.0.1:9", "spark://:", "spark://nowhere.invalid:7077", "spark://h:x"])
def test_an_unreachable_master_is_one_line_with_the_remedy(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNDER_COMPOSE", raising=False)
    with pytest.raises(NoMasterError, match="start it, or correct SPARK_MASTER_URL") as error:
        require_master(url, timeout=0)
    assert url in str(error.value)
    monkeypatch.setenv("UNDER_COMPOSE", "true")
    with pytest.raises(NoMasterError, match=r"COMPOSE_PROFILES=cluster in \.env"):
        require_master(url, timeout=0)
