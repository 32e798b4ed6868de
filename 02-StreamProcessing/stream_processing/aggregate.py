"""Query 2, aggregate: from the lake to the changed rows in Kafka, by counts in a state store.

The lake is the source, so what is published is always in the lake already. A batch that is cut off is
done again from the same files and the same state, and publishes the same rows again.
"""

import logging
from functools import reduce
from typing import Final

from py4j.java_gateway import JavaObject
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.query import StreamingQuery

from contract.interaction import MAX_ID_BYTES
from contract.tables import AGGREGATE_TABLES
from runtime import commands
from stream_processing import metrics, state_memory
from stream_processing.aggregates import LAST, STATE, USERS, record_key, record_value, state_columns
from stream_processing.kafka_io import RecordSender, max_message_bytes, write_records
from stream_processing.lake import Lake
from stream_processing.session import look_every
from stream_processing.settings import StreamProcessingSettings
from stream_processing.storage import read_text_if_there, write_text

NAME: Final = "aggregate"

_OVERALL: Final = "overall"
_ALL_FILES: Final = 1_000_000
_LONGEST_WAIT: Final = 0.2
"""Seconds: what waits for this query has waited for ingest already."""
_USER: Final = "user_id"
"""The key whose distinct values are counted."""


logger = logging.getLogger(__name__)


class DefinitionsChangedError(Exception):
    """The state in the checkpoint is not that of the declared tables."""


def start_aggregate(session: SparkSession, settings: StreamProcessingSettings, lake: Lake) -> StreamingQuery:
    """Start the query; it goes on from its checkpoint, or computes all anew from the lake.

    Raises `DefinitionsChangedError` where the checkpoint's state is that of other tables than are declared now.
    """
    _require_same_definitions(session, settings)
    changed = changed_rows(session, lake).observe(
        _OVERALL,
        *[F.max(F.when(F.col("rows").isNull(), _as_long(name))) for name in STATE],
        F.count(F.when(F.size("rows") == 0, F.lit(1))),
    )
    look_every(session, min(settings.loop_sleep, _LONGEST_WAIT))
    return (
        changed.writeStream.queryName(NAME)
        .outputMode("update")
        .option("checkpointLocation", f"{settings.checkpoints}/{NAME}")
        .foreachBatch(_Batches(session, settings))
        .start()
    )


def changed_rows(session: SparkSession, lake: Lake) -> DataFrame:
    """`rows`: topic key and value of a changed key's row in each of its tables; and the key's counts."""
    # All that there is in one batch, so that no row of a first batch is older than one that was published before.
    interactions = session.readStream.format("delta").option("maxFilesPerTrigger", _ALL_FILES).load(lake.interactions)
    keys = dict.fromkeys([_USER, *(table.key for table in AGGREGATE_TABLES if table.key is not None)])
    return reduce(DataFrame.unionByName, [_changed_rows(interactions, key) for key in keys])


def definitions_file(settings: StreamProcessingSettings) -> str:
    """The file that tells which tables the checkpoint's state is for."""
    return f"{settings.checkpoints}/{NAME}.definitions"


def _require_same_definitions(session: SparkSession, settings: StreamProcessingSettings) -> None:
    declared = "\n".join(f"{table.name} {column}" for table in AGGREGATE_TABLES for column in table.columns) + "\n"
    file = definitions_file(settings)
    known = read_text_if_there(session, file)
    if known is None:
        write_text(session, file, declared)
    elif known != declared:
        before, now = set(known.splitlines()), set(declared.splitlines())
        raise DefinitionsChangedError(
            "the aggregate tables are declared otherwise than when their state was computed"
            f" (new: {', '.join(sorted(now - before)) or '-'}; gone: {', '.join(sorted(before - now)) or '-'}):"
            f" run `{commands.command('stream_processing', 'rebuild')}`, which computes them anew from the lake"
        )


