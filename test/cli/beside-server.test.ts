/** Commands on a home while its server is written to: neither harms nor hides what the other did. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { sql } from 'kysely'
import { registerModel } from '../../src/models/registry.ts'
import { openHome } from '../../src/track/home.ts'
import { temporaryFolder } from '../track/homes.ts'
import { main, startUp } from '../up/up.ts'

test('commands that change the home beside a busy server, at the same time', async t => {
  const folder = temporaryFolder(t)
  const path = join(folder, 'home')
  const home = await openHome(path)
  const file = join(folder, 'm.onnx')
  writeFileSync(file, 'a model')
  for (let i = 0; i < 3; i++)
    await registerModel(home, { name: 'birds', file, labels: ['a', 'b'], run: null, dataset: null, accuracy: null })
  await home.close()
  const up = await startUp(t, path)
  const plinth = async (...words: string[]) => {
    const child = spawn(process.execPath, [main, ...words, '--json'], { env: { ...process.env, PLINTH_HOME: path, PLINTH_URL: '' } })
    let [said, told] = ['', '']
    child.stdout.setEncoding('utf8').on('data', text => (said += text))
    child.stderr.setEncoding('utf8').on('data', text => (told += text))
    const [code] = await once(child, 'close')
    assert.equal(code, 0, `${words.join(' ')}: ${said} ${told}`)
    return JSON.parse(said.trim().split('\n').at(-1)!)
  }

  let busy = true
  const writers = Array.from({ length: 4 }, async () => {
    const { run } = await up.post('/api/runs', {})
    let steps = 0
    for (; busy; steps++) await up.post(`/api/runs/${run}/log`, { metrics: [{ key: 'loss', value: steps, timestamp: steps, step: steps }] })
    return { run, steps }
  })
  const gone = (await up.post('/api/runs', { name: 'gone' })).run as string
  const changed = (async () => {
    const made = await plinth('tokens', 'create', 'beside')
    await plinth('runs', 'delete', gone)
    for (const version of [1, 2, 3]) await plinth('models', 'promote', `birds@${version}`, 'champion', '--reason', `try ${version}`)
    return made.token as string
  })()
  const looked = (async () => {
    await plinth('backup', join(folder, 'backups'))
    await plinth('gc', '--yes')
    return await plinth('runs', 'list')
  })()
  const [commands, written] = await Promise.all([Promise.all([changed, looked]).finally(() => (busy = false)), Promise.all(writers)])
  const [token, { runs }] = commands

  // what the commands did, the server knows
  assert.equal((await up.ask('/api/server', { headers: { authorization: `Bearer ${token}` } })).status, 200)
  assert.deepEqual((await (await up.ask('/api/models/birds')).json()).aliases, { champion: 3 })
  assert.equal((await (await up.ask(`/api/runs/${gone}`)).json()).deleted, true)
  // what the server did, the commands know, and every point is there
  assert.deepEqual(
    written.map(({ run }) => runs.some((each: { run: string }) => each.run === run)),
    [true, true, true, true],
  )
  for (const { run, steps } of written) {
    assert.ok(steps > 10, 'the server was busy')
    const { total } = await (await up.ask(`/api/runs/${run}/metrics?key=loss&points=10`)).json()
    assert.equal(total, steps)
  }
  up.process.kill('SIGTERM')
  await up.ended
  const after = await openHome(path)
  const { rows } = await sql<{ integrity_check: string }>`pragma integrity_check`.execute(after.db)
  await after.close()
  assert.deepEqual(
    rows.map(row => row.integrity_check),
    ['ok'],
  )
})
