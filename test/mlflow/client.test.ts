/** MLflow's own Python client against a running server: one process does what data scientists do, chapter by chapter (client.py). */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { mlflowPython, startServer } from './server.ts'

const python = mlflowPython()
const missing = python ? false : 'MLflow is not installed (npm run peers, or PLINTH_MLFLOW_PYTHON)'

/** As the functions of client.py are called. */
const chapters = [
  'runs are logged and read back',
  'runs lie in runs',
  'runs are searched in pages and as a table',
  'experiments are made renamed deleted and restored',
  'files go up and come down',
  'datasets are inputs',
  'models are logged loaded registered and promoted',
  'scikit learn logs itself',
  'lightning logs itself',
  'keras logs itself',
  'prompts are registered and loaded',
  'a traced program goes on',
  'another project is not seen',
]

const told = new Map<string, { error?: string; left_out?: string }>()
let ended: Promise<void> | null = null

async function runClient(): Promise<void> {
  const server = await startServer()
  after(() => server.close())
  const child = spawn(python!, [fileURLToPath(new URL('./client.py', import.meta.url))], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      ...process.env,
      MLFLOW_TRACKING_URI: server.url,
      MLFLOW_TRACKING_TOKEN: server.token,
      OTHER_TOKEN: await server.tokenFor('other'),
      MLFLOW_DISABLE_TELEMETRY: 'true',
      MLFLOW_HTTP_REQUEST_MAX_RETRIES: '2',
      GIT_PYTHON_REFRESH: 'quiet',
    },
  })
  after(() => child.kill('SIGKILL'))
  let noise = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    noise = (noise + text).slice(-4000)
  })
  createInterface(child.stdout).on('line', line => {
    if (!line.startsWith('{"chapter"')) return
    const { chapter, ...end } = JSON.parse(line) as { chapter: string; error?: string; left_out?: string }
    told.set(chapter.replaceAll('_', ' '), end)
  })
  const code = await new Promise(resolve => child.once('close', resolve))
  if (code !== 0) throw new Error(`the client ended with ${code}: ${noise}`)
}

for (const chapter of chapters)
  test(chapter, { skip: missing, timeout: 300_000 }, async t => {
    ended ??= runClient()
    await ended
    assert.ok(told.has(chapter), 'it was not reached')
    const { error, left_out } = told.get(chapter)!
    if (left_out) return t.skip(left_out)
    if (error) assert.fail(error)
  })

test('every chapter of client.py is a test here', { skip: missing }, async () => {
  await ended
  assert.deepEqual([...told.keys()], chapters)
})
