"""What the services' metrics share: buckets, and metrics that prometheus_client does not have.

A gauge of prometheus_client that nothing has set yet is 0, which would be a false figure: a `Measurement` is absent.
A histogram of prometheus_client takes one value at a time: a `CountedHistogram` takes those of a batch together.
"""

import math
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Final, Literal

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

WORK_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds of the buckets for the durations of work: a request, a phase, a batch."""
LATENCY_SECONDS: Final = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
"""Upper bounds of the buckets for the ages of records."""


class Measurement(Collector):
    """A gauge or counter without labels that is absent until it is known. Thread-safe.

    >>> rows = Measurement("rows", "Rows", registry=CollectorRegistry())
    >>> [len(metric.samples) for metric in rows.collect()]
    [0]
    >>> rows.set(3)
    >>> [metric.samples[0].value for metric in rows.collect()]
    [3]
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        *,
        type: Literal["gauge", "counter"] = "gauge",
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._type = type
        self._lock = threading.Lock()
        self._read: Callable[[], float | None] = lambda: None
        registry.register(self)

    def set(self, value: float | None) -> None:
        """Set the value; None: it is not known any more."""
        self._read = lambda: value

    def add(self, amount: float) -> None:
        """Add to a value that is known."""
        with self._lock:
            self.set((self._read() or 0) + amount)

    def set_function(self, read: Callable[[], float | None]) -> None:
        """Have `read` called for the value at each request; None: not known at that moment."""
        self._read = read

    def describe(self) -> Iterable[Metric]:
        """Return the metric without its value."""
        return [self._family()]

    def collect(self) -> Iterable[Metric]:
        """Return the metric."""
        family, value = self._family(), self._read()
        if value is not None and not math.isnan(value):
            family.add_metric([], value)
        return [family]

    def _family(self) -> GaugeMetricFamily | CounterMetricFamily:
        family = GaugeMetricFamily if self._type == "gauge" else CounterMetricFamily
        return family(self._name, self._documentation)


class CountedHistogram(Collector):
    """A histogram without labels, of values that come with their numbers. Thread-safe.

    >>> ages = CountedHistogram("age_seconds", "Ages", (1, 5), registry=CollectorRegistry())
    >>> ages.observe({0.5: 10, 4.0: 2, 9.0: 1})
    >>> [sample.value for metric in ages.collect() for sample in metric.samples]
    [10, 12, 13, 13, 22.0]
    """

    def __init__(
        self, name: str, documentation: str, bounds: Sequence[float], *, registry: CollectorRegistry = REGISTRY
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = bounds
        self._lock = threading.Lock()
        self._numbers = [0] * (len(bounds) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe(self, numbers: Mapping[float, int]) -> None:
        """Add values, each with the number of times that it occurs."""
        with self._lock:
            for value, number in numbers.items():
                self._numbers[bisect_left(self._bounds, value)] += number
                self._sum += value * number

    def describe(self) -> Iterable[Metric]:
        """Return the metric without its values."""
        return [HistogramMetricFamily(self._name, self._documentation)]

    def collect(self) -> Iterable[Metric]:
        """Return the metric."""
        with self._lock:
            numbers, total = list(self._numbers), self._sum
        names = [*map(str, map(float, self._bounds)), "+Inf"]
        buckets = list(zip(names, accumulate(numbers), strict=True))
        family = HistogramMetricFamily(self._name, self._documentation)
        family.add_metric([], buckets, total)
        return [family]
