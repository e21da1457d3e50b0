"""Runs at the start of every Python of a tracked job, and does nothing until MLflow or a framework that it knows is imported.

With PLINTH_AUTOLOG=1 the import of a framework turns MLflow's autologging on, into the run of the job (MLFLOW_RUN_ID). Without it only one
thing is different: a script that chooses an experiment of its own gets a run there, where MLflow alone refuses to start one.
A script never fails because of this file.
"""

import os
import sys

# what mlflow.autolog() logs the trainings of; torch alone has nothing to hook into
_FRAMEWORKS = {
    "sklearn", "tensorflow", "keras", "xgboost", "lightgbm", "statsmodels", "pyspark", "pytorch_lightning", "lightning", "transformers", "setfit",
}  # fmt: skip


def _say(text):
    # once a job, not once for each process that a data loader starts
    if os.environ.get("PLINTH_AUTOLOG_SAID") == text:
        return
    os.environ["PLINTH_AUTOLOG_SAID"] = text
    try:
        sys.stderr.write("plinth: " + text + "\n")
        sys.stderr.flush()
    except Exception:
        pass


def _leads():
    """One process of many logs; workers of pools and loaders do not."""
    words = getattr(sys, "orig_argv", sys.argv if hasattr(sys, "argv") else [])
    if any("multiprocessing" in word or "loky" in word for word in words):
        return False
    return all(os.environ.get(name, "0") in ("", "0") for name in ("RANK", "NODE_RANK", "JAX_PROCESS_ID"))


class _Watch:
    """Finds nothing itself: lets the others find, and acts when the outermost module that it watches has been executed."""

    def __init__(self, names, act):
        self.names = names
        self.act = act
        self.depth = {}

    def find_spec(self, name, path=None, target=None):
        if name not in self.names:
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None and hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader, self)
                return spec
        return None

    def enter(self):
        import _thread

        me = _thread.get_ident()
        self.depth[me] = self.depth.get(me, 0) + 1

    def leave(self, module, worked):
        import _thread

        me = _thread.get_ident()
        self.depth[me] -= 1
        if self.depth[me] == 0 and worked and module.__name__ in self.names:
            try:
                self.act(self, module)
            except Exception as error:
                _say("autologging is off: %s: %s" % (type(error).__name__, error))

    def stop(self):
        if self in sys.meta_path:
            sys.meta_path.remove(self)


class _Loader:
    def __init__(self, loader, watch):
        self._loader = loader
        self._watch = watch

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        # from here on nobody sees that somebody stood in between
        module.__loader__ = self._loader
        if getattr(module, "__spec__", None) is not None:
            module.__spec__.loader = self._loader
        self._watch.enter()
        worked = False
        try:
            self._loader.exec_module(module)
            worked = True
        finally:
            self._watch.leave(module, worked)


def _autolog(watch, module):
    watch.stop()
    import importlib.util

    if not os.environ.get("MLFLOW_RUN_ID") and not os.environ.get("PLINTH_RUN_ID"):
        _say("--autolog has nothing to log to: the job is not tracked")
        return
    if importlib.util.find_spec("mlflow") is None:
        _say("--autolog needs mlflow, which is not in the environment of this job; add the line mlflow to its requirements")
        return
    import mlflow

    # MLflow's side of TensorFlow hands every training a callback of TensorBoard, which TensorFlow does not bring along any more: without it
    # the training would fail. Keras 3 is logged by a side of its own.
    if importlib.util.find_spec("tensorflow") is not None and importlib.util.find_spec("tensorboard") is None:
        mlflow.autolog(exclude_flavors=["tensorflow"])
    else:
        mlflow.autolog()
    _say("MLflow's autologging is on")


def _steady(watch, module):
    """Which run is whose. MLflow takes MLFLOW_RUN_ID for the first run that is started, and refuses it where the script chose an experiment.

    The first training that is logged by itself goes into the run of the job, later ones into runs below it: their params would contradict.
    Runs that a script starts stay as MLflow makes them: the first is the job's.
    """
    watch.stop()
    job = os.environ.get("MLFLOW_RUN_ID")
    original, end = getattr(module, "start_run", None), getattr(module, "end_run", None)
    if not job or original is None or end is None:
        return
    import functools

    @functools.wraps(original)
    def start_run(run_id=None, *words, **named):
        if run_id is None and not named.get("nested") and module.active_run() is None:
            own = os.environ.get("MLFLOW_RUN_ID") == job
            if own and _elsewhere(module, job, named.get("experiment_id")):
                own = False
                del os.environ["MLFLOW_RUN_ID"]
                _say("the script chose an experiment of its own; its runs are there, with the tag plinth.job_run")
            if not own:
                tags = dict(named.get("tags") or {}, **{"plinth.job_run": job})
                if _called_by_mlflow():
                    tags["mlflow.parentRunId"] = job
                    named.setdefault("experiment_id", module.get_run(job).info.experiment_id)
                named["tags"] = tags
        return original(run_id, *words, **named)

    @functools.wraps(end)
    def end_run(status="FINISHED"):
        active = module.active_run()
        # autologging calls a run failed when something could not be logged; how the job ended is told by its exit code
        if status == "FAILED" and active is not None and active.info.run_id == job and _called_by_mlflow():
            status = "FINISHED"
        return end(status)

    module.start_run, module.end_run = start_run, end_run


def _called_by_mlflow():
    return sys._getframe(2).f_globals.get("__name__", "").startswith("mlflow.")


def _elsewhere(mlflow, run, experiment):
    try:
        chosen = experiment or getattr(sys.modules.get("mlflow.tracking.fluent"), "_active_experiment_id", None)
        return chosen is not None and mlflow.get_run(run).info.experiment_id != str(chosen)
    except Exception:
        return False


def _end_group():
    """PyTorch over gloo aborts now and then at the end of a script that leaves its process group to the end of the program."""
    distributed = sys.modules.get("torch.distributed")
    try:
        if distributed is not None and distributed.is_initialized() and distributed.get_backend() == "gloo":
            distributed.destroy_process_group()
    except Exception:
        pass


def start():
    if os.environ.get("NNODES", "1") not in ("", "0", "1"):
        import atexit

        atexit.register(_end_group)
    if os.environ.get("MLFLOW_RUN_ID"):
        sys.meta_path.insert(0, _Watch({"mlflow"}, _steady))
    if os.environ.get("PLINTH_AUTOLOG") == "1" and _leads():
        sys.meta_path.insert(0, _Watch(_FRAMEWORKS, _autolog))


try:
    start()
except Exception as error:
    _say("autologging is off: %s" % error)
