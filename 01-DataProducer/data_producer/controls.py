"""Changes the producer while it runs, by HTTP requests to `/control`.

There is no authentication: it is for demonstrations, and disabled unless `PRODUCER_CONTROLS` is set.
"""

import json
import re
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from contract.declared import EVENT
from data_producer.settings import Count, Interval, ProducerSettings, Wave
from runtime import expectations

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

PATH: Final = "/control"
_MAX_BODY_BYTES: Final = 10_000
_MAX_NAME_CHARACTERS: Final = 40
"""The longest quotation of an unknown field's name."""
_JSON: Final = "application/json"
OFF: Final = "the controls are off: set PRODUCER_CONTROLS=true and restart the producer"
"""The error of every request while they are."""


class Flow(BaseModel):
    """How the producer sends."""

    model_config = ConfigDict(frozen=True)

    rate: Interval
    """The interval: seconds between interactions; 0: as fast as possible."""
    users: Count
    items: Count
    wave: Wave = 0.0
    """Seconds of the period in which the rate changes; 0: it does not."""
    paused: bool = False


class ControlRequest(BaseModel):
    """A requested change; fields that are None stay as they are."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    rate: Interval | None = None
    users: Count | None = None
    items: Count | None = None
    wave: Wave | None = None
    paused: bool | None = None
    burst: Count | None = None
    """The number of interactions to send at once, in addition to the regular ones."""
    malformed: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """The number of malformed records to send at once."""
    viral_interactions: Count | None = None
    """The number of interactions about one item to send within some seconds, in addition to the regular ones: of events
    without an `item_id`, about one value of the first text that is not the key."""

    @field_validator("*", mode="before")
    @classmethod
    def _is_not_null(cls, value: Any) -> Any:
        # A field that stays as it is has to be left out.
        if value is None:
            raise ValueError("null")
        return value


class Pending(NamedTuple):
    """Numbers of records to send in addition to the regular interactions: see `ControlRequest`."""

    burst: int = 0
    malformed: int = 0
    viral_interactions: int = 0


_NO_OTHER_TEXT: Final = "no effect, as the event has no text besides the key"
_OF_RANDOM_DATA: Final = ("users", "items", "wave", "burst", "malformed", "viral_interactions")
"""The fields without effect on a replay."""

_ALLOWED: Final = {
    name: expectations.describe(schema) for name, schema in ControlRequest.model_json_schema()["properties"].items()
}
"""The allowed values of each field, for error messages."""


class Controls:
    """The current flow, and the pending bursts. Thread-safe.

    >>> controls = Controls(Flow(rate=1, users=10, items=10))
    >>> controls.apply(ControlRequest(users=5, burst=100)).users
    5
    >>> controls.drain_requests().burst, controls.drain_requests().burst
    (100, 0)
    """

    def __init__(self, flow: Flow, replay: str = "", without_effect: Mapping[str, str] | None = None) -> None:
        """Start with a flow; `replay` describes what is replayed, and `without_effect` has the reason by field."""
        self._lock = threading.Lock()
        self._flow = flow
        self._replay = replay
        self._without_effect = without_effect or {}
        self._pending = Pending()

    @classmethod
    def of(cls, settings: ProducerSettings) -> "Controls":
        """Start with the flow of the settings."""
        flow = Flow(
            rate=settings.producer_rate,
            users=settings.random_data_max_users,
            items=settings.random_data_max_items,
            wave=settings.producer_wave,
        )
        if settings.producer_source is None:
            return cls(flow, without_effect={} if EVENT.other_texts else {"viral_interactions": _NO_OTHER_TEXT})
        replay = settings.producer_source.name
        without_effect = dict.fromkeys(_OF_RANDOM_DATA, f"no effect while {replay} is replayed")
        if settings.producer_speed is not None:
            replay += f" at {settings.producer_speed:g} times the recorded pace"
            without_effect["rate"] = "no effect while PRODUCER_SPEED is the pace"
        return cls(flow, replay, without_effect)

    @property
    def flow(self) -> Flow:
        """The current flow."""
        with self._lock:
            return self._flow

    def describe(self) -> dict[str, Any]:
        """Return the flow, as /control shows it; during a replay what has an effect on it, and what has not."""
        flow = self.flow.model_dump()
        if not self._replay:
            return flow
        shown = {name: value for name, value in flow.items() if name not in self._without_effect}
        return shown | {"replay": self._replay, "without_effect": list(self._without_effect)}

    def refusal(self, request: ControlRequest) -> str:
        """Return why the request would have no effect; empty if it has one."""
        requested = request.model_dump(exclude_none=True)
        return "; ".join(f"{name}: {reason}" for name, reason in self._without_effect.items() if name in requested)

    def apply(self, request: ControlRequest) -> Flow:
        """Change the flow; return the new one."""
        with self._lock:
            changes = request.model_dump(exclude_none=True, exclude=set(Pending._fields))
            self._flow = self._flow.model_copy(update=changes)
            self._pending = Pending(
                burst=self._pending.burst + (request.burst or 0),
                malformed=self._pending.malformed + (request.malformed or 0),
                viral_interactions=self._pending.viral_interactions + (request.viral_interactions or 0),
            )
            return self._flow

    def drain_requests(self) -> Pending:
        """Return what is to be sent in addition to the regular interactions, and reset it."""
        with self._lock:
            pending, self._pending = self._pending, Pending()
            return pending


def application(controls: Controls) -> "WSGIApplication":
    """Return the WSGI application: GET returns the flow as JSON; POST applies a `ControlRequest` and returns the flow.

    An invalid request is answered with a 4xx and the reason.
    """

    def app(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        status, body = _answer(controls, environ)
        start_response(status, [("Content-Type", _JSON)])
        return [f"{json.dumps(body)}\n".encode()]

    return app


def disabled(_environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
    """Answer every request with 404 and how to enable the controls: the WSGI application while they are off."""
    start_response("404 Not Found", [("Content-Type", _JSON)])
    return [f"{json.dumps({'error': OFF})}\n".encode()]


def _answer(controls: Controls, environ: "WSGIEnvironment") -> tuple[str, object]:
    if environ["REQUEST_METHOD"] == "GET":
        return "200 OK", controls.describe()
    # Only browsers send an Origin, and no page in a browser may call this.
    if "HTTP_ORIGIN" in environ:
        return "403 Forbidden", {"error": "requests from a browser are not allowed: use the live page, or curl"}
    if environ["REQUEST_METHOD"] != "POST" or environ.get("CONTENT_TYPE", "").split(";")[0] != _JSON:
        return "415 Unsupported Media Type", {"error": f"expected a POST of {_JSON}"}
    length = environ.get("CONTENT_LENGTH") or "0"
    if not re.fullmatch("[0-9]{1,9}", length) or int(length) > _MAX_BODY_BYTES:
        return "413 Content Too Large", {"error": f"expected at most {_MAX_BODY_BYTES} bytes"}
    try:
        request = ControlRequest.model_validate_json(environ["wsgi.input"].read(int(length)))
    except ValidationError as error:
        names = (str(each["loc"][0]) if each["loc"] else "" for each in error.errors())
        invalid = dict.fromkeys(name[:_MAX_NAME_CHARACTERS] for name in names)
        return "400 Bad Request", {"error": "; ".join(map(_expectation, invalid))}
    if refusal := controls.refusal(request):
        return "409 Conflict", {"error": refusal}
    controls.apply(request)
    return "200 OK", controls.describe()


def _expectation(name: str) -> str:
    """Return what is allowed in a field; for an empty name, in the whole body."""
    if name in _ALLOWED:
        return f"{name}: expected {_ALLOWED[name]}"
    known = ", ".join(_ALLOWED)
    return f"{name!r} cannot be changed, only {known}" if name else f"expected a JSON object of {known}"
