"""OpenTelemetry traces, sent over OTLP/HTTP in the background.

A service imports this module only if `OTEL_EXPORTER_OTLP_ENDPOINT` is set: the SDK takes 0.2 s and 6 MB to import. The
context of a trace is in a record's header `contract.topics.TRACEPARENT`, in the form of W3C Trace Context.
"""

import logging
import threading
from collections.abc import Sequence
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from contract.topics import TRACEPARENT
from runtime.addresses import shown
from runtime.logs import escape_controls

logger = logging.getLogger(__name__)

Attributes = dict[str, str | int]
_PATH: Final = "/v1/traces"
_EXPORT_TIMEOUT: Final = 5.0
"""Seconds for a request with its retries. Meanwhile a queue of 2,048 spans fills up, and later ones are dropped."""
_CLOSE_TIMEOUT: Final = 1.0
"""Seconds to send the last spans: with the rest of a shutdown, less than the 10 s that a container has."""
_PROPAGATOR: Final = TraceContextTextMapPropagator()


class Traces:
    """Creates the spans of a service, each of a trace that is sampled."""

    def __init__(self, service: str, endpoint: str) -> None:
        """Start to send spans to an OTLP endpoint, such as http://localhost:4318, in a thread of its own."""
        # The caller decides what is sampled, and so creates no other spans.
        self._provider = TracerProvider(
            sampler=ALWAYS_ON, resource=Resource.create({SERVICE_NAME: service}), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(_Exporter(endpoint)))
        self._tracer = self._provider.get_tracer(service)

    def start(
        self,
        name: str,
        kind: SpanKind,
        attributes: Attributes,
        *,
        parent: Context | None = None,
        links: Sequence[Context] = (),
        start_ns: int | None = None,
    ) -> Span:
        """Start a span, by default a root and now; times are nanoseconds since the epoch."""
        others = [Link(trace.get_current_span(context).get_span_context()) for context in links]
        return self._tracer.start_span(
            name, context=parent or Context(), kind=kind, attributes=attributes, links=others, start_time=start_ns
        )

    def close(self) -> None:
        """Send the last spans, within a second; raises nothing."""
        closing = threading.Thread(target=self._provider.shutdown, name="closing traces", daemon=True)
        closing.start()
        closing.join(_CLOSE_TIMEOUT)


def context_of(span: Span) -> Context:
    """Return the context in which children of this span are started."""
    return trace.set_span_in_context(span, Context())


def header_of(span: Span) -> str:
    """Return the value of the header that continues the trace of this span; empty with OTEL_SDK_DISABLED."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, context_of(span))
    return carrier.get(TRACEPARENT, "")


def context_in(header: str | None) -> Context | None:
    """Return the context in the header of a record; None if it has none, or if its trace is not sampled.

    >>> context_in("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00") is None
    True
    """
    if not header:
        return None
    context = _PROPAGATOR.extract({TRACEPARENT: header}, Context())
    return context if trace.get_current_span(context).get_span_context().trace_flags.sampled else None


class _Exporter(SpanExporter):
    """Sends spans, and logs once that they cannot be sent, and that they are sent again."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._exporter = OTLPSpanExporter(endpoint.rstrip("/") + _PATH, timeout=_EXPORT_TIMEOUT)
        self._has_failed = False
        self._reasons = _Reasons()
        # The SDK logs each attempt, and each span that it drops.
        of_sdk = logging.getLogger("opentelemetry")
        of_sdk.propagate = False
        of_sdk.handlers = [self._reasons]

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._reasons.first = ""
        result = self._exporter.export(spans)
        has_failed = result is not SpanExportResult.SUCCESS
        if has_failed and not self._has_failed:
            logger.warning(
                "traces cannot be sent to OTEL_EXPORTER_OTLP_ENDPOINT=%s, and are dropped until it answers: %s",
                shown(self._endpoint), self._reasons.first,
            )  # fmt: skip
        elif self._has_failed and not has_failed:
            logger.info("traces are sent again")
        self._has_failed = has_failed
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


class _Reasons(logging.Handler):
    """Keeps the first message of an attempt, which has the reason of its failure."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.first = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.first = self.first or escape_controls(record.getMessage())
