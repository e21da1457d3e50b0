"""The log of one run: a file in the folder `spool` of the Plinth home, one line of JSON a call, only appended to.

The format is that of src/track/spool.ts of Plinth, which explains it; docs/inside/spool.md has an example.
"""

import contextlib
import json
import math
import os
import pathlib
import re
import secrets
import shutil
import threading
import time

from plinth_spool.worker import this_process

FORMAT = 1
MOST_WAITING = 10_000
"""Lines that are kept in memory while the disk takes none."""
MOST_FILE_BYTES = 10 * 2**30
LEAST_FREE_BYTES = 2**30
_NAME = re.compile(r"([0-9a-f]{32})(-[0-9a-f]{8})?\.jsonl")


def home():
    return pathlib.Path(os.environ.get("PLINTH_HOME") or pathlib.Path.home() / ".plinth").absolute()


def folder():
    return home() / "spool"


class Spool:
    """The files of one log, by the log's name."""

    def __init__(self, directory, name):
        self.folder = pathlib.Path(directory)
        self.name = name
        self.run = name[:32]

    def file(self, ending):
        return self.folder / f"{self.name}.{ending}"

    def lines(self, start=0):
        """Whole lines from a byte on, as (text, end). A torn last line is left out: nobody was told that it was written."""
        try:
            with open(self.file("jsonl"), "rb") as file:
                file.seek(start)
                end = start
                for line in file:
                    if not line.endswith(b"\n"):
                        return
                    end += len(line)
                    yield line[:-1].decode("utf-8", "replace"), end
        except (FileNotFoundError, NotADirectoryError):
            return

    def head(self):
        for text, _ in self.lines():
            line = read_line(text)
            return line if line and ("start" in line or "join" in line) else None
        return None

    def end(self):
        """How the run ended, where its writer came to say so: nothing is written after that."""
        with open(self.file("jsonl"), "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 4096))
            tail = file.read().decode("utf-8", "replace").split("\n")[:-1]
        lines = [line for line in map(read_line, tail) if line and "end" in line]
        return lines[-1]["end"] if lines else None

    def sent(self):
        try:
            sent = json.loads(self.file("sent").read_text())
            return {"bytes": int(sent["bytes"]), "settled": bool(sent["settled"])}
        except (OSError, ValueError, KeyError, TypeError):
            return {"bytes": 0, "settled": False}

    def write_sent(self, sent):
        """Renamed into its place but not flushed: what a power cut takes away is sent again."""
        part = self.file(f"sent.plinth-part-{secrets.token_hex(6)}")
        try:
            part.write_text(json.dumps(sent))
            os.replace(part, self.file("sent"))
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink()

    def remove(self):
        """With all that lies beside it, but for what the server refused: that is for a person to look at."""
        shutil.rmtree(self.file("files"), ignore_errors=True)
        for ending in ("jsonl", "sent"):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                self.file(ending).unlink()

    def last_sign(self):
        return self.file("jsonl").stat().st_mtime


def spools(directory):
    try:
        names = [entry.name for entry in os.scandir(directory)]
    except OSError:
        return []
    # who began a run comes before who joined it
    return [Spool(directory, name) for name in sorted(n[:-6] for n in names if _NAME.fullmatch(n))]


def read_line(text):
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None


class Log:
    """Writes. Every method is safe to call from any thread, and none raises because of a disk."""

    def __init__(self, directory, name, warn):
        self.spool = Spool(directory, name)
        self.waiting = []
        self.lost = 0
        self.written = 0
        """Lines that were appended, in the file or in memory."""
        self.closed = False
        self._warn = warn
        self._fd = None
        self._bytes = 0
        self._torn = False
        self._refused_at = None
        self._lock = threading.Lock()
        self._parts = 0

    def append(self, *lines):
        """In the file when it returns, in one piece: a kill of this process loses nothing. What the disk does not take is kept in memory."""
        text = b"".join(_encode(line) for line in lines)
        with self._lock:
            self.written += len(lines)
            if self._refused_at is None:
                try:
                    return self._write(text)
                except OSError as error:
                    self._warn("disk", f"its log cannot be written ({error.strerror}): the newest 10,000 lines are kept in memory until it can")
                    self._refused_at = time.monotonic()
            self.waiting += [line + b"\n" for line in text.split(b"\n")[:-1]]
            while len(self.waiting) > MOST_WAITING:
                # numbers go first, the oldest of them: without its start and its end a run is nothing
                victim = next((i for i, line in enumerate(self.waiting) if line.startswith(b'{"metrics"')), 0)
                del self.waiting[victim]
                self.lost += 1
            if time.monotonic() - self._refused_at > 1:
                self._write_waiting()

    def drop(self, lines):
        """These lines have reached the server another way."""
        gone = set(map(id, lines))
        with self._lock:
            self.waiting = [line for line in self.waiting if id(line) not in gone]

    def flush(self):
        """Makes what was appended survive a power cut."""
        with self._lock:
            if self.waiting:
                self._write_waiting()
            if self._fd is not None:
                try:
                    os.fsync(self._fd)
                except OSError:
                    pass

    def touch(self):
        """Says to whoever looks from another machine that the writer lives, and flushes, while the training goes on."""
        try:
            os.utime(self.spool.file("jsonl"))
            if self._fd is not None:
                os.fsync(self._fd)
        except OSError:
            pass

    def close(self):
        with self._lock:
            self.closed = True
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None

    def keep_file(self, source):
        """Copies a file beside the log and answers its name there, or None where there is no room."""
        if self._fd is None:
            return None  # without its line a file is nothing
        size = os.path.getsize(source)
        directory = self.spool.file("files")
        try:
            directory.mkdir(parents=True, mode=0o700, exist_ok=True)
            kept = sum(file.stat().st_size for file in self.spool.folder.glob("*.files/*"))
            if kept + size > MOST_FILE_BYTES or shutil.disk_usage(directory).free - size < LEAST_FREE_BYTES:
                return None
            with self._lock:
                self._parts += 1
                name = f"{self._parts}-{secrets.token_hex(4)}"
            shutil.copyfile(source, directory / name)
            return name
        except OSError as error:
            self._warn("copy", f"a file cannot be kept until the server is back ({error.strerror})")
            return None

    def _write(self, text):
        if self._fd is None:
            if self.closed:
                raise OSError(9, "the log is closed")
            self.spool.folder.mkdir(parents=True, mode=0o700, exist_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
            self._fd = os.open(self.spool.file("jsonl"), flags, 0o600)
        view = memoryview(b"\n" + text if self._torn else text)
        size = len(view)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
            self._bytes += size
            self._torn = False
        except OSError:
            self._torn = True
            os.ftruncate(self._fd, self._bytes)  # a full disk takes half a line before it refuses
            self._torn = False
            raise

    def _write_waiting(self):
        try:
            while self.waiting:
                self._write(b"".join(self.waiting[:100]))
                del self.waiting[:100]
            self._refused_at = None
        except OSError:
            self._refused_at = time.monotonic()


def head(kind, details, url, token):
    """The first line of a log; `token`: its public id, never the token."""
    return {kind: details, "by": {"worker": this_process(), "url": url, "token": token}, "format": FORMAT}


def number(value):
    """A double as the format writes it: JSON has no word for what is not finite."""
    value = float(value)
    return value if math.isfinite(value) else ("NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity")


def text(value, most):
    """What no database keeps is replaced: halves of letters, and NUL."""
    whole = str(value).replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
    if len(whole) * 2 <= most:
        return whole
    # the server counts in units of UTF-16
    return whole.encode("utf-16-le")[: 2 * most].decode("utf-16-le", "ignore")


def _encode(line):
    return json.dumps(line, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8", "replace") + b"\n"
