import pytest

from contract import alerts
from contract.declared import EVENT, TABLES, table_named
from contract.fields import ColumnType
from contract.keys import RowKey, UnknownKeyError, decode_key, encode_key
from contract.measures import latest
from contract.tables import Table
from contract.topics import aggregated_topic, dead_letter_topic, interactions_topic
from runtime.settings import Settings


@pytest.mark.parametrize("row_id", ["user_3", "user-3", "-", "a b", "ü", "agg_interactions_item-x"])
def test_a_key_decodes_to_the_row_that_it_encodes(row_id: str) -> None:
    assert decode_key(encode_key("agg_interactions_user", row_id)) == RowKey("agg_interactions_user", row_id)


def test_the_name_of_a_single_row_table_is_its_key_and_its_id() -> None:
    assert encode_key("avg_interactions", None) == "avg_interactions"
    assert decode_key("avg_interactions") == RowKey("avg_interactions", "avg_interactions")


@pytest.mark.parametrize("key", ["", "x-1", "agg_interactions_user", "agg_interactions_user-", "avg_interactions-5.0"])
def test_an_unknown_key_is_rejected_with_the_expected_keys(key: str) -> None:
    with pytest.raises(UnknownKeyError, match="agg_interactions_user-<user_id>"):
        decode_key(key)


def test_the_tables_have_exactly_the_columns_of_the_contract() -> None:
    assert {table.name: [column.name for column in table.columns] for table in TABLES} == {
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
        "agg_interactions_minute": [
            "minute",
            "total_click",
            "total_like",
            "total_view",
            "total_purchase",
            "total_interactions",
            "users",
        ],
        "agg_interactions_item_hour": [
            "item_id",
            "hour",
            "total_interactions",
            "total_purchase",
            "last_interaction",
        ],
    }
    assert table_named("agg_interactions_item").column("max_interactions") is not None
    assert {c.type for c in table_named("avg_interactions").columns} == {ColumnType.DOUBLE, ColumnType.DATE}
    with pytest.raises(KeyError):
        table_named("nothing")


def test_the_column_of_the_latest_event_is_the_one_of_all_events() -> None:
    assert {table.name: table.latest_event for table in TABLES} == {
        "agg_interactions_user": "last_interaction",
        "agg_interactions_item": "last_interaction",
        "avg_interactions": "last_interaction",
        "agg_interactions_minute": None,
        "agg_interactions_item_hour": "last_interaction",
    }
    purchases = latest(EVENT.time, where={EVENT.field("interaction_type"): "purchase"})
    assert Table("items", EVENT, ("item_id",), {"last_purchase": purchases}).latest_event is None


def test_the_alert_document_has_exactly_the_fields_of_the_contract() -> None:
    assert alerts.ALERTS == "alerts"
    assert {name: type_.name for name, type_ in alerts.FIELDS.items()} == {
        "rule": "KEYWORD",
        "alert_text": "KEYWORD",
        "severity": "KEYWORD",
        "index": "KEYWORD",
        "id": "KEYWORD",
        "field": "KEYWORD",
        "operator": "KEYWORD",
        "status": "KEYWORD",
        "threshold": "NUMBER_OR_TEXT",
        "value": "NUMBER_OR_TEXT",
        "row": "OBJECT",
        "fired_at": "DATE",
        "resolved_at": "DATE",
        "partition": "LONG",
        "version": "LONG",
    }
    assert (alerts.FIRING, alerts.RESOLVED) == ("firing", "resolved")


def test_the_topics_follow_from_the_settings() -> None:
    settings = Settings(kafka_topic="events", kafka_topic_partition=7, kafka_topic_replication_factor=3)
    interactions, aggregated, dead_letters = (
        declare(settings) for declare in (interactions_topic, aggregated_topic, dead_letter_topic)
    )
    assert (interactions.name, interactions.partitions) == ("events", 7)
    assert interactions.config == {"message.timestamp.type": "LogAppendTime"}
    assert (aggregated.name, aggregated.partitions) == (settings.aggregated_topic, 7) == ("events_aggregated", 7)
    assert aggregated.config == {"cleanup.policy": "compact", "message.timestamp.type": "LogAppendTime"}
    assert (dead_letters.name, dead_letters.partitions) == (settings.dead_letter_topic, 1) == ("events_dead_letter", 1)
    assert dead_letters.config == {"retention.ms": "-1", "max.message.bytes": str(64 << 20)}
    assert {topic.replication_factor for topic in (interactions, aggregated, dead_letters)} == {3}
