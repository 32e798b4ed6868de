"""Prepares the cluster and its indices, and notices when one of them was replaced.

A cluster that was started with an empty data folder has none of the rows, nor has an index that was deleted and
created again. Both are recognised by the UUIDs that Elasticsearch generates.
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

from elasticsearch_sink_alert.indexing.errors import (
    ErrorKind,
    ReindexRequiredError,
    UnavailableError,
    classify_exception,
    describe_error,
    describe_exception,
    error_of,
)
from elasticsearch_sink_alert.indexing.index_templates import PRIORITY, index_body, mappings, template
from elasticsearch_sink_alert.settings import SinkSettings

_NO_UUID_YET: Final = "_na_"
"""The cluster's UUID while it has no elected master."""
_GREATEST_PRIORITY: Final = (1 << 63) - 1


class MappingError(Exception):
    """An index does not fit the documents of this service, or cannot be created."""


class NotElasticsearchError(Exception):
    """The server that answers is not Elasticsearch."""


class _Connection(Urllib3HttpConnection):
    """Accepts only responses of Elasticsearch, not for example a proxy's page with status 200."""

    def perform_request(self, method: str, url: str, *args: Any, **options: Any) -> Any:
        """Send a request; raises `SerializationError` for a response that is not from Elasticsearch."""
        status, headers, body = super().perform_request(method, url, *args, **options)
        if ("x-elastic-product", "Elasticsearch") not in {(name.lower(), value) for name, value in headers.items()}:
            raise SerializationError(f"the response to {method} {url} has no header X-Elastic-Product")
        return status, headers, body


def connect(settings: SinkSettings, **options: Any) -> Elasticsearch:
    """Return a client without sending a request; raises `NotElasticsearchError` for a URL that is not valid."""
    # These warnings repeat what responses say, or are about templates that do not take effect.
    warnings.simplefilter("ignore", ElasticsearchWarning)
    try:
        # The Retrier retries, not the client.
        return Elasticsearch(
            settings.es_hosts, connection_class=_Connection, max_retries=0, **options, **settings.es_client
        )
    except (ImproperlyConfigured, OSError, TypeError, ValueError) as error:
        raise NotElasticsearchError(f"not a valid URL of a server: {error}") from None


class Cluster:
    """The cluster that rows are written to."""

    def __init__(self, client: Elasticsearch) -> None:
        self._client = client
        self._uuid = ""
        self._indices: dict[str, str] = {}

    @property
    def identity(self) -> str:
        """A hash that identifies this cluster with these indices; to be committed with the offsets."""
        uuids = [self._uuid, *(f"{name} {uuid}" for name, uuid in sorted(self._indices.items()))]
        return hashlib.blake2b("\n".join(uuids).encode(), digest_size=16).hexdigest()

    def prepare(self) -> None:
        """Create or update the indices of the cluster that answers, and remember the cluster and them.

        Raises `MappingError`, `NotElasticsearchError`, and `UnavailableError` if waiting may help.
        """
        try:
            self._uuid = self._uuid_now()
            for index, mapping in mappings():
                _put_template(self._client, index, mapping)
                _create_or_extend(self._client, index, mapping)
                _check(self._client, index)
            self._indices = self._indices_now()
        except NotFoundError as error:
            raise UnavailableError(
                f"an index was deleted while it was being prepared ({describe_exception(error)})"
            ) from None

    def recover(self) -> None:
        """Prepare the indices while the service runs: every error is an `UnavailableError`, so that it is retried."""
        try:
            self.prepare()
        except (MappingError, NotElasticsearchError) as error:
            raise UnavailableError(str(error)) from None

    def require_same(self) -> None:
        """Raise `ReindexRequiredError` if the cluster or one of the indices is not the one that was prepared."""
        try:
            uuid = self._uuid_now()
        except NotElasticsearchError as error:
            raise UnavailableError(str(error)) from None
        if uuid != self._uuid:
            raise ReindexRequiredError("Elasticsearch was emptied")
        for name, found in self._indices_now().items():
            if self._indices.get(name) != found:
                raise ReindexRequiredError(f"index {name} was deleted and created again")

    def _uuid_now(self) -> str:
        try:
            info: Any = self._client.info()
        except (UnsupportedProductError, SerializationError) as error:
            raise NotElasticsearchError(describe_exception(error)) from None
        except TransportError as error:
            if error.status_code in (400, 404, 405, 406, 415, 501) and not error_of(error):
                raise NotElasticsearchError(f"GET / returns status {error.status_code}") from None
            raise
        uuid = info.get("cluster_uuid") if isinstance(info, dict) else None
        if not isinstance(uuid, str):
            raise NotElasticsearchError("the response to GET / has no cluster_uuid")
        if uuid == _NO_UUID_YET:
            raise UnavailableError("Elasticsearch is starting")
        return uuid

    def _indices_now(self) -> dict[str, str]:
        """Return the UUIDs of each index; raises `NotFoundError` if one is missing."""
        names = ",".join(index for index, _ in mappings())
        # Restoring a snapshot over a closed index keeps its uuid, and changes its history_uuid.
        response = self._client.indices.get_settings(index=names, name="index.uuid,index.history_uuid")
        found = {name: each["settings"]["index"] for name, each in response.items()}
        return {name: f"{each['uuid']} {each.get('history_uuid', '')}" for name, each in found.items()}


