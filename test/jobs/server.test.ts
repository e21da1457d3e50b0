/** Jobs on a real server with the local engine: over HTTP, over restarts, and without any server. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { plainSpec } from '../../src/jobs/spec.ts'
import type { Job } from '../../src/sdk/calls/jobs.ts'
import { type LogLine, readJobLog } from '../../src/sdk/job-log.ts'
import { plinth, startUp, type Up } from '../up/up.ts'

const folderOf = (t: TestContext) => {
  const folder = mkdtempSync(join(tmpdir(), 'jobs-server-'))
  t.after(() => rmSync(folder, { recursive: true, force: true, maxRetries: 3 }))
  return folder
}
const submit = async (up: Up, shell: string, rest: Parameters<typeof plainSpec>[2] = {}, more: object = {}): Promise<Job> =>
  await up.post('/api/jobs', { spec: plainSpec('job', { shell }, rest), ...more })
const jobAt = async (up: Up, job: number): Promise<Job> => (await (await up.ask(`/api/jobs/${job}`)).json()) as Job
const hasEnded = ({ state }: Pick<Job, 'state'>) => ['succeeded', 'failed', 'cancelled'].includes(state)

async function ended(up: Up, job: number): Promise<Job> {
  for (const until = performance.now() + 30_000; ; await new Promise(resolve => setTimeout(resolve, 20))) {
    const now = await jobAt(up, job)
    if (hasEnded(now)) return now
    assert.ok(performance.now() < until, JSON.stringify(now))
  }
}
async function linesOf(up: Up, job: number, { offset = 0, attempt = 1 } = {}): Promise<LogLine[]> {
  const lines: LogLine[] = []
  for await (const line of readJobLog(up, { job, attempt, offset, follow: true })) if (line.stream !== 'p') lines.push(line)
  return lines
}

test('a job is followed to its end, logs to its own run and no other, and leaves its outputs, but no link', async t => {
  const home = folderOf(t)
  const up = await startUp(t, home)
  const stranger = (await up.post('/api/2.0/mlflow/runs/create', { experiment_id: '0' })).run.info.run_id
  const script = `
    const [url, token, run] = [process.env.MLFLOW_TRACKING_URI, process.env.MLFLOW_TRACKING_TOKEN, process.env.MLFLOW_RUN_ID]
    const log = run_id => fetch(url + '/api/2.0/mlflow/runs/log-metric', { method: 'POST',
      headers: { authorization: 'Bearer ' + token, 'content-type': 'application/json' },
      body: JSON.stringify({ run_id, key: 'accuracy', value: 0.5, timestamp: 1 }) }).then(answer => answer.status)
    log(run).then(async own => console.log(own, await log('${stranger}')))`
  const outputs =
    'cd "$PLINTH_OUTPUT_DIR"; echo kept > a.txt; ln -s /etc/hostname link; ln /etc/hostname hard 2>/dev/null; mkfifo pipe; ln -s / root'
  const job = await submit(up, `echo first; ${process.execPath} -e ${quoted(script)}; ${outputs}; sleep 0.3; echo last`)
  const lines = await linesOf(up, job.job)
  assert.deepEqual(
    lines.map(({ text }) => text),
    ['first', '200 404', 'last'],
  )
  const over = await ended(up, job.job)
  assert.deepEqual([over.state, over.exitCode, over.attempts.length], ['succeeded', 0, 1])
  const run = (await (await up.ask(`/api/runs/${over.run}`)).json()) as {
    status: string
    metrics: { value: number }[]
    tags: Record<string, string>
  }
  assert.deepEqual([run.status, run.metrics.map(({ value }) => value)], ['succeeded', [0.5]])
  assert.match(run.tags['plinth.device']!, /^cpu: ./)
  const { files } = (await (await up.ask(`/api/2.0/mlflow/artifacts/list?run_id=${over.run}&path=outputs`)).json()) as {
    files: { path: string }[]
  }
  const names = files.map(({ path }) => path).filter(path => path !== 'outputs/hard') // where the system lets one be made it is a file like others
  assert.deepEqual(names, ['outputs/a.txt'])

  // from any line on; as events; whole at once
  const rest = await linesOf(up, job.job, { offset: lines[0]!.next })
  assert.deepEqual(
    rest.map(({ text }) => text),
    ['200 404', 'last'],
  )
  const events = await (
    await up.ask(`/api/jobs/${job.job}/log`, { headers: { accept: 'text/event-stream', 'last-event-id': `1:${lines[1]!.next}` } })
  ).text()
  assert.match(events, /^id: 1:\d+\ndata: \{"attempt":1,"lines":\[\{"next":\d+,"time":\d{13},"stream":"o","text":"last"\}/)
  assert.match(events, /data: \{"attempt":1,"end":true,"next":\d+\}\n\n$/)
  for (const [query, code] of [
    ['attempt=2', 'job_attempt_not_found'],
    ['offset=-1', 'api_request_invalid'],
    ['attempt=x', 'api_request_invalid'],
  ]) {
    const answer = await up.ask(`/api/jobs/${job.job}/log?${query}`)
    assert.equal(((await answer.json()) as { error: { code: string } }).error.code, code)
  }
  assert.equal((await up.ask('/api/jobs/99/log')).status, 404)

  const { nodes } = (await (await up.ask('/api/nodes')).json()) as { nodes: { name: string; cpus: { total: number; leased: number } }[] }
  assert.deepEqual([nodes.length, nodes[0]!.cpus.leased], [1, 0])
  assert.equal((await up.ask(`/api/jobs/${job.job}`, { method: 'DELETE' })).status, 200)
  assert.equal((await up.ask(`/api/jobs/${job.job}`)).status, 404)

  const refused = await up.ask('/api/jobs', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      spec: plainSpec(
        'x',
        { shell: 'true' },
        {
          resources: {
            ...plainSpec('', { shell: '' }).resources,
            devices: [{ vendor: 'google', name: 'TPU v9', count: 64, memory: null }],
          },
        },
      ),
    }),
  })
  const { error } = (await refused.json()) as { error: { code: string; message: string } }
  assert.equal(error.code, 'job_device_missing')
  assert.match(error.message, /^No machine here has 64 TPU v9\. There is: /)
})

test('jobs outlive the server: killed, it finds them again; asked to stop, it leaves them, whoever follows a log', async t => {
  const home = folderOf(t)
  let up = await startUp(t, home)
  const ticking = 'for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do echo $i; sleep 0.2; done'
  const job = await submit(up, ticking, {}, { key: 'only-once-please' })
  const again = await submit(up, ticking, {}, { key: 'only-once-please' })
  assert.equal(again.job, job.job)
  while ((await jobAt(up, job.job)).state !== 'running') await new Promise(resolve => setTimeout(resolve, 20))
  up.process.kill('SIGKILL')
  await up.ended

  up = await startUp(t, home)
  const following = linesOf(up, job.job).catch(error => error as Error)
  await new Promise(resolve => setTimeout(resolve, 300))
  const stopping = performance.now()
  up.process.kill('SIGTERM')
  assert.equal(await up.ended, 0)
  assert.ok(performance.now() - stopping < 5000, 'who follows a log does not keep the server')

  // the same port: who followed goes on where it was
  up = await startUp(t, home, { port: new URL(up.url).port })
  const lines = await following
  assert.ok(Array.isArray(lines), String(lines))
  const numbers = Array.from({ length: 15 }, (_, i) => String(i + 1))
  assert.deepEqual(
    lines.map(({ text }) => text),
    numbers,
  )
  const over = await ended(up, job.job)
  assert.deepEqual([over.state, over.attempts.length], ['succeeded', 1])
  assert.equal(((await (await up.ask(`/api/runs/${over.run}`)).json()) as { status: string }).status, 'succeeded')
})

test('without a server jobs are shown as they are, and can be stopped; the next server takes note', async t => {
  const home = folderOf(t)
  let up = await startUp(t, home)
  const [short, long] = [
    await submit(up, 'sleep 1; exit 4'),
    await submit(up, 'sleep 100', { timeouts: { pending: null, run: null, stop: 2 } }),
  ]
  for (const { job } of [short, long])
    while ((await jobAt(up, job)).state !== 'running') await new Promise(resolve => setTimeout(resolve, 20))
  up.process.kill('SIGKILL')
  await up.ended
  const seen = async (job: number, holds: (now: Job) => boolean): Promise<Job> => {
    for (const until = performance.now() + 20_000; ; ) {
      const { answer } = plinth(home, ['jobs', 'show', String(job)])
      if (holds(answer)) return answer
      assert.ok(performance.now() < until, JSON.stringify(answer))
    }
  }
  const failed = await seen(short.job, hasEnded)
  assert.deepEqual([failed.state, failed.reason, failed.exitCode], ['failed', 'user_error', 4])
  const { answer } = plinth(home, ['jobs', 'stop', String(long.job)])
  assert.equal(answer.jobs[0].job, long.job)
  assert.equal((await seen(long.job, hasEnded)).state, 'cancelled')
  up = await startUp(t, home)
  assert.deepEqual([(await ended(up, short.job)).state, (await ended(up, long.job)).state], ['failed', 'cancelled'])
})

const quoted = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`
