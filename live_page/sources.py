"""What the pages ask."""

from dataclasses import dataclass

from elasticsearch import Elasticsearch

from live_page.documents import Documents
from live_page.lake import LakeReader
from live_page.producer import ProducerControls
from live_page.settings import PageSettings
from live_page.topics import Topics
from observer.reading_history import Board

_TIMEOUT = 4.0


@dataclass(frozen=True)
class Sources:
    """One of each, for all browsers together."""

    settings: PageSettings
    board: Board
    documents: Documents
    topics: Topics
    lake: LakeReader
    producer: ProducerControls


def elasticsearch(settings: PageSettings) -> Elasticsearch:
    """A client that gives up soon: the page asks again anyway."""
    return Elasticsearch(settings.es_hosts, timeout=_TIMEOUT, max_retries=0, **settings.es_client)


def sources(settings: PageSettings) -> Sources:
    """Those that the settings name; nothing is asked yet."""
    return Sources(
        settings=settings,
        board=Board(),
        documents=Documents(elasticsearch(settings)),
        topics=Topics(settings),
        lake=LakeReader(settings.warehouse, settings.sql_seconds),
        producer=ProducerControls(settings.producer_url),
    )
