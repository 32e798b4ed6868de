"""The records of a topic: live or paused, filtered, and each of them opened."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from elasticsearch_sink_alert.kafka.dead_letter_replay import NEVER_REPLAYED, is_replayable
from nicegui import events, ui

from contract import dead_letters
from live_page.address import current_query, set_query, whole
from live_page.components import Column, Panel, RecordTable, button, hint, report
from live_page.formatting import UNKNOWN, format_bytes, format_count, format_json, format_text, format_time
from live_page.sources import Sources
from live_page.sources.errors import EmptyError
from live_page.sources.records import (
    MAX_CHARACTERS,
    SEARCHED_RECORDS,
    Found,
    Record,
    RecordQuery,
    as_time,
    format_offsets,
    parse_offsets,
)

FILTERS: Final = ("partition", "offset", "time", "key", "text")
"""The filters, by their names in the address."""
RECORDS = (
    Column("at", "Time (UTC)"),
    Column("position", "Partition-offset", is_minor=True),
    Column("record_key", "Key"),
    Column("value", "Value", wraps=True),
)
DEAD_LETTERS = (
    Column("at", "Time (UTC)"),
    Column("position", "Partition-offset", is_minor=True),
    Column("reason", "Reason", wraps=True),
    Column("origin", "Source", is_minor=True, wraps=True),
    Column("value", "Value", wraps=True),
)
_MAX_FILTER = 600
"""Characters."""
_MAX_PARTITION = 999_999
_MAX_OFFSET = 2**63 - 1
_TIME_HINT = "Such as 14:05 or 2026-01-31 14:05:00"
_ROW = """
<q-tr :key="props.key" :props="props" :class="{opened: props.row.detail}">
  <q-td v-for="(col, n) in props.cols" :key="col.name" :props="props">
    <button v-if="n === 0" type="button" class="opener" :aria-expanded="props.row.detail ? 'true' : 'false'"
      :aria-label="`Record ${props.key}`" @click="$parent.$emit('open', props.key)">
      <span aria-hidden="true">{{ props.row.detail ? "▾" : "▸" }}</span> {{ col.value }}
    </button>
    <div v-else class="cell" :title="col.value">{{ col.value }}</div>
  </q-td>
</q-tr>
<q-tr v-if="props.row.detail" :key="`${props.key} detail`" :props="props" no-hover>
  <q-td colspan="100%" class="detail">
    <div class="record">
      <dl><template v-for="[name, text] in props.row.detail.facts" :key="name">
        <dt>{{ name }}</dt><dd>{{ text }}</dd>
      </template></dl>
      <div class="title">{{ props.row.detail.headers_title }}</div>
      <dl v-if="props.row.detail.headers.length"><template v-for="([name, text], n) in props.row.detail.headers"
        :key="n"><dt>{{ name }}</dt><dd>{{ text }}</dd></template></dl>
      <div class="title">{{ props.row.detail.value_title }}</div>
      <pre tabindex="0" role="region" :aria-label="props.row.detail.value_title">{{ props.row.detail.value }}</pre>
      <div v-if="props.row.detail.replay" class="replay">
        <q-btn v-if="props.row.detail.can_replay" no-caps unelevated color="primary" label="Replay …"
          @click="$parent.$emit('replay', props.key)"></q-btn>
        <span>{{ props.row.detail.replay }}</span>
      </div>
    </div>
  </q-td>
</q-tr>
"""


class OpenableTable(RecordTable):
    """A table whose rows open to what their field `detail` has; emits `open` and `replay` with the row's key."""

    def __init__(self, columns: Sequence[Column], empty: str, *, height: str = "") -> None:
        super().__init__(columns, empty, height=height)
        self.add_slot("body", _ROW)


