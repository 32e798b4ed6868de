import json
import logging
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from pydantic import SecretStr, TypeAdapter

from contract.keys import RowKey, UnknownKeyError, decode_key, encode_key
from contract.tables import AGGREGATE_TABLES, ColumnType, table_named
from contract.topics import interactions_topic
from runtime import logs, topic_admin
from runtime.health import Health, serve
from runtime.settings import Settings


@pytest.fixture(autouse=True)
def _no_dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("row_id", ["user_3", "user-3", "-", "a b", "ü", "agg_interactions_item-x"])
def test_a_key_names_the_row_that_it_was_made_for(row_id: str) -> None:
    assert decode_key(encode_key("agg_interactions_user", row_id)) == RowKey("agg_interactions_user", row_id)


def test_the_table_of_one_row_has_its_name_as_key_and_as_id() -> None:
    assert encode_key("avg_interactions", None) == "avg_interactions"
    assert decode_key("avg_interactions") == RowKey("avg_interactions", "avg_interactions")


@pytest.mark.parametrize("key", ["", "x-1", "agg_interactions_user", "agg_interactions_user-", "avg_interactions-5.0"])
def test_a_key_that_names_no_row_is_refused_with_what_is_expected(key: str) -> None:
    with pytest.raises(UnknownKeyError, match="agg_interactions_user-<user_id>"):
        decode_key(key)


def test_the_tables_have_exactly_the_columns_of_the_contract() -> None:
    assert {table.name: [column.name for column in table.columns] for table in AGGREGATE_TABLES} == {
        "agg_interactions_user": [
            "user_id",
            "total_click",
            "total_like",
            "total_view",
            "total_purchase",
            "total_interactions",
            "avg_interactions",
            "last_interaction",
        ],
        "agg_interactions_item": ["item_id", "min_interactions", "max_interactions", "last_interaction"],
        "avg_interactions": ["avg_interactions", "last_interaction"],
    }
    assert table_named("agg_interactions_item").column("max_interactions") is not None
    assert {c.type for c in table_named("avg_interactions").columns} == {ColumnType.DOUBLE, ColumnType.DATE}
    with pytest.raises(KeyError):
        table_named("nothing")


def test_the_defaults_are_those_of_the_contract() -> None:
    settings = Settings.load()
    assert (settings.kafka_topic, settings.kafka_topic_partition, settings.loop_sleep) == ("avroic", 4, 2)
    assert (settings.aggregated_topic, settings.dead_letter_topic) == ("avroic_aggregated", "avroic_dead_letter")


def test_settings_come_from_dotenv_and_the_environment_goes_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("KAFKA_TOPIC=from-file\nKAFKA_TOPIC_PARTITION=7\nUNKNOWN=1\nLOOP_SLEEP=\n")
    monkeypatch.setenv("KAFKA_TOPIC_PARTITION", "9")
    below = tmp_path / "service"
    below.mkdir()
    monkeypatch.chdir(below)
    settings = Settings.load()
    assert (settings.kafka_topic, settings.kafka_topic_partition, settings.loop_sleep) == ("from-file", 9, 2)


def test_every_wrong_setting_is_named_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KAFKA_TOPIC_PARTITION", "many")
    monkeypatch.setenv("LOOP_SLEEP", "-1")
    monkeypatch.setenv("KAFKA_TOPIC", "no spaces")
    with pytest.raises(SystemExit) as stopped:
        Settings.load()
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "KAFKA_TOPIC_PARTITION='many'" in said
    assert "LOOP_SLEEP='-1'" in said
    assert "KAFKA_TOPIC='no spaces'" in said


def test_the_example_file_names_every_setting_with_its_default() -> None:
    from data_producer.settings import ProducerSettings
    from elasticsearch_sink_alert.settings import SinkSettings
    from stream_processing.settings import StreamProcessingSettings

    from live_page.settings import PageSettings

    root = Path(__file__).parents[2]
    lines = [line for line in (root / ".env.example").read_text().splitlines() if line and not line.startswith("#")]
    example = dict(line.split("=", 1) for line in lines)
    fields = {
        name.upper(): field
        for cls in (ProducerSettings, StreamProcessingSettings, SinkSettings, PageSettings)
        for name, field in cls.model_fields.items()
    }
    files = "".join(file.read_text() for file in root.glob("*compose*.yml"))
    of_compose = {name for name in example if f"${{{name}:" in files} | {"COMPOSE_PROFILES"}
    assert set(fields) <= set(example) <= set(fields) | of_compose
    for name, written in example.items():
        if written and name in fields:
            assert TypeAdapter(type(fields[name].default)).validate_strings(written) == fields[name].default, name