def _changed_rows(interactions: DataFrame, key: str) -> DataFrame:
    """`changed_rows` of one key.

    All tables of one key share one state. The users' aggregation rolls up into one more row, the counts
    over everything: it has no key and so no `rows` yet, for its tables need the number of users too.
    """
    grouped = interactions.rollup(key) if key == _USER else interactions.groupBy(key)
    row_id = F.col(key)
    rows = [
        F.struct(record_key(table, row_id).alias("key"), record_value(table, row_id).alias("value"))
        for table in AGGREGATE_TABLES
        if table.key == key
    ]
    # Ingest takes no longer ids; a lake from before that bound may have some.
    count = F.when(F.octet_length(row_id) <= MAX_ID_BYTES, len(rows)).otherwise(0)
    published = F.slice(F.array(*rows), 1, count)
    return grouped.agg(*state_columns()).select(F.when(row_id.isNotNull(), published).alias("rows"), *STATE)


class _Batches:
    def __init__(self, session: SparkSession, settings: StreamProcessingSettings) -> None:
        # The session that the query was started in; a batch's own is a copy that knows no queries.
        self._session = session
        self._settings = settings
        self._max_message_bytes = max_message_bytes(settings, settings.aggregated_topic)
        self._sender = RecordSender(settings, settings.aggregated_topic, self._max_message_bytes)
        self._heap: int | None = None
        """Bytes of the heap that holds the state; none where another one or none does."""
        if settings.state_store == "memory" and settings.deploy_mode == "client":
            jvm = session._jvm
            assert jvm is not None
            self._heap = int(jvm.java.lang.Runtime.getRuntime().maxMemory())

    def __call__(self, batch: DataFrame, _batch_id: int) -> None:
        write_records(
            batch.selectExpr("inline(rows)"), self._settings, self._settings.aggregated_topic, self._max_message_bytes
        )
        execution = _last_execution(self._session)
        counts = execution.observedMetrics().apply(_OVERALL)
        if counts.isNullAt(0):
            return  # A batch without interactions, as the first over an empty lake.
        if unpublished := counts.getLong(len(STATE)):
            logger.warning(
                "%d changed keys are in the lake and not published: their ids have more than %d bytes",
                unpublished, MAX_ID_BYTES,
            )  # fmt: skip
        keys = _stored_keys(execution)
        users = keys[_USER]
        state = {name: int(counts.getLong(n)) for n, name in enumerate(STATE)}
        self._sender.send(_overall_records(batch.sparkSession, state, users))
        metrics.AGGREGATED.set(sum(count for name, count in state.items() if name != LAST))
        metrics.USERS.set(users)
        self._warn_once(sum(keys.values()))

    def _warn_once(self, keys: int) -> None:
        if self._heap is not None and (said := state_memory.warning(keys, self._heap)):
            logger.warning(said)
            self._heap = None


def _overall_records(session: SparkSession, state: dict[str, int], users: int) -> list[tuple[str, str]]:
    """Key and value of the row of each table that has no key. Literals only: Spark needs no job for it."""
    known = [f"{n}L AS {name}" if name != LAST else f"timestamp_micros({n}L) AS {name}" for name, n in state.items()]
    rows = session.sql(f"SELECT {users}L AS {USERS}, {', '.join(known)}").select(
        *[
            F.struct(record_key(table, None).alias("key"), record_value(table, None).alias("value")).alias(table.name)
            for table in AGGREGATE_TABLES
            if table.key is None
        ]
    )
    return [(row["key"], row["value"]) for row in rows.head() or ()]


def _as_long(name: str) -> Column:
    return F.unix_micros(name) if name == LAST else F.col(name)


def _last_execution(session: SparkSession) -> JavaObject:
    """Spark's record of this query's batch that has just run."""
    query = next(query for query in session.streams.active if query.name == NAME)
    return query._jsq.streamingQuery().lastExecution()


def _stored_keys(execution: JavaObject) -> dict[str, int]:
    """How many values the state holds after the batch, by key column.

    Spark counts the rows of a state store as it writes them, so the number of users costs neither a
    second state nor a pass over anything. It belongs to the batch's version of the state, and comes out
    the same when the batch is done again.
    """
    stored = {}
    for node in _nodes(execution.executedPlan()):
        if node.nodeName() == "StateStoreSave":
            key = node.keyExpressions().head().name()
            # One row more is the roll-up over all users.
            stored[key] = int(node.metrics().apply("numTotalStateRows").value()) - (key == _USER)
    return stored


def _nodes(plan: JavaObject) -> list[JavaObject]:
    children = plan.children()
    return [plan, *(node for n in range(children.size()) for node in _nodes(children.apply(n)))]
