import pytest

from runtime import commands


def test_a_command_line_matches_how_the_service_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNDER_COMPOSE", raising=False)
    assert commands.command("stream_processing", "rebuild") == "python -m stream_processing rebuild"
    assert commands.stop("stream_processing") == "stop it"
    monkeypatch.setenv("UNDER_COMPOSE", "true")
    assert commands.command("stream_processing", "rebuild") == "docker compose run --rm stream-processing rebuild"
    assert commands.stop("stream_processing") == "`docker compose stop stream-processing`"
