"""Files of runs and models: straight to the server where that is there and has all that was logged before, else into the log."""

import os
import posixpath
import re

import requests
from mlflow.store.artifact.artifact_repo import verify_artifact_path
from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

from plinth_spool.delivery import number_of
from plinth_spool.sender import sender_of
from plinth_spool.server import Refused, Unavailable, credentials

_OF_RUN = re.compile(r"mlflow-artifacts:/[^/]+/([0-9a-f]{32})/artifacts(?:/(.*))?", re.DOTALL)
_OF_MODEL = re.compile(r"mlflow-artifacts:/[^/]+/models/(m-[0-9a-f]{32})/artifacts(?:/(.*))?", re.DOTALL)
_EXPERIMENT = re.compile(r"mlflow-artifacts:/(spool-[\w-]+)(/.*)?", re.DOTALL)


class SpoolArtifactRepository(MlflowArtifactsRepository):
    def __init__(self, artifact_uri, url, registry_uri=None):
        self._given, self._url, self._registry_uri = artifact_uri, url, registry_uri
        super().__init__(artifact_uri, tracking_uri=url, registry_uri=registry_uri)

    @property
    def _host_creds(self):
        creds = credentials(self._url)
        creds.host = self.artifact_uri
        return creds

    def log_artifact(self, local_file, artifact_path=None):
        verify_artifact_path(artifact_path)
        from plinth_spool.store import models_of

        sender = sender_of(self._url)
        found = _OF_RUN.fullmatch(self._given) or _OF_MODEL.fullmatch(self._given)
        of, below = found.groups() if found else (None, None)
        path = posixpath.join(*filter(None, [below, artifact_path, os.path.basename(local_file)]))
        run = of if found and _OF_RUN.fullmatch(self._given) else models_of(self._url).run_of(of) if of else None
        if sender.flush():
            try:
                place = self._place(sender, of)
                rest = path if of else posixpath.join(*filter(None, [artifact_path, os.path.basename(local_file)]))
                return sender.server.upload(f"{place}/{rest}", local_file)
            except Unavailable:
                if run is None:
                    raise
            except Refused as refused:
                if run is None or refused.for_good:
                    raise
        if run is None:
            raise Unavailable(f"No server answers at {self._url}, and {self._given} is nothing that this program logged.")
        part = sender.keep_file(run, local_file)
        if part is None:
            sender.warner(run)("files", f"there is no room to keep {path} until the server is back; it is not logged")
            models_of(self._url).lost_file(of)
            return sender.write(run, {"tags": {"plinth.lost_files": path[:8000]}})
        return sender.write(run, {"file": {"of": of, "path": path, "part": part, "bytes": os.path.getsize(local_file)}})

    def _place(self, sender, of):
        """Below which path of the server, now that it is there."""
        uri = (sender.place_of(of) if of else None) or self._given
        found = _EXPERIMENT.fullmatch(uri)
        if found:
            uri = f"mlflow-artifacts:/{number_of(sender.server, found[1])}{found[2] or ''}"
        return uri.removeprefix("mlflow-artifacts:/").strip("/")

    def _reading(self):
        """What was logged before is there to be read, at its true address."""
        sender = sender_of(self._url)
        if not sender.flush():
            raise requests.ConnectionError(f"No server answers at {self._url}.")
        found = _OF_RUN.fullmatch(self._given) or _OF_MODEL.fullmatch(self._given)
        if _EXPERIMENT.fullmatch(self._given):
            of, below = found.groups() if found else (None, None)
            place = self._place(sender, of)
            self.artifact_uri = self.resolve_uri(f"mlflow-artifacts:/{place}{f'/{below}' if below else ''}", self._url)

    def list_artifacts(self, path=None):
        self._reading()
        endpoint = "/mlflow-artifacts/artifacts"
        base, tail = self.artifact_uri.split(endpoint, maxsplit=1)
        return self._listed(base, endpoint, tail.lstrip("/"), path)

    def _listed(self, base, endpoint, root, path):
        from mlflow.entities import FileInfo
        from mlflow.utils.rest_utils import augmented_raise_for_status, http_request
        from mlflow.utils.uri import validate_path_is_safe

        creds = credentials(self._url)
        creds.host = base
        answer = http_request(creds, endpoint, "GET", params={"path": posixpath.join(root, path) if path else root})
        augmented_raise_for_status(answer)
        files = []
        for each in answer.json().get("files", []):
            name = validate_path_is_safe(each["path"])
            size = int(each["file_size"]) if "file_size" in each else None
            files.append(FileInfo(posixpath.join(path, name) if path else name, each["is_dir"], size))
        if len(files) == 1 and path and not files[0].is_dir and files[0].path == posixpath.join(path, os.path.basename(path)):
            return []  # a path that is a file lists itself
        return sorted(files, key=lambda file: file.path)

    def _download_file(self, remote_file_path, local_path):
        self._reading()
        super()._download_file(remote_file_path, local_path)

    def delete_artifacts(self, artifact_path=None):
        self._reading()
        super().delete_artifacts(artifact_path)
