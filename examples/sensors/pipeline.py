"""Readings of sensors: an event with a number and a time in milliseconds, and a table by two columns."""

from contract.declaration import (
    Event,
    Overview,
    Pipeline,
    Table,
    choice,
    count,
    epoch_milliseconds,
    latest,
    least,
    mean,
    most,
    number,
    ratio,
    rows_of,
    text,
)

SENSOR = choice("sensor", "temperature", "humidity", "pressure")

READING = Event(
    "readings",
    text("device_id"),
    SENSOR,
    number("value", at_least=-100, at_most=2000),
    choice("unit", "C", "percent", "hPa"),
    epoch_milliseconds("timestamp"),
    time="timestamp",
    partition_by="device_id",
)

DEVICES = Table(
    "devices",
    READING,
    key=("device_id",),
    title="Devices",
    measures={
        "readings": count(),
        **{f"{sensor}_readings": count(where={SENSOR: sensor}) for sensor in SENSOR.choices},
        "highest_temperature": most("value", where={SENSOR: "temperature"}),
        "last_reading": latest("timestamp"),
    },
)

CHANNELS = Table(
    "channels",
    READING,
    key=("device_id", "sensor"),
    title="Channels",
    measures={
        "readings": count(),
        "lowest": least("value"),
        "highest": most("value"),
        "mean": mean("value"),
        "last_reading": latest("timestamp"),
    },
)

FLEET = Table(
    "fleet",
    READING,
    key=(),
    measures={"readings": count(), "readings_per_device": ratio(count(), rows_of(DEVICES))},
)

PIPELINE = Pipeline(
    READING,
    tables=(DEVICES, CHANNELS, FLEET),
    overview=Overview(total=DEVICES["readings"], by=SENSOR, mean=FLEET["readings_per_device"]),
)
