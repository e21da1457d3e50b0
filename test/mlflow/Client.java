// MLflow's Java client against a running server; test/mlflow/java.test.ts starts it with the address and the token.
import org.mlflow.tracking.*;
import org.mlflow.tracking.creds.*;
import org.mlflow.api.proto.Service.*;
import org.mlflow.api.proto.ModelRegistry.*;
import java.util.*;
import java.nio.file.*;
public class Client {
  static void check(boolean ok, String what) { if (!ok) throw new RuntimeException(what); }
  public static void main(String[] a) throws Exception {
    MlflowClient c = new MlflowClient(new BasicMlflowHostCreds(a[0], a[1]));
    String e = c.createExperiment("java " + System.nanoTime());
    check(c.getExperiment(e).getLifecycleStage().equals("active"), "experiment");
    c.setExperimentTag(e, "k", "v");
    RunInfo r = c.createRun(e);
    String id = r.getRunId();
    c.logParam(id, "depth", "3");
    c.logMetric(id, "loss", 0.5, System.currentTimeMillis(), 1);
    c.logMetric(id, "loss", Double.NaN, System.currentTimeMillis(), 2);
    c.setTag(id, "t", "x");
    c.logBatch(id, Arrays.asList(Metric.newBuilder().setKey("m").setValue(2).setTimestamp(1).setStep(0).build()), Arrays.asList(Param.newBuilder().setKey("p").setValue("1").build()), Arrays.asList(RunTag.newBuilder().setKey("u").setValue("1").build()));
    check(c.getMetricHistory(id, "loss").size() == 2, "history");
    check(c.getRun(id).getData().getParamsCount() == 2, "params");
    check(c.searchRuns(Arrays.asList(e), "metrics.m > 1", ViewType.ACTIVE_ONLY, 10, Arrays.asList("metrics.m DESC")).getItems().size() == 1, "search");
    check(c.getExperimentByName(c.getExperiment(e).getName()).isPresent(), "by name");
    check(!c.getExperimentByName("no such thing").isPresent(), "absent");
    check(c.searchExperiments("name = '" + c.getExperiment(e).getName() + "'").getItems().size() == 1, "search experiments");
    try { c.logParam(id, "depth", "4"); check(false, "refusal"); } catch (MlflowHttpException x) { check(x.getStatusCode() == 400, "400 " + x); }
    c.deleteTag(id, "t");
    c.setTerminated(id, RunStatus.FINISHED, System.currentTimeMillis());
    check(c.getRun(id).getInfo().getStatus() == RunStatus.FINISHED, "status");
    c.deleteRun(id); c.restoreRun(id);
    c.renameExperiment(e, "renamed " + System.nanoTime());
    System.out.println("tracking ok");
    String name = "java" + System.nanoTime();
    c.sendPost("registered-models/create", "{\"name\":\"" + name + "\"}");
    c.sendPost("model-versions/create", "{\"name\":\"" + name + "\",\"source\":\"mlflow-artifacts:/" + e + "/" + id + "/artifacts/model\",\"run_id\":\"" + id + "\"}");
    check(c.getLatestVersions(name).size() == 1, "latest");
    check(c.getModelVersion(name, "1").getRunId().equals(id), "version");
    check(c.getRegisteredModel(name).getName().equals(name), "model");
    check(c.searchModelVersions("name='" + name + "'").getItems().size() == 1, "search versions");
    check(c.getModelVersionDownloadUri(name, "1").startsWith("mlflow-artifacts:/"), "uri");
    c.deleteExperiment(e); c.restoreExperiment(e);
    System.out.println("java client ok");
  }
}
