"""Generates shop_events.csv.gz: ``python examples/replay/generate.py``. Random, seeded, in the public domain (CC0)."""

import csv
import gzip
import io
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

EVENTS = 5_000
VISITORS = 400
PRODUCTS = 120
ACTIONS = {"view": 70, "click": 15, "like": 10, "purchase": 5}
OPENED = datetime(2026, 3, 2, 9, tzinfo=UTC)


def shop_events(seed: int = 62) -> bytes:
    """Return the events of one day of a shop as CSV, the same for a seed."""
    draw = random.Random(seed)
    visitors = [f"v{n:04d}" for n in range(VISITORS)]
    products = [f"p{n:03d}" for n in range(PRODUCTS)]
    at = OPENED
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["event_time", "visitor", "product", "action"])
    for _ in range(EVENTS):
        at += timedelta(seconds=draw.expovariate(EVENTS / (10 * 3600)))
        (visitor,) = draw.choices(visitors, [1 / (n + 5) for n in range(VISITORS)])
        (product,) = draw.choices(products, [1 / (n + 5) for n in range(PRODUCTS)])
        (action,) = draw.choices(list(ACTIONS), list(ACTIONS.values()))
        writer.writerow([at.strftime("%Y-%m-%d %H:%M:%S"), visitor, product, action])
    return text.getvalue().encode()


if __name__ == "__main__":
    # No time of creation, so that the same events are the same file.
    target = Path(__file__).with_name("shop_events.csv.gz")
    target.write_bytes(gzip.compress(shop_events(), mtime=0))
