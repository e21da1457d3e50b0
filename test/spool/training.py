"""Trainings with MLflow's client and plinth-spool; test/spool/spool.test.ts says on stdin what is to be done, and reads JSON on stdout."""

import json
import logging
import os
import signal
import sys
import time
import warnings

warnings.filterwarnings("ignore")

import mlflow
from mlflow import MlflowClient

import plinth_spool


def say(**what):
    os.write(1, (json.dumps(what) + "\n").encode())


def train(points, pause=0.0, end=True, experiment="kills"):
    """A point is said once logging it has returned."""
    mlflow.set_experiment(experiment)
    run = mlflow.start_run()
    say(run=run.info.run_id, pid=os.getpid())
    mlflow.log_params({"points": points, "pause": pause})
    for step in range(points):
        mlflow.log_metric("loss", 1 / (step + 1), step=step, timestamp=1_000_000 + step)
        say(run=run.info.run_id, step=step)
        time.sleep(pause)
    if end:
        mlflow.end_run()
    return run.info.run_id


def forked(points, pause=0.0):
    """A training in a process of its own that costs no start: it is there to be killed."""
    if os.fork() == 0:
        # its own standing among processes: what the parent sends and beats is not its
        train(points, pause)
        os._exit(0)


def autolog(name, params=None):
    """All that scikit-learn logs by itself, with its model, its data and its pictures."""
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    mlflow.sklearn.autolog(silent=True)
    mlflow.set_experiment("autolog")
    features, classes = load_iris(return_X_y=True)
    started = time.monotonic()
    with mlflow.start_run(run_name=name) as run:
        mlflow.log_text("by hand", "notes/a.txt")
        LogisticRegression(max_iter=200).fit(features, classes)
        mlflow.set_tag("mlflow.note.content", "a note")
        inside = mlflow.get_run(run.info.run_id)
    mlflow.sklearn.autolog(disable=True)
    model = mlflow.last_logged_model()
    say(run=run.info.run_id, model=model.model_id, params=len(inside.data.params), status=inside.info.status, seconds=time.monotonic() - started)


def look(run):
    """What the server has of a run, read by the client; its model is loaded."""
    from sklearn.datasets import load_iris

    client = MlflowClient()
    found = client.get_run(run)
    models = [output.model_id for output in found.outputs.model_outputs]
    features, classes = load_iris(return_X_y=True)
    scores = [mlflow.sklearn.load_model(f"models:/{each}").score(features, classes) for each in models]
    files = []
    folders = [None]
    while folders:
        for each in client.list_artifacts(run, folders.pop()):
            (folders.append if each.is_dir else files.append)(each.path)
    say(
        status=found.info.status,
        name=found.info.run_name,
        params=len(found.data.params),
        metrics=sorted(found.data.metrics),
        tags=found.data.tags,
        datasets=[each.dataset.name for each in found.inputs.dataset_inputs],
        models=[client.get_logged_model(each).status.name for each in models],
        scores=scores,
        files=sorted(files),
        text=mlflow.artifacts.load_text(f"runs:/{run}/notes/a.txt"),
    )


