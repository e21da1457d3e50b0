"""What data scientists do, with the real client; test/mlflow/client.test.ts starts it and reads one line of JSON for each chapter."""

import json
import logging
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")
logging.disable(logging.INFO)

import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException, RestException
from sklearn.linear_model import LogisticRegression

client = MlflowClient()
X = np.random.RandomState(0).randn(80, 3)
y = (X[:, 0] > 0).astype(int)
chapters = []


def chapter(function):
    chapters.append(function)
    return function


def refused(code, function, *arguments, **named):
    try:
        function(*arguments, **named)
    except MlflowException as error:
        assert error.error_code == code, (error.error_code, str(error))
        return str(error)
    raise AssertionError(f"{code} was expected")


@chapter
def runs_are_logged_and_read_back():
    mlflow.set_experiment("runs")
    with mlflow.start_run(run_name="whole", tags={"team": "birds"}, description="a note") as run:
        mlflow.log_param("depth", 3)
        mlflow.log_params({f"p{i}": i for i in range(150)})
        mlflow.log_metric("loss", 0.5, step=1)
        mlflow.log_metrics({"acc": 0.9, "nan": float("nan"), "inf": float("inf")}, step=2)
        mlflow.set_tag("stage", "first")
        mlflow.set_tags({"a": 1, "b": 2})
        for step in range(5):
            mlflow.log_metric("curve", step * step, step=step)
        mlflow.log_metric("asynchronous", 1, synchronous=False)
        mlflow.flush_async_logging()
        message = refused("INVALID_PARAMETER_VALUE", mlflow.log_param, "depth", 4)
        assert "Changing param values is not allowed" in message and "nested=True" in message, message
    read = mlflow.get_run(run.info.run_id)
    assert read.info.status == "FINISHED" and read.info.run_name == "whole", read.info
    assert read.data.params["depth"] == "3" and len(read.data.params) == 151
    assert read.data.metrics["acc"] == 0.9 and np.isnan(read.data.metrics["nan"]) and read.data.metrics["inf"] > 1e308
    assert read.data.tags["stage"] == "first" and read.data.tags["mlflow.note.content"] == "a note"
    assert [m.value for m in client.get_metric_history(run.info.run_id, "curve")] == [0, 1, 4, 9, 16]
    client.set_terminated(run.info.run_id, "KILLED")
    assert client.get_run(run.info.run_id).info.status == "KILLED"
    client.delete_tag(run.info.run_id, "stage")
    assert "stage" not in client.get_run(run.info.run_id).data.tags


