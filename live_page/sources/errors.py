"""Errors of the sources, each one line that a page can show."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from confluent_kafka import KafkaException
from deltalake.exceptions import DeltaError, TableNotFoundError
from elasticsearch.exceptions import ElasticsearchException, NotFoundError


class UnavailableError(Exception):
    """A server or service does not answer; the message names it."""

    def __init__(self, message: str, server: str = "") -> None:
        """`server` is its name if all that is read from it is missing."""
        super().__init__(message)
        self.server = server


class WaitingError(UnavailableError):
    """The source is busy with something else; the next refresh asks again."""


class EmptyError(Exception):
    """Nothing to show yet; the message gives the reason and the remedy."""


class UnknownRowError(EmptyError):
    """No row has an id; `total` rows exist, such as those with the ids `examples`."""

    def __init__(self, message: str, total: int, examples: Sequence[str]) -> None:
        super().__init__(message)
        self.total = total
        self.examples = examples


@contextmanager
def translate_errors(server: str) -> Iterator[None]:
    """Raise errors of the Elasticsearch, Kafka and Delta clients as `UnavailableError` or `EmptyError`."""
    try:
        yield
    except NotFoundError:
        raise EmptyError("The index does not exist yet: the sink creates it when it starts") from None
    except TableNotFoundError:
        raise EmptyError("The table does not exist yet: the stream job creates it with its first batch") from None
    except ElasticsearchException as error:
        reason = type(error).__name__ if not isinstance(error.args[0], int) else f"{error.args[0]} {error.args[1]}"
        raise UnavailableError(f"{server} does not answer ({reason})", server) from None
    except KafkaException as error:
        raise UnavailableError(f"{server} does not answer ({error.args[0].str()})", server) from None
    except DeltaError as error:
        raise UnavailableError(f"{server} cannot be read ({str(error).splitlines()[0][:200]})") from None
