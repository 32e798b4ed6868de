"""Sources of the pages: Elasticsearch, Kafka, the Delta tables, producer, processes, and the history of snapshots."""

from dataclasses import dataclass
from typing import Final

from elasticsearch import Elasticsearch

from live_page.overview_model import LatestOverview
from live_page.settings import PageSettings
from live_page.sources.consumers import Consumers
from live_page.sources.documents import Documents
from live_page.sources.lake import LakeReader
from live_page.sources.processes import Processes
from live_page.sources.producer import ProducerControls
from live_page.sources.records import TopicRecords
from live_page.sources.replays import DeadLetterReplays
from live_page.sources.topics import Topics
from observer.reading_history import ReadingHistory

_TIMEOUT = 4.0
READING_THREADS: Final = 64
"""At most; one is started when all others are busy, and each can have a connection."""


@dataclass(frozen=True)
class Sources:
    """One instance of each source, shared by all browsers."""

    settings: PageSettings
    history: ReadingHistory
    documents: Documents
    topics: Topics
    records: TopicRecords
    replays: DeadLetterReplays
    lake: LakeReader
    producer: ProducerControls
    processes: Processes
    overview: LatestOverview


def elasticsearch_client(settings: PageSettings) -> Elasticsearch:
    """Create a client with a short timeout and no retries: the page polls again anyway."""
    return Elasticsearch(
        settings.es_hosts, timeout=_TIMEOUT, max_retries=0, maxsize=READING_THREADS, **settings.es_client
    )


def create_sources(settings: PageSettings) -> Sources:
    """Create the sources without connecting to anything."""
    consumers = Consumers(settings)
    producer = ProducerControls(settings.producer_url)
    history, processes = ReadingHistory(), Processes(settings.processes_file)
    return Sources(
        settings=settings,
        history=history,
        documents=Documents(elasticsearch_client(settings)),
        topics=Topics(settings, consumers),
        records=TopicRecords(consumers),
        replays=DeadLetterReplays(settings, producer),
        lake=LakeReader(settings.warehouse, settings.sql_seconds),
        producer=producer,
        processes=processes,
        overview=LatestOverview(history, processes.read, settings.kafka_topic),
    )