@chapter
def runs_lie_in_runs():
    mlflow.set_experiment("nested")
    with mlflow.start_run() as parent:
        for i in range(3):
            with mlflow.start_run(nested=True, run_name=f"child {i}"):
                mlflow.log_metric("score", i)
    children = client.search_runs(
        [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'", order_by=["metrics.score DESC"]
    )
    assert [run.info.run_name for run in children] == ["child 2", "child 1", "child 0"]
    assert client.get_parent_run(children[0].info.run_id).info.run_id == parent.info.run_id
    failing = None
    try:
        with mlflow.start_run() as failing:
            raise RuntimeError("on purpose")
    except RuntimeError:
        pass
    assert client.get_run(failing.info.run_id).info.status == "FAILED"
    with mlflow.start_run(run_id=failing.info.run_id):
        mlflow.log_metric("again", 1)
    assert client.get_run(failing.info.run_id).info.status == "FINISHED"


@chapter
def runs_are_searched_in_pages_and_as_a_table():
    experiment = client.create_experiment("searched", tags={"kind": "test"})
    for i in range(25):
        run = client.create_run(experiment, start_time=1000 + i, run_name=f"run {i}")
        client.log_batch(run.info.run_id, metrics=[mlflow.entities.Metric("m", i, 1, 0)], params=[mlflow.entities.Param("even", str(i % 2 == 0))])
    pages, token = [], None
    while True:
        page = client.search_runs([experiment], "metrics.m >= 5", order_by=["metrics.m ASC"], max_results=6, page_token=token)
        pages.append([int(run.data.metrics["m"]) for run in page])
        token = page.token
        if not token:
            break
    assert sum(pages, []) == list(range(5, 25)) and [len(page) for page in pages] == [6, 6, 6, 2], pages
    table = mlflow.search_runs(experiment_names=["searched"], filter_string="params.even = 'True'", order_by=["start_time ASC"])
    assert isinstance(table, pd.DataFrame) and len(table) == 13 and list(table["metrics.m"])[:2] == [0, 2], table
    assert str(table["start_time"].iloc[0]).startswith("1970-01-01 00:00:01")
    assert len(mlflow.search_runs(search_all_experiments=True, max_results=7)) == 7
    assert [e.name for e in mlflow.search_experiments(filter_string="tags.kind = 'test'")] == ["searched"]
    refused("INVALID_PARAMETER_VALUE", client.search_runs, [experiment], "metrics.m >")


@chapter
def experiments_are_made_renamed_deleted_and_restored():
    experiment = mlflow.create_experiment("life", tags={"a": "b"})
    assert mlflow.get_experiment_by_name("life").experiment_id == experiment
    assert mlflow.get_experiment_by_name("no such") is None
    refused("RESOURCE_ALREADY_EXISTS", mlflow.create_experiment, "life")
    client.rename_experiment(experiment, "second life")
    client.set_experiment_tag(experiment, "c", "d")
    client.delete_experiment_tag(experiment, "a")
    run = client.create_run(experiment)
    client.delete_experiment(experiment)
    assert client.get_experiment(experiment).lifecycle_stage == "deleted"
    assert client.get_run(run.info.run_id).info.lifecycle_stage == "deleted"
    assert experiment in [e.experiment_id for e in client.search_experiments(view_type=mlflow.entities.ViewType.DELETED_ONLY)]
    try:
        mlflow.set_experiment("second life")
        raise AssertionError("a deleted experiment cannot be set")
    except MlflowException as error:
        assert "deleted" in str(error)
    client.restore_experiment(experiment)
    assert client.get_experiment(experiment).tags == {"c": "d"}
    client.delete_run(run.info.run_id)
    assert client.search_runs([experiment]) == []
    assert len(client.search_runs([experiment], run_view_type=mlflow.entities.ViewType.ALL)) == 1
    client.restore_run(run.info.run_id)
    assert len(client.search_runs([experiment])) == 1


@chapter
def files_go_up_and_come_down():
    mlflow.set_experiment("files")
    with tempfile.TemporaryDirectory() as folder, mlflow.start_run() as run:
        root = Path(folder)
        (root / "deep" / "er").mkdir(parents=True)
        (root / "deep" / "er" / "a.txt").write_text("a")
        (root / "deep" / "größe 損失.txt").write_text("umlaut")
        (root / "empty.bin").touch()
        (root / "100%.txt").write_text("percent")
        mlflow.log_artifact(root / "empty.bin")
        mlflow.log_artifact(root / "100%.txt")
        mlflow.log_artifacts(root / "deep", "deep")
        mlflow.log_text("text", "notes/t.txt")
        mlflow.log_dict({"a": [1, 2]}, "d.json")
        mlflow.log_table({"q": ["a", "b"], "n": [1, 2]}, "table.json")
        mlflow.log_image(np.zeros((4, 4, 3), dtype=np.uint8), "black.png")
        mlflow.log_image(np.zeros((4, 4, 3), dtype=np.uint8), key="steps", step=3)
        uri = mlflow.get_artifact_uri()
    names = sorted(entry.path for entry in client.list_artifacts(run.info.run_id))
    assert names == ["100%.txt", "black.png", "d.json", "deep", "empty.bin", "images", "notes", "table.json"], names
    assert sorted(entry.path for entry in client.list_artifacts(run.info.run_id, "deep")) == ["deep/er", "deep/größe 損失.txt"]
    assert client.list_artifacts(run.info.run_id, "empty.bin") == []
    assert client.list_artifacts(run.info.run_id, "nothing") == []
    assert mlflow.artifacts.load_text(f"{uri}/notes/t.txt") == "text"
    assert mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/d.json") == {"a": [1, 2]}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="deep", dst_path=folder))
        assert (path / "er" / "a.txt").read_text() == "a" and (path / "größe 損失.txt").read_text() == "umlaut"
        assert Path(client.download_artifacts(run.info.run_id, "empty.bin", folder)).stat().st_size == 0
        assert Path(client.download_artifacts(run.info.run_id, "100%.txt", folder)).read_text() == "percent"
    assert len(mlflow.load_table("table.json", run_ids=[run.info.run_id])) == 2
    repository = mlflow.store.artifact.artifact_repository_registry.get_artifact_repository(uri)
    repository.delete_artifacts("deep")
    assert "deep" not in [entry.path for entry in client.list_artifacts(run.info.run_id)]
    os.environ["MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD"] = "true"
    os.environ["MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE"] = "5242880"
    os.environ["MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD"] = "true"
    with tempfile.TemporaryDirectory() as folder:
        big = Path(folder) / "big.bin"
        big.write_bytes(os.urandom(6_000_000))
        client.log_artifact(run.info.run_id, str(big))
        back = Path(client.download_artifacts(run.info.run_id, "big.bin", tempfile.mkdtemp(dir=folder)))
        assert back.read_bytes() == big.read_bytes()


@chapter
def datasets_are_inputs():
    mlflow.set_experiment("inputs")
    frame = pd.DataFrame({"a": [1, 2], "b": [3.0, 4.0]})
    dataset = mlflow.data.from_pandas(frame, name="frame", targets="b")
    with mlflow.start_run() as run:
        mlflow.log_input(dataset, context="training", tags={"k": "v"})
        mlflow.log_input(dataset, context="training")
    inputs = mlflow.get_run(run.info.run_id).inputs.dataset_inputs
    assert [(i.dataset.name, {t.key: t.value for t in i.tags}["mlflow.data.context"]) for i in inputs] == [("frame", "training")], inputs
    found = mlflow.search_runs(experiment_names=["inputs"], filter_string="dataset.name = 'frame'")
    assert len(found) == 1
    assert mlflow.data.get_source(inputs[0].dataset) is not None


@chapter
def models_are_logged_loaded_registered_and_promoted():
    mlflow.set_experiment("models")
    model = LogisticRegression().fit(X, y)
    expected = model.predict(X)
    quick = {"pip_requirements": ["scikit-learn"]}  # or the client asks a Python of its own what it imports, as the chapter on autolog has it
    with mlflow.start_run() as run:
        info = mlflow.sklearn.log_model(
            model, name="net", registered_model_name="registered", input_example=X[:2], params={"C": 1}, **quick
        )
        mlflow.log_metric("acc", 0.97, model_id=info.model_id)
    same = lambda uri: (mlflow.sklearn.load_model(uri).predict(X) == expected).all()
    assert same(info.model_uri) and same(f"runs:/{run.info.run_id}/net") and same("models:/registered/1") and same("models:/registered/latest")
    assert (mlflow.pyfunc.load_model("models:/registered/1").predict(X) == expected).all()
    client.set_registered_model_alias("registered", "champion", "1")
    assert same("models:/registered@champion")
    version = client.get_model_version("registered", 1)
    assert version.run_id == run.info.run_id and version.aliases == ["champion"], version
    second = mlflow.register_model(f"runs:/{run.info.run_id}/net", "registered", tags={"why": "again"})
    assert str(second.version) == "2" and second.tags == {"why": "again"}
    assert same("models:/registered/2")
    copied = client.copy_model_version("models:/registered@champion", "elsewhere")
    assert str(copied.version) == "1" and same("models:/elsewhere/1")
    client.transition_model_version_stage("registered", 2, "Production", archive_existing_versions=True)
    assert same("models:/registered/Production")
    assert [v.version for v in client.get_latest_versions("registered", stages=["Production"])] in (["2"], [2])
    client.update_model_version("registered", 2, description="better")
    client.set_model_version_tag("registered", 2, "checked", "yes")
    client.update_registered_model("registered", description="all of them")
    client.set_registered_model_tag("registered", "team", "birds")
    found = client.search_model_versions("name = 'registered' and tags.checked = 'yes'")
    assert [str(v.version) for v in found] == ["2"] and found[0].description == "better"
    assert [m.name for m in client.search_registered_models("tags.team = 'birds'")] == ["registered"]
    assert client.get_registered_model("registered").aliases in ({"champion": "1"}, {"champion": 1})
    client.rename_registered_model("elsewhere", "far away")
    client.delete_registered_model("far away")
    refused("RESOURCE_DOES_NOT_EXIST", client.get_registered_model, "far away")
    client.delete_model_version("registered", 1)
    refused("INVALID_PARAMETER_VALUE", client.get_model_version_by_alias, "registered", "champion")
    assert str(mlflow.register_model(info.model_uri, "registered").version) == "3"
    logged = mlflow.search_logged_models(filter_string="metrics.acc > 0.9", output_format="list")
    assert [m.model_id for m in logged] == [info.model_id] and logged[0].params["C"] == "1", logged
    assert len(mlflow.search_logged_models(experiment_ids=[run.info.experiment_id])) == 1
    mlflow.set_logged_model_tags(info.model_id, {"seen": "yes"})
    assert mlflow.get_logged_model(info.model_id).tags["seen"] == "yes"
    mlflow.delete_logged_model_tag(info.model_id, "seen")
    old = mlflow.sklearn.log_model(model, artifact_path="old way", **quick)
    assert same(old.model_uri)
    mlflow.end_run()
    external = mlflow.create_external_model(name="outside", params={"a": "b"})
    client.delete_logged_model(external.model_id)
    refused("RESOURCE_DOES_NOT_EXIST", mlflow.get_logged_model, external.model_id)


@chapter
def scikit_learn_logs_itself():
    mlflow.set_experiment("autolog")
    mlflow.sklearn.autolog()
    with mlflow.start_run() as run:
        LogisticRegression(C=0.5).fit(X, y)
    mlflow.sklearn.autolog(disable=True)
    data = mlflow.get_run(run.info.run_id).data
    assert data.params["C"] == "0.5" and data.metrics["training_accuracy_score"] > 0.9, data
    assert "estimator.html" in [f.path for f in client.list_artifacts(run.info.run_id)]
    assert len(mlflow.search_logged_models(experiment_ids=[run.info.experiment_id])) == 1
    assert mlflow.get_run(run.info.run_id).inputs.dataset_inputs


def needs(*modules):
    """The modules; the chapter is left out, with the reason, where one is not installed."""
    import importlib

    try:
        return [importlib.import_module(module) for module in modules]
    except ImportError as error:
        raise LeftOut(str(error))


class LeftOut(Exception):
    pass


@chapter
def lightning_logs_itself():
    torch, lightning = needs("torch", "lightning.pytorch")

    class Line(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3, 1)

        def training_step(self, batch, _):
            inputs, wanted = batch
            loss = torch.nn.functional.mse_loss(self.layer(inputs)[:, 0], wanted)
            self.log("loss", loss)
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    mlflow.set_experiment("lightning")
    mlflow.pytorch.autolog(log_every_n_epoch=1)
    data = torch.utils.data.TensorDataset(torch.tensor(X, dtype=torch.float32), torch.tensor(y, dtype=torch.float32))
    trainer = lightning.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False
    )
    with mlflow.start_run() as run:
        trainer.fit(Line(), torch.utils.data.DataLoader(data, batch_size=20))
    mlflow.pytorch.autolog(disable=True)
    read = mlflow.get_run(run.info.run_id).data
    assert read.params["epochs"] == "3" and read.params["lr"] == "0.1", read.params
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 3, read.metrics
    (logged,) = mlflow.search_logged_models(experiment_ids=[run.info.experiment_id], output_format="list")
    again = mlflow.pytorch.load_model(f"models:/{logged.model_id}")
    assert isinstance(again, torch.nn.Module)


