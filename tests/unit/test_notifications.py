"""Notifiers, their retries, the texts and the settings, against a real local HTTP server where one is needed."""

import html
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from email import message_from_bytes
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from elasticsearch_sink_alert.alerting.alert_lifecycle import Alert
from elasticsearch_sink_alert.alerting.notifications import Notifications
from elasticsearch_sink_alert.alerting.notifications.apprise import AppriseNotifier
from elasticsearch_sink_alert.alerting.notifications.delivery import NotifierQueue
from elasticsearch_sink_alert.alerting.notifications.notifier import Message, Notifier, NotSentError, RefusedError
from elasticsearch_sink_alert.alerting.notifications.rate_limit import RateLimiter, Summary
from elasticsearch_sink_alert.alerting.notifications.schemes import create_notifiers
from elasticsearch_sink_alert.alerting.notifications.texts import (
    ALERT_PLACEHOLDERS,
    DEFAULT_TEMPLATE,
    SUMMARY_PLACEHOLDERS,
    TemplateError,
    Texts,
    alert_values,
    summary_values,
)
from elasticsearch_sink_alert.alerting.notifications.webhook import Webhook
from elasticsearch_sink_alert.settings import SinkSettings
from pydantic import SecretStr

from local_stack.servers import HOST, free_port
from tests.webhook_receiver import SECRET, WebhookReceiver, webhook_receiver

KIBANA = "http://kibana:5601/"
ALERT = Alert(
    alert_id="a1",
    version=7,
    rule="busy",
    alert_text="total_interactions > 100",
    severity="critical",
    index="agg_interactions_user",
    id="user_1",
    field="total_interactions",
    operator=">",
    threshold=100,
    value=101,
    row={"user_id": "user_1", "total_interactions": 101},
    fired_at="2026-01-31T12:00:00.000Z",
)
LATER = "2026-01-31T12:05:00.000Z"
SUMMARY = Summary("busy", Counter({"resolved": 1, "firing": 2}), 20)


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with webhook_receiver() as server:
        yield server


def _webhook(receiver: WebhookReceiver) -> Notifier:
    return Webhook(receiver.url, SECRET)


def _apprise(receiver: WebhookReceiver) -> Notifier:
    return AppriseNotifier(receiver.url.replace("http://", "json://"))


NOTIFIERS = pytest.mark.parametrize("notifier", [_webhook, _apprise])


def _send(notifier: Notifier, *titles: str) -> None:
    """Send messages through a queue until it is empty."""
    queue = NotifierQueue(notifier)
    for title in titles:
        queue.put(Message(title, "text"))
    deadline = time.monotonic() + 20
    while queue.is_busy:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


