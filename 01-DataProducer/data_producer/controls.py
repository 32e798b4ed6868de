"""What may be changed while the producer runs, by `/control` beside its `/health`.

Nobody is asked for a password: it is there only if `PRODUCER_CONTROLS` says so, for demonstrations.
"""

import json
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, ValidationError, field_validator

from data_producer.settings import ProducerSettings

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

PATH: Final = "/control"
_LONGEST_BODY: Final = 10_000
_LONGEST_NAME: Final = 40
_JSON: Final = "application/json"

_FASTEST: Final = 1e-6
_SLOWEST: Final = 86_400.0

Count = Annotated[int, Field(ge=1, le=1_000_000)]
Rate = Annotated[float, Field(ge=0, le=_SLOWEST, allow_inf_nan=False)]

_BOUNDS: Final = {
    "rate": f"a number of seconds between interactions, 0 (as fast as it goes) or {_FASTEST:f} to {_SLOWEST:,.0f}",
    "users": "a whole number from 1 to 1,000,000",
    "items": "a whole number from 1 to 1,000,000",
    "paused": "true or false",
    "burst": "a whole number from 1 to 1,000,000",
    "malformed": "a whole number from 1 to 10,000",
}
"""What may be asked for, in words."""


class Flow(BaseModel):
    """How the producer sends."""

    model_config = ConfigDict(frozen=True)

    rate: NonNegativeFloat
    """Seconds between interactions; 0: as fast as it goes."""
    users: Count
    items: Count
    paused: bool = False


class Wishes(BaseModel):
    """What somebody wants changed; what is None stays."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    rate: Rate | None = None
    users: Count | None = None
    items: Count | None = None
    paused: bool | None = None
    burst: Count | None = None
    """So many interactions at once, beside the usual ones."""
    malformed: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """So many records that are no interactions."""

    @field_validator("rate")
    @classmethod
    def _is_a_pace(cls, rate: float) -> float:
        if 0 < rate < _FASTEST:
            raise ValueError(f"below {_FASTEST}")
        return rate

    @field_validator("*", mode="before")
    @classmethod
    def _is_there(cls, value: Any) -> Any:
        # What is to stay is left out.
        if value is None:
            raise ValueError("null")
        return value


class Controls:
    """How to send, as it was last asked for. Safe to use from several threads.

    >>> controls = Controls(Flow(rate=1, users=10, items=10))
    >>> controls.ask(Wishes(users=5, burst=100)).users
    5
    >>> controls.take_extras(), controls.take_extras()
    ((100, 0), (0, 0))
    """

    def __init__(self, flow: Flow) -> None:
        self._lock = threading.Lock()
        self._flow = flow
        self._burst = 0
        self._malformed = 0

    @classmethod
    def of(cls, settings: ProducerSettings) -> "Controls":
        """What the settings say, to begin with; they may go beyond what may be asked for."""
        flow = Flow.model_construct(
            rate=settings.producer_rate,
            users=settings.random_data_max_users,
            items=settings.random_data_max_items,
        )
        return cls(flow)

    @property
    def flow(self) -> Flow:
        """How to send from now on."""
        with self._lock:
            return self._flow

    def ask(self, wishes: Wishes) -> Flow:
        """Have it changed."""
        with self._lock:
            changes = wishes.model_dump(exclude_none=True, exclude={"burst", "malformed"})
            self._flow = self._flow.model_copy(update=changes)
            self._burst += wishes.burst or 0
            self._malformed += wishes.malformed or 0
            return self._flow

    def take_extras(self) -> tuple[int, int]:
        """The interactions and malformed records that are to be sent at once, and have not been taken yet."""
        with self._lock:
            extras = self._burst, self._malformed
            self._burst = self._malformed = 0
            return extras


def application(controls: Controls) -> "WSGIApplication":
    """GET tells the flow as JSON; POST takes wishes as JSON and answers with the flow, or 4xx and why."""

    def app(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        status, body = _answer(controls, environ)
        start_response(status, [("Content-Type", _JSON)])
        return [json.dumps(body).encode()]

    return app


def _answer(controls: Controls, environ: "WSGIEnvironment") -> tuple[str, object]:
    if environ["REQUEST_METHOD"] == "GET":
        return "200 OK", controls.flow.model_dump()
    # Browsers alone name an origin: nobody's browser has anything to ask for here, whatever site it is at.
    if "HTTP_ORIGIN" in environ:
        return "403 Forbidden", {"error": "pages in a browser cannot change this: use the live page, or curl"}
    if environ["REQUEST_METHOD"] != "POST" or environ.get("CONTENT_TYPE", "").split(";")[0] != _JSON:
        return "415 Unsupported Media Type", {"error": f"expected a POST of {_JSON}"}
    length = environ.get("CONTENT_LENGTH") or "0"
    if not length.isdigit() or int(length) > _LONGEST_BODY:
        return "413 Content Too Large", {"error": f"expected at most {_LONGEST_BODY} bytes"}
    try:
        wishes = Wishes.model_validate_json(environ["wsgi.input"].read(int(length)))
    except ValidationError as error:
        wrong = dict.fromkeys(str(each["loc"][0])[:_LONGEST_NAME] if each["loc"] else "" for each in error.errors())
        return "400 Bad Request", {"error": "; ".join(map(_expected, wrong))}
    return "200 OK", controls.ask(wishes).model_dump()


def _expected(name: str) -> str:
    """What is allowed for a field that was wrong; for the whole body where it is no name of a field."""
    if name in _BOUNDS:
        return f"{name}: expected {_BOUNDS[name]}"
    known = ", ".join(_BOUNDS)
    return f"{name!r} cannot be changed, only {known}" if name else f"expected a JSON object of {known}"
