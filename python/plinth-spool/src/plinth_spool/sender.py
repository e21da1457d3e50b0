"""One thread of a process that sends what its runs write, and says every few seconds that they live. Nothing waits for it unless it asks."""

import atexit
import collections
import logging
import os
import random
import secrets
import sys
import threading
import time

from plinth_spool import leftovers, log
from plinth_spool.delivery import Delivery
from plinth_spool.server import Refused, Server, Unavailable, token_id

BEAT = 3.0
GATHER = 0.2
LONGEST_PAUSE = 30.0
EXIT = 10.0
"""Seconds: between signs of life; between a line and its sending; the longest pause after failures; what the end of a program waits at most."""

_logger = logging.getLogger("plinth_spool")
_senders = {}
_lock = threading.Lock()
_stopped = set()
_exiting = False


def sender_of(url):
    """This process's: a fork has its own, with logs of its own, because its parent goes on."""
    key = (os.getpid(), url)
    with _lock:
        if key not in _senders:
            for old in [each for each in _senders if each[0] != key[0]]:
                _senders[old].forget()
                del _senders[old]
            _senders[key] = Sender(url)
        return _senders[key]


def is_stopped(run):
    return run in _stopped


def _after_fork():
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Warner:
    """Each kind of problem is said once a run; the training's own output stays readable."""

    def __init__(self, run):
        self._run, self._said = run, set()

    def __call__(self, about, problem):
        if about not in self._said and len(self._said) < 20:
            self._said.add(about)
            _logger.warning("run %s: %s", self._run[:8], problem)


