"""Logs that dead processes left: whoever sends one holds the lock beside it. The same as src/track/spool-replay.ts of Plinth."""

import contextlib
import json
import os
import secrets
import time

from plinth_spool import log
from plinth_spool.delivery import Delivery
from plinth_spool.server import Refused, Server, Unavailable, keeper_url, token_id
from plinth_spool.worker import is_alive, this_process


def take_up(spools, connect, note=lambda spool, problem: None):
    """Sends those whose writer is dead: first each run's end, so that no status waits for a million points, then the rest.

    `connect`: from the log's `by` to a Server, or None where it belongs elsewhere; `note` hears of each one: problem None is sent.
    """
    with contextlib.ExitStack() as locks:
        taken = []
        for spool in spools:
            try:
                head = spool.head()
                if head is None or is_alive(head["by"]["worker"], spool.last_sign()):
                    continue
                server = connect(head["by"])
                if server is None or not locks.enter_context(locked(spool)):
                    continue
                delivery = Delivery(spool, server, alive=False)
                if "start" in head:
                    delivery.settle(spool.end() or {"status": "failed", "reason": "lost", "at": int(spool.last_sign() * 1000)})
                taken.append((spool, delivery))
            except (Unavailable, Refused) as problem:
                note(spool, problem)
            except OSError:
                continue  # another one took it up and removed it
        for spool, delivery in taken:
            try:
                delivery.send()
                spool.remove()
                note(spool, None)
            except (Unavailable, Refused, OSError) as problem:
                note(spool, problem)


@contextlib.contextmanager
def locked(spool):
    """Whether this process has it; the lock of a dead process counts for nothing."""
    file = spool.file("lock")
    own = spool.file(f"lock.{secrets.token_hex(6)}")
    own.write_text(json.dumps(this_process()))
    try:
        held = _take(file, own)
    finally:
        own.unlink(missing_ok=True)
    try:
        yield held
    finally:
        if held:
            file.unlink(missing_ok=True)


def _take(file, own):
    for _ in range(2):
        try:
            # a link appears with its content or not at all, and never in the place of another
            os.link(own, file)
            return True
        except FileExistsError:
            pass
        try:
            text, since = file.read_text(), file.stat().st_mtime
        except OSError:
            continue
        if _is_held(text, since):
            return False
        # out of the way under a name of our own; should it be another's by now, it goes back
        aside = own.with_name(own.name + ".old")
        with contextlib.suppress(OSError):
            os.rename(file, aside)
            if aside.read_text() != text:
                os.link(aside, file)
        aside.unlink(missing_ok=True)
    return False


def _is_held(text, since):
    try:
        return is_alive(json.loads(text), since)
    except (ValueError, KeyError, TypeError):
        return False


def states():
    """What is waiting in this home, for people: one dictionary a log."""
    found = []
    for spool in log.spools(log.folder()):
        head = spool.head()
        if head is None:
            continue
        left = sum(1 for _ in spool.lines(spool.sent()["bytes"]))
        alive = is_alive(head["by"]["worker"], spool.last_sign())
        end = spool.end()
        found.append(
            {
                "run": spool.run,
                "writer": "at work" if alive else end["status"] if end else "gone",
                "lines": left,
                "url": head["by"]["url"] or "of this home",
                "written": time.strftime("%Y-%m-%d %H:%M", time.localtime(spool.last_sign())),
            }
        )
    return found


def send_all(url=None, run=""):
    """Once; answers pairs of a spool and what kept it from being sent (None: nothing did)."""
    results = []

    def connect(by):
        target = url or by["url"] or keeper_url(log.home())
        if target is None:
            raise Unavailable("No server keeps this home, so there is nobody to send it to. Start plinth up, or name a server with --url.")
        if by["token"] is not None and by["token"] != token_id(target):
            # it would land in the project of another token
            raise Refused(403, "spool_other_token", f"This was logged with another token ({by['token']}): set MLFLOW_TRACKING_TOKEN to that one.")
        return Server(target)

    chosen = [spool for spool in log.spools(log.folder()) if spool.run.startswith(run)]
    take_up(chosen, connect, lambda spool, problem: results.append((spool, problem)))
    return results
