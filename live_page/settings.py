"""Settings of the live page."""

from typing import Annotated

from pydantic import Field

from observer.settings import ObserverSettings
from runtime.settings import NonEmptyStr


class PageSettings(ObserverSettings):
    """Settings of the page, and those of the pipeline that it shows, with the sink's rules."""

    page_host: NonEmptyStr = "127.0.0.1"
    """Address to listen on."""
    page_port: Annotated[int, Field(ge=1, le=65535, description="a port from 1 to 65535")] = 8090
    page_names: str = ""
    """Host names of the page besides localhost, separated by commas."""
    warehouse: NonEmptyStr = ".data/warehouse"
    processes_file: str = ""
    """The file in which a local stack lists its processes; empty: none of them can be killed from here."""
    sql_seconds: float = Field(default=5.0, gt=0, le=300)
    """Timeout of a query over the lake."""
