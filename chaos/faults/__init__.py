"""The faults by kind: a new one is a class, and an entry here."""

from typing import Final

from chaos.faults.copies import SecondSink, SecondStreamJob
from chaos.faults.fault import Fault
from chaos.faults.network import Cut, Delay, HalfOpen
from chaos.faults.operation import Command, Maintenance
from chaos.faults.signals import Kill, KillPart, Pause
from chaos.faults.storage import DamagedCheckpoint, DamagedClassArchive, FullDisk, OlderCheckpoint, RemovedCheckpoint

__all__ = ["FAULTS", "Fault"]

FAULTS: Final[dict[str, type[Fault]]] = {
    fault.kind: fault
    for fault in (
        Kill,
        KillPart,
        Pause,
        Cut,
        Delay,
        HalfOpen,
        SecondSink,
        SecondStreamJob,
        RemovedCheckpoint,
        OlderCheckpoint,
        DamagedCheckpoint,
        DamagedClassArchive,
        FullDisk,
        Command,
        Maintenance,
    )
}
