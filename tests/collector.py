"""A collector of OpenTelemetry traces: takes them over OTLP/HTTP, and keeps their spans in memory."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from local_stack.servers import HOST


@dataclass(frozen=True)
class ReceivedSpan:
    """A span as the collector has received it."""

    service: str
    name: str
    trace: bytes
    id: bytes
    parent: bytes
    links: frozenset[bytes]
    """The ids of the spans that it is linked to."""
    start_ns: int
    end_ns: int
    attributes: dict[str, str | int]


@dataclass
class Collector:
    """The spans that were received so far, in the order of their arrival."""

    url: str
    spans: list[ReceivedSpan] = field(default_factory=list)

    def named(self, name: str) -> list[ReceivedSpan]:
        """Return the spans with a name."""
        return [span for span in list(self.spans) if span.name == name]

    def path(self, span: ReceivedSpan) -> list[ReceivedSpan]:
        """Return the span and its ancestors in the same trace, up to the root or to a span that is missing."""
        by_id = {(each.trace, each.id): each for each in list(self.spans)}
        path = [span]
        while (parent := by_id.get((span.trace, path[-1].parent))) is not None:
            path.append(parent)
        return path


@contextmanager
def collector(port: int = 0) -> Iterator[Collector]:
    """Run a collector on a port, by default a free one."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert (self.path, self.headers["content-type"]) == ("/v1/traces", "application/x-protobuf")
            collected.spans.extend(_spans(ExportTraceServiceRequest.FromString(body)))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((HOST, port), Handler)
    collected = Collector(f"http://{HOST}:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, name="collector")
    thread.start()
    try:
        yield collected
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _spans(request: ExportTraceServiceRequest) -> Iterator[ReceivedSpan]:
    for of_resource in request.resource_spans:
        service = str(_values(of_resource.resource.attributes)["service.name"])
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                yield ReceivedSpan(
                    service,
                    span.name,
                    span.trace_id,
                    span.span_id,
                    span.parent_span_id,
                    frozenset(link.span_id for link in span.links),
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    _values(span.attributes),
                )


def _values(attributes: Any) -> dict[str, str | int]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
