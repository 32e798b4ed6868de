"""A store of objects in memory, as the lease uses it, with the faults of real ones."""

from dataclasses import dataclass, field
from hashlib import md5

from stream_processing.lease import StoredObject, StoreError


@dataclass
class MemoryStore:
    """Enforces the conditions of writes, unless told otherwise."""

    ignores: tuple[str, ...] = ()
    """Conditions: absent, match."""
    error: StoreError | None = None
    """Raised by each request."""
    loses_responses: int = 0
    """The number of writes, from now on, that succeed and whose response is lost."""
    objects: dict[str, str] = field(default_factory=dict)

    def get(self, name: str) -> StoredObject | None:
        """Return an object."""
        self._fail()
        return StoredObject(self.objects[name], _etag(self.objects[name])) if name in self.objects else None

    def put_if_absent(self, name: str, text: str) -> str | None:
        """Create an object."""
        return self._put(name, text, name not in self.objects or "absent" in self.ignores)

    def put_if_match(self, name: str, text: str, etag: str) -> str | None:
        """Replace an object."""
        is_current = name in self.objects and _etag(self.objects[name]) == etag
        return self._put(name, text, is_current or "match" in self.ignores)

    def delete(self, name: str) -> None:
        """Delete an object."""
        self._fail()
        del self.objects[name]

    def _put(self, name: str, text: str, is_allowed: bool) -> str | None:
        self._fail()
        if not is_allowed:
            return None
        self.objects[name] = text
        if self.loses_responses:
            self.loses_responses -= 1
            raise StoreError("timeout")
        return _etag(text)

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


def _etag(text: str) -> str:
    """Return the same for the same content, as S3 does."""
    return md5(text.encode(), usedforsecurity=False).hexdigest()
