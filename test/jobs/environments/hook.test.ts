/** What every Python of a tracked job begins with: autologging that touches no script, and breaks none. */
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { mlflowPython, startServer } from '../../mlflow/server.ts'
import { makePlace, noPython, python3 } from './attempts.ts'

const options = { skip: python3 === null && noPython }
const hook = fileURLToPath(new URL('../../../python/plinth-job', import.meta.url))
const run = '0'.repeat(32)

/** A folder with the module sklearn, and what else is given. */
function modules(files: Record<string, string>): string {
  const folder = mkdtempSync(join(tmpdir(), 'modules-'))
  for (const [path, text] of Object.entries({ 'sklearn/__init__.py': 'value = 5\n', ...files })) {
    mkdirSync(join(folder, path, '..'), { recursive: true })
    writeFileSync(join(folder, path), text)
  }
  return folder
}
const begin = (folder: string, script: string, variables: Record<string, string> = {}) =>
  spawnSync(python3!, ['-B', '-c', script], {
    encoding: 'utf8',
    env: { PATH: '/usr/bin:/bin', PYTHONPATH: `${hook}:${folder}`, PLINTH_AUTOLOG: '1', MLFLOW_RUN_ID: run, ...variables },
  })

/** As much of MLflow as the hook touches; the real one is further down. */
const standIn = {
  'mlflow/__init__.py':
    'calls = []\ndef autolog():\n    import sklearn\n    calls.append(sklearn.value)\nactive_run = lambda: None\nstart_run = end_run = None\n',
}

test('autologging begins with the first framework, once, when it is whole', options, () => {
  const folder = modules({ ...standIn, 'keras/__init__.py': 'import sklearn, sys\nassert "mlflow" not in sys.modules\nready = True\n' })
  const { status, stdout, stderr } = begin(
    folder,
    'import sys\nassert "mlflow" not in sys.modules\nimport keras, sklearn, mlflow\nprint(mlflow.calls, keras.__spec__.loader.__class__.__name__, keras.__loader__ is keras.__spec__.loader)',
  )
  assert.equal(status, 0, stderr)
  assert.equal(stdout, '[5] SourceFileLoader True\n')
  assert.equal(stderr, "plinth: MLflow's autologging is on\n")
})

test('TensorFlow without TensorBoard is not logged by the side of MLflow that needs it', options, () => {
  const folder = modules({
    'mlflow/__init__.py':
      'calls = []\ndef autolog(**named):\n    calls.append(named)\nactive_run = lambda: None\nstart_run = end_run = None\n',
    'tensorflow/__init__.py': '',
  })
  const script = 'import tensorflow, mlflow; print(mlflow.calls)'
  assert.equal(begin(folder, script).stdout, "[{'exclude_flavors': ['tensorflow']}]\n")
  writeFileSync(join(folder, 'tensorboard.py'), '')
  assert.equal(begin(folder, script).stdout, '[{}]\n')
})

test('a script without mlflow runs as ever, and one line says what is missing', options, () => {
  const folder = modules({})
  const script =
    'import sklearn, subprocess, sys\nprint(sklearn.value)\nprint(subprocess.run([sys.executable, "-B", "-c", "import sklearn; print(sklearn.value)"], capture_output=True, text=True))'
  const { status, stdout, stderr } = begin(folder, script)
  assert.equal(status, 0)
  assert.match(stdout, /^5\nCompletedProcess\(.*stdout='5\\n', stderr=''\)\n$/) // and its children say nothing
  assert.equal(
    stderr,
    'plinth: --autolog needs mlflow, which is not in the environment of this job; add the line mlflow to its requirements\n',
  )
})

test('an mlflow that breaks breaks no script', options, () => {
  const broken = modules({ 'mlflow/__init__.py': 'raise RuntimeError("half installed")\n' })
  const { status, stdout, stderr } = begin(broken, 'import sklearn; print(sklearn.value)')
  assert.deepEqual([status, stdout], [0, '5\n'])
  assert.match(stderr, /plinth: autologging is off: RuntimeError: half installed\n$/)
})

test('a framework that cannot be imported fails as it would, and is tried again', options, () => {
  const folder = modules({ ...standIn, 'sklearn/__init__.py': 'import missing_thing\n' })
  const { status, stderr } = begin(folder, 'try:\n    import sklearn\nexcept ModuleNotFoundError as e:\n    print(e)\nimport sklearn')
  assert.equal(status, 1)
  assert.match(stderr, /ModuleNotFoundError: No module named 'missing_thing'\n$/)
})

test('followers of a distributed training, and workers of a loader, log nothing', options, () => {
  const folder = modules(standIn)
  for (const variables of [{ RANK: '1' }, { NODE_RANK: '1' }] as Record<string, string>[])
    assert.equal(begin(folder, 'import sklearn, sys; print("mlflow" in sys.modules)', variables).stdout, 'False\n')
  const spawned = 'import multiprocessing as m, sys\nif __name__ == "__main__":\n    pass'
  assert.equal(begin(folder, spawned).status, 0)
  assert.equal(begin(folder, 'import sklearn, sys; print("mlflow" in sys.modules)', { PLINTH_AUTOLOG: '' }).stdout, 'False\n')
})

