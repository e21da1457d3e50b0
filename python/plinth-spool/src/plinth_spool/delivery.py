"""Brings what a log holds to the server, in order, so that sending any part of it again changes nothing.

The same as src/track/spool-send.ts of Plinth: the run has the id that its client made, a point is known by its run, name, step, time and
value, a param keeps its first value, and how far it came is written down only after the server has answered.
"""

import base64
import json
import os
import re

from plinth_spool.log import read_line
from plinth_spool.server import Refused

MOST_POINTS, MOST_PAIRS, MOST_BYTES = 1_000, 100, 1_000_000
_PLACEHOLDER = re.compile(r"spool-([\w-]+)")
_PLACE = re.compile(r"mlflow-artifacts:/(?!/)(.+)", re.DOTALL)


def placeholder(name):
    """The id of an experiment that was named while no server was there to number it."""
    return "spool-" + base64.urlsafe_b64encode(name.encode()).rstrip(b"=").decode()


def placeholder_name(experiment_id):
    found = _PLACEHOLDER.fullmatch(str(experiment_id))
    return base64.urlsafe_b64decode(found[1] + "=" * (-len(found[1]) % 4)).decode() if found else None


def number_of(server, experiment_id):
    """The server's number for an experiment; made where there is none of that name."""
    name = placeholder_name(experiment_id)
    return experiment_id if name is None else server.call("PUT", "experiments", {"name": name})["experiment"]


