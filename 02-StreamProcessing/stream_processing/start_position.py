"""Finds where ingest continues, by comparing its checkpoint with the offsets of each append in the lake's history.

The lake decides: a checkpoint that is behind it is replaced. One that is ahead of it stops the job: the lake then lacks
interactions that have been read.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pyspark.sql import SparkSession

from runtime import commands
from stream_processing import kafka_io
from stream_processing.checkpoint import Checkpoint
from stream_processing.lake import ACCEPT_GAP, AppendInfo, Lake
from stream_processing.settings import StreamProcessingSettings
from stream_processing.storage import read_text_if_exists, remove, write_text

QUERY: Final = "ingest"
"""The name of the query, and of its checkpoint's folder."""
_EARLIEST: Final = -2
"""The earliest offset in Spark's JSON."""
_MAX_APPENDS: Final = 10
"""The appends among which the last one with rows is looked for: each run of `accept-gap` adds one without."""

logger = logging.getLogger(__name__)

Offsets = Mapping[str, int]
"""The next offset to read, by partition."""


class LostCheckpointError(Exception):
    """The lake contains interactions, and neither a checkpoint nor the table's history has their offsets."""


class OlderLakeError(Exception):
    """The lake lacks interactions that were read from Kafka and written to it."""


class TopicRecreatedError(Exception):
    """The topic is not the one that was read before: the known offsets mean nothing in it."""


class OlderTopicError(Exception):
    """The topic ends before the records that were read from it."""


class OtherTopicError(Exception):
    """Warehouse and checkpoints belong to a topic of another name."""


@dataclass(frozen=True)
class StartPosition:
    """Where ingest continues."""

    topic_id: str
    offsets: Offsets
    """The offsets up to which the topic was read; empty if it was not read yet."""
    starting_offsets: str
    """Spark's option `startingOffsets`, which has no effect on a query that has a checkpoint."""
    unverified: tuple[str, str] | None = None
    """Start and end offsets, as in Spark's options, of a batch that may have been killed before its dead letters were
    sent, and that no checkpoint will repeat."""


def ingest_checkpoint(session: SparkSession, settings: StreamProcessingSettings) -> Checkpoint:
    """Return the checkpoint of ingest, which may not exist."""
    return Checkpoint(session, f"{settings.checkpoints}/{QUERY}")


def latest_appends(lake: Lake) -> list[AppendInfo]:
    """Return the latest appends, the last one first: those up to the last one with rows, and the one before that."""
    appends = lake.latest_appends(2)
    return lake.latest_appends(_MAX_APPENDS) if appends and appends[0].query == ACCEPT_GAP else appends


def find_start_position(session: SparkSession, settings: StreamProcessingSettings, lake: Lake) -> StartPosition:
    """Return where ingest continues: at its checkpoint, at the offsets in the lake's history, or at the first record.

    Deletes a checkpoint that is behind the lake, from which interactions would be appended a second time.

    Raises `OlderLakeError` if the lake lacks a committed batch, `LostCheckpointError` if it is unknown up to where the
    topic was read, `TopicRecreatedError` if the first records of a recreated topic would be skipped, `OlderTopicError`
    if it ends before what was read, and `OtherTopicError`.
    """
    checkpoint = ingest_checkpoint(session, settings)
    appends = latest_appends(lake)
    last_append = appends[0] if appends else None
    committed = _committed_offsets(checkpoint)
    require_topic_name(settings, last_append.offsets if last_append else committed)
    _require_appended(settings, lake, last_append, checkpoint, (committed or {}).get(settings.kafka_topic, {}))
    topic_id = _require_same_topic(session, settings, last_append)
    if checkpoint.exists and not _is_behind(checkpoint, last_append, settings.kafka_topic):
        # A batch that was started is repeated as it was.
        _require_not_older(settings, (checkpoint.started_offsets() or {}).get(settings.kafka_topic, {}))
        return StartPosition(topic_id, (committed or {}).get(settings.kafka_topic, {}), "earliest")
    _require_not_older(settings, last_append.offsets[settings.kafka_topic] if last_append else {})
    remove(session, checkpoint.path)
    if last_append is None:
        if lake.count() > 0:
            raise LostCheckpointError(
                f"{lake.interactions} has interactions, but their checkpoint {checkpoint.path} is missing, and the"
                " table's history does not reach back to an append with the offsets up to which they were read: restore"
                " the checkpoint, or remove warehouse and checkpoints to start from scratch"
            )
        return StartPosition(topic_id, {}, "earliest")
    _log_start(last_append, checkpoint.path)
    starting_offsets = _starting_offsets(settings, last_append)
    unverified = _unverified(settings, [append for append in appends if append.topic_id == topic_id])
    return StartPosition(topic_id, last_append.offsets[settings.kafka_topic], starting_offsets, unverified)


