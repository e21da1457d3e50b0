"""A Plinth server, as far as logs need it, and where it is."""

import json
import os
import pathlib
import re
import threading
import urllib.parse

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, TEMPORARILY_UNAVAILABLE

from plinth_spool import log
from plinth_spool.worker import is_alive

CONNECT, READ = 3.05, 30.0
"""Seconds. A server that takes longer is asked again later."""

_WAITED_FOR = {
    "tracked_run_not_found",
    "tracked_run_deleted",
    "experiment_not_found",
    "experiment_deleted",
    "api_route_not_found",
    "ENDPOINT_NOT_FOUND",
}


class Unavailable(MlflowException):
    """The network, or a server that is not able to now: try again later."""

    def __init__(self, message):
        super().__init__(message, error_code=TEMPORARILY_UNAVAILABLE)


class Refused(MlflowException):
    """What the server said no to."""

    def __init__(self, status, code, message):
        super().__init__(message, error_code=INVALID_PARAMETER_VALUE)
        self.status, self.code = status, code

    @property
    def for_good(self):
        """What may pass (a token, a limit, a run that is deleted and can be restored) is waited for instead."""
        return 400 <= self.status < 500 and self.status not in (401, 403, 408, 429) and self.code not in _WAITED_FOR


class Server:
    def __init__(self, url):
        self.url = url.rstrip("/")
        self._sessions = threading.local()

    def call(self, method, path, body=None):
        """Of Plinth's own API; `path` is below /api/. Raises Unavailable, Refused."""
        return self._ask(method, f"/api/{path}", json_body=body)

    def mlflow(self, method, path, body=None):
        """Of MLflow's; `path` is below /api/2.0/mlflow/. Raises Unavailable, Refused."""
        return self._ask(method, f"/api/2.0/mlflow/{path}", json_body=body)

    def upload(self, place, path):
        """`place`: below /api/2.0/mlflow-artifacts/artifacts/. Raises Unavailable, Refused, OSError for the file."""
        with open(path, "rb") as file:
            target = f"/api/2.0/mlflow-artifacts/artifacts/{urllib.parse.quote(place)}"
            self._ask("PUT", target, data=file, headers={"Content-Type": "application/octet-stream"})

    def is_there(self):
        try:
            return self._session().get(f"{self.url}/healthz", timeout=(2, 2), verify=self._verify()).status_code == 200
        except Exception:
            return False

    def _ask(self, method, path, json_body=None, data=None, headers=None):
        import requests

        if json_body is not None:
            data = json.dumps(json_body, allow_nan=False).encode("utf-8", "replace")
            headers = {"Content-Type": "application/json"}
        creds = credentials(self.url)
        headers = dict(headers or {})
        auth = None
        if creds.token:
            headers["Authorization"] = f"Bearer {creds.token}"
        elif creds.username:
            auth = (creds.username, creds.password or "")
        try:
            answer = self._session().request(
                method,
                self.url + path,
                data=data,
                headers=headers,
                auth=auth,
                timeout=(CONNECT, READ),
                verify=self._verify(),
                allow_redirects=False,
            )
        except requests.RequestException as error:
            raise Unavailable(f"No server answers at {self.url} ({type(error).__name__}).") from error
        try:
            body = answer.json()
        except ValueError:
            body = None
        if answer.status_code == 200 and isinstance(body, dict):
            return body
        if isinstance(body, dict) and isinstance(body.get("error"), dict):
            error = body["error"]
            raise _told(answer.status_code, error.get("code", ""), f"{error.get('message', '')} {error.get('next', '')}".strip())
        if isinstance(body, dict) and "error_code" in body:
            raise _told(answer.status_code, body["error_code"], body.get("message", ""))
        raise Unavailable(f"What answers at {self.url} is no Plinth server as this version knows it ({answer.status_code}).")

    def _session(self):
        """One for each thread and process."""
        import requests

        session = getattr(self._sessions, "session", None)
        if session is None or self._sessions.pid != os.getpid():
            session = self._sessions.session = requests.Session()
            self._sessions.pid = os.getpid()
        return session

    def _verify(self):
        creds = credentials(self.url)
        return False if creds.ignore_tls_verification else (creds.server_cert_path or True)


def _told(status, code, message):
    return Unavailable(message) if status >= 500 else Refused(status, code, message)


def credentials(url):
    """As MLflow has them; else what `plinth login` keeps for the server; else the home's token, for the very server that keeps the home."""
    from mlflow.utils.credentials import get_default_host_creds

    creds = get_default_host_creds(url)
    if not creds.token and not creds.username:
        creds.token = _token_of_login(url) or _token_of_home(url)
    return creds


def token_id(url):
    """The public part of the token that is used; None without one."""
    found = re.match(r"plinth_([0-9a-f]{12})_", credentials(url).token or "")
    return found[1] if found else None


def _token_of_login(url):
    try:
        file = pathlib.Path(os.environ.get("XDG_CONFIG_HOME") or pathlib.Path.home() / ".config") / "plinth" / "servers.json"
        if os.name != "nt" and file.stat().st_mode & 0o077:
            return None  # somebody else can read it
        server = urllib.parse.urlsplit(url)
        return json.loads(file.read_text())[f"{server.scheme}://{server.netloc}"]["token"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _token_of_home(url):
    keeper = keeper_url(log.home())
    if keeper is None or not _same(keeper, url):
        return None
    try:
        return (log.home() / "token").read_text().strip() or None
    except OSError:
        return None


def keeper_url(home):
    """Where the process that keeps the home answers; None where nobody alive does."""
    try:
        file = home / "server"
        keeper = json.loads(file.read_text())
        return keeper["url"] if is_alive(keeper["worker"], file.stat().st_mtime) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _same(a, b):
    one, other = urllib.parse.urlsplit(a), urllib.parse.urlsplit(b)
    here = ("localhost", "127.0.0.1", "::1")
    return one.hostname in here and other.hostname in here and (one.scheme, one.port) == (other.scheme, other.port)
