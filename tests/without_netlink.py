"""`python without_netlink.py PROGRAM ARGUMENT...` becomes the program, which learns nothing of the machine's networks.

Chromium cancels every request in flight as soon as a network interface changes (ERR_NETWORK_CHANGED), as interfaces
do whenever a container of another test starts or stops. A netlink socket tells it so, and it continues without
one if the system offers none. It has no option for that, so a filter of system calls refuses the socket.
"""

import errno
import os
import socket
import sys

import pyseccomp


def main() -> None:
    """Replace this process by the program that its arguments name."""
    calls = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    netlink = pyseccomp.Arg(0, pyseccomp.EQ, socket.AF_NETLINK)
    calls.add_rule(pyseccomp.ERRNO(errno.EAFNOSUPPORT), "socket", netlink)
    calls.load()
    os.execv(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
