"""The sink notifies people of alerts, over a real HTTP server and a real SMTP server."""

import html

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from local_stack.servers import HOST, free_port
from local_stack.services import SINK
from tests.pipeline import Pipeline, assert_equal, eventually, item_record
from tests.webhook_receiver import SECRET, webhook_receiver


class _Mailbox:
    def __init__(self) -> None:
        self.mails: list[str] = []

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        assert isinstance(envelope.content, bytes)
        self.mails.append(envelope.content.decode())
        return "250 OK"


def test_a_webhook_and_a_mailbox_get_one_message_per_alert_that_fires_or_is_resolved(pipeline: Pipeline) -> None:
    mailbox, port = _Mailbox(), free_port()
    mail_server = Controller(mailbox, hostname=HOST, port=port)
    mail_server.start()
    mail_url = f"mailto://{HOST}:{port}?from=sink@example.com&to=people@example.com&mode=insecure"
    try:
        with webhook_receiver() as hook:
            hook.requires_signature = True
            hook.status = 500
            settings = {
                "ALERT_NOTIFY": mail_url,
                "ALERT_WEBHOOK_URL": hook.url,
                "ALERT_WEBHOOK_SECRET": SECRET,
                "ALERTS_PER_MINUTE": 3,
            }
            with pipeline.running(SINK, **settings):
                pipeline.send(pipeline.settings.aggregated_topic, [item_record(1, 13)])
                eventually(lambda: assert_equal(hook.refused > 1, True))
                # A receiver that is down delays no other.
                pipeline.send(pipeline.settings.aggregated_topic, [item_record(1, 2)])
                eventually(lambda: assert_equal([a["status"] for a in pipeline.alerts()], ["resolved"]))
                eventually(lambda: assert_equal(len(mailbox.mails), 2))
                hook.status = 200
                eventually(lambda: assert_equal(len(hook.received), 2))
                # Alerts over the rate limit come as a summary.
                pipeline.send(pipeline.settings.aggregated_topic, [item_record(n, 20) for n in range(10, 20)])
                eventually(lambda: assert_equal(len(hook.received), 4))
    finally:
        mail_server.stop()
    firing, resolved, _, summary = (html.unescape(message["text"]) for message in hook.received)
    rule = "agg_interactions_item: max_interactions > 12"
    assert firing.startswith(f"*firing [warning] {rule}: item_1*\nmax_interactions was 13 when it fired")
    assert resolved.startswith(f"*resolved [warning] {rule}: item_1*")
    assert "http://localhost:5601/app/discover#/doc/alerts/alerts?id=" in firing
    assert summary.startswith(f"*{rule}: 9 firing more*")
    assert [message["alert"] and message["alert"]["status"] for message in hook.received[:2]] == ["firing", "resolved"]
    assert f"Subject: firing [warning] {rule}: item_1" in mailbox.mails[0]
    assert "To: people@example.com" in mailbox.mails[0]


def test_an_unknown_notifier_url_stops_the_sink_and_its_secret_is_not_logged(pipeline: Pipeline) -> None:
    sink = pipeline.service(SINK, ALERT_NOTIFY="pigeon://user:secret@loft")
    with pytest.raises(Exception, match="exited with a non-zero code: 2"):
        sink.start()
    assert "ALERT_NOTIFY: pigeon://… is not a URL that Apprise knows" in pipeline.log(SINK)
    assert "secret" not in pipeline.log(SINK)