class RecordsPanel:
    """The records of the chosen topic, and their filters; all of it is in the address."""

    def __init__(self, sources: Sources, topic: ui.toggle) -> None:
        self._sources = sources
        self._topic = topic
        query = current_query()
        self._until = parse_offsets(query.get("until", ""))
        self._open = query.get("open", "") if len(parse_offsets(query.get("open", ""))) == 1 else ""
        self._detail: tuple[str, dict[str, Any]] | None = None
        self._found: Found | None = None
        with Panel("Records") as self._panel:
            with ui.row().classes("items-start gap-x-3 gap-y-2 w-full"):
                self._filters = {name: self._filter(name, query.get(name, "")[:_MAX_FILTER]) for name in FILTERS}
            hint(
                "Key: the whole key. Text: a part of key, value or a header, in any case."
                f" A search reads {SEARCHED_RECORDS:,} records."
            )
            with ui.row().classes("items-center gap-3 w-full"):
                self._pause = button("Pause", self._switch).classes("shrink-0")
                self._about = ui.label().classes("text-sm min-w-0 tabular-nums").props("data-about")
            self._table = OpenableTable(self._columns(), "No records", height="min-h-96")
        self._table.on("open", self._on_open)
        self._table.on("replay", self._confirm_replay)
        self._panel.refresh_from(
            self._read, self._show, show_empty=self._show_empty, clear=lambda: self._about.set_text("")
        )
        self._topic.on_value_change(self._on_topic)
        self._show_problems()
        self._show_pause()

    def _filter(self, name: str, value: str) -> ui.input:
        label = {
            "partition": "Partition", "offset": "From offset", "time": "From time (UTC)", "key": "Key", "text": "Text",
        }[name]  # fmt: skip
        width = {"partition": "w-24", "offset": "w-32", "time": "w-52"}.get(name, "grow min-w-32 max-w-xs")
        element = ui.input(label=label, value=value).classes(width)
        element.props(f'dense outlined clearable hide-bottom-space debounce="400" maxlength="{_MAX_FILTER}"')
        element.on_value_change(self._on_filter)
        return element

    def _columns(self) -> tuple[Column, ...]:
        is_of_dead_letters = self._topic.value == self._sources.settings.dead_letter_topic
        return DEAD_LETTERS if is_of_dead_letters else RECORDS

    def _text(self, name: str) -> str:
        return (self._filters[name].value or "").strip()

    def _problems(self) -> dict[str, str]:
        """Return by filter what is wrong with its text."""
        problems = {
            name: "A whole number"
            for name, highest in (("partition", _MAX_PARTITION), ("offset", _MAX_OFFSET))
            if self._text(name) and whole(self._text(name), 0, highest, -1) < 0
        }
        if self._text("time") and as_time(self._text("time")) is None:
            problems["time"] = _TIME_HINT
        return problems

    def _show_problems(self) -> dict[str, str]:
        problems = self._problems()
        for name, element in self._filters.items():
            element.error = problems.get(name)
        return problems

    def _query(self) -> RecordQuery:
        """Return what the filters say, without those that cannot be read."""
        partition = whole(self._text("partition"), 0, _MAX_PARTITION, -1)
        offset = whole(self._text("offset"), 0, _MAX_OFFSET, -1)
        query = RecordQuery(
            self._topic.value,
            partition=None if partition < 0 else partition,
            offset=None if offset < 0 else offset,
            since=as_time(self._text("time")) if self._text("time") else None,
            key=self._text("key"),
            text=self._text("text"),
        )
        return query if query.is_forward else replace(query, until=self._until)

    def _read(self) -> tuple[RecordQuery, Found, tuple[str, dict[str, Any]] | None]:
        query = self._query()
        found = self._sources.records.read(query)
        opened, detail = self._open, self._detail
        if opened and (detail is None or detail[0] != f"{query.topic} {opened}"):
            ((partition, offset),) = parse_offsets(opened)
            try:
                shown = self._sources.records.record(query.topic, partition, offset)
                detail = f"{query.topic} {opened}", self._detail_of(query.topic, shown)
            except EmptyError as reason:
                detail = f"{query.topic} {opened}", _missing(str(reason))
        return query, found, detail

    def _show(self, read: tuple[RecordQuery, Found, tuple[str, dict[str, Any]] | None]) -> None:
        query, found, detail = read
        # The reader has changed a filter meanwhile.
        if query != self._query():
            return
        self._found, self._detail = found, detail
        opened = detail[1] if detail is not None and detail[0] == f"{query.topic} {self._open}" else None
        rows = [self._row(record) for record in found.records]
        for row in rows:
            if opened is not None and row["key"] == self._open:
                row["detail"] = opened
        if opened is not None and not any("detail" in row for row in rows):
            # Of an address whose list has others.
            rows.insert(0, {**_no_row(self._open), "detail": opened})
        if rows != self._table.rows:
            self._table.rows = rows
        self._about.set_text(describe(query, found))
        self._show_pause()

    def _show_empty(self, _: EmptyError) -> None:
        self._about.set_text("")

    def _row(self, record: Record) -> dict[str, Any]:
        row = record_row(record)
        return row | dead_letter_columns(record) if self._columns() is DEAD_LETTERS else row

    def _detail_of(self, topic: str, record: Record) -> dict[str, Any]:
        """Return what an opened row shows."""
        settings = self._sources.settings
        replay, can_replay = "", False
        if topic == settings.dead_letter_topic and record.is_dead_letter:
            can_replay = is_replayable(record.headers, record.key)
            replay = (
                f"Sends it to {settings.aggregated_topic} again, once its reason is fixed."
                if can_replay
                else f"It is {NEVER_REPLAYED}."
            )
        headers = [[format_text(name), format_text(text)] for name, text in record.headers.items()]
        unreadable = "Headers: their names are not UTF-8"
        cut = f", the first {format_count(len(record.value))} characters" if record.is_cut else ""
        return {
            "facts": [
                ["Partition", f"{record.partition}"],
                ["Offset", f"{record.offset}"],
                ["Time (UTC)", format_time(record.at)],
                ["Key", format_text(record.key) if record.key else UNKNOWN],
            ],
            "headers": headers,
            "headers_title": unreadable if not record.are_headers_readable else "Headers" if headers else "No headers",
            "value_title": f"Value, {format_bytes(record.size)}{cut}",
            "value": format_text(record.value if record.is_cut else format_json(record.value)),
            "replay": replay,
            "can_replay": can_replay,
        }

    async def _on_filter(self) -> None:
        problems = self._show_problems()
        self._until, self._open, self._found = (), "", None
        values = {name: "" if name in problems else self._text(name) for name in FILTERS}
        self._keep(values)
        await self._panel.choose()

    async def _on_topic(self) -> None:
        self._table.columns = [column.props for column in self._columns()]
        self._table.clear_rows("Loading …")
        # Another topic has other offsets.
        for name in ("partition", "offset"):
            self._filters[name].set_value("")
        self._until, self._open, self._found = (), "", None
        self._keep({"partition": "", "offset": ""})
        await self._panel.choose()

    def _keep(self, changes: dict[str, str]) -> None:
        """Keep in the address what has changed, and what is opened and paused."""
        set_query({**changes, "until": format_offsets(self._until), "open": self._open})
        self._show_pause()

    async def _switch(self) -> None:
        if self._until:
            self._until, self._open = (), ""
        elif self._found is not None:
            self._until = self._found.next_offsets
        self._keep({})
        await self._panel.refresh()

    async def _on_open(self, event: events.GenericEventArguments) -> None:
        key = f"{event.args}"
        self._open = "" if key == self._open or len(parse_offsets(key)) != 1 else key
        # An open row stays where it is.
        if self._open and not self._until and self._found is not None and not self._query().is_forward:
            self._until = self._found.next_offsets
        self._keep({})
        await self._panel.refresh()

    def _show_pause(self) -> None:
        is_forward = self._query().is_forward
        self._pause.set_visibility(not is_forward)
        self._pause.set_text("Resume" if self._until else "Pause")
        self._pause.set_icon("play_arrow" if self._until else "pause")

    def _confirm_replay(self, event: events.GenericEventArguments) -> None:
        dead_letter_id = f"{event.args}"
        topic = self._sources.settings.aggregated_topic
        with ui.dialog(value=True) as dialog, ui.card().classes("max-w-md gap-3"):
            ui.label(f"Replay dead letter {format_text(dead_letter_id, 60)}?").classes("text-base font-semibold")
            ui.label(f"Its key and value are sent to {topic}, unless that has a later row of the key.")
            again = ui.checkbox("Also if it was replayed before")

            async def send() -> None:
                dialog.close()
                await self._replay(dead_letter_id, again=bool(again.value))

            with ui.row().classes("w-full justify-end gap-2"):
                ui.button("Cancel", on_click=dialog.close).props("flat no-caps")
                button("Replay", send)
        dialog.on("hide", dialog.delete)

    async def _replay(self, dead_letter_id: str, *, again: bool) -> None:
        done = f"Dead letter {format_text(dead_letter_id, 60)} was replayed"
        with ui.context.client:
            shown = ui.notification("replaying …", spinner=True, timeout=None)
        await report(lambda: self._sources.replays.replay(dead_letter_id, again=again), done)
        shown.dismiss()


