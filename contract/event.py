"""The event: what a record of the topic is, and a row of the lake's table of events."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from contract.fields import Field, FieldType
from contract.source_lines import declared_at

MAX_BYTES = 4 << 20
"""The largest record value that is parsed; parsing a larger one could exhaust the memory."""


@dataclass(frozen=True, init=False)
class Event:
    """An event with its fields in the order in which the producer writes them."""

    name: str
    """The name of the Delta table with every valid event, exactly once."""
    fields: tuple[Field, ...]
    time: str
    """The field that says when it happened."""
    partition_by: str
    """The field that is the key of the records."""
    line: int = field(compare=False, repr=False)

    def __init__(self, name: str, *fields: Field, time: str, partition_by: str) -> None:
        values = {"name": name, "fields": fields, "time": time, "partition_by": partition_by, "line": declared_at()}
        for attribute, value in values.items():
            object.__setattr__(self, attribute, value)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the fields."""
        return tuple(each.name for each in self.fields)

    @property
    def other_texts(self) -> tuple[str, ...]:
        """The names of the texts besides the key of the records."""
        return tuple(
            each.name for each in self.fields if each.type is FieldType.TEXT and each.name != self.partition_by
        )

    @property
    def time_field(self) -> Field:
        """The field that says when it happened."""
        return self.field(self.time)

    def field(self, name: str) -> Field:
        """Return the field of this name; raises KeyError."""
        for each in self.fields:
            if each.name == name:
                return each
        raise KeyError(name)

    def problems(self) -> Iterator[tuple[int, str]]:
        """Yield what is wrong, each with its line."""
        for each in self.fields:
            for problem in each.problems():
                yield each.line, problem
        for name, number in Counter(name.lower() for name in self.names).items():
            if number > 1:
                yield self.line, f"event {self.name}: the name {name} occurs {number} times (case does not matter)"
        known = {each.name: each for each in self.fields}
        if self.time not in known:
            yield self.line, f"event {self.name}: time={self.time!r} is none of its fields: {', '.join(known)}"
        elif not known[self.time].type.is_time:
            yield self.line, f"event {self.name}: {self.time} is a {known[self.time].type.value}, which is no time"
        if self.partition_by not in known:
            at = f"partition_by={self.partition_by!r}"
            yield self.line, f"event {self.name}: {at} is none of its fields: {', '.join(known)}"
        elif known[self.partition_by].type is not FieldType.TEXT:
            at = f"partition_by={self.partition_by!r}"
            yield self.line, f"event {self.name}: {at} is a {known[self.partition_by].type.value}: expected a text"
