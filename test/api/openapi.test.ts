/**
 * The OpenAPI document against the server that it describes, by schemathesis (schemathesis.readthedocs.io): what fits the document and what
 * just does not is sent to every call, and the answer is never a broken server, and always of the form that the document says.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { startControlPlane } from '../../src/control-plane.ts'
import { plainSpec } from '../../src/jobs/spec.ts'
import { calls } from '../../src/sdk/calls/index.ts'
import { createClient } from '../../src/sdk/client.ts'
import { openHome } from '../../src/track/home.ts'
import { databases } from '../db/databases.ts'
import { python } from '../peers.ts'

const long = process.env['PLINTH_TEST'] === 'long'
const interpreter = python()

for (const { kind, missing, target } of databases())
  test(`${kind}: whatever is asked that the document allows, or just does not, is answered as the document says`, {
    skip: interpreter
      ? kind === 'PostgreSQL' && !long
        ? 'only with PLINTH_TEST=long'
        : (missing ?? false)
      : 'schemathesis is not installed (npm run peers)',
    timeout: 3_600_000,
  }, async t => {
    const folder = mkdtempSync(join(tmpdir(), 'openapi-'))
    const home = await openHome(join(folder, 'home'), kind === 'SQLite' ? {} : { database: await target() })
    const limits = { requests: 1e9, failures: 1e9 } // wrong tokens are among what is sent
    const server = await startControlPlane(home, { host: '127.0.0.1', port: 0, limits })
    t.after(async () => {
      const plinth = createClient(calls, server)
      for (const { job } of (await plinth.listJobs({ state: 'active' })).items) await plinth.stopJob({ job, grace: 0 })
      while ((await plinth.listJobs({ state: 'active' })).items.length > 0) await new Promise(resolve => setTimeout(resolve, 50))
      await server.close()
      await home.close()
      rmSync(folder, { recursive: true, force: true })
    })
    const known = await thingsToFind(server)
    const settings = join(folder, 'settings.toml')
    writeFileSync(settings, asSettings(known))
    const words = [
      ...['--config-file', settings, 'run', `${server.url}/api/openapi.json`, '--header', `Authorization: Bearer ${server.token}`],
      ...['--checks', 'not_a_server_error,response_schema_conformance,content_type_conformance,status_code_conformance'],
      ...['--phases', 'coverage,fuzzing', '--max-examples', long ? '300' : '12', '--no-shrink', '--generation-database', 'none'],
      ...(long ? [] : ['--seed', '5']),
    ]
    const child = spawn(interpreter!, ['-c', 'from schemathesis.cli import schemathesis; schemathesis()', ...words], { cwd: folder })
    let said = ''
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', text => (said += text))
    const [code] = await once(child, 'close')
    assert.equal(code, 0, said)
    assert.doesNotMatch(said, /Unresolvable references/)
    const cases = Number(/(\d+) generated/.exec(said)?.[1])
    t.diagnostic(`${cases} requests`)
    assert.ok(cases > Object.keys(calls).length * 10, said)

    // it was not only turned away at the door
    const metrics = await (await fetch(`${server.url}/metrics`, { headers: { authorization: `Bearer ${server.token}` } })).text()
    const refused = Object.values(calls).filter(
      ({ method, path }) => !metrics.includes(`{method="${method}",route="${path}",status="200"}`),
    )
    assert.deepEqual(
      refused.map(({ method, path }) => `${method} ${path}`),
      [],
    )
  })

type Known = Record<string, readonly (string | number)[]>

/** A name of each thing that a call may be about, so that most questions are about something. */
async function thingsToFind(server: { url: string; token: string }): Promise<Known> {
  const plinth = createClient(calls, server)
  const mlflow = async (path: string, body: object) => {
    const headers = { authorization: `Bearer ${server.token}`, 'content-type': 'application/json' }
    const answer = await fetch(`${server.url}/api/2.0/mlflow/${path}`, { method: 'POST', headers, body: JSON.stringify(body) })
    assert.equal(answer.status, 200, path)
    // biome-ignore lint/suspicious/noExplicitAny: an answer in MLflow's words
    return (await answer.json()) as any
  }
  const { experiment } = await plinth.createExperiment({ name: 'birds' })
  const runs: string[] = []
  // many, since among what is asked is to rename and delete them
  const names = ['photos', 'sounds', 'a/b', 'ü', ...Array.from({ length: 16 }, (_, i) => `model ${i}`)]
  for (const name of names) {
    const { run } = await plinth.startRun({ experiment, name })
    await plinth.logToRun({ run, params: { net: 'lite' }, metrics: [{ key: 'loss', value: 0.5, timestamp: 1, step: 1 }] })
    runs.push(run)
    if (name.includes('/')) continue
    const { model } = await mlflow('logged-models', { experiment_id: experiment, name: 'm', source_run_id: run })
    await mlflow('registered-models/create', { name })
    await mlflow('model-versions/create', { name, source: `models:/${model.info.model_id}` })
    await plinth.promoteModel({ name, version: 1, alias: 'champion', reason: 'the first' })
  }
  await plinth.addUser({ user: 'ada', role: 'editor' })
  const tokens = [1, 2, 3].map(i => plinth.createToken({ name: `t${i}`, user: 'ada' }))
  const ids = (await Promise.all(tokens)).map(({ about }) => about.id)
  // a spec that holds is beyond guessing, so jobs are ours: some that have ended, which can be tried again and deleted, and some that go on
  const submitted = Array.from({ length: 16 }, (_, i) =>
    plinth.submitJob({ spec: plainSpec(`job ${i}`, { argv: i < 8 ? ['true'] : ['sleep', '1000'] }) }),
  )
  const jobs = (await Promise.all(submitted)).map(({ job }) => job)
  for (const job of jobs.slice(0, 8))
    while ((await plinth.getJob({ job })).ended === null) await new Promise(resolve => setTimeout(resolve, 50))
  return {
    job: jobs,
    experiment: [experiment, '0'],
    run: runs,
    name: names,
    version: ['1', 'champion'],
    alias: ['champion'],
    user: ['ada'],
    id: ids,
  }
}

/** Of the names in paths four of five are of something that is there. */
const asSettings = (known: Known): string =>
  [
    ...Object.entries(known).map(([name, values]) => `[dictionaries.${name}]\nvalues = ${JSON.stringify(values)}`),
    '[parameters]',
    ...Object.keys(known).map(name => `"path.${name}" = { dictionary = "${name}", probability = 0.8 }`),
    '',
  ].join('\n')
