"""MLflow's tracking store over a log: what runs write goes into the log and returns; what is read comes from the server, or, for runs of
this program while the server is away, from what this program knows."""

import functools
import json
import threading
import time
import urllib.parse
import uuid

from mlflow.entities import (
    Experiment,
    LifecycleStage,
    LoggedModel,
    LoggedModelStatus,
    Metric,
    Param,
    Run,
    RunData,
    RunInfo,
    RunStatus,
    RunTag,
    ViewType,
)
from mlflow.exceptions import MlflowException
from mlflow.protos.service_pb2 import CreateLoggedModel, FinalizeLoggedModel, LogInputs, LogOutputs, SetLoggedModelTags
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.model_registry.rest_store import RestStore as RegistryRestStore
from mlflow.store.tracking.rest_store import RestStore
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME, MLFLOW_USER
from mlflow.utils.name_utils import _generate_random_name
from mlflow.utils.proto_json_utils import message_to_json

from plinth_spool import log
from plinth_spool import sender as senders
from plinth_spool.delivery import number_of, placeholder, placeholder_name
from plinth_spool.server import credentials

KEY, PARAM, TAG, NAME = 250, 6_000, 8_000, 500
_ENDS = {RunStatus.FINISHED: "succeeded", RunStatus.FAILED: "failed", RunStatus.KILLED: "cancelled"}


class OwnRun:
    """What this program knows of a run that it began."""

    def __init__(self, info, tags):
        self.info, self.tags, self.params, self.latest = info, tags, {}, {}

    def as_run(self, place):
        info = self.info if place is None else _changed(self.info, artifact_uri=place)
        data = RunData(
            metrics=list(self.latest.values()),
            params=[Param(key, value) for key, value in self.params.items()],
            tags=[RunTag(key, value) for key, value in self.tags.items()],
        )
        return Run(info, data)


class OwnModels:
    """Models that this program logged, by id."""

    def __init__(self):
        self._models, self._incomplete, self._lock = {}, set(), threading.Lock()

    def get(self, model_id):
        return self._models.get(model_id)

    def put(self, model):
        with self._lock:
            self._models[model.model_id] = model
            while len(self._models) > 1000:
                del self._models[next(iter(self._models))]

    def run_of(self, model_id):
        model = self._models.get(model_id)
        return model.source_run_id if model else None

    def lost_file(self, of):
        self._incomplete.add(of)

    def is_whole(self, model_id):
        return model_id not in self._incomplete


@functools.lru_cache(maxsize=8)
def models_of(url):
    return OwnModels()


