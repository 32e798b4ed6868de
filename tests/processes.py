"""Look at the processes that a service under test has started: Spark's helpers may end between two looks."""

import psutil


def command_line(process: psutil.Process) -> list[str]:
    """Return the arguments of the process, or none if it has ended."""
    try:
        return list(process.cmdline())
    except psutil.NoSuchProcess:  # This includes a process that nobody has waited for yet.
        return []


def command_lines(pid: int) -> list[list[str]]:
    """Return the arguments of the process and of all that it has started."""
    process = psutil.Process(pid)
    return [command_line(each) for each in (process, *process.children(recursive=True))]


def java_processes(pid: int) -> list[psutil.Process]:
    """Return the Java processes that the process has started."""
    return [each for each in psutil.Process(pid).children(recursive=True) if _name(each) == "java"]


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""
