"""Commands that are run while the job is stopped: `rebuild` and `accept-gap`."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence

from pyspark.sql import SparkSession

from runtime.client_logs import WhileWaiting
from stream_processing import aggregate, kafka_io, materialise
from stream_processing.checkpoint import Checkpoint
from stream_processing.definitions import definitions_file
from stream_processing.event_changes import require_compatible_event
from stream_processing.lake import ACCEPT_GAP, NO_CHECKPOINT, AppendInfo, Lake
from stream_processing.partition_gap import PartitionGap
from stream_processing.published_topic import forget_published
from stream_processing.settings import StreamProcessingSettings
from stream_processing.snapshots import snapshots_folder
from stream_processing.start_position import (
    ingest_checkpoint,
    known_topic_id,
    latest_appends,
    require_topic_name,
    store_topic_id,
)
from stream_processing.storage import remove

logger = logging.getLogger(__name__)
logger.addFilter(WhileWaiting())


class OffsetsUnknownError(Exception):
    """Neither the lake's history nor a checkpoint has the offsets up to which the topic was read."""


def rebuild(session: SparkSession, settings: StreamProcessingSettings, lake: Lake) -> None:
    """Delete the aggregates' state, so that the next start recomputes it from the whole lake at once.

    Every row is then published again, none older than before, and reaches the tables and indices as usual.
    Interactions that arrive meanwhile wait in Kafka and in the lake: ingest's checkpoint is not touched. Raises
    `EventChangedError` if the lake cannot be read as the declared event.
    """
    require_compatible_event(session, settings, lake)
    remove(session, f"{settings.checkpoints}/{aggregate.NAME}")
    remove(session, snapshots_folder(settings))
    remove(session, definitions_file(settings))
    lake.recreate_changed_tables()
    logger.info("the next start recomputes all aggregates from %s", lake.interactions)


def accept_gap(session: SparkSession, settings: StreamProcessingSettings, lake: Lake) -> list[PartitionGap]:
    """Let the job continue although records were deleted from the topic, and log which; the lake keeps its rows.

    No record is read a second time: a topic that ends before what was read continues at its end. Without a gap, nothing
    changes. With `STATE_STORE=rocksdb`, if rows are missing from the aggregated topic, as with a new Kafka, it is
    refilled as by `rebuild`; otherwise a start finds out itself that the topic was recreated. Raises
    `OffsetsUnknownError` and `OtherTopicError`.
    """
    checkpoint = ingest_checkpoint(session, settings)
    appends = latest_appends(lake)
    last_append = appends[0] if appends else None
    offsets = last_append.offsets if last_append else checkpoint.committed_offsets()
    require_topic_name(settings, offsets)
    topic_id = kafka_io.topic_id(settings, settings.kafka_topic)
    recreated = known_topic_id(session, settings, last_append) not in (None, topic_id)
    is_nothing_read = offsets is None and lake.count() == 0 and (recreated or checkpoint.exists)
    if is_nothing_read:
        # The records of the first batch were deleted before any was read.
        offsets = {settings.kafka_topic: {}}
    if offsets is None:
        raise OffsetsUnknownError(
            f"neither {lake.interactions} nor {checkpoint.path} has the offsets up to which the topic was read"
        )
    gaps = list(_gaps(settings, settings.kafka_topic, offsets, recreated))
    for gap in gaps:
        logger.log(logging.WARNING if gap.exists else logging.INFO, "partition %d: %s", gap.partition, gap.description)
    # Before the gap is recorded as accepted: after a kill, the command is run again.
    is_older = any(gap.is_beyond_end for gap in gaps) or (
        not recreated and _is_batch_beyond_end(checkpoint, gaps, settings.kafka_topic)
    )
    _refill_if_rows_are_missing(session, settings, lake, certainly=recreated or is_older)
    if is_older:
        # The aggregated topic is of the same broker: it can be as old, with the same id.
        forget_published(session, settings)
    has_gap = recreated or is_older or is_nothing_read or any(gap.exists for gap in gaps)
    if not (has_gap or _is_half_accepted(last_append, checkpoint.exists)):
        if _is_last_batch_unreadable(settings, appends, checkpoint):
            # Spark would repeat it. Without a checkpoint, a start sends the dead letters of the records that are left.
            logger.warning("records of the last batch were deleted: it is in the lake, but dead letters can be missing")
            remove(session, checkpoint.path)
        logger.info("topic %s has no gap: the next start continues where the job stopped", settings.kafka_topic)
        return gaps
    resume_at = {settings.kafka_topic: {str(gap.partition): gap.resume_at for gap in gaps}}
    replaces = checkpoint.query_id if checkpoint.exists else NO_CHECKPOINT
    lake.write_marker(AppendInfo(ACCEPT_GAP, 0, topic_id, resume_at, replaces))
    store_topic_id(session, settings, topic_id)
    remove(session, checkpoint.path)
    logger.info("the next start continues at %s", json.dumps(resume_at))
    return gaps


