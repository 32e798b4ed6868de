"""Lists, shows and replays dead letters."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from contract.dead_letters import ELASTICSEARCH_SINK
from elasticsearch_sink_alert.kafka import dead_letter_replay
from elasticsearch_sink_alert.kafka.dead_letter_replay import NEVER_REPLAYED, DeadLetter, is_replayable
from runtime.logs import escape_controls
from runtime.settings import Settings

_COLUMNS = ("ID", "TIME", "TOPIC", "PARTITION", "OFFSET", "KEY", "REASON")
_MAX_WIDTH = 40
"""Characters up to which a column is widened for a long text."""


def show_list(settings: Settings, reason: str) -> int:
    """Print the dead letters whose reason contains this text, and their number per service."""
    found = dead_letter_replay.read_all(settings, reason)
    for line in _table([_columns(dead_letter) for dead_letter in found]):
        print(line)
    for service, number in Counter(dead_letter.service for dead_letter in found).items():
        print(f"{_count(number)} of {escape_controls(service)}")
    if not found:
        print("no dead letters" + (f" with {reason!r} in their reason" if reason else ""))
    return 0


def show_one(settings: Settings, dead_letter_id: str) -> int:
    """Print the time, headers, key and value of a dead letter; returns 1 if there is none with that id."""
    for dead_letter in dead_letter_replay.read_all(settings):
        if dead_letter.id == dead_letter_id:
            print(f"time: {dead_letter.at}")
            for name, value in dead_letter.headers.items():
                print(escape_controls(f"{name}: {value}"))
            print(f"key: {escape_controls(_as_text(dead_letter.key))}\n")
            print(escape_controls(_as_text(dead_letter.value)))
            return 0
    print(f"no dead letter has the id {dead_letter_id!r}: `dead-letters list` prints the ids", file=sys.stderr)
    return 1


def replay(settings: Settings, reason: str, *, again: bool) -> int:
    """Send the sink's dead letters to their topic again; those that were replayed before only with `again`.

    Returns 1 if the topic refuses one.
    """
    found = [each for each in dead_letter_replay.read_all(settings, reason) if again or not each.replayed]
    ours = [dead_letter for dead_letter in found if is_replayable(dead_letter.headers, dead_letter.key)]
    sent, refused = _replay_rows(settings, ours, again=again) if ours else (0, 0)
    if ours or not found:
        print(f"{sent} replayed, {len(ours) - sent - refused} skipped")
    for line in _not_replayed(found):
        print(line)
    return 1 if refused else 0


def _replay_rows(settings: Settings, ours: Sequence[DeadLetter], *, again: bool) -> tuple[int, int]:
    """Send rows to their topic again; return the number of those that it accepted, and of those that it refused."""
    sent = refused = 0
    for dead_letter, why_skipped, why_refused in dead_letter_replay.replay(settings, ours, again=again):
        if why_skipped:
            origin = escape_controls(" ".join(dead_letter.origin))
            print(f"{dead_letter.id} is skipped, {escape_controls(why_skipped)}: {origin}")
        elif why_refused:
            reason = escape_controls(why_refused)
            print(f"{dead_letter.id} is refused by {settings.aggregated_topic}: {reason}", file=sys.stderr)
            refused += 1
        else:
            sent += 1
    return sent, refused


def _not_replayed(found: Iterable[DeadLetter]) -> Iterator[str]:
    """Yield a line for each kind of dead letter that is never replayed, with the reason."""
    for service, number in Counter(each.service for each in found if each.service != ELASTICSEARCH_SINK).items():
        yield f"{_count(number)} of {escape_controls(service)}: {NEVER_REPLAYED}"
    if number := sum(each.service == ELASTICSEARCH_SINK and not each.key for each in found):
        yield f"{_count(number)} without a key: {NEVER_REPLAYED}"


def _columns(dead_letter: DeadLetter) -> tuple[str, ...]:
    """Return the texts of `_COLUMNS`."""
    reason = dead_letter.reason + "  (replayed)" * dead_letter.replayed
    texts = (dead_letter.id, dead_letter.at, *dead_letter.origin, _as_text(dead_letter.key), reason)
    return tuple(map(escape_controls, texts))


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Yield the rows below a header, in columns; nothing if there are no rows."""
    if not rows:
        return
    lines = [_COLUMNS, *rows]
    widths = [min(max(map(len, column)), _MAX_WIDTH) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()


def _count(number: int) -> str:
    return "1 dead letter" if number == 1 else f"{number} dead letters"


def _as_text(data: bytes | None) -> str:
    """Return a key or value for the terminal."""
    if data is None:
        return "none"
    return data.decode(errors="backslashreplace") if data else "empty"
