"""Imports the dashboard into Kibana as soon as Kibana is ready: ``python -m dashboards``.

Running it again changes nothing. After the import it keeps running, idle and healthy, until it is stopped:
`docker compose up --wait` considers a service that exits as failed.
"""

from runtime.signals import end_on_interrupt

if __name__ == "__main__":
    end_on_interrupt()
    from runtime.logs import begin

    begin("dashboards")

import argparse
import logging
import os
import re
import sys

from dashboards.importer import NotUpError, RefusedError, change_settings, import_objects
from dashboards.saved_objects import ndjson
from runtime import logs
from runtime.addresses import require_http_url, shown, without_passwords
from runtime.broken_pipe import exit_status
from runtime.health import Health, serve
from runtime.signals import stop_on_signal

logger = logging.getLogger("dashboards")


def main() -> int:
    """Import, then wait for a signal; exit status 1, with the reason in the log, if the import fails."""
    description = "Imports the dashboard into the Kibana at KIBANA_HOST, then waits until it is stopped."
    argparse.ArgumentParser(prog="dashboards", description=description).parse_args()
    logs.configure("INFO", logs.format_of_environment(), logger.name)
    stop = stop_on_signal()
    health = Health("import")
    port = os.environ.get("DASHBOARDS_PORT", "9104")
    if not re.fullmatch("[0-9]{1,5}", port) or not 1 <= int(port) <= 65_535:
        logger.error("DASHBOARDS_PORT=%r: expected a whole number from 1 to 65,535", shown(port))
        return 2
    serve(health, "127.0.0.1", int(port), setting="DASHBOARDS_PORT")
    kibana = os.environ.get("KIBANA_HOST", "http://localhost:5601")
    try:
        require_http_url(kibana)
    except ValueError:
        logger.error("KIBANA_HOST=%r: expected a URL with http:// or https:// and a host", shown(kibana))
        return 2
    try:
        user, password = (os.environ.get(name, "") for name in ("KIBANA_USERNAME", "KIBANA_PASSWORD"))
        count = import_objects(kibana, ndjson().encode(), 300, user, password)
        # As default, Kibana applies a filter by user to alerts too, which have no such field: none would be shown.
        change_settings(kibana, {"courier:ignoreFilterIfFieldNotInIndex": True}, 300, user, password)
    except (NotUpError, RefusedError) as error:
        logger.error("%s", error)
        return 1
    logger.info("%d saved objects imported: %s/app/dashboards", count, without_passwords(kibana))
    health.ok("import")
    stop.wait()
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(main))