def describe(query: RecordQuery, found: Found) -> str:
    """Return in one line which records are shown, and how far was looked."""
    shown = len(found.records)
    records = f"{format_count(shown)} record{'' if shown == 1 else 's'}"
    gap = f"; {format_count(found.skipped)} offsets were skipped: too many arrived" if found.skipped else ""
    looked = f"{format_count(found.looked)} record{'' if found.looked == 1 else 's'}"
    if query.is_forward:
        until = f", to {format_time(found.until)}" if found.until else ""
        end = "" if found.is_finished else ", continues"
        if query.is_search:
            return f"{records} found in {looked} from there on{until}{end}"
        return f"{records} from there on, the oldest first{until}{end}"
    state = "paused" if query.until else "live"
    if not query.is_search:
        return f"{state}: the latest {records}{gap}"
    since = f", back to {format_time(found.since)}" if found.since else ": the whole topic"
    return f"{state}: {records} found in the latest {looked}{since}{gap}"


def record_row(record: Record) -> dict[str, Any]:
    """Return a record as a row of a table."""
    return {
        "key": record.id,
        "at": format_time(record.at),
        "position": record.id,
        "record_key": format_text(record.key, MAX_CHARACTERS) if record.key else UNKNOWN,
        "value": format_text(record.value) + (f"… ({format_bytes(record.size)})" if record.is_cut else ""),
    }


def dead_letter_columns(record: Record) -> dict[str, Any]:
    """Return what a row of a dead letter, or of the mark of one that was replayed, has besides."""
    headers = record.headers
    topic, partition, offset = (
        headers.get(name, UNKNOWN) for name in (dead_letters.TOPIC, dead_letters.PARTITION, dead_letters.OFFSET)
    )
    replayed = headers.get(dead_letters.REPLAYED)
    mark = f"(dead letter {replayed} was replayed)" if replayed else UNKNOWN
    return {
        "reason": format_text(headers.get(dead_letters.REASON, mark), MAX_CHARACTERS),
        "origin": format_text(f"{topic} {partition}-{offset}", MAX_CHARACTERS) if record.is_dead_letter else UNKNOWN,
    }


def _no_row(key: str) -> dict[str, Any]:
    return {
        "key": key,
        **dict.fromkeys(("record_key", "value", "reason", "origin"), UNKNOWN),
        "at": key,
        "position": key,
    }


def _missing(reason: str) -> dict[str, Any]:
    return {
        "facts": [], "headers": [], "headers_title": format_text(reason), "value_title": "No value", "value": "",
        "replay": "", "can_replay": False,
    }  # fmt: skip
