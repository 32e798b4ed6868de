"""The cluster that the rows go to and its indices: prepared, and watched for being replaced by others.

A cluster that was started with an empty data folder has none of the rows, nor has an index that was deleted and
created again. Both are recognised by the identifiers that Elasticsearch generates for each.
"""

import fnmatch
import hashlib
import re
import warnings
from collections.abc import Mapping
from typing import Any, Final

from elasticsearch import Elasticsearch, Urllib3HttpConnection
from elasticsearch.exceptions import (
    ElasticsearchWarning,
    ImproperlyConfigured,
    NotFoundError,
    RequestError,
    SerializationError,
    TransportError,
    UnsupportedProductError,
)

from elasticsearch_sink_alert.indexing.answers import (
    EmptiedError,
    Meaning,
    UnavailableError,
    describe,
    describe_answer,
    error_of,
    meaning_of,
)
from elasticsearch_sink_alert.indexing.index_templates import PRIORITY, creation, mappings, template
from elasticsearch_sink_alert.settings import SinkSettings

_NOT_FORMED: Final = "_na_"
_GREATEST_PRIORITY: Final = (1 << 63) - 1


class MappingError(Exception):
    """An index does not fit what the service would write, or cannot be created."""


class NotElasticsearchError(Exception):
    """Something else than Elasticsearch answers."""


class _Connection(Urllib3HttpConnection):
    """Takes nothing for an answer that is not Elasticsearch's own, such as a page of a proxy's with status 200."""

    def perform_request(self, method: str, url: str, *args: Any, **options: Any) -> Any:
        """Raise `SerializationError` for it."""
        status, headers, body = super().perform_request(method, url, *args, **options)
        if ("x-elastic-product", "Elasticsearch") not in {(name.lower(), value) for name, value in headers.items()}:
            raise SerializationError(f"{method} {url} is answered without the header X-Elastic-Product")
        return status, headers, body


def connect(settings: SinkSettings, **options: Any) -> Elasticsearch:
    """A client, which has not sent anything yet; raises `NotElasticsearchError` for a URL that it cannot take."""
    # What these say is in the answers too, or about templates that do not matter.
    warnings.simplefilter("ignore", ElasticsearchWarning)
    try:
        # Retries are Patience's; the client has none of its own.
        return Elasticsearch(
            settings.es_hosts, connection_class=_Connection, max_retries=0, **options, **settings.es_client
        )
    except (ImproperlyConfigured, OSError, TypeError, ValueError) as error:
        raise NotElasticsearchError(f"no client can be made for it: {error}") from None


class Cluster:
    """The cluster that the rows go to."""

    def __init__(self, client: Elasticsearch) -> None:
        self._client = client
        self._uuid = ""
        self._indices: dict[str, str] = {}

    @property
    def identity(self) -> str:
        """What tells this cluster with these indices from all others; to be committed with the offsets."""
        parts = [self._uuid, *(f"{name} {uuid}" for name, uuid in sorted(self._indices.items()))]
        return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()

    def prepare(self) -> None:
        """Take the cluster that answers for the right one, and prepare its indices.

        Raises `MappingError` and `NotElasticsearchError`.
        """
        try:
            self._uuid = self._uuid_now()
            for index, mapping in mappings():
                _put_template(self._client, index, mapping)
                _create_or_extend(self._client, index, mapping)
                _check(self._client, index)
            self._indices = self._indices_now()
        except NotFoundError as error:
            raise UnavailableError(f"an index was deleted while it was being prepared ({describe(error)})") from None

    def recover(self) -> None:
        """Prepare it while the service runs: whatever is in the way is `UnavailableError`, so that it is waited for."""
        try:
            self.prepare()
        except (MappingError, NotElasticsearchError) as error:
            raise UnavailableError(str(error)) from None

    def require_same(self) -> None:
        """Raise `EmptiedError` if the cluster or one of the indices is not the one that was prepared."""
        try:
            uuid = self._uuid_now()
        except NotElasticsearchError as error:
            raise UnavailableError(str(error)) from None
        if uuid != self._uuid:
            raise EmptiedError("Elasticsearch was emptied")
        for name, found in self._indices_now().items():
            if self._indices.get(name) != found:
                raise EmptiedError(f"index {name} was deleted, and another one has its name")

    def _uuid_now(self) -> str:
        try:
            info: Any = self._client.info()
        except (UnsupportedProductError, SerializationError) as error:
            raise NotElasticsearchError(describe(error)) from None
        except TransportError as error:
            if error.status_code in (400, 404, 405, 406, 415, 501) and not error_of(error):
                raise NotElasticsearchError(f"GET / is answered with {error.status_code}") from None
            raise
        uuid = info.get("cluster_uuid") if isinstance(info, dict) else None
        if not isinstance(uuid, str):
            raise NotElasticsearchError("GET / is answered without a cluster_uuid")
        if uuid == _NOT_FORMED:
            raise UnavailableError("Elasticsearch is starting")
        return uuid

    def _indices_now(self) -> dict[str, str]:
        """The unique identifiers of each index; raises `NotFoundError` if one is missing."""
        names = ",".join(index for index, _ in mappings())
        # A snapshot that is restored over a closed index leaves it its uuid, and gives it another history's.
        answer = self._client.indices.get_settings(index=names, name="index.uuid,index.history_uuid")
        found = {name: each["settings"]["index"] for name, each in answer.items()}
        return {name: f"{each['uuid']} {each.get('history_uuid', '')}" for name, each in found.items()}