class Sender:
    def __init__(self, url):
        self.url = url
        self.server = Server(url)
        self.folder = log.folder()
        self._pid = os.getpid()
        self._live = {}
        """Logs that are not sent to their end, by name, oldest first: (Log, Delivery, Warner)."""
        self._logs = {}
        """The log to write to, by run."""
        self._own = set()
        self._places = collections.OrderedDict()
        self._changed = threading.Condition()
        self._asked = self._done = 0
        """Rounds that were asked for, and the newest that is over."""
        self._failures = 0
        self._failed_at = self._heard_at = float("-inf")
        self._wake_at = None
        self._next_beat = 0.0
        self._leftovers_taken = False
        self._thread = None

    def forget(self):
        """In a fork: these logs are the parent's."""
        for each, _, _ in self._live.values():
            each._lock = threading.Lock()
            each.close()

    # ── writing ──

    def begin(self, run, start):
        """The first line of a run that this process makes."""
        self._own.add(run)
        self._open(run, run, "start", start)

    def write(self, run, *lines):
        """For any run; one that this process did not begin, or that has ended here, is joined."""
        with self._changed:
            writer = self._logs.get(run)
            if writer is None:
                writer = self._open(run, f"{run}-{secrets.token_hex(4)}", "join", {"run": run})
            writer.append(*lines)
            if any("end" in line for line in lines):
                del self._logs[run]
        if any("end" in line for line in lines):
            writer.flush()
        self._wake()

    def warner(self, run):
        writer = self._logs.get(run)
        return self._live[writer.spool.name][2] if writer and writer.spool.name in self._live else Warner(run)

    def keep_file(self, run, path):
        """A copy beside the run's log; None where there is no room for it."""
        with self._changed:
            writer = self._logs.get(run) or self._open(run, f"{run}-{secrets.token_hex(4)}", "join", {"run": run})
        return writer.keep_file(path)

    def _open(self, run, name, kind, details):
        warn = Warner(run)
        writer = log.Log(self.folder, name, warn)
        writer.append(log.head(kind, details, self.url, token_id(self.url)))
        refused = lambda failure: warn(failure.code, f"the server does not take something: {failure.message}")
        delivery = Delivery(writer.spool, self.server, alive=True, log=writer, on_refused=refused, on_progress=self._beat_if_due)
        with self._changed:
            self._live[name] = (writer, delivery, warn)
            self._logs[run] = writer
        self._wake()
        return writer

    # ── reading ──

    def place_of(self, of):
        """Where the server keeps files of a run or model, as far as it has told."""
        return self._places.get(of) or next((d.places[of] for _, d, _ in self._live.values() if of in d.places), None)

    def is_there(self):
        """Whether the server answers now; asked at most every other second."""
        now = time.monotonic()
        if now - self._heard_at < 2:
            return True
        if now - self._failed_at < 2:
            return False
        if self.server.is_there():
            self._heard_at = time.monotonic()
            return True
        self._failed_at = time.monotonic()
        return False

    def flush(self, limit=10.0):
        """Whether all that was written before has arrived. Answers at once where the server is away."""
        if not self._live:
            return self.is_there()
        if time.monotonic() - self._failed_at < 2 or threading.current_thread() is self._thread:
            return False
        with self._changed:
            self._asked += 1
            wanted = self._asked
            self._start_thread()
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._done >= wanted, limit)
            arrived = self._done >= wanted and self._failures == 0
        return arrived and self.is_there()

    def left(self):
        """Logs and lines that the server does not have."""
        lines = sum(sum(1 for _ in w.spool.lines((d._sent or {"bytes": 0})["bytes"])) + len(w.waiting) for w, d, _ in self._live.values())
        return len(self._live), lines

    # ── the thread ──

    def _wake(self):
        with self._changed:
            if self._wake_at is None:
                self._wake_at = time.monotonic() + GATHER
                self._changed.notify_all()
            self._start_thread()

    def _start_thread(self):
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="plinth-spool", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:
                pass  # the interpreter is going down; what is in the file is safe

    def _run(self):
        while os.getpid() == self._pid:
            with self._changed:
                now = time.monotonic()
                due = self._next_beat
                if self._wake_at is not None:
                    due = min(due, self._wake_at)
                if self._asked == self._done and due > now:
                    self._changed.wait(due - now)
                asked = self._asked
                now = time.monotonic()
                send = asked > self._done or (self._wake_at is not None and self._wake_at <= now)
                if send:
                    self._wake_at = None
            if send:
                self._round()
                with self._changed:
                    self._done = asked
                    self._changed.notify_all()
            self._beat_if_due()

    def _round(self):
        """Sends what there is; a run that the server does not let in keeps nobody else waiting, a server that is away does."""
        failed, waiting = None, set()
        for name, (writer, delivery, warn) in list(self._live.items()):
            if writer.spool.run in waiting:
                continue
            try:
                delivery.send()
                self._heard_at = time.monotonic()
                for of, place in delivery.places.items():
                    self._remember(of, place)
                if delivery.ended:
                    writer.close()
                    writer.spool.remove()
                    with self._changed:
                        self._live.pop(name, None)
            except Unavailable as error:
                failed = error
                self._failed_at = time.monotonic()
                warn("server", f"{error} What is logged is in {writer.spool.file('jsonl')} and is sent when the server is back.")
                break
            except Exception as error:
                failed = error
                waiting.add(writer.spool.run)
                warn(type(error).__name__, f"what is logged is in {writer.spool.file('jsonl')}; the server says: {error}")
        self._failures = self._failures + 1 if failed else 0
        if failed:
            pause = min(LONGEST_PAUSE, GATHER * 2**self._failures) * random.uniform(0.5, 1)
            with self._changed:
                self._wake_at = time.monotonic() + pause
        elif not self._leftovers_taken:
            self._leftovers_taken = True
            self._take_leftovers()

    def _take_leftovers(self):
        """Nobody else may look after logs for a server elsewhere: the next run for it sends what dead ones left."""
        own = token_id(self.url)
        try:
            leftovers.take_up(log.spools(self.folder), lambda by: self.server if (by["url"], by["token"]) == (self.url, own) else None)
        except Exception as error:
            _logger.debug("leftovers: %s", error)

    def _close_join(self, name):
        with self._changed:
            writer, _, _ = self._live.pop(name)
            if self._logs.get(writer.spool.run) is writer:
                del self._logs[writer.spool.run]
        writer.close()
        writer.spool.remove()

    def _remember(self, of, place):
        self._places[of] = place
        while len(self._places) > 1000:
            self._places.popitem(last=False)

    def _beat_if_due(self):
        if time.monotonic() >= self._next_beat:
            self._next_beat = time.monotonic() + BEAT
            self._beat()

    def _beat(self):
        for writer, delivery, _ in list(self._live.values()):
            writer.touch()
            run = writer.spool.run
            answers_for = (run in self._own and "-" not in writer.spool.name) or delivery.resumed
            if self._failures or not delivery.started or not answers_for:
                continue
            try:
                if self.server.call("POST", f"runs/{run}/heartbeat", {})["status"] in ("stopping", "cancelled"):
                    _stopped.add(run)
                self._heard_at = time.monotonic()
            except (Unavailable, Refused):
                return  # the next round says what is wrong


def at_exit():
    """A bounded while for what is under way; what is left is named, and how it is sent."""
    global _exiting
    _exiting = True
    for (pid, _), sender in list(_senders.items()):
        if pid == os.getpid():
            say_what_is_left(sender)


def is_exiting():
    return _exiting


def say_what_is_left(sender):
    try:
        # logs of runs that only this program joined have no end; they are whole when it ends
        if sender.flush(EXIT) and not any(w.waiting for w, _, _ in sender._live.values()):
            for name in list(sender._live):
                if "-" in name:
                    sender._close_join(name)
        logs, lines = sender.left()
        if lines:
            print(
                f"plinth-spool: {lines} lines of {logs} {'run' if logs == 1 else 'runs'} are not with {sender.url} yet. They are in {sender.folder}: "
                "plinth up on this home or the next run for that server takes them up, or send them with: python -m plinth_spool send",
                file=sys.stderr,
            )
    except Exception as error:
        _logger.debug("at exit: %s", error)


atexit.register(at_exit)
