"""Settings of the live page."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, SecretStr

from observer.settings import ObserverSettings
from runtime.addresses import shown
from runtime.settings import NonEmptyStr, missing


class PageSettings(ObserverSettings):
    """Settings of the page, and those of the pipeline that it shows, with the sink's rules."""

    page_host: NonEmptyStr = "127.0.0.1"
    """Address to listen on."""
    page_port: Annotated[int, Field(ge=1, le=65535, description="a port from 1 to 65535")] = 8090
    page_names: str = ""
    """Host names of the page besides localhost, separated by commas."""
    page_user: str = ""
    """The user that the page asks for, with the password; empty: it asks for none."""
    page_password: SecretStr = SecretStr("")
    warehouse: NonEmptyStr = ".data/warehouse"
    processes_file: str = ""
    """The file in which a local stack lists its processes; empty: none of them can be killed from here."""
    sql_seconds: float = Field(default=5.0, gt=0, le=300)
    """Timeout of a query over the lake."""

    def conflicts(self) -> Iterator[str]:
        """Yield an error for each setting that the others contradict."""
        yield from super().conflicts()
        remedy = "set both, or none of them"
        if self.page_user and not self.page_password:
            yield missing("PAGE_PASSWORD", f"PAGE_USER={shown(self.page_user)}", remedy)
        if self.page_password and not self.page_user:
            yield missing("PAGE_USER", "PAGE_PASSWORD", remedy)
        if ":" in self.page_user:
            yield f"PAGE_USER={shown(self.page_user)} has a colon, which HTTP does not allow there: use another name"
