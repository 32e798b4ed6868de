import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from data_producer.generator import EventGenerator
from data_producer.settings import ProducerSettings
from elasticsearch_sink_alert.settings import SinkSettings
from pydantic import SecretStr, TypeAdapter, ValidationError
from stream_processing.kafka_io import connection_options
from stream_processing.settings import StreamProcessingSettings

from live_page.settings import PageSettings
from runtime.settings import Settings, SettingsError


@pytest.fixture(autouse=True)
def _no_dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_defaults_are_those_of_the_contract() -> None:
    settings = Settings.load()
    assert (settings.kafka_topic, settings.kafka_topic_partition, settings.loop_sleep) == ("avroic", 4, 2)
    assert (settings.aggregated_topic, settings.dead_letter_topic) == ("avroic_aggregated", "avroic_dead_letter")


def test_settings_come_from_dotenv_and_the_environment_takes_precedence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("KAFKA_TOPIC=from-file\nKAFKA_TOPIC_PARTITION=7\nUNKNOWN=1\nLOOP_SLEEP=\n")
    monkeypatch.setenv("KAFKA_TOPIC_PARTITION", "9")
    below = tmp_path / "service"
    below.mkdir()
    monkeypatch.chdir(below)
    settings = Settings.load()
    assert (settings.kafka_topic, settings.kafka_topic_partition, settings.loop_sleep) == ("from-file", 9, 2)


def test_every_wrong_setting_is_reported_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KAFKA_TOPIC_PARTITION", "many")
    monkeypatch.setenv("LOOP_SLEEP", "-1")
    monkeypatch.setenv("KAFKA_TOPIC", "no spaces")
    with pytest.raises(SystemExit) as stopped:
        Settings.load()
    assert stopped.value.code == 2
    printed = capsys.readouterr().err
    assert "KAFKA_TOPIC_PARTITION='many'" in printed
    assert "LOOP_SLEEP='-1'" in printed
    assert "KAFKA_TOPIC='no spaces'" in printed


def test_the_example_file_names_every_setting_with_its_default() -> None:
    root = Path(__file__).parents[2]
    example = dict(re.findall(r"^(?:# )?([A-Z_]+)=(.*)$", (root / ".env.example").read_text(), re.M))
    del example["COMPOSE_FILE"]
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


def test_a_password_can_come_from_a_secret_file_and_is_never_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_spark_connects_to_kafka_with_the_same_user_and_password() -> None:
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


def test_an_api_key_takes_precedence_over_user_and_password() -> None:
    with_password = SinkSettings(es_username="elastic", es_password=SecretStr("secret"))
    assert with_password.es_client == {"http_auth": ("elastic", "secret")}
    with_api_key = SinkSettings(es_username="elastic", es_password=SecretStr("secret"), es_api_key=SecretStr("a2V5"))
    assert with_api_key.es_client == {"headers": {"authorization": "ApiKey a2V5"}}
    assert SinkSettings().es_client == {}