def _committed_offsets(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """Return the end offsets of the last committed batch; None if there is none, or if their file is damaged."""
    try:
        return checkpoint.committed_offsets()
    except ValueError:
        # Then the checkpoint is replaced: the file is the latest one.
        return None


def require_topic_name(settings: StreamProcessingSettings, offsets: Mapping[str, Any] | None) -> None:
    """Raise `OtherTopicError` if the offsets up to which topics were read are those of another topic."""
    if offsets and settings.kafka_topic not in offsets:
        raise OtherTopicError(
            f"{settings.warehouse} and {settings.checkpoints} belong to topic {', '.join(offsets)}, and KAFKA_TOPIC is"
            f" {settings.kafka_topic}: set KAFKA_TOPIC to the topic that was read, or set WAREHOUSE and CHECKPOINTS to"
            " new folders"
        )


def known_topic_id(
    session: SparkSession, settings: StreamProcessingSettings, last_append: AppendInfo | None
) -> str | None:
    """Return the id of the topic that was read last: from the latest append, or from a file that is kept longer."""
    if last_append is not None:
        return last_append.topic_id
    # A kill in an earlier release could leave an empty file.
    return read_text_if_exists(session, _topic_file(settings)) or None


def store_topic_id(session: SparkSession, settings: StreamProcessingSettings, topic_id: str) -> None:
    """Store the id of the topic that is read from now on."""
    write_text(session, _topic_file(settings), topic_id)


def _topic_file(settings: StreamProcessingSettings) -> str:
    return f"{settings.checkpoints}/{QUERY}.topic"


def _require_same_topic(
    session: SparkSession, settings: StreamProcessingSettings, last_append: AppendInfo | None
) -> str:
    """Return the topic's id and store it; raises `TopicRecreatedError` if another one was read before."""
    topic_id = kafka_io.topic_id(settings, settings.kafka_topic)
    if known_topic_id(session, settings, last_append) not in (None, topic_id):
        raise TopicRecreatedError(
            f"topic {settings.kafka_topic} was deleted and recreated since it was last read: run"
            f" `{commands.command('stream_processing', 'accept-gap')}`, which lists the lost records and lets the next"
            " start read the new topic from its beginning"
        )
    store_topic_id(session, settings, topic_id)
    return topic_id


def _require_not_older(settings: StreamProcessingSettings, read: Offsets) -> None:
    """Raise `OlderTopicError` if the topic ends before these offsets. With more records again, it is not noticed."""
    ranges = kafka_io.offset_ranges(settings, settings.kafka_topic) if read else {}
    for partition, (_, end) in sorted(ranges.items()):
        if (position := read.get(str(partition), 0)) > end:
            raise OlderTopicError(
                f"topic {settings.kafka_topic} ends at offset {end} in partition {partition}, and was read up to"
                f" {position}: Kafka's data is an older copy, or has lost records. Restore {settings.warehouse} and"
                f" {settings.checkpoints} of the same time too; or run"
                f" `{commands.command('stream_processing', 'accept-gap')}`: the job then continues at the end of the"
                " topic, so that nothing is counted twice"
            )


def _require_appended(
    settings: StreamProcessingSettings,
    lake: Lake,
    last_append: AppendInfo | None,
    checkpoint: Checkpoint,
    committed: Offsets,
) -> None:
    """Raise `OlderLakeError` if the lake lacks a committed batch: it was deleted, or restored from a copy."""
    if last_append is None:
        # History is deleted after a while, but the version does not return to 0.
        is_older = bool(committed) and lake.version() == 0
    elif last_append.query == ACCEPT_GAP:
        # It can lead back to the beginning of a recreated topic. Those of earlier releases do not name the query.
        is_older = bool(committed) and last_append.replaces not in ("", checkpoint.query_id)
    else:
        is_older = is_ahead(committed, last_append.offsets[settings.kafka_topic])
    if is_older:
        raise OlderLakeError(
            f"the interactions that were read last are not in {lake.interactions}: the warehouse was deleted, or"
            f" restored from a copy. Restore {settings.checkpoints} of the same time too; or delete it"
            f" (`{commands.remove('stream_processing', settings.checkpoints)}`): then the next start reads the topic"
            " again from the offsets in the lake, or from its beginning if the lake is empty, and computes all"
            " aggregates again"
        )


def is_ahead(offsets: Offsets, others: Offsets) -> bool:
    """Whether `offsets` are beyond the others in any partition.

    >>> is_ahead({"0": 5, "1": 1}, {"0": 4, "1": 9}), is_ahead({"0": 4}, {"0": 4, "1": 9})
    (True, False)
    """
    return any(others.get(partition, 0) < offset for partition, offset in offsets.items())


def _is_behind(checkpoint: Checkpoint, last_append: AppendInfo | None, topic: str) -> bool:
    """Whether the lake has appends that the checkpoint, or a part of it, was written before."""
    try:
        checkpoint.require_readable()
        started = checkpoint.started_offsets()
    except ValueError:
        logger.warning("the latest file of %s is damaged", checkpoint.path)
        return True
    if started is None:
        # It has no offsets: the query was stopped before it asked Kafka for them.
        return True
    if last_append is None:
        return False
    if last_append.query == ACCEPT_GAP and last_append.replaces == checkpoint.query_id:
        logger.info("%s was interrupted before it had deleted %s", ACCEPT_GAP, checkpoint.path)
        return True
    if not is_ahead(last_append.offsets[topic], started.get(topic, {})):
        return False
    logger.warning(
        "%s ends before the interactions in the lake: it was restored from a copy, or its latest files were lost",
        checkpoint.path,
    )
    return True


def _starting_offsets(settings: StreamProcessingSettings, append: AppendInfo | None) -> str:
    # Partitions that were added later are read from their beginning.
    earliest = {str(partition): _EARLIEST for partition in kafka_io.partitions_of(settings, settings.kafka_topic)}
    offsets = append.offsets.get(settings.kafka_topic, {}) if append else {}
    return json.dumps({settings.kafka_topic: earliest | offsets})


def _unverified(settings: StreamProcessingSettings, appends: Sequence[AppendInfo]) -> tuple[str, str] | None:
    """Return start and end of the last append with rows, as in Spark's options; None if it has no known start."""
    last = next((n for n, append in enumerate(appends) if append.query != ACCEPT_GAP), None)
    if last is None or (last + 1 == len(appends) and appends[last].batch != 0):
        return None
    topic, before = settings.kafka_topic, next(iter(appends[last + 1 :]), None)
    if is_ahead(appends[last].offsets[topic], appends[0].offsets[topic]):
        # The topic was an older copy when the gap was accepted: it has other records at these offsets.
        return None
    start, end = json.loads(_starting_offsets(settings, before))[topic], appends[last].offsets[topic]
    # It has nothing of partitions that were added later, and Spark's options name all of them.
    added = dict.fromkeys(start.keys() - end.keys(), 0)
    return json.dumps({topic: start | added}), json.dumps({topic: end | added})


def _log_start(last_append: AppendInfo, checkpoint: str) -> None:
    if last_append.query == ACCEPT_GAP:
        logger.info("continuing after %s at %s", ACCEPT_GAP, last_append.offsets)
    else:
        logger.warning(
            "%s is missing: continuing from the offsets in the table's history, %s", checkpoint, last_append.offsets
        )
