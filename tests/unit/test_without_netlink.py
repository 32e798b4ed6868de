import subprocess
import sys

import pytest

from tests import without_netlink

OPEN = "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(); print('netlink')"


@pytest.mark.skipif(sys.platform != "linux", reason="the browser is started as it is on other systems")
def test_the_program_gets_no_netlink_socket_and_every_other_one() -> None:
    launched = [sys.executable, without_netlink.__file__, sys.executable, "-c"]
    refused = subprocess.run([*launched, OPEN], capture_output=True, text=True)
    assert "Address family not supported" in refused.stderr
    others = "import socket; [socket.socket(f).close() for f in (socket.AF_INET, socket.AF_UNIX)]; print('others')"
    assert subprocess.check_output([*launched, others], text=True) == "others\n"
    assert subprocess.check_output([sys.executable, "-c", OPEN], text=True) == "netlink\n"