class SpoolStore(RestStore):
    def __init__(self, url):
        self._url = url
        self._runs = {}
        self._experiments = {}
        self._models = models_of(url)
        super().__init__(functools.partial(credentials, url))

    @property
    def _sender(self):
        return senders.sender_of(self._url)

    def _call_endpoint(self, *args, **kwargs):
        """What the server is asked, it is asked after what was logged before."""
        self._sender.flush()
        return super()._call_endpoint(*args, **kwargs)

    # ── experiments ──

    def get_experiment_by_name(self, experiment_name):
        if self._sender.is_there():
            found = super().get_experiment_by_name(experiment_name)
            return self._seen(found) if found else None
        known = [each for each in self._experiments.values() if each.name == experiment_name]
        return known[0] if known else _unnumbered(experiment_name)

    def get_experiment(self, experiment_id):
        if self._sender.is_there():
            return self._seen(super().get_experiment(self._number(experiment_id)))
        name = placeholder_name(experiment_id)
        if name is not None:
            return _unnumbered(name)
        known = self._experiments.get(str(experiment_id))
        if known:
            return known
        name = "Default" if str(experiment_id) == "0" else f"experiment {experiment_id}"
        return Experiment(str(experiment_id), name, f"mlflow-artifacts:/{experiment_id}", LifecycleStage.ACTIVE)

    def create_experiment(self, name, artifact_location=None, tags=None):
        if self._sender.is_there() or artifact_location is not None or tags:
            return super().create_experiment(name, artifact_location, tags)
        return placeholder(name)

    def _seen(self, experiment):
        self._experiments[experiment.experiment_id] = experiment
        return experiment

    def _number(self, experiment_id):
        return number_of(self._sender.server, experiment_id)

    # ── runs ──

    def create_run(self, experiment_id, user_id, start_time, tags, run_name):
        run_id = uuid.uuid4().hex
        experiment_id = str(experiment_id)
        pairs = _pairs(tags, TAG)
        name = log.text(run_name or pairs.get(MLFLOW_RUN_NAME) or _generate_random_name(), NAME)
        pairs[MLFLOW_RUN_NAME] = name
        if user_id:
            pairs.setdefault(MLFLOW_USER, log.text(user_id, TAG))
        started = int(start_time or time.time() * 1000)
        numberless = placeholder_name(experiment_id)
        experiment = {"id": experiment_id} if numberless is None else {"name": numberless}
        self._sender.begin(run_id, {"run": run_id, "experiment": experiment, "name": name, "started": started, "tags": pairs})
        known = self._experiments.get(experiment_id)
        location = known.artifact_location if known else f"mlflow-artifacts:/{experiment_id}"
        info = RunInfo(
            run_id=run_id,
            experiment_id=experiment_id,
            user_id=user_id or "unknown",
            status=RunStatus.to_string(RunStatus.RUNNING),
            start_time=started,
            end_time=None,
            lifecycle_stage=LifecycleStage.ACTIVE,
            artifact_uri=f"{location}/{run_id}/artifacts",
            run_name=name,
        )
        own = self._runs[run_id] = OwnRun(info, dict(pairs))
        return own.as_run(None)

    def update_run_info(self, run_id, run_status, end_time, run_name):
        own = self._runs.get(run_id)
        lines = []
        if run_name:
            lines.append(_call("POST", "runs/update", {"run_id": run_id, "run_name": log.text(run_name, NAME)}))
        ended = int(end_time or time.time() * 1000)
        if run_status in _ENDS:
            lines.append({"end": {"status": _ENDS[run_status], "reason": None, "at": ended}})
        elif run_status == RunStatus.RUNNING:
            # a run that is going on already has somebody who answers for it
            if own is None or own.info.status != "RUNNING":
                lines.append({"resume": True})
        elif run_status is not None:
            lines.append(_call("POST", "runs/update", {"run_id": run_id, "status": RunStatus.to_string(run_status)}))
        if lines:
            self._sender.write(run_id, *lines)
        if senders.is_exiting():
            senders.say_what_is_left(self._sender)
        if own is None:
            return self.get_run(run_id).info
        change = {"run_name": run_name} if run_name else {}
        if run_status is not None:
            change |= {"status": RunStatus.to_string(run_status), "end_time": ended if run_status in _ENDS else None}
        own.info = _changed(own.info, **change)
        return own.info

    def get_run(self, run_id):
        own = self._runs.get(run_id)
        arrived = self._sender.flush()
        if own is None or arrived:
            try:
                return super().get_run(run_id)
            except Exception:
                if own is None:
                    raise
        return own.as_run(self._sender.place_of(run_id))

    def log_metric(self, run_id, metric):
        self.log_batch(run_id, [metric], [], [])

    def log_param(self, run_id, param):
        self.log_batch(run_id, [], [param], [])

    def set_tag(self, run_id, tag):
        self.log_batch(run_id, [], [], [tag])

    def log_batch(self, run_id, metrics, params, tags):
        lines = [*self._metric_lines(run_id, metrics), *self._param_lines(run_id, params)]
        pairs = _pairs(tags, TAG)
        name = pairs.pop(MLFLOW_RUN_NAME, None)
        if pairs:
            lines.append({"tags": pairs})
        if name is not None:  # it is the name of the run in another place, which only MLflow's API knows
            lines.append(_call("POST", "runs/set-tag", {"run_id": run_id, "key": MLFLOW_RUN_NAME, "value": name}))
        own = self._runs.get(run_id)
        if own:
            own.tags |= pairs
            if name is not None:
                own.tags[MLFLOW_RUN_NAME] = name
                own.info = _changed(own.info, run_name=name)
        if lines:
            self._sender.write(run_id, *lines)

    def _metric_lines(self, run_id, metrics):
        groups = {}
        own = self._runs.get(run_id)
        for metric in metrics:
            key = _key(metric.key)
            try:
                value, step, at = float(metric.value), int(metric.step or 0), int(metric.timestamp)
            except (TypeError, ValueError, OverflowError):
                key = None
            if key is None or not (0 <= at < 2**53 and abs(step) < 2**53):
                self._sender.warner(run_id)("metric", f"the metric {metric.key!r} = {metric.value!r} at step {metric.step!r} cannot be kept")
                continue
            group = (step, at, metric.model_id, metric.dataset_name, metric.dataset_digest)
            lists = groups.setdefault(group, [{}])
            if key in lists[-1] or len(lists[-1]) >= 500:
                lists.append({})
            lists[-1][key] = log.number(value)
            if own:
                latest = own.latest.get(key)
                if latest is None or (step, at, value) >= (latest.step, latest.timestamp, latest.value):
                    own.latest[key] = Metric(key, value, at, step)
        for (step, at, model, name, digest), lists in groups.items():
            rest = {"model": model} if model else {}
            if name and digest:
                rest["dataset"] = {"name": name, "digest": digest}
            for values in lists:
                yield {"metrics": values, "step": step, "at": at, **rest}

    def _param_lines(self, run_id, params):
        own = self._runs.get(run_id)
        fresh = {}
        for key, value in _pairs(params, PARAM).items():
            before = own.params.get(key) if own else None
            if before is not None and before != value:
                self._sender.warner(run_id)(f"param {key}", f"the param {key} stays {before!r}; {value!r} is not taken")
            elif before is None:
                fresh[key] = value
                if own:
                    own.params[key] = value
        return [{"params": fresh}] if fresh else []

    def delete_tag(self, run_id, key):
        own = self._runs.get(run_id)
        if own is None:
            return super().delete_tag(run_id, key)
        if own.tags.pop(key, None) is None:
            raise MlflowException.invalid_parameter_value(f"No tag with name: {key} in run with id {run_id}")
        self._sender.write(run_id, _call("POST", "runs/delete-tag", {"run_id": run_id, "key": key}))

    def log_inputs(self, run_id, datasets=None, models=None):
        message = LogInputs(run_id=run_id, datasets=[d.to_proto() for d in datasets or []], models=[m.to_proto() for m in models or []])
        self._sender.write(run_id, _call("POST", "runs/log-inputs", json.loads(message_to_json(message))))

    def log_outputs(self, run_id, models):
        message = LogOutputs(run_id=run_id, models=[model.to_proto() for model in models])
        self._sender.write(run_id, _call("POST", "runs/outputs", json.loads(message_to_json(message))))

    def record_logged_model(self, run_id, mlflow_model):
        body = {"run_id": run_id, "model_json": json.dumps(mlflow_model.get_tags_dict())}
        self._sender.write(run_id, _call("POST", "runs/log-model", body))

    def get_metric_history(self, run_id, metric_key, max_results=None, page_token=None):
        own = self._runs.get(run_id)
        if self._sender.flush() or own is None:
            return super().get_metric_history(run_id, metric_key, max_results, page_token)
        points = []
        for spool in log.spools(self._sender.folder):
            if spool.run == run_id:
                for text, _ in spool.lines():
                    line = log.read_line(text) or {}
                    if metric_key in line.get("metrics", {}):
                        points.append(Metric(metric_key, float(line["metrics"][metric_key]), line["at"], line["step"]))
        return PagedList(sorted(points, key=lambda point: (point.timestamp, point.step)), None)

    def search_runs(self, experiment_ids, filter_string, run_view_type, max_results=1000, order_by=None, page_token=None):
        if self._sender.flush():
            numbers = [self._number(each) for each in experiment_ids]
            return super().search_runs(numbers, filter_string, run_view_type, max_results, order_by, page_token)
        if filter_string or order_by or run_view_type == ViewType.DELETED_ONLY:
            raise MlflowException(f"No server answers at {self._url}, and without it runs are not searched by conditions.")
        found = [own for own in self._runs.values() if own.info.experiment_id in map(str, experiment_ids)]
        runs = [own.as_run(self._sender.place_of(own.info.run_id)) for own in reversed(found)]
        return PagedList(runs[:max_results], None)

    # ── models ──

    def create_logged_model(self, experiment_id, name=None, source_run_id=None, tags=None, params=None, model_type=None):
        if source_run_id is None or source_run_id not in self._runs:
            return super().create_logged_model(self._number(experiment_id), name, source_run_id, tags, params, model_type)
        model_id = f"m-{uuid.uuid4().hex}"
        name = name or _generate_random_name()
        message = CreateLoggedModel(
            experiment_id=str(experiment_id),
            name=name,
            model_type=model_type,
            source_run_id=source_run_id,
            params=[each.to_proto() for each in params or []],
            tags=[each.to_proto() for each in tags or []],
        )
        body = {**json.loads(message_to_json(message)), "model_id": model_id}
        self._sender.write(source_run_id, _call("POST", "logged-models", body))
        now = int(time.time() * 1000)
        known = self._experiments.get(str(experiment_id))
        location = known.artifact_location if known else f"mlflow-artifacts:/{experiment_id}"
        model = LoggedModel(
            experiment_id=str(experiment_id),
            model_id=model_id,
            name=name,
            artifact_location=f"{location}/models/{model_id}/artifacts",
            creation_timestamp=now,
            last_updated_timestamp=now,
            model_type=model_type,
            source_run_id=source_run_id,
            status=LoggedModelStatus.PENDING,
            tags=tags,
            params=params,
        )
        self._models.put(model)
        return model

    def get_logged_model(self, model_id, allow_deleted=False):
        own = self._models.get(model_id)
        if self._sender.flush() or own is None:
            return super().get_logged_model(model_id, allow_deleted)
        return own

    def log_logged_model_params(self, model_id, params):
        own = self._models.get(model_id)
        if own is None:
            return super().log_logged_model_params(model_id, params)
        for at in range(0, len(params), 100):
            pairs = [{"key": each.key, "value": each.value} for each in params[at : at + 100]]
            self._sender.write(own.source_run_id, _call("POST", f"logged-models/{model_id}/params", {"params": pairs}))

    def set_logged_model_tags(self, model_id, tags):
        own = self._models.get(model_id)
        if own is None:
            return super().set_logged_model_tags(model_id, tags)
        body = json.loads(message_to_json(SetLoggedModelTags(tags=[tag.to_proto() for tag in tags])))
        self._sender.write(own.source_run_id, _call("PATCH", f"logged-models/{model_id}/tags", body))

    def delete_logged_model_tag(self, model_id, key):
        own = self._models.get(model_id)
        if own is None:
            return super().delete_logged_model_tag(model_id, key)
        self._sender.write(own.source_run_id, _call("DELETE", f"logged-models/{model_id}/tags/{urllib.parse.quote(key, safe='')}", {}))

    def finalize_logged_model(self, model_id, status):
        own = self._models.get(model_id)
        if own is None:
            return super().finalize_logged_model(model_id, status)
        if status == LoggedModelStatus.READY and not self._models.is_whole(model_id):
            status = LoggedModelStatus.FAILED  # a file of it could not be kept
        body = json.loads(message_to_json(FinalizeLoggedModel(model_id=model_id, status=status.to_proto())))
        self._sender.write(own.source_run_id, _call("PATCH", f"logged-models/{model_id}", body))
        own._status = status
        own._last_updated_timestamp = int(time.time() * 1000)
        return own

    def search_logged_models(self, experiment_ids, *args, **kwargs):
        return super().search_logged_models([self._number(each) for each in experiment_ids], *args, **kwargs)


