"""What may be changed while the producer runs, by `/control` beside its `/health`.

Nobody is asked for a password: it is there only if `PRODUCER_CONTROLS` says so, for demonstrations.
"""

import ipaddress
import json
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, ValidationError

from data_producer.settings import ProducerSettings

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

PATH: Final = "/control"
_LONGEST_BODY: Final = 10_000
_JSON: Final = "application/json"

Count = Annotated[int, Field(ge=1, le=1_000_000)]


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

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: NonNegativeFloat | None = None
    users: Count | None = None
    items: Count | None = None
    paused: bool | None = None
    burst: Count | None = None
    """So many interactions at once, beside the usual ones."""
    malformed: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """So many records that are no interactions."""


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
    # A page from elsewhere, open in the user's browser, can neither send JSON here nor name this host.
    if not _is_local_name(environ.get("HTTP_HOST", "")):
        return "403 Forbidden", {"error": "this host has another name"}
    if environ["REQUEST_METHOD"] == "GET":
        return "200 OK", controls.flow.model_dump()
    if environ["REQUEST_METHOD"] != "POST" or environ.get("CONTENT_TYPE", "").split(";")[0] != _JSON:
        return "415 Unsupported Media Type", {"error": f"expected a POST of {_JSON}"}
    length = environ.get("CONTENT_LENGTH") or "0"
    if not length.isdigit() or int(length) > _LONGEST_BODY:
        return "413 Content Too Large", {"error": f"expected at most {_LONGEST_BODY} bytes"}
    try:
        wishes = Wishes.model_validate_json(environ["wsgi.input"].read(int(length)))
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, each['loc'])) or 'body'}: {each['msg']}" for each in error.errors()]
        return "422 Unprocessable Content", {"error": "; ".join(problems)}
    return "200 OK", controls.ask(wishes).model_dump()


def _is_local_name(host: str) -> bool:
    """Whether this is an address, or a name that no site elsewhere can have, such as a container's."""
    name = host.rsplit(":", 1)[0].strip("[]")
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "." not in name and name != ""
    return True