CONFLICTS = {
    "SASL without user and password": (
        Settings,
        {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"},
        [
            "KAFKA_USERNAME is not set, but KAFKA_SECURITY_PROTOCOL=SASL_SSL needs it: set it, or set"
            " KAFKA_SECURITY_PROTOCOL to PLAINTEXT or SSL",
            "KAFKA_PASSWORD is not set, but KAFKA_SECURITY_PROTOCOL=SASL_SSL needs it: set it, or set"
            " KAFKA_SECURITY_PROTOCOL to PLAINTEXT or SSL",
        ],
    ),
    "SASL without a password": (
        ProducerSettings,
        {"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "KAFKA_USERNAME": "pipeline"},
        [
            "KAFKA_PASSWORD is not set, but KAFKA_SECURITY_PROTOCOL=SASL_PLAINTEXT needs it: set it, or set"
            " KAFKA_SECURITY_PROTOCOL to PLAINTEXT or SSL"
        ],
    ),
    "Kafka's certificate authority without TLS": (
        Settings,
        {"KAFKA_CA_FILE": "ca.pem"},
        [
            "KAFKA_CA_FILE has no effect with KAFKA_SECURITY_PROTOCOL=PLAINTEXT: set that to SSL or SASL_SSL, or"
            " remove KAFKA_CA_FILE"
        ],
    ),
    "Elasticsearch's user without a password": (
        SinkSettings,
        {"ES_USERNAME": "elastic"},
        ["ES_PASSWORD is not set, but ES_USERNAME=elastic needs it: set both, or ES_API_KEY alone, or none of them"],
    ),
    "Elasticsearch's password without a user": (
        PageSettings,
        {"ES_PASSWORD": "top-secret"},
        ["ES_USERNAME is not set, but ES_PASSWORD needs it: set both, or ES_API_KEY alone, or none of them"],
    ),
    "Elasticsearch's certificate authority without TLS": (
        SinkSettings,
        {"ES_CA_FILE": "ca.pem"},
        ["ES_CA_FILE has no effect with ES_HOST=http://localhost:9200: use https://, or remove ES_CA_FILE"],
    ),
    "a webhook's secret without its URL": (
        SinkSettings,
        {"ALERT_WEBHOOK_SECRET": "top-secret"},
        ["ALERT_WEBHOOK_URL is not set, but ALERT_WEBHOOK_SECRET needs it: set both, or remove the secret"],
    ),
    "an access key without its secret": (
        StreamProcessingSettings,
        {"AWS_ACCESS_KEY_ID": "key"},
        [
            "AWS_SECRET_ACCESS_KEY is not set, but AWS_ACCESS_KEY_ID needs it: set both, or neither to use the"
            " machine's own role"
        ],
    ),
    "a secret access key without its id": (
        StreamProcessingSettings,
        {"AWS_SECRET_ACCESS_KEY": "top-secret"},
        [
            "AWS_ACCESS_KEY_ID is not set, but AWS_SECRET_ACCESS_KEY needs it: set both, or neither to use the"
            " machine's own role"
        ],
    ),
    "conflicts beside a wrong value": (
        SinkSettings,
        {"LOOP_SLEEP": "-1", "KAFKA_CA_FILE": "ca.pem", "ES_USERNAME": "elastic"},
        [
            "LOOP_SLEEP='-1': expected a number from 0 to 86,400",
            "KAFKA_CA_FILE has no effect with KAFKA_SECURITY_PROTOCOL=PLAINTEXT: set that to SSL or SASL_SSL, or"
            " remove KAFKA_CA_FILE",
            "ES_PASSWORD is not set, but ES_USERNAME=elastic needs it: set both, or ES_API_KEY alone, or none of them",
        ],
    ),
}


@pytest.mark.parametrize(("cls", "values", "lines"), CONFLICTS.values(), ids=list(CONFLICTS))
def test_settings_that_belong_together_are_reported_with_the_remedy(
    cls: type[Settings], values: Mapping[str, str], lines: list[str]
) -> None:
    with pytest.raises(SettingsError) as error:
        cls.read(values)
    assert str(error.value).splitlines() == lines


_INTERVAL = "a number of seconds between interactions, 0 (as fast as possible) or 0.000001 to 86,400"
_WAVE = "a number of seconds, 0 (no wave) or 1 to 86,400"
_MAX_SEED = "18446744073709551615"
_SEED = "a whole number from 0 to 18,446,744,073,709,551,615"
_HEAP = "a whole number with a unit, such as 768m or 2g, and at least 512m"
_LOCATION = r"a path or a URI without any of the characters % \ # ? [ ] | ^"
_BROKERS = "host:port, such as localhost:9092 or [::1]:9092, or several of them separated by commas"
_URL = "a URL with http:// or https:// and a host, such as http://localhost:8080"
_URLS = (
    "a URL with http:// or https:// and a host, such as http://localhost:9200, or several of them separated by commas"
)
WRONG = [
    (ProducerSettings, "PRODUCER_RATE", "fast", _INTERVAL),
    (ProducerSettings, "PRODUCER_RATE", "inf", _INTERVAL),
    (ProducerSettings, "PRODUCER_RATE", "1e-9", _INTERVAL),
    *[(ProducerSettings, "PRODUCER_WAVE", value, _WAVE) for value in ("day", "-1", "0.5", "86401", "nan")],
    (ProducerSettings, "RANDOM_DATA_MAX_USERS", "999999999999", "a whole number from 1 to 1,000,000"),
    *[(ProducerSettings, "RANDOM_DATA_SEED", value, _SEED) for value in ("a", "-1", "1.5", "1e30", str(10**30))],
    (ProducerSettings, "RANDOM_DATA_SKEW", "nan", "a number from 0 to 10"),
    (ProducerSettings, "PRODUCER_LIMIT", "-1", "a whole number from 0 to 1,000,000,000,000"),
    (ProducerSettings, "PRODUCER_CONTROLS", "perhaps", "true or false"),
    (ProducerSettings, "PRODUCER_METRICS_PORT", "65536", "a port from 0 to 65535"),
    (Settings, "LOOP_SLEEP", "1e300", "a number from 0 to 86,400"),
    (Settings, "LOG_LEVEL", "loud", "DEBUG, INFO, WARNING or ERROR"),
    *[
        (Settings, "KAFKA_BROKER", value, _BROKERS)
        for value in (
            " ",
            ",",
            "http://localhost:1",
            "localhost:99999",
            "localhost:-1",
            "localhost:0",
            "localhost:",
            ":9092",
            "::1:9092",
            "[::1",
            "[localhost]:9092",
            "localhost:9092,b:x",
            "a b:9092",
            "localhost:²",
        )
    ],
    (Settings, "KAFKA_TOPIC_PARTITION", "99999999999", "a whole number from 1 to 10,000"),
    (Settings, "KAFKA_TOPIC_REPLICATION_FACTOR", "10001", "a whole number from 1 to 10,000"),
    (StreamProcessingSettings, "MAX_OFFSETS_PER_BATCH", "9" * 19, "a whole number from 1 to 1,000,000,000"),
    (StreamProcessingSettings, "AWS_ENDPOINT_URL", "localhost:9000", _URL),
    *[
        (cls, "ES_HOST", value, _URLS)
        for cls in (SinkSettings, PageSettings)
        for value in (
            ",",
            "localhost:9200",
            "http://[::1",
            "http://",
            "http://localhost:port",
            "http://localhost:99999",
            "ftp://localhost",
            "http://a..b",
            "http://a b",
            "http://user@localhost",
            "http://a:9200,http://[::1",
        )
    ],
    (SinkSettings, "KIBANA_URL", "http://[::1", _URL),
    *[(PageSettings, f"{service}_URL", "localhost:9101", _URL) for service in ("PRODUCER", "STREAM", "SINK")],
    (Settings, "KAFKA_TOPIC", "no spaces", "1 to 230 letters (a to z), digits, dots, hyphens and underscores"),
    (SinkSettings, "ALERTS_PER_MINUTE", "many", "a whole number from 1 to 1,000,000"),
    (SinkSettings, "SINK_BATCH_SIZE", "1000001", "a whole number from 1 to 1,000,000"),
    (StreamProcessingSettings, "MATERIALISE_INTERVAL", "0", "a number above 0, at most 86,400"),
    (StreamProcessingSettings, "WAREHOUSE", "/lake[1]", _LOCATION),
    (StreamProcessingSettings, "CHECKPOINTS", "s3a://bucket/50%", _LOCATION),
    (StreamProcessingSettings, "SPARK_DRIVER_MEMORY", "lots", _HEAP),
    (StreamProcessingSettings, "SPARK_DRIVER_MEMORY", "1", _HEAP),
    (StreamProcessingSettings, "SPARK_DRIVER_MEMORY", "511m", _HEAP),
    (StreamProcessingSettings, "SPARK_EXECUTOR_MEMORY", "1.5g", _HEAP),
    (StreamProcessingSettings, "SPARK_EXECUTOR_MEMORY", "512mb", _HEAP),
]


@pytest.mark.parametrize(
    ("cls", "name", "value", "allowed"), WRONG, ids=[f"{name}={value}" for _, name, value, _ in WRONG]
)
def test_a_wrong_setting_is_reported_with_what_is_allowed(
    cls: type[Settings], name: str, value: str, allowed: str
) -> None:
    with pytest.raises(SettingsError) as error:
        cls.read({}, {name: value})
    assert str(error.value) == f"{name}={value!r}: expected {allowed}"


@pytest.mark.parametrize("cls", [ProducerSettings, StreamProcessingSettings, SinkSettings, PageSettings])
def test_every_number_has_bounds(cls: type[Settings]) -> None:
    properties = cls.model_json_schema()["properties"]
    schemas = [(name, each) for name, schema in properties.items() for each in (schema, *schema.get("anyOf", ()))]
    numbers = [(name, set(schema)) for name, schema in schemas if schema.get("type") in ("integer", "number")]
    assert len(numbers) >= 4
    for name, has in numbers:
        assert "maximum" in has, name
        assert has & {"minimum", "exclusiveMinimum"}, name


@pytest.mark.parametrize(("value", "seed"), [("", None), ("0", 0), (_MAX_SEED, 2**64 - 1)])
def test_the_generator_accepts_every_seed_and_an_empty_one_is_random(
    value: str, seed: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANDOM_DATA_SEED", value)
    settings = ProducerSettings.load()
    assert settings.random_data_seed == seed
    assert len(EventGenerator(9, 9, seed=settings.random_data_seed).batch(5, 1)) == 5


ADDRESSES = [
    (Settings, "KAFKA_BROKER", value)
    for value in ("kafka", "kafka:9092", "a_b.c-d:1,e:65535", "a:9092, b:9092,", "[::1]:9092", "[fe80::1%eth0]:9092")
] + [
    (SinkSettings, "ES_HOST", value)
    for value in ("http://a", "https://[::1]:9200", "http://user:p%40ss@a:9200/path,https://b", "http://ü.example:1")
]


@pytest.mark.parametrize(("cls", "name", "value"), ADDRESSES, ids=[value for _, _, value in ADDRESSES])
def test_an_address_in_any_of_its_forms_is_accepted(cls: type[Settings], name: str, value: str) -> None:
    assert getattr(cls.read({}, {name: value}), name.lower()) == value


def test_text_that_is_not_utf_8_is_reported_and_secrets_are_not_printed() -> None:
    secrets = {"KAFKA_PASSWORD": "secret\udcff", "ALERT_NOTIFY": "secret\udcff"}
    text = {"METRICS_HOST": "\udcff", "KAFKA_GROUP_ID": "a\udcff"}
    with pytest.raises(SettingsError) as error:
        SinkSettings.read({}, secrets | text)
    assert sorted(str(error.value).splitlines()) == [
        "ALERT_NOTIFY=***: expected text in UTF-8",
        r"KAFKA_GROUP_ID='a\udcff': expected text in UTF-8",
        "KAFKA_PASSWORD=***: expected text in UTF-8",
        r"METRICS_HOST='\udcff': expected text in UTF-8",
    ]
    with pytest.raises(SettingsError, match=r"^AWS_SECRET_ACCESS_KEY=\*\*\*: expected text in UTF-8\n"):
        StreamProcessingSettings.read({}, {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "secret\udcff"})


def test_a_long_wrong_value_is_cut() -> None:
    with pytest.raises(SettingsError) as error:
        ProducerSettings.read({}, {"RANDOM_DATA_SEED": "9" * 5_000})
    assert str(error.value) == f"RANDOM_DATA_SEED='{'9' * 100}…': expected {_SEED}"


@pytest.mark.parametrize(
    "url",
    [
        "http://user:secret@[::1",
        "http://user:secret@localhost:port",
        "user:secret@localhost",
        "http://user:se/secret@localhost",
        "http://user:se cret secret@localhost",
        "http://user:x//secret@localhost",
        "http://user:x@secret@localhost:port",
        "http://a:1,http://user:secret@b:port",
    ],
)
@pytest.mark.parametrize("name", ["ES_HOST", "KAFKA_BROKER", "KIBANA_URL"])
def test_the_password_in_a_wrong_url_is_not_printed(name: str, url: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(":***@")) as error:
        SinkSettings.read({}, {name: url})
    assert "secret" not in str(error.value)


def test_the_password_in_a_url_is_not_part_of_a_conflict() -> None:
    values = {"ES_HOST": "http://user:secret@localhost", "ES_CA_FILE": "ca.pem", "ES_USERNAME": "u" * 200}
    remedy = "set both, or ES_API_KEY alone, or none of them"
    with pytest.raises(SettingsError) as error:
        SinkSettings.read(values)
    assert str(error.value).splitlines() == [
        f"ES_PASSWORD is not set, but ES_USERNAME={'u' * 100}… needs it: {remedy}",
        "ES_CA_FILE has no effect with ES_HOST=http://user:***@localhost: use https://, or remove ES_CA_FILE",
    ]


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        (cls, name)
        for cls in (ProducerSettings, StreamProcessingSettings, PageSettings)
        for name, schema in cls.model_json_schema()["properties"].items()
        if schema.get("type") in ("integer", "number")
    ],
)
def test_no_number_may_be_infinite(cls: type[Settings], name: str) -> None:
    for value in ("inf", "nan"):
        with pytest.raises(SettingsError, match=f"{name.upper()}="):
            cls.read({}, {name.upper(): value})


@pytest.mark.parametrize("heap", ["512m", "2g", "2G", "1t", "600000k"])
def test_a_heap_is_a_number_with_a_unit_of_java(heap: str) -> None:
    assert StreamProcessingSettings.read({}, {"SPARK_DRIVER_MEMORY": heap}).spark_driver_memory == heap


COMPLETE = {
    "SASL": (Settings, {"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "KAFKA_USERNAME": "a", "KAFKA_PASSWORD": "b"}),
    "credentials that the protocol does not use": (Settings, {"KAFKA_USERNAME": "a", "KAFKA_PASSWORD": "b"}),
    "TLS": (Settings, {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_CA_FILE": "ca.pem"}),
    "an API key beside a user": (SinkSettings, {"ES_API_KEY": "a2V5", "ES_USERNAME": "elastic"}),
    "https to one of the hosts": (SinkSettings, {"ES_CA_FILE": "ca.pem", "ES_HOST": "http://a:9200, https://b:9200"}),
    "access keys": (StreamProcessingSettings, {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}),
}


@pytest.mark.parametrize(("cls", "values"), COMPLETE.values(), ids=list(COMPLETE))
def test_settings_that_are_complete_are_accepted(cls: type[Settings], values: Mapping[str, str]) -> None:
    cls.read(values)


def test_the_page_starts_with_wrong_settings_of_the_sink_alone() -> None:
    wrong = {"ALERTS_PER_MINUTE": "many", "SINK_BATCH_SIZE": "0", "ALERT_WEBHOOK_SECRET": "a", "PAGE_PORT": "8091"}
    with pytest.raises(SettingsError, match="ALERTS_PER_MINUTE"):
        SinkSettings.read({}, wrong)
    assert PageSettings.read({}, wrong).page_port == 8091


def test_conflicts_are_also_checked_where_code_creates_the_settings() -> None:
    with pytest.raises(ValidationError, match="KAFKA_USERNAME is not set"):
        Settings(kafka_security_protocol="SASL_SSL", kafka_password=SecretStr("b"))
