/** What trainings have logged and no server has yet is in a backup, also where it is on its way at that very time. */
import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { backUp } from '../../src/track/backup.ts'
import { openHome } from '../../src/track/home.ts'
import { restore } from '../../src/track/restore.ts'
import { besides, newRunId, openSpool } from '../../src/track/spool.ts'
import { metricHistory } from '../../src/track/tracked-runs.ts'
import { thisProcess } from '../../src/track/worker.ts'
import { temporaryFolder } from './homes.ts'
import { serve, until } from './trainings.ts'

const points = 20

/** As a training that was killed left it, with a file that was not sent either. */
function left(home: string): string {
  const run = newRunId()
  const writer = openSpool(join(home, 'spool'), run, error => assert.fail(error))
  const worker = { ...thisProcess(), pid: 4_000_000, birth: 'gone' }
  const start = { run, experiment: { name: 'left' }, name: null, started: 1_000, tags: {} }
  writer.append({ start, by: { worker, url: null, token: null }, format: 1 })
  for (let step = 0; step < points; step++) writer.append({ metrics: { loss: step }, step, at: 1_000 + step })
  writer.close()
  writeFileSync(besides(writer.spool, 'lock'), 'of this machine')
  return run
}

for (const form of ['folder', '.tar'])
  test(`a backup while the server takes up what dead trainings left holds all of it, once: a ${form}`, async t => {
    const place = temporaryFolder(t)
    const path = join(place, 'home')
    const home = await openHome(path)
    mkdirSync(join(path, 'spool'), { recursive: true })
    const runs = Array.from({ length: 25 }, () => left(path))
    const server = await serve(t, path)
    // in the middle of it
    await until(
      () => readdirSync(join(path, 'spool')).filter(name => name.endsWith('.jsonl')).length,
      waiting => waiting < runs.length,
    )
    const to = join(place, form === '.tar' ? 'backup.tar' : 'backups')
    await backUp(home, to)
    await server.close()
    await home.close()
    const restored = join(place, 'restored')
    await restore(to, restored)
    const kept = readdirSync(join(restored, 'spool'), { recursive: true }).map(String)
    assert.deepEqual(
      kept.filter(name => name.endsWith('.lock')),
      [],
      'who was sending is of no use elsewhere',
    )
    const again = await serve(t, restored)
    await until(
      () => readdirSync(join(restored, 'spool')).filter(name => name.endsWith('.jsonl')).length,
      waiting => waiting === 0,
    )
    for (const run of runs)
      assert.deepEqual(
        (await metricHistory(again.db, 'default', run, 'loss')).map(({ step }) => step),
        Array.from({ length: points }, (_, step) => step),
      )
  })
