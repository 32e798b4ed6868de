"""Checks before anything starts: data folder, settings, memory, ports; and the download of missing jars."""

from collections.abc import Mapping, Sequence

import psutil
from data_producer.settings import ProducerSettings
from elasticsearch_sink_alert.settings import SinkSettings
from rich.console import Console
from stream_processing.settings import StreamProcessingSettings

from live_page.settings import PageSettings
from local_stack import cache, data_folder, servers, services
from local_stack.plan import Plan, StackError
from runtime import dotenv
from runtime.logs import escape_controls
from runtime.settings import Settings, SettingsError

_MEMORY_NEEDED = 3 << 30
"""Bytes."""
_SETTINGS: Mapping[services.Service, type[Settings]] = {
    services.PRODUCER: ProducerSettings,
    services.STREAM: StreamProcessingSettings,
    services.SINK: SinkSettings,
    services.PAGE: PageSettings,
}


def prepare(plan: Plan, ports: Sequence[tuple[int, str, str]], console: Console) -> None:
    """Check that the plan can run, then download the jars that are missing.

    `ports` are the ones that have to be free, each with its owner and the option that changes it. Raises `StackError`,
    `DataFolderError`, `PortTakenError` or `JarError` with the reason and the remedy.
    """
    data_folder.require_usable(plan.data)
    _check_settings(plan, console)
    _check_memory()
    _check_ports(ports)
    cache.fill(*cache.ALL, console=console)


def _check_settings(plan: Plan, console: Console) -> None:
    """Print the warnings of `.env`. Raises `StackError` with the errors of all services at once."""
    try:
        file = dotenv.read_nearest()
    except dotenv.DotenvError as error:
        raise StackError(str(error)) from None
    for warning in file.warnings:
        console.print(escape_controls(warning), markup=False, soft_wrap=True)
    wrong: dict[str, None] = {}
    for service, settings in _SETTINGS.items():
        variables = {**services.environment(plan.data), **plan.service_settings}
        variables[service.port_setting] = str(plan.service_ports[service.package])
        try:
            settings.read(file.values, variables)
        except SettingsError as error:
            wrong |= dict.fromkeys(str(error).splitlines())
    if wrong:
        lines = "".join(f"\n  {line}" for line in wrong)
        raise StackError(f"these settings are wrong (.env.example explains each of them):{lines}")


def _check_memory() -> None:
    available = psutil.virtual_memory().available
    if available < _MEMORY_NEEDED:
        raise StackError(
            f"about {_MEMORY_NEEDED / (1 << 30):.0f} GB of free memory are needed, {available / (1 << 30):.1f} GB are "
            "free: close something"
        )


def _check_ports(ports: Sequence[tuple[int, str, str]]) -> None:
    owners: dict[int, str] = {}
    for port, owner, option in ports:
        if port in owners:
            raise StackError(f"{owner} and {owners[port]} have the same port {port}: choose another with {option}")
        owners[port] = owner
    servers.require_free(ports)
