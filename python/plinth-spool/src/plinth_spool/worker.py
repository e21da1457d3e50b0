"""Who writes a log, in the words of Plinth (src/track/worker.ts): a process is its number *and its birth*, because numbers are used again."""

import functools
import os
import socket
import sys
import time

SILENCE = 60.0
"""Seconds after which a writer that cannot be looked up from here (another container, another machine) counts as gone."""


def this_process():
    return {"pid": os.getpid(), "birth": _birth(os.getpid()) or "", "place": _place()}


def is_alive(worker, last_sign):
    """`last_sign`: when its log was last touched, in seconds since 1970."""
    if worker["place"] != _place():
        return time.time() - last_sign < SILENCE
    birth = _birth(worker["pid"])
    if birth is not None:
        return birth == worker["birth"]
    if sys.platform == "linux":
        return False
    try:
        os.kill(worker["pid"], 0)
        return True
    except ProcessLookupError:
        return False
    except OSError:
        return True


def _birth(pid):
    """proc(5), field 22, with the boot's id. None: no such process, a dead one, or no /proc."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            stat = file.read()
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split(" ")
    return None if fields[0] in "ZX" else f"{boot}/{fields[19]}"


def _place():
    return _place_of(os.getpid())


@functools.lru_cache(maxsize=4)
def _place_of(_pid):
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return f"{socket.gethostname()}/{namespace}"
