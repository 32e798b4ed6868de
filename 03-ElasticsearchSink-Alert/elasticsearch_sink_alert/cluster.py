"""Which Elasticsearch this is: one that was started with an empty data folder is another, and has none of the rows."""

from elasticsearch import Elasticsearch
from elasticsearch.exceptions import RequestError

from elasticsearch_sink_alert.index_templates import mappings, template
from elasticsearch_sink_alert.patience import UnavailableError

_NOT_FORMED = "_na_"


class MappingError(Exception):
    """An existing index does not fit what the service would write."""


class EmptiedError(Exception):
    """Elasticsearch answers, and is not the one that the rows went to."""


class Cluster:
    """The cluster that the rows go to."""

    def __init__(self, client: Elasticsearch) -> None:
        self._client = client
        self.uuid = ""
        """Made at random when Elasticsearch starts with an empty data folder, and kept there."""

    def prepare(self) -> None:
        """Take the cluster that answers for the right one, and prepare its indices; raises `MappingError`."""
        self.uuid = self._uuid_now()
        _prepare_indices(self._client)

    def require_same(self) -> None:
        """Raise `EmptiedError` if another one answers than was prepared."""
        if self._uuid_now() != self.uuid:
            raise EmptiedError

    def _uuid_now(self) -> str:
        uuid = str(self._client.info()["cluster_uuid"])
        if uuid == _NOT_FORMED:
            raise UnavailableError("Elasticsearch is starting")
        return uuid


def _prepare_indices(client: Elasticsearch) -> None:
    """Put the templates, create the missing indices, add missing fields to the others; raises `MappingError`."""
    for index, mapping in mappings():
        client.indices.put_index_template(name=index, body=template(index, mapping))
        try:
            if client.indices.exists(index=index):
                client.indices.put_mapping(index=index, body=mapping)
            else:
                client.indices.create(index=index)
        except RequestError as error:
            if error.error == "resource_already_exists_exception":
                continue  # Another sink was faster.
            raise MappingError(
                f"index {index} has another mapping than this version writes ({error.error}: {error.info}):"
                " reindex it, or delete it and start the sink's group from the beginning of the topic"
            ) from None