test('a sitecustomize that is there already runs as well, and PYTHONPATH of the job is kept', options, () => {
  const folder = modules({ 'sitecustomize.py': 'import sys\nsys.own = "ran"\n', ...standIn })
  const { stdout, stderr } = begin(
    folder,
    'import sys, sitecustomize, sklearn; print(sys.own, sitecustomize.__file__, "mlflow" in sys.modules)',
  )
  assert.equal(stderr, "plinth: MLflow's autologging is on\n")
  assert.equal(stdout, `ran ${folder}/sitecustomize.py True\n`)
})

test('the environment of a job begins with it, whatever PYTHONPATH the job sets', options, async () => {
  const place = makePlace()
  const folder = modules({})
  const prepared = await place.prepare({ spec: { autolog: true, envs: { PYTHONPATH: folder } }, envs: { MLFLOW_RUN_ID: run } })
  assert.equal(prepared.code, 0, prepared.err)
  // the job's own variables stand above those of its environment
  const { err } = prepared.try(['python', '-c', 'import sklearn'], { PYTHONPATH: folder, MLFLOW_RUN_ID: run })
  assert.match(err, /--autolog needs mlflow/)
  // a job without an environment of ours
  const none = await place.prepare({ runtime: { kind: 'none' }, spec: { autolog: true }, envs: { MLFLOW_RUN_ID: run } })
  assert.equal(none.environment.envs['PLINTH_AUTOLOG'], '1')
  assert.match(none.environment.envs['PYTHONPATH']!, /\/python$/)
  rmSync(place.folder, { recursive: true, force: true })
})

test("with the real MLflow a training lands in the job's run, a second one below it, and a script's own experiment stays its own", async t => {
  const python = mlflowPython()
  if (python === null) return t.skip('MLflow is not installed (npm run peers, or PLINTH_MLFLOW_PYTHON)')
  const server = await startServer()
  t.after(() => server.close())
  const ask = async (path: string, body: object) => {
    const headers = { authorization: `Bearer ${server.token}`, 'content-type': 'application/json' }
    const answer = await fetch(`${server.url}/api/2.0/mlflow/${path}`, { method: 'POST', headers, body: JSON.stringify(body) })
    return (await answer.json()) as never
  }
  const { experiment_id } = await ask('experiments/create', { name: 'job' })
  const { run } = (await ask('runs/create', { experiment_id })) as { run: { info: { run_id: string } } }
  const job = run.info.run_id
  const folder = mkdtempSync(join(tmpdir(), 'mlflow-'))
  writeFileSync(
    join(folder, 'train.py'),
    `
from sklearn.linear_model import Ridge
import mlflow
mlflow.sklearn.autolog(log_models=False)  # quicker, and a script's own settings stand
Ridge(alpha=1.0).fit([[0.0], [1.0]], [0, 1])
Ridge(alpha=2.0).fit([[0.0], [1.0]], [0, 1])
mlflow.set_experiment('own')
with mlflow.start_run():
    mlflow.log_metric('x', 1)
client = mlflow.MlflowClient()
for run in sorted((run for e in client.search_experiments() for run in client.search_runs([e.experiment_id])), key=lambda run: run.info.start_time):
    tags = run.data.tags
    print(run.info.run_id, client.get_experiment(run.info.experiment_id).name, run.info.status, run.data.params.get('alpha'), tags.get('mlflow.parentRunId'), tags.get('plinth.job_run'))
`,
  )
  const child = spawn(python, ['-B', 'train.py'], {
    ...{ cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] },
    env: {
      ...{
        PATH: '/usr/bin:/bin',
        HOME: folder,
        PYTHONPATH: hook,
        PLINTH_AUTOLOG: '1',
        GIT_PYTHON_REFRESH: 'quiet',
        MLFLOW_DISABLE_TELEMETRY: 'true',
      },
      ...{ MLFLOW_TRACKING_URI: server.url, MLFLOW_TRACKING_TOKEN: server.token, MLFLOW_RUN_ID: job },
    },
  })
  let [out, err] = ['', '']
  child.stdout!.on('data', text => (out += text))
  child.stderr!.on('data', text => (err += text))
  const code = await new Promise(done => child.on('close', done))
  assert.equal(code, 0, err)
  const rows = out
    .split('\n')
    .filter(line => /^[0-9a-f]{32} /.test(line))
    .map(line => line.split(' '))
  assert.deepEqual(
    rows.map(([id, ...rest]) => [id === job, ...rest].join(' ')),
    ['true job FINISHED 1.0 None None', `false job FINISHED 2.0 ${job} ${job}`, `false own FINISHED None None ${job}`],
  )
  assert.match(err, /plinth: MLflow's autologging is on/)
})