class SpoolRegistryStore(RegistryRestStore):
    def __init__(self, url):
        self._url = url
        super().__init__(functools.partial(credentials, url))

    def _call_endpoint(self, *args, **kwargs):
        """A version is made of a model that the server knows."""
        senders.sender_of(self._url).flush()
        return super()._call_endpoint(*args, **kwargs)


def registry(url):
    return SpoolRegistryStore(url)


def _call(method, path, body):
    return {"call": {"method": method, "path": path, "body": body}}


def _pairs(entities, most):
    return {key: log.text(each.value, most) for each in entities or [] if (key := _key(each.key)) is not None}


def _key(key):
    name = log.text(key, KEY + 1)
    return name if 0 < len(name) <= KEY else None


def _changed(info, **change):
    fields = {
        "run_id": info.run_id,
        "experiment_id": info.experiment_id,
        "user_id": info.user_id,
        "status": info.status,
        "start_time": info.start_time,
        "end_time": info.end_time,
        "lifecycle_stage": info.lifecycle_stage,
        "artifact_uri": info.artifact_uri,
        "run_name": info.run_name,
    }
    return RunInfo(**{**fields, **change})


def _unnumbered(name):
    """An experiment that gets its number when the server is back."""
    number = placeholder(name)
    return Experiment(number, name, f"mlflow-artifacts:/{number}", LifecycleStage.ACTIVE)