@chapter
def keras_logs_itself():
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras, _ = needs("keras", os.environ["KERAS_BACKEND"])
    mlflow.set_experiment("keras")
    mlflow.keras.autolog() if hasattr(mlflow, "keras") else mlflow.tensorflow.autolog()
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, activation="sigmoid")])
    model.compile(optimizer="sgd", loss="binary_crossentropy", metrics=["accuracy"])
    with mlflow.start_run() as run:
        model.fit(X, y, epochs=3, verbose=0)
    mlflow.keras.autolog(disable=True)
    read = mlflow.get_run(run.info.run_id).data
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 3, read.metrics
    assert read.params["epochs"] == "3", read.params


@chapter
def prompts_are_registered_and_loaded():
    prompt = mlflow.genai.register_prompt("greeting", "Hello {{name}}")
    assert prompt.version == 1 and mlflow.genai.load_prompt("prompts:/greeting/1").format(name="Ada") == "Hello Ada"
    mlflow.genai.set_prompt_alias("greeting", "live", 1)
    assert mlflow.genai.load_prompt("prompts:/greeting@live").version == 1
    assert "greeting" not in [m.name for m in client.search_registered_models()]
    assert [p.name for p in mlflow.genai.search_prompts()] == ["greeting"]


@chapter
def a_traced_program_goes_on():
    mlflow.set_experiment("traces")

    @mlflow.trace
    def work(n):
        return n + 1

    before = time.time()
    assert work(1) == 2
    mlflow.flush_trace_async_logging()
    assert time.time() - before < 30
    assert len(mlflow.search_traces(locations=[mlflow.get_experiment_by_name("traces").experiment_id])) == 0