def _put_template(client: Elasticsearch, index: str, mapping: Mapping[str, Any]) -> None:
    """Put the template, with a priority above all others that match the index: only one of them counts."""
    paths = [f"index_templates.{path}" for path in ("name", "index_template.index_patterns", "index_template.priority")]
    found = client.indices.get_index_template(filter_path=paths).get("index_templates", [])
    others = [
        int(each["index_template"].get("priority", 0))
        for each in found
        if each["name"] != index and _matches(each["index_template"].get("index_patterns", ()), index)
    ]
    priority = max([PRIORITY, *(1 + other for other in others if other < _GREATEST_PRIORITY)])
    try:
        client.indices.put_index_template(name=index, body=template(index, mapping, priority))
    except RequestError as error:
        raise _refused(f"the template of index {index} is refused", error, "") from None


def _matches(patterns: Any, index: str) -> bool:
    each = [patterns] if isinstance(patterns, str) else patterns
    # Only * is special in a pattern.
    return any(fnmatch.fnmatchcase(index, re.sub(r"[\[?]", r"[\g<0>]", pattern)) for pattern in each)


def _create_or_extend(client: Elasticsearch, index: str, mapping: Mapping[str, Any]) -> None:
    """Create the index, or add missing fields to it; give it the alias that rows are written by."""
    if not client.indices.exists(index=index):
        try:
            # All that matters is in the body, too: a template of someone else's may have won by now.
            client.indices.create(index=index, body=creation(index, mapping))
        except RequestError as error:
            # Another sink may have been faster.
            if error.error != "resource_already_exists_exception":
                raise _refused(f"index {index} cannot be created", error, "") from None
        else:
            return
    try:
        client.indices.put_mapping(index=index, body=mapping)
    except RequestError as error:
        remedy = "reindex it, or delete it and the sink indexes the whole topic again"
        raise _refused(f"index {index} has another mapping than this version writes", error, remedy) from None
    # Where the name is an alias, of an index of the user's own making, that index gets it.
    for name in client.indices.get_settings(index=index, name="index.uuid"):
        for alias, options in creation(index, mapping)["aliases"].items():
            try:
                client.indices.put_alias(index=name, name=alias, body=options)
            except RequestError as error:
                raise _refused(f"index {name} cannot have the alias {alias}", error, "") from None


def _check(client: Elasticsearch, index: str) -> None:
    """Raise `MappingError` for what neither a mapping nor a template can change once the index is there."""
    remedy = "delete it, and the sink indexes the whole topic again"
    for name, found in client.indices.get(index=index).items():
        mapping, settings = found["mappings"], found["settings"]["index"]
        if mapping.get("_source", {}).get("enabled") is False or mapping.get("_source", {}).keys() & {
            "includes",
            "excludes",
        }:
            raise MappingError(f"index {name} does not keep the rows (_source is off, or only in part): {remedy}")
        if mapping.get("_routing", {}).get("required"):
            raise MappingError(f"index {name} demands a routing, which the sink does not send: {remedy}")
        if pipeline := settings.get("final_pipeline"):
            raise MappingError(f"index {name} has the final pipeline {pipeline}, which may change rows: remove it")


def _refused(what: str, error: RequestError, remedy: str) -> Exception:
    """An `UnavailableError` where waiting may help, and a `MappingError` where it does not."""
    text = f"{what} ({describe_answer(error.status_code, error_of(error))})"
    if meaning_of(error) is not Meaning.REFUSED:
        return UnavailableError(text)
    return MappingError(f"{text}: {remedy}" if remedy else text)