def _is_half_accepted(last_append: AppendInfo | None, checkpoint_exists: bool) -> bool:
    """Whether an earlier run was killed after it had recorded the gap as accepted, and before it was done."""
    return last_append is not None and last_append.query == ACCEPT_GAP and checkpoint_exists


def _is_batch_beyond_end(checkpoint: Checkpoint, gaps: Sequence[PartitionGap], topic: str) -> bool:
    """Whether the topic has lost records of a batch that was started, and that Spark would repeat."""
    try:
        started = (checkpoint.started_offsets() or {}).get(topic, {})
    except ValueError:
        # A start replaces a damaged checkpoint.
        return False
    lost = [gap for gap in gaps if gap.position <= gap.end < started.get(str(gap.partition), 0)]
    for gap in lost:
        logger.warning(
            "partition %d: the topic ends at %d, and had records up to %d: those are lost",
            gap.partition, gap.end, started[str(gap.partition)],
        )  # fmt: skip
    return bool(lost)


def _is_last_batch_unreadable(
    settings: StreamProcessingSettings, appends: Sequence[AppendInfo], checkpoint: Checkpoint
) -> bool:
    """Whether the job was killed after an append and before its commit, and then records of the batch were deleted."""
    if not (appends and checkpoint.exists and checkpoint.query_id == appends[0].query):
        return False
    if checkpoint.unfinished_batch() != appends[0].batch:
        return False
    topic = settings.kafka_topic
    start = appends[1].offsets if len(appends) > 1 else {topic: {}}
    return any(gap.exists for gap in _gaps(settings, topic, start, recreated=False))


def _refill_if_rows_are_missing(
    session: SparkSession, settings: StreamProcessingSettings, lake: Lake, *, certainly: bool
) -> None:
    """Rebuild if the aggregated topic is not the one that the query materialise has read, or has a gap."""
    checkpoint = Checkpoint(session, f"{settings.checkpoints}/{materialise.NAME}")
    if not checkpoint.exists:
        return
    offsets = checkpoint.committed_offsets()
    topic = settings.aggregated_topic
    if (
        certainly
        or not offsets
        or not offsets[topic]
        or any(gap.exists for gap in _gaps(settings, topic, offsets, recreated=False))
    ):
        logger.warning("rows are missing from topic %s: it is refilled", topic)
        rebuild(session, settings, lake)
        remove(session, checkpoint.path)


def _gaps(
    settings: StreamProcessingSettings, topic: str, offsets: Mapping[str, Mapping[str, int]], recreated: bool
) -> Iterator[PartitionGap]:
    """Compare the recorded `offsets` with each partition of the topic."""
    positions = {int(partition): int(offset) for partition, offset in offsets[topic].items()}
    for partition, (earliest, end) in sorted(kafka_io.offset_ranges(settings, topic).items()):
        # Partitions that were added later are read from their beginning.
        yield PartitionGap(partition, positions.get(partition, 0), earliest, end, recreated)
