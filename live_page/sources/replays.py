"""Sends a dead letter to its topic again, where controls are allowed."""

import threading

from elasticsearch_sink_alert.kafka import dead_letter_replay

from live_page.settings import PageSettings
from live_page.sources.consumers import KAFKA
from live_page.sources.errors import EmptyError, translate_errors
from live_page.sources.producer import ProducerControls, RefusedError


class DeadLetterReplays:
    """Replays of dead letters, as the sink's command does them."""

    def __init__(self, settings: PageSettings, producer: ProducerControls) -> None:
        self._settings = settings
        self._producer = producer
        self._lock = threading.Lock()

    def replay(self, dead_letter_id: str, *, again: bool = False) -> None:
        """Send a dead letter to its topic again, also if it was replayed before with `again`.

        Raises `RefusedError` if it cannot be replayed, or controls are off, and `UnavailableError`.
        """
        try:
            # Raises it if PRODUCER_CONTROLS is false.
            self._producer.flow()
        except EmptyError as reason:
            raise RefusedError(str(reason)) from None
        # One at a time: of two clicks the second one finds the first one's replay.
        with self._lock, translate_errors(KAFKA):
            found = dead_letter_replay.read_one(self._settings, dead_letter_id)
            if found is None:
                raise RefusedError(f"There is no dead letter {dead_letter_id} any more.")
            if not dead_letter_replay.is_replayable(found.headers, found.key):
                raise RefusedError(f"{dead_letter_id} is {dead_letter_replay.NEVER_REPLAYED}.")
            for _, skipped, refused in dead_letter_replay.replay(self._settings, [found], again=again):
                if skipped:
                    raise RefusedError(f"{dead_letter_id} was not sent: {skipped}.")
                if refused:
                    raise RefusedError(f"{self._settings.aggregated_topic} refuses {dead_letter_id}: {refused}")