class Delivery:
    def __init__(self, spool, server, *, alive, log=None, on_refused=lambda failure: None, on_progress=lambda: None):
        self.spool, self.server = spool, server
        self.started = self.ended = self.resumed = False
        self.places = {}
        """Where files of the run and of its models go: id → mlflow-artifacts:/…"""
        self._alive, self._log, self._on_refused, self._on_progress = alive, log, on_refused, on_progress
        self._head = self._sent = None
        self._restarted = False

    def send(self):
        """All there is now. Raises Unavailable, Refused: try again later."""
        self._resilient(self._send_all)

    def settle(self, end):
        """For a writer that is gone: the server learns how the run ended before it gets the rest."""
        self._resilient(lambda: self._settle(end))

    def _resilient(self, work):
        try:
            work()
            self._restarted = False
        except Refused as refused:
            # a server that was put back to an older copy, or to nothing, gets the run anew
            if refused.code != "tracked_run_not_found" or self._restarted or not self._head or "join" in self._head:
                raise
            self._restarted, self.started, self._sent = True, False, {"bytes": 0, "settled": False}
            self.places.clear()
            work()

    def _settle(self, end):
        self._sent = self._sent or self.spool.sent()
        self._head = self._head or self.spool.head()
        if self._sent["settled"] or not self._head or "join" in self._head:
            return
        self._start()
        self._end(end)
        self._sent = {**self._sent, "settled": True}
        self.spool.write_sent(self._sent)

    def _send_all(self):
        self._sent = self._sent or self.spool.sent()
        self._head = self._head or self.spool.head()
        self._send_lines(self.spool.lines(self._sent["bytes"]), self._record)
        waiting = list(self._log.waiting) if self._log else []
        if waiting:
            lines = ((line.decode("utf-8", "replace"), i + 1) for i, line in enumerate(waiting))
            self._send_lines(lines, lambda count: self._log.drop(waiting[:count]))

    def _record(self, end):
        if end > self._sent["bytes"]:
            self._sent = {**self._sent, "bytes": end}
            self.spool.write_sent(self._sent)

    def _start(self):
        if self.started or not self._head:
            return
        run = self.spool.run
        if "join" in self._head:
            self.places[run] = self.server.call("GET", f"runs/{run}")["location"]
        else:
            start = self._head["start"]
            experiment = start["experiment"]
            number = experiment["id"] if "id" in experiment else self.server.call("PUT", "experiments", {"name": experiment["name"]})["experiment"]
            body = {"run": run, "experiment": number, "started": start["started"], "tags": start["tags"]}
            if start["name"] is not None:
                body["name"] = start["name"]
            if self._alive:
                body["worker"] = self._head["by"]["worker"]
            self.places[run] = self.server.call("POST", "runs", body)["location"]
        self.started = True

    def _end(self, end):
        body = {"status": end["status"], "reason": end["reason"], "ended": end["at"]}
        self.server.call("POST", f"runs/{self.spool.run}/end", body)

    def _send_lines(self, lines, arrived):
        entries, params, points, size, up_to = [], {}, 0, 0, None

        def flush():
            nonlocal entries, points, size
            self._send_entries(entries)
            entries, points, size = [], 0, 0
            params.clear()
            if up_to is not None:
                arrived(up_to)
            self._on_progress()

        for text, end in lines:
            line = read_line(text)
            if line is None:
                if text:
                    self._refuse({"line": text[:10_000]}, Refused(400, "spool_line", "A line of the log cannot be read; it is put aside."))
            elif "start" in line or "join" in line:
                self._head = self._head or line
            else:
                self._start()
                more = _entries(line)
                if more is None:
                    flush()
                    self._act(line)
                else:
                    more_points = len(more) if "metrics" in line else 0
                    clash = any(params.get(key, value) != value for key, value in line.get("params", {}).items())
                    full = size + len(text) > MOST_BYTES or points + more_points > MOST_POINTS
                    if full or clash or len(entries) - points + len(more) - more_points > MOST_PAIRS:
                        flush()
                    entries += more
                    points += more_points
                    size += len(text)
                    params.update(line.get("params", {}))
            up_to = end
        flush()
        self._start()

    def _send_entries(self, entries):
        """All or nothing is the server's rule; halves find what it does not take."""
        if not entries:
            return
        body = {
            "metrics": [value for kind, value in entries if kind == "point"],
            "params": dict(value for kind, value in entries if kind == "param"),
            "tags": dict(value for kind, value in entries if kind == "tag"),
        }
        try:
            self.server.call("POST", f"runs/{self.spool.run}/log", body)
        except Refused as refused:
            if not refused.for_good:
                raise
            if len(entries) == 1:
                return self._refuse({entries[0][0]: entries[0][1]}, refused)
            half = len(entries) // 2
            self._send_entries(entries[:half])
            self._send_entries(entries[half:])

    def _act(self, line):
        if "resume" in line:
            # of a dead process too: then whoever looks for lost runs finds it
            body = {"worker": self._head["by"]["worker"]} if self._head else {}
            self.server.call("POST", f"runs/{self.spool.run}/resume", body)
            self.resumed = True
        elif "end" in line:
            if not self._sent["settled"]:
                self._end(line["end"])
            self.ended = True
        elif "call" in line:
            call = line["call"]
            body = call["body"]
            if "experiment_id" in body:
                body = {**body, "experiment_id": number_of(self.server, body["experiment_id"])}
            self._try(line, lambda: self.server.mlflow(call["method"], call["path"], body))
        elif "file" in line:
            self._try(line, lambda: self._upload(line["file"]))

    def _upload(self, file):
        found = _PLACE.fullmatch(self.place_of(file["of"]))
        if not found:
            raise Refused(400, "spool_files_elsewhere", f"The file {file['path']} belongs to a run whose files are not kept by this server.")
        try:
            self.server.upload(f"{found[1]}/{file['path']}", self.spool.file("files") / os.path.basename(file["part"]))
        except FileNotFoundError as error:
            raise Refused(404, "spool_part_missing", f"The content of the file {file['path']} is not beside the log any more.") from error

    def place_of(self, of):
        if of not in self.places:
            model = self.server.mlflow("GET", f"logged-models/{of}")["model"]
            self.places[of] = model["info"]["artifact_uri"]
        return self.places[of]

    def _try(self, what, act):
        try:
            act()
        except Refused as refused:
            if not refused.for_good:
                raise
            self._refuse(what, refused)

    def _refuse(self, what, refused):
        line = json.dumps({**what, "refused": {"code": refused.code, "message": refused.message}}, ensure_ascii=False)
        try:
            with open(self.spool.file("refused"), "a", encoding="utf-8", errors="replace") as file:
                file.write(line + "\n")
        except OSError:
            pass
        self._on_refused(refused)


def _entries(line):
    """What is gathered into one request with others; None for what is a request of its own."""
    if "metrics" in line:
        rest = {"step": line["step"], "timestamp": line["at"]}
        rest |= {key: line[key] for key in ("model", "dataset") if key in line}
        return [("point", {"key": key, "value": value, **rest}) for key, value in line["metrics"].items()]
    if "params" in line:
        return [("param", pair) for pair in line["params"].items()]
    if "tags" in line:
        return [("tag", pair) for pair in line["tags"].items()]
    return None