@chapter
def another_project_is_not_seen():
    experiment = mlflow.get_experiment_by_name("runs").experiment_id
    run = client.search_runs([experiment])[0].info
    own = os.environ["MLFLOW_TRACKING_TOKEN"]
    os.environ["MLFLOW_TRACKING_TOKEN"] = os.environ["OTHER_TOKEN"]
    try:
        assert mlflow.get_experiment_by_name("runs") is None
        refused("RESOURCE_DOES_NOT_EXIST", client.get_run, run.run_id)
        refused("RESOURCE_DOES_NOT_EXIST", client.log_metric, run.run_id, "m", 1)
        assert client.search_registered_models() == []
        assert client.search_runs([experiment]) == []
        repository = mlflow.store.artifact.artifact_repository_registry.get_artifact_repository(run.artifact_uri)
        try:
            repository.list_artifacts()
            raise AssertionError("files of another project were listed")
        except Exception as error:
            assert "404" in str(error) or "no artifact" in str(error), error
        mlflow.set_experiment("runs")  # the same name, another experiment
        with mlflow.start_run():
            mlflow.log_metric("m", 1)
        assert mlflow.get_experiment_by_name("runs").experiment_id != experiment
    finally:
        os.environ["MLFLOW_TRACKING_TOKEN"] = own
    os.environ["MLFLOW_TRACKING_TOKEN"] = "plinth_000000000000_wrong"
    try:
        refused("UNAUTHENTICATED", client.get_run, run.run_id)
    finally:
        os.environ["MLFLOW_TRACKING_TOKEN"] = own
    del os.environ["MLFLOW_TRACKING_TOKEN"]
    os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = "anybody", own
    assert client.get_run(run.run_id).info.run_id == run.run_id


for function in chapters:
    try:
        function()
        print(json.dumps({"chapter": function.__name__}), flush=True)
    except LeftOut as reason:
        print(json.dumps({"chapter": function.__name__, "left_out": str(reason)}), flush=True)
    except BaseException as error:  # told to the test, which goes on with the next
        import traceback

        print(json.dumps({"chapter": function.__name__, "error": traceback.format_exc()}), flush=True)
        mlflow.end_run()
