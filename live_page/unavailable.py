"""What cannot be asked now, told in a way that fits into a line of the page."""

from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import KafkaException
from deltalake.exceptions import DeltaError, TableNotFoundError
from elasticsearch.exceptions import ElasticsearchException, NotFoundError


class UnavailableError(Exception):
    """A server or service does not answer; the message says which."""


class EmptyError(Exception):
    """There is nothing to show yet; the message says what to do about it."""


@contextmanager
def told(server: str) -> Iterator[None]:
    """Raise what the clients of Elasticsearch, Kafka and Delta raise as one of the above."""
    try:
        yield
    except NotFoundError:
        raise EmptyError("There is no index yet: the sink makes it when it starts") from None
    except TableNotFoundError:
        raise EmptyError("There is no such table yet: the stream job makes it with its first batch") from None
    except ElasticsearchException as error:
        reason = type(error).__name__ if not isinstance(error.args[0], int) else f"{error.args[0]} {error.args[1]}"
        raise UnavailableError(f"{server} does not answer ({reason})") from None
    except KafkaException as error:
        raise UnavailableError(f"{server} does not answer ({error.args[0].str()})") from None
    except DeltaError as error:
        raise UnavailableError(f"{server} cannot be read ({str(error).splitlines()[0][:200]})") from None