def _put_template(client: Elasticsearch, index: str, mapping: Mapping[str, Any]) -> None:
    """Put the template with a priority above all others that match the index: only one template is applied."""
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
        raise _setup_error(f"the template of index {index} is refused", error) from None


def _matches(patterns: Any, index: str) -> bool:
    each = [patterns] if isinstance(patterns, str) else patterns
    # Only * is special in a pattern.
    return any(fnmatch.fnmatchcase(index, re.sub(r"[\[?]", r"[\g<0>]", pattern)) for pattern in each)


def _create_or_extend(client: Elasticsearch, index: str, mapping: Mapping[str, Any]) -> None:
    """Create the index, or add missing fields to it, with the alias through which rows are written."""
    if not client.indices.exists(index=index):
        try:
            # With settings and mappings: another template may have a higher priority by now.
            client.indices.create(index=index, **index_body(index, mapping))
        except RequestError as error:
            # Another sink may have created it.
            if error.error != "resource_already_exists_exception":
                raise _setup_error(f"index {index} cannot be created", error) from None
        else:
            return
    try:
        client.indices.put_mapping(index=index, body=mapping)
    except RequestError as error:
        remedy = "reindex it, or delete it and the sink indexes the whole topic again"
        raise _setup_error(f"index {index} has another mapping than this version writes", error, remedy) from None
    # If the name is an alias of an index that the user has created, that index gets the write alias.
    for name in client.indices.get_settings(index=index, name="index.uuid"):
        for alias, options in index_body(index, mapping)["aliases"].items():
            try:
                client.indices.put_alias(index=name, name=alias, body=options)
            except RequestError as error:
                raise _setup_error(f"index {name} cannot have the alias {alias}", error) from None


def _check(client: Elasticsearch, index: str) -> None:
    """Raise `MappingError` for an existing index that would drop or change rows."""
    remedy = "delete it, and the sink indexes the whole topic again"
    for name, found in client.indices.get(index=index).items():
        mapping, settings = found["mappings"], found["settings"]["index"]
        if mapping.get("_source", {}).get("enabled") is False or mapping.get("_source", {}).keys() & {
            "includes",
            "excludes",
        }:
            raise MappingError(f"index {name} does not store the rows (_source is disabled or filtered): {remedy}")
        if mapping.get("_routing", {}).get("required"):
            raise MappingError(f"index {name} requires a routing, which the sink does not send: {remedy}")
        if pipeline := settings.get("final_pipeline"):
            raise MappingError(f"index {name} has the final pipeline {pipeline}, which may change rows: remove it")


def _setup_error(problem: str, error: RequestError, remedy: str = "") -> Exception:
    """Return an `UnavailableError` if waiting may help, and a `MappingError` otherwise."""
    text = f"{problem} ({describe_error(error.status_code, error_of(error))})"
    if classify_exception(error) is not ErrorKind.REFUSED:
        return UnavailableError(text)
    return MappingError(f"{text}: {remedy}" if remedy else text)
