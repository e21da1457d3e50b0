"""What MLflow finds through the entry points of this package. Light: it is read by every program that imports MLflow."""

import functools

from plinth_spool import sender  # noqa: F401  registers the end of the program before MLflow does, so that it comes after MLflow's

PREFIX = "plinth+"


@functools.lru_cache(maxsize=8)
def tracking_store(store_uri, artifact_uri=None):
    from plinth_spool.store import SpoolStore

    return SpoolStore(store_uri.removeprefix(PREFIX).rstrip("/"))


def registry_store(store_uri):
    from plinth_spool.store import registry

    return registry(store_uri.removeprefix(PREFIX).rstrip("/"))


def artifact_repository(artifact_uri, tracking_uri=None, registry_uri=None):
    """Files of a Plinth server go through the log too; those of any other server as ever."""
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository
    from mlflow.tracking import get_tracking_uri

    uri = tracking_uri or get_tracking_uri()
    if not uri.startswith(PREFIX):
        return MlflowArtifactsRepository(artifact_uri, tracking_uri=tracking_uri, registry_uri=registry_uri)
    from plinth_spool.artifacts import SpoolArtifactRepository

    return SpoolArtifactRepository(artifact_uri, uri.removeprefix(PREFIX).rstrip("/"), registry_uri)
