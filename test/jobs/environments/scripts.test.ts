/** Scripts as people write them, as jobs from the environment to the end, with the frameworks that are installed. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { delimiter, dirname, join } from 'node:path'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import type { Runtime } from '../../../src/jobs/spec.ts'
import { python as peer } from '../../peers.ts'
import { attemptOf, type Engine, long, makeEngine } from '../local/engine.ts'

const examples = fileURLToPath(new URL('../../../examples/jobs', import.meta.url))
const peerPython = peer()
const has = (module: string) =>
  peerPython !== null &&
  spawnSync(peerPython, ['-c', `import importlib.util, sys; sys.exit(importlib.util.find_spec('${module}') is None)`]).status === 0
const runtime: Runtime = { kind: 'python', requirements: null, lock: null, project: null, conda: null, python: null }

let engine: Engine
before(() => {
  // an active virtual environment, as somebody has who works with one
  if (peerPython !== null) process.env['PATH'] = [dirname(peerPython), process.env['PATH']].join(delimiter)
  engine = makeEngine()
})
after(() => engine.backend.close())

test('a PyTorch script that is stopped goes on from its checkpoint in the next attempt', async t => {
  if (!has('torch')) return t.skip('a Python with PyTorch is not installed (npm run peers)')
  const spec = { workdir: examples, runtime } // without a folder of its own its checkpoints lie with the job
  const job = await engine.start(['python', 'torch_resume.py', '40'], spec)
  await engine.said(job, 'epoch 2 loss')
  await engine.backend.stop(job, 1, { grace: 60, reason: 'preempted' })
  const first = await engine.ended(job)
  assert.deepEqual([first.exitCode, first.reason], [143, 'preempted'])

  const again = attemptOf(job, ['python', 'torch_resume.py', '40'], { ...spec, attempt: 2 })
  await engine.backend.start(again, {})
  const seen = await ended(job, 2)
  const log = readFileSync(join(engine.folder(job, 2), 'log'), 'utf8')
  assert.equal(seen.exitCode, 0, log)
  const epochs = [...log.matchAll(/epoch (\d+) loss/g)].map(([, epoch]) => Number(epoch))
  const resumed = Number(/goes on with epoch (\d+)/.exec(log)![1])
  assert.deepEqual(
    epochs,
    Array.from({ length: 40 - resumed }, (_, i) => resumed + i),
  )
  assert.ok(resumed >= 3)
  if (!long) return
  const whole = await engine.run(['python', 'torch_resume.py', '40'], spec)
  const weights = (text: string) => /weights ([\d.]+)/.exec(text)![1]
  assert.equal(weights(log), weights(whole.text))
})

test('a scikit-learn script runs unchanged, and what it writes is kept', async t => {
  if (!long) return t.skip('PLINTH_TEST=long: hook.test.ts trains with scikit-learn as well')
  if (!has('sklearn')) return t.skip('a Python with scikit-learn is not installed (npm run peers)')
  const { exitCode, text, job } = await engine.run(['python', 'digits.py'], { workdir: examples, runtime })
  assert.equal(exitCode, 0, text)
  assert.ok(Number(/accuracy (0\.\d+)/.exec(text)![1]) > 0.9)
  assert.deepEqual(
    (await engine.backend.outputs(job, 1)).map(({ path }) => path),
    ['report.txt'],
  )
})

async function ended(job: number, attempt: number) {
  for (;;) {
    const seen = await engine.backend.observe(job, attempt)
    if (seen.status === 'ended') return seen.exit
    await new Promise(done => setTimeout(done, 100))
  }
}
