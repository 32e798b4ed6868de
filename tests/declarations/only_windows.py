"""Visitors at doors: all tables have windows, and the overview has no choice."""

from contract.declaration import (
    Event,
    Overview,
    Pipeline,
    Table,
    count,
    days,
    distinct,
    earliest,
    every,
    flag,
    iso_datetime,
    minutes,
    text,
)

VISIT = Event(
    "visits", text("door"), flag("in_person"), text("card", optional=True), iso_datetime("at"),
    time="at", partition_by="door",
)  # fmt: skip

DOOR_DAYS = Table(
    "door", VISIT, key=("door", "in_person", every(days=1)), title="Doors by day", measures={"visits": count()}
)

QUARTERS = Table(
    "door_quarter",
    VISIT,
    key=(every(minutes=15, name="quarter", closes_after=minutes(1)),),
    keep=days(1),
    measures={
        "first": earliest("at"), "doors": distinct("door"), "with_card": count("card"), "visits": count(),
    },
)  # fmt: skip

PIPELINE = Pipeline(VISIT, tables=(DOOR_DAYS, QUARTERS), overview=Overview(total=DOOR_DAYS["visits"]))