def test_health_says_which_part_fails_and_why() -> None:
    health = Health("kafka", "elasticsearch")
    port = serve(health, "127.0.0.1", 0)
    health.ok("kafka")
    health.failing("elasticsearch", "connection refused")
    with pytest.raises(urllib.error.HTTPError) as answer:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health")
    assert answer.value.code == 503
    assert json.load(answer.value)["parts"] == {"kafka": "ok", "elasticsearch": "connection refused"}
    health.ok("elasticsearch")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as healthy:
        assert json.load(healthy)["status"] == "ok"
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as metrics:
        assert b"python_info" in metrics.read()


def test_waiting_for_a_broker_that_is_away_ends_when_the_service_is_stopped() -> None:
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    began = time.monotonic()
    with pytest.raises(topics.StoppedError):
        topic_admin.create_missing_topics(
            {"bootstrap.servers": "127.0.0.1:1", "log_level": 0}, stop, interactions_topic(Settings())
        )
    assert time.monotonic() - began < 30


def test_log_lines_carry_utc_time_level_and_logger(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        logs.configure("INFO")
        logging.getLogger("some.part").warning("it %s", "happened")
    finally:
        root.handlers[:], root.level = before, level
    line = capsys.readouterr().err.strip()
    assert line.endswith("WARNING some.part: it happened")
    assert line[10] == "T"
    assert line[23] == "Z"


def test_a_password_may_be_a_secret_file_and_is_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "kafka_password").write_text("from-file\n")
    monkeypatch.setattr("runtime.settings._SECRETS", secrets)
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("KAFKA_USERNAME", "pipeline")
    monkeypatch.setenv("KAFKA_CA_FILE", "/some/ca.pem")
    settings = Settings.load()
    client = settings.kafka_client
    assert (client["security.protocol"], client["sasl.username"]) == ("SASL_SSL", "pipeline")
    assert (client["sasl.password"], client["ssl.ca.location"]) == ("from-file", "/some/ca.pem")
    assert "from-file" not in repr(settings)


def test_spark_reaches_kafka_with_the_same_user_and_password() -> None:
    from stream_processing.kafka_io import connection_options
    from stream_processing.settings import StreamProcessingSettings

    plain = connection_options(StreamProcessingSettings())
    assert plain == {"kafka.bootstrap.servers": "localhost:9092", "kafka.security.protocol": "PLAINTEXT"}
    settings = StreamProcessingSettings(
        kafka_security_protocol="SASL_PLAINTEXT",
        kafka_sasl_mechanism="SCRAM-SHA-512",
        kafka_username="pipeline",
        kafka_password=SecretStr('with "quotes" and \\'),
    )
    jaas = connection_options(settings)["kafka.sasl.jaas.config"]
    assert jaas == (
        "org.apache.kafka.common.security.scram.ScramLoginModule required"
        ' username="pipeline" password="with \\"quotes\\" and \\\\";'
    )


def test_an_api_key_goes_before_user_and_password() -> None:
    from elasticsearch_sink_alert.settings import SinkSettings

    named = SinkSettings(es_username="elastic", es_password=SecretStr("secret"))
    assert named.es_client == {"http_auth": ("elastic", "secret")}
    keyed = SinkSettings(es_username="elastic", es_password=SecretStr("secret"), es_api_key=SecretStr("a2V5"))
    assert keyed.es_client == {"headers": {"authorization": "ApiKey a2V5"}}
    assert SinkSettings().es_client == {}


def test_who_asks_for_a_topics_limits_can_be_stopped_while_the_broker_is_away() -> None:
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    with pytest.raises(topics.StoppedError):
        topics.max_message_bytes_once_reachable({"bootstrap.servers": "127.0.0.1:1", "log_level": 0}, "topic", stop)