def speak():
    """Each kind of call once, of runs that are one's own, others' and over."""
    client = MlflowClient()
    mlflow.set_experiment("speak")
    with mlflow.start_run(run_name="before", tags={"a": "1", "gone": "x"}) as run:
        mlflow.log_metrics({"nan": float("nan"), "inf": float("inf"), "low": float("-inf")}, step=2)
        mlflow.set_tag("mlflow.runName", "after")
        mlflow.delete_tag("gone")
        mlflow.log_input(mlflow.data.from_numpy(__import__("numpy").zeros((2, 2)), name="zeros"), context="training")
        mlflow.log_metric("asynchronous", 1, synchronous=False)
        mlflow.flush_async_logging()
        with mlflow.start_run(nested=True) as child:
            mlflow.log_metric("inner", 1)
    client.log_metric(run.info.run_id, "late", 1)  # after its end
    with mlflow.start_run(run_id=child.info.run_id):  # gone on with
        mlflow.log_metric("inner", 2, step=1)
        resumed = client.get_run(child.info.run_id).info.status
    stranger = client.create_run("0", run_name="stranger").info.run_id
    client.log_batch(stranger, tags=[mlflow.entities.RunTag("t", "v")])
    client.set_terminated(stranger, "KILLED")
    found = client.search_runs([run.info.experiment_id], "tags.mlflow.runName = 'after'")
    history = [(point.step, point.value) for point in client.get_metric_history(child.info.run_id, "inner")]
    ended = [client.get_run(each).info.status for each in (run.info.run_id, child.info.run_id, stranger)]
    whole = found[0]
    say(
        found=len(found),
        metrics={key: str(value) for key, value in sorted(whole.data.metrics.items())},
        gone="gone" in whole.data.tags,
        datasets=[each.dataset.name for each in whole.inputs.dataset_inputs],
        parent=client.get_run(child.info.run_id).data.tags["mlflow.parentRunId"] == run.info.run_id,
        resumed=resumed,
        history=history,
        ended=ended,
    )


def forks(workers):
    """As loaders of data do: processes that are copies of a training in the middle of its run, and log to it too."""
    mlflow.set_experiment("forks")
    with mlflow.start_run() as run:
        mlflow.log_metric("parent", 0, step=0)
        children = []
        for worker in range(workers):
            child = os.fork()
            if child == 0:
                for step in range(50):
                    # MLflow itself forgets the active run in a fork
                    MlflowClient().log_metric(run.info.run_id, f"child {worker}", step, step=step)
                os._exit(0)  # as multiprocessing ends them: nothing is sent on the way out
            children.append(child)
        for step in range(1, 50):
            mlflow.log_metric("parent", step, step=step)
        deadline = time.monotonic() + 30
        while any(os.path.exists(f"/proc/{child}") for child in children) and time.monotonic() < deadline:
            time.sleep(0.01)
    say(run=run.info.run_id)


def mischief():
    """Nothing that somebody logs may stop a training; what cannot be kept is said once."""
    heard = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())
    logging.getLogger("plinth_spool").addHandler(handler)
    logging.getLogger("plinth_spool").propagate = False
    mlflow.set_experiment("mischief")
    with mlflow.start_run() as run:
        mlflow.log_param("lr", 1)
        for _ in range(3):
            mlflow.log_param("lr", 2)
        mlflow.log_metric("x" * 300, 1)
        mlflow.log_metric("step", 1, step=2**60)
        mlflow.log_metric("time", 1, timestamp=-1)
        mlflow.set_tag("half \ud800", "nul \0 𝄞" * 3000)
        mlflow.log_param("long", "𝄞" * 7000)
        mlflow.log_params({f"p{i}": i for i in range(250)})
        mlflow.log_metrics({f"m{i}": i for i in range(1500)})
    found = mlflow.get_run(run.info.run_id).data
    say(
        heard=sorted({message.split(": ", 1)[1].split(" ")[1] for message in heard}),
        params=len(found.params),
        lr=found.params["lr"],
        metrics=len(found.metrics),
        long=len(found.params["long"]),
        tags=sum(key.startswith("half") for key in found.tags),
    )


def stopped(seconds):
    run = mlflow.start_run()
    say(run=run.info.run_id)
    until = time.monotonic() + seconds
    while not plinth_spool.stop_requested() and time.monotonic() < until:
        time.sleep(0.05)
    say(stopped=plinth_spool.stop_requested())
    mlflow.end_run("KILLED")


def use(**environment):
    os.environ.update(environment)
    say(used=True)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


signal.signal(signal.SIGCHLD, signal.SIG_IGN)
say(ready=True)
for line in sys.stdin:
    word, *values = json.loads(line)
    try:
        globals()[word](*values) if not (values and isinstance(values[0], dict)) else globals()[word](**values[0])
        say(done=word)
    except BaseException as error:  # told to the test
        import traceback

        say(done=word, error=traceback.format_exc())