@NOTIFIERS
@pytest.mark.parametrize("status", [400, 401, 403, 404, 413])
def test_a_permanent_refusal_fails_at_once_and_does_not_block_the_next_message(
    receiver: WebhookReceiver,
    notifier: Callable[[WebhookReceiver], Notifier],
    status: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver.statuses = [status]
    _send(notifier(receiver), "first", "second")
    assert (receiver.refused, len(receiver.received)) == (1, 1)
    assert "second" in str(receiver.received)
    (error,) = _errors(caplog)
    name, setting = ("webhook", "ALERT_WEBHOOK") if notifier is _webhook else ("json", "ALERT_NOTIFY")
    assert error.startswith(f"{name}: not sent, not retried")
    assert f"responded {status}: " in error
    assert setting in error or "README" in error
    assert error.endswith(": first")


@pytest.mark.parametrize("id_", ["<!channel>", "<@U024BE7LH>", "<https://evil.example.com|your bank>", "a&lt;b"])
def test_an_id_in_a_message_for_chat_is_text_and_neither_a_mention_nor_a_link(
    receiver: WebhookReceiver, id_: str
) -> None:
    alert = replace(ALERT, id=id_)
    _webhook(receiver).send(Texts.load(None, KIBANA).of_alert(alert))
    (received,) = receiver.received
    assert not set("<>") & set(received["text"])
    # A reader sees the id as it is, and so does a program.
    assert id_ in html.unescape(received["text"])
    assert received["alert"]["id"] == id_


@NOTIFIERS
@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_transient_refusal_is_retried(
    receiver: WebhookReceiver,
    notifier: Callable[[WebhookReceiver], Notifier],
    status: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver.statuses = [status]
    _send(notifier(receiver), "first")
    assert (receiver.refused, len(receiver.received)) == (1, 1)
    assert _errors(caplog) == []


@NOTIFIERS
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_reported_once_without_the_secrets_of_its_target(
    receiver: WebhookReceiver,
    notifier: Callable[[WebhookReceiver], Notifier],
    status: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with webhook_receiver() as target:
        receiver.statuses = [status]
        receiver.location = target.url.replace("http://", "http://user:word@") + "?token=secret"
        _send(notifier(receiver), "first", "second")
        assert (receiver.refused, len(receiver.received)) == (1, 1)
        assert (target.received, target.refused, target.gets) == ([], 0, 0)
    (error,) = _errors(caplog)
    assert f"responded {status}" in error
    assert "redirects are not followed" in error
    assert all(secret not in caplog.text for secret in ("word", "token"))
    if notifier is _webhook:
        assert f"a redirect to http://{HOST}:{target.server_port}/…: " in error
        assert "use it in ALERT_WEBHOOK_URL" in error
    else:
        assert "ALERT_NOTIFY" in error


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/moved", " to http://{own}/…"),
        ("//hooks.example.com/x", " to http://hooks.example.com/…"),
        ("file:///etc/passwd", ""),
        ("http://[half", ""),
        ("", ""),
        ("http://evil\x1b[2J.example.com/", ""),
        ("http://a.example.com:99999/", ""),
    ],
)
def test_the_target_of_a_redirect_is_named_if_it_is_a_web_address(
    receiver: WebhookReceiver, location: str, target: str
) -> None:
    receiver.status, receiver.location = 307, location
    with pytest.raises(RefusedError) as raised:
        _webhook(receiver).send(Message("title", "text"))
    shown = target.format(own=f"{HOST}:{receiver.server_port}")
    assert str(raised.value) == f"the receiver responded 307, a redirect{shown}"


@NOTIFIERS
def test_a_receiver_that_does_not_listen_is_worth_a_retry(notifier: Callable[[WebhookReceiver], Notifier]) -> None:
    with webhook_receiver() as server:
        unreachable = notifier(server)
    with pytest.raises(NotSentError):
        unreachable.send(Message("title", "text"))


def test_a_wrong_secret_is_reported_with_its_setting(receiver: WebhookReceiver) -> None:
    with pytest.raises(RefusedError, match="the receiver responded 403") as raised:
        Webhook(receiver.url, "another secret").send(Message("title", "text"))
    assert raised.value.remedy == "set ALERT_WEBHOOK_SECRET to the receiver's secret"


def test_a_webhook_url_that_is_not_valid_is_not_retried() -> None:
    with pytest.raises(RefusedError, match=r"the URL is not valid \(InvalidURL\)"):
        Webhook("http://", "").send(Message("title", "text"))


def test_a_notifier_that_breaks_does_not_block_the_next_message(caplog: pytest.LogCaptureFixture) -> None:
    sent = []

    class Broken:
        name = "broken"

        def send(self, message: Message) -> None:
            if message.title == "first":
                raise ZeroDivisionError
            sent.append(message.title)

    _send(Broken(), "first", "second")
    assert sent == ["second"]
    assert _errors(caplog) == ["broken: not sent: first"]


def test_a_line_break_in_an_id_adds_no_header_and_no_recipient_to_an_email() -> None:
    envelopes: list[Envelope] = []

    class Mailbox:
        async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
            envelopes.append(envelope)
            return "250 OK"

    port = free_port()
    server = Controller(Mailbox(), hostname=HOST, port=port)
    server.start()
    try:
        url = f"mailto://{HOST}:{port}?from=sink@example.com&to=people@example.com&mode=insecure"
        AppriseNotifier(url).send(Message("firing: a\r\nBcc: evil@example.com\nX-Evil: b\r\n\r\nc", "text"))
    finally:
        server.stop()
    (envelope,) = envelopes
    assert isinstance(envelope.content, bytes)
    mail = message_from_bytes(envelope.content)
    assert envelope.rcpt_tos == ["people@example.com"]
    assert (mail["Bcc"], mail["X-Evil"]) == (None, None)
    assert "evil@example.com" in mail["Subject"]


def _settings(**values: object) -> SinkSettings:
    return SinkSettings.model_validate(values)


def test_each_url_finds_its_notifier_by_its_scheme() -> None:
    settings = _settings(
        alert_notify=SecretStr("json://one.example.com  mailto://user:secret@example.com"),
        alert_webhook_url=SecretStr("HTTPS://hooks.example.com/alerts"),
    )
    assert [notifier.name for notifier in create_notifiers(settings)] == ["json", "mailto", "webhook"]
    assert create_notifiers(_settings()) == []


@pytest.mark.parametrize(
    ("setting", "url", "reason"),
    [
        ("ALERT_NOTIFY", "pigeon://user:secret@loft", "pigeon://… is not a URL that Apprise knows"),
        ("ALERT_NOTIFY", "https://example.com/secret", "https://… is not a URL that Apprise knows"),
        ("ALERT_NOTIFY", "secret@example.com", "a URL has no ://, expected scheme://..."),
        ("ALERT_WEBHOOK_URL", "ftp://user:secret@example.com", "ftp://… is not supported: expected http or https"),
        ("ALERT_WEBHOOK_URL", "example.com/secret", "a URL has no ://, expected scheme://..."),
    ],
)
def test_a_url_of_no_notifier_is_reported_with_its_setting_and_without_its_secret(
    setting: str, url: str, reason: str
) -> None:
    with pytest.raises(ValueError, match=f"^{setting}: ") as raised:
        create_notifiers(_settings(**{setting.lower(): SecretStr(url)}))
    assert reason in str(raised.value)
    assert "secret" not in str(raised.value)


def test_only_alerts_that_fire_or_are_resolved_are_sent_with_their_document(receiver: WebhookReceiver) -> None:
    notifications = Notifications([_webhook(receiver)], Texts.load(None, KIBANA), RateLimiter(20))
    resolved = replace(ALERT, status="resolved", resolved_at=LATER)
    notifications.notify([ALERT, replace(ALERT, status="waiting"), resolved])
    notifications.drain(10)
    assert [message["alert"] for message in receiver.received] == [ALERT.document(), resolved.document()]


def test_the_default_texts() -> None:
    texts = Texts.load(None, KIBANA)
    assert texts.of_alert(ALERT) == Message(
        "firing [critical] busy: user_1",
        "total_interactions was 101 when it fired, the rule is total_interactions > 100\n"
        "fired at 2026-01-31T12:00:00.000Z\n"
        "http://kibana:5601/app/discover#/doc/alerts/alerts?id=a1",
        ALERT,
    )
    assert texts.of_summary(SUMMARY) == Message(
        "busy: 2 firing and 1 resolved more", "within a minute, beyond the first 20"
    )


def test_the_default_text_of_a_resolved_alert_over_a_change() -> None:
    alert = replace(ALERT, status="resolved", resolved_at=LATER, alert_text="total_interactions > 100 within 60 s")
    assert Texts.load(None, KIBANA).of_alert(alert).text.splitlines()[:2] == [
        "total_interactions had changed by 101 when it fired, the rule is total_interactions > 100 within 60 s",
        "fired at 2026-01-31T12:00:00.000Z, resolved at 2026-01-31T12:05:00.000Z",
    ]


def test_every_placeholder_has_a_value() -> None:
    assert set(alert_values(ALERT, KIBANA)) == set(ALERT_PLACEHOLDERS)
    assert set(summary_values(SUMMARY)) == set(SUMMARY_PLACEHOLDERS)


def test_a_template_file_replaces_the_texts(tmp_path: Path) -> None:
    template = tmp_path / "alert.txt"
    template.write_text("$$ $rule: ${id}!\r\n\n$value$operator$threshold $resolved_at\n---\n$limit+ of $rule\n")
    texts = Texts.load(template, KIBANA)
    assert texts.of_alert(ALERT)[:2] == ("$ busy: user_1!", "\n101>100 ")
    assert texts.of_summary(SUMMARY)[:2] == ("20+ of busy", "")


def test_a_template_file_without_a_summary_keeps_the_default_summary(tmp_path: Path) -> None:
    template = tmp_path / "alert.txt"
    template.write_text("$rule")
    texts = Texts.load(template, KIBANA)
    assert texts.of_alert(ALERT)[:2] == ("busy", "")
    assert texts.of_summary(SUMMARY) == Texts.load(None, KIBANA).of_summary(SUMMARY)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"$rule\n\n$colour", ":3: unknown placeholder $colour: expected $status, $severity, $rule, "),
        (b"${rule.name}", ":1: a $ without a placeholder: write $$ for a dollar sign"),
        (b"costs 5 $", ":1: a $ without a placeholder"),
        (b"$rule\n---\nsummary\n$id", ":4: unknown placeholder $id: expected $rule, $counts, $limit"),
        (b"", ":1: expected a title on the first line of a template"),
        (b"$rule\n---\n", ":3: expected a title on the first line of a template"),
        (b"\n\xff", ":2: not UTF-8 text: save it as UTF-8"),
        (None, " does not exist"),
    ],
)
def test_a_template_that_cannot_be_used_is_one_line(tmp_path: Path, content: bytes | None, problem: str) -> None:
    template = tmp_path / "alert.txt"
    if content is not None:
        template.write_bytes(content)
    with pytest.raises(TemplateError) as raised:
        Texts.load(template, KIBANA)
    assert str(raised.value).startswith(f"{template}{problem}")
    assert str(raised.value).isprintable()


def test_a_relative_template_stands_beside_the_data_mapper(tmp_path: Path) -> None:
    (tmp_path / "alert.txt").write_text("$nothing")
    settings = _settings(data_mapper=tmp_path / "mapper.yml", alert_template="alert.txt")
    with pytest.raises(TemplateError, match=r"alert\.txt:1: unknown placeholder \$nothing"):
        Notifications.from_settings(settings)
    Notifications.from_settings(_settings(data_mapper=tmp_path / "mapper.yml", alert_template=DEFAULT_TEMPLATE))
