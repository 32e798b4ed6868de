"""The rules of the demo fit what the demo sends: they fire at times, and not for everything."""

from collections import Counter
from pathlib import Path

import pytest
from data_producer.generator import EventGenerator
from data_producer.pacing import Pacer
from data_producer.surge import Surge
from elasticsearch_sink_alert.alerting import data_mapper

from live_page.sources.producer import VIRAL_INTERACTIONS
from local_stack.plan import Plan


def test_what_the_demo_sends_fits_the_rules_of_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Plan(tmp_path).service_settings
    wave = int(settings["PRODUCER_WAVE"])
    generator = EventGenerator(
        int(settings["RANDOM_DATA_MAX_USERS"]),
        int(settings["RANDOM_DATA_MAX_ITEMS"]),
        skew=float(settings["RANDOM_DATA_SKEW"]),
        seed=1,
    )
    pacer = Pacer(float(settings["PRODUCER_RATE"]), start=0.0, wave=wave, clock=0.0)
    seconds = []
    for now in range(1, wave + 1):
        seconds.append(generator.batch(pacer.due(now), now))
        pacer.record_sent(len(seconds[-1]))
    rules = data_mapper.load(Path(settings["DATA_MAPPER"])).by_name

    rush_hour = rules["rush hour"]
    minutes = [sum(map(len, seconds[minute : minute + 60])) for minute in range(0, wave, 60)]
    assert [rush_hour.matches({rush_hour.field: minute}) for minute in minutes] == [False, True, False]
    # A viral item makes none.
    assert not rush_hour.matches({rush_hour.field: max(minutes[0], minutes[2]) + VIRAL_INTERACTIONS})

    bot, viral = rules["possible bot"], rules["viral item"]
    assert bot.within == viral.within == 30
    windows = [[event for second in seconds[start : start + 30] for event in second] for start in range(wave - 29)]
    users = [Counter(event["user_id"] for event in window).most_common(2) for window in windows]
    assert any(bot.matches({bot.field: first}) for (_, first), _ in users)
    assert not any(bot.matches({bot.field: second}) for _, (_, second) in users)
    assert not all(bot.still_holds({bot.field: first}) for (_, first), _ in users)

    kinds = [Counter((event["item_id"], event["interaction_type"]) for event in window) for window in windows]
    assert not any(viral.matches({viral.field: max(kind.values())}) for kind in kinds)
    surge = Surge(EventGenerator(1_000, 200, seed=1), VIRAL_INTERACTIONS, start=0.0)
    events = surge.take(VIRAL_INTERACTIONS, now=10.0, timestamp=1)
    # The rows of a new item in its first second are no change.
    views = Counter(event["interaction_type"] for event in events[VIRAL_INTERACTIONS // 10 :])["view"]
    assert viral.matches({viral.field: views})
