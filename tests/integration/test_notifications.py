"""People are told of alerts: over a real HTTP server, and a real SMTP one."""

import hashlib
import hmac
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from local_stack.servers import HOST, free_port
from local_stack.services import SINK
from tests.pipeline import Pipeline, assert_equal, eventually, item_record

SECRET = "a secret of the test's"


class Receiver(ThreadingHTTPServer):
    """Takes what is posted, once it is not failing."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((HOST, 0), _Handler)
        self.failing = False
        self.refused = 0
        self.taken: list[dict[str, Any]] = []


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        expected = "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        if self.server.failing or self.headers["X-Signature-256"] != expected:
            self.server.refused += 1
            self.send_response(500)
        else:
            self.server.taken.append(orjson.loads(body))
            self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def _receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


class _Mailbox:
    def __init__(self) -> None:
        self.mails: list[str] = []

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        assert isinstance(envelope.content, bytes)
        self.mails.append(envelope.content.decode())
        return "250 OK"


def test_a_webhook_and_a_mailbox_get_one_message_per_firing_and_per_resolution(pipeline: Pipeline) -> None:
    mailbox, port = _Mailbox(), free_port()
    mail_server = Controller(mailbox, hostname=HOST, port=port)
    mail_server.start()
    mail_url = f"mailto://{HOST}:{port}?from=sink@example.com&to=people@example.com&mode=insecure"
    try:
        with _receiver() as hook:
            hook.failing = True
            told = {
                "ALERT_NOTIFY": mail_url,
                "ALERT_WEBHOOK_URL": f"http://{HOST}:{hook.server_port}/alerts",
                "ALERT_WEBHOOK_SECRET": SECRET,
                "ALERTS_PER_MINUTE": 3,
            }
            with pipeline.running(SINK, **told):
                pipeline.send(pipeline.settings.aggregated_topic, [item_record(1, 13)])
                eventually(lambda: assert_equal(hook.refused > 1, True))
                # A receiver that is down is in nobody's way.
                pipeline.send(pipeline.settings.aggregated_topic, [item_record(1, 2)])
                eventually(lambda: assert_equal([a["status"] for a in pipeline.alerts()], ["resolved"]))
                eventually(lambda: assert_equal(len(mailbox.mails), 2))
                hook.failing = False
                eventually(lambda: assert_equal(len(hook.taken), 2))
                # What is too much for anybody to read comes as a summary.
                pipeline.send(pipeline.settings.aggregated_topic, [item_record(n, 20) for n in range(10, 20)])
                eventually(lambda: assert_equal(len(hook.taken), 4))
    finally:
        mail_server.stop()
    firing, resolved, _, summary = (message["text"] for message in hook.taken)
    rule = "agg_interactions_item: max_interactions > 12"
    assert firing.startswith(f"*firing [warning] {rule}: item_1*\nmax_interactions was 13 when it fired")
    assert resolved.startswith(f"*resolved [warning] {rule}: item_1*")
    assert "http://localhost:5601/app/discover#/doc/alerts/alerts?id=" in firing
    assert summary.startswith(f"*{rule}: 9 firing more*")
    assert [message["alert"] and message["alert"]["status"] for message in hook.taken[:2]] == ["firing", "resolved"]
    assert f"Subject: firing [warning] {rule}: item_1" in mailbox.mails[0]
    assert "To: people@example.com" in mailbox.mails[0]


def test_an_unknown_notification_url_stops_the_sink_without_logging_its_secrets(pipeline: Pipeline) -> None:
    sink = pipeline.service(SINK, ALERT_NOTIFY="pigeon://user:secret@loft")
    with pytest.raises(Exception, match="exited with a non-zero code: 2"):
        sink.start()
    assert "pigeon://… is no URL that Apprise knows" in pipeline.log(SINK)
    assert "secret" not in pipeline.log(SINK)
