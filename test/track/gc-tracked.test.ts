import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readdirSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { shrinkDatabase } from '../../src/db/size.ts'
import { createRegisteredModel, createRegisteredVersion } from '../../src/models/registered.ts'
import { createExperiment, deleteExperiment } from '../../src/track/experiments.ts'
import { collectGarbage, findGarbage, lookForGarbage } from '../../src/track/gc.ts'
import { openHome } from '../../src/track/home.ts'
import { createRunLog } from '../../src/track/log.ts'
import { createLoggedModel } from '../../src/track/logged-models.ts'
import { createTrackedRun, setDeleted } from '../../src/track/tracked-runs.ts'
import { databases } from '../db/databases.ts'
import { temporaryFolder } from './homes.ts'

const project = 'default'
const days = (n: number) => n * 24 * 60 * 60 * 1000

for (const { kind, missing, target } of databases()) {
  const skip = missing ?? false

  const aHome = async (t: TestContext) => {
    const database = kind === 'PostgreSQL' ? await target() : undefined
    const home = await openHome(join(temporaryFolder(t), 'home'), { database })
    t.after(() => home.close())
    const log = createRunLog(home.db)
    const run = async (experiment = '0', points = 3) => {
      const { run: id } = await createTrackedRun(home.db, project, { experiment, user: 'owner', tags: [{ key: 'a', value: 'b' }] })
      const metrics = Array.from({ length: points }, (_, step) => ({ key: 'loss', value: step, timestamp: step, step }))
      await log.log({ project, run: id, metrics, params: [{ key: 'p', value: '1' }], tags: [] })
      const folder = join(home.path, 'artifacts', experiment, id, 'artifacts')
      mkdirSync(folder, { recursive: true })
      writeFileSync(join(folder, 'file'), 'x'.repeat(1000))
      return { id, folder }
    }
    const backdate = (id: string, n: number) =>
      home.db
        .updateTable('tracked_runs')
        .set({ deleted: Date.now() - days(n) })
        .where('id', '=', id)
        .execute()
    const count = async (table: 'metrics' | 'params' | 'tags' | 'latest_metrics' | 'tracked_runs') =>
      Number(
        (
          await home.db
            .selectFrom(table)
            .select(({ fn }) => fn.countAll().as('n'))
            .executeTakeFirstOrThrow()
        ).n,
      )
    return { home, run, backdate, count }
  }

  test(`${kind}: a run that was deleted long ago goes with its metrics and files; one of yesterday can be restored`, { skip }, async t => {
    const { home, run, backdate, count } = await aHome(t)
    const [kept, yesterday, old] = [await run(), await run(), await run('0', 50)]
    for (const { id } of [yesterday, old]) await setDeleted(home.db, project, id, true)
    await backdate(yesterday.id, 1)
    await backdate(old.id, 31)
    const { garbage, held } = await lookForGarbage(home)
    assert.deepEqual(held, [])
    assert.deepEqual(
      garbage.map(({ path, reason, bytes }) => [path, reason, bytes]),
      [[old.folder, 'deleted run, with its metrics and files', 1000 + 50 * 40]],
    )
    assert.ok(existsSync(old.folder), 'looking deletes nothing')
    assert.equal(await collectGarbage(garbage), 3000)
    assert.deepEqual(
      [kept, yesterday, old].map(({ folder }) => existsSync(join(folder, '..'))),
      [true, true, false],
    )
    assert.deepEqual(
      [await count('tracked_runs'), await count('metrics'), await count('params'), await count('latest_metrics')],
      [2, 6, 2, 2],
    )
    assert.equal(await collectGarbage(garbage), 0, 'what is gone is gone')
    await setDeleted(home.db, project, yesterday.id, false)
    assert.deepEqual(await findGarbage(home), [])
  })

  test(`${kind}: a run that was restored between the look and the deletion stays whole`, { skip }, async t => {
    const { home, run, backdate, count } = await aHome(t)
    const { id, folder } = await run()
    await setDeleted(home.db, project, id, true)
    await backdate(id, 40)
    const garbage = await findGarbage(home)
    assert.equal(garbage.length, 1)
    await setDeleted(home.db, project, id, false)
    assert.equal(await collectGarbage(garbage), 0)
    assert.deepEqual([await count('metrics'), existsSync(folder)], [3, true])
  })

  test(`${kind}: what a version of a model came from stays, and the look says for which`, { skip }, async t => {
    const { home, run, backdate } = await aHome(t)
    const [byRun, bySource, neither] = [await run(), await run(), await run()]
    await createRegisteredModel(home.db, project, { name: 'birds', description: null, tags: {} })
    const version = { name: 'birds', loggedModel: null, description: null, user: 'owner', tags: {} }
    await createRegisteredVersion(home.db, project, { ...version, run: byRun.id, source: 'elsewhere' })
    await createRegisteredVersion(home.db, project, { ...version, run: null, source: `mlflow-artifacts:/0/${bySource.id}/artifacts/model` })
    for (const { id } of [byRun, bySource, neither]) {
      await setDeleted(home.db, project, id, true)
      await backdate(id, 40)
    }
    const { garbage, held } = await lookForGarbage(home)
    assert.deepEqual(
      held.map(({ what, by }) => [what, by]).sort(),
      [
        [`run ${byRun.id}`, 'birds@1'],
        [`run ${bySource.id}`, 'birds@2'],
      ].sort(),
    )
    assert.deepEqual(
      garbage.map(({ path }) => path),
      [neither.folder],
    )
  })

  test(`${kind}: an experiment goes with its runs and logged models, and its number is not given again`, { skip }, async t => {
    const { home, run } = await aHome(t)
    const { experiment } = await createExperiment(home.db, project, { name: 'old', tags: { a: 'b' } })
    const { folder } = await run(experiment)
    await createLoggedModel(home.db, project, {
      experiment,
      name: 'm',
      type: null,
      run: null,
      params: [{ key: 'a', value: 'b' }],
      tags: [],
    })
    await deleteExperiment(home.db, project, experiment)
    await home.db
      .updateTable('experiments')
      .set({ deleted: Date.now() - days(31) })
      .where('id', '=', Number(experiment))
      .execute()
    const garbage = await findGarbage(home)
    assert.deepEqual(
      garbage.map(({ reason }) => reason),
      ['deleted run, with its metrics and files', 'deleted logged model, with its files', 'deleted experiment'],
    )
    await collectGarbage(garbage)
    assert.equal(existsSync(folder), false)
    assert.equal(existsSync(join(home.path, 'artifacts', experiment)), false)
    assert.deepEqual(await findGarbage(home), [])
    const next = await createExperiment(home.db, project, { name: 'old', tags: {} })
    assert.notEqual(next.experiment, experiment)
  })

  test(`${kind}: what a gc left that was killed is found by the next; many points go a few at a time`, { skip }, async t => {
    const { home, run, count } = await aHome(t)
    const [whole, half] = [await run(), await run('0', 45_000)]
    const row = await home.db.selectFrom('tracked_runs').select('number').where('id', '=', half.id).executeTakeFirstOrThrow()
    await home.db.deleteFrom('tracked_runs').where('number', '=', row.number).execute()
    const old = new Date(Date.now() - days(1))
    utimesSync(join(half.folder, '..'), old, old)
    const garbage = await findGarbage(home)
    assert.deepEqual(
      garbage.map(({ reason }) => reason),
      ['files of a run or logged model that is gone', 'metrics of a run that is gone'],
    )
    await collectGarbage(garbage)
    assert.deepEqual([await count('metrics'), existsSync(whole.folder), existsSync(half.folder)], [3, true, false])
    const next = await run()
    const { number } = await home.db.selectFrom('tracked_runs').select('number').where('id', '=', next.id).executeTakeFirstOrThrow()
    assert.notEqual(number, row.number)
  })

  test(`${kind}: tokens that were revoked or have expired long ago go`, { skip }, async t => {
    const { home } = await aHome(t)
    await home.db.insertInto('users').values({ name: 'a', owner: 0, created: '', disabled: null }).execute()
    const iso = (n: number) => new Date(Date.now() - days(n)).toISOString()
    const token = { hash: '', user: 'a', name: 't', project, scope: 'all', created: '', expires: null, revoked: null }
    await home.db
      .insertInto('tokens')
      .values([
        { ...token, id: '1' },
        { ...token, id: '2', revoked: iso(40) },
        { ...token, id: '3', expires: iso(31) },
        { ...token, id: '4', revoked: iso(2) },
      ])
      .execute()
    await collectGarbage(await findGarbage(home))
    const left = await home.db.selectFrom('tokens').select('id').orderBy('id').execute()
    assert.deepEqual(
      left.map(({ id }) => id),
      ['1', '4'],
    )
  })
}

test('copies of before an upgrade go when they are old, and findings of dataset versions that are gone', async t => {
  const home = await openHome(join(temporaryFolder(t), 'home'))
  t.after(() => home.close())
  const found = join(home.path, 'reviews', 'found')
  mkdirSync(found, { recursive: true })
  await home.db
    .insertInto('dataset_versions')
    .values({ name: 'birds', version: 1, digest: 'abc', images: 1, classes: 1, created: '' })
    .execute()
  const old = [
    'plinth.db.before-002-test-sets',
    'database.before-003-control-plane.jsonl.gz',
    'reviews/found/abc.json',
    'reviews/found/def.json',
    'reviews/verdicts.json',
  ]
  for (const name of [...old, 'plinth.db.before-003-control-plane']) writeFileSync(join(home.path, name), 'x')
  const date = new Date(Date.now() - days(31))
  for (const name of old) utimesSync(join(home.path, name), date, date)
  const garbage = await findGarbage(home)
  assert.deepEqual(garbage.map(({ path }) => path.slice(home.path.length + 1)).sort(), [old[1], old[0], old[3]].sort())
  await collectGarbage(garbage)
  assert.deepEqual(readdirSync(found), ['abc.json'])
  assert.ok(existsSync(join(home.path, 'plinth.db.before-003-control-plane')))
})

test('the file of the database shrinks when much of it is empty', async t => {
  const home = await openHome(join(temporaryFolder(t), 'home'))
  t.after(() => home.close())
  const rows = Array.from({ length: 400 }, (_, i) => ({
    name: `n${i}`,
    version: 1,
    digest: 'x'.repeat(5000),
    images: 1,
    classes: 1,
    created: '',
  }))
  await home.db.insertInto('dataset_versions').values(rows).execute()
  assert.equal(await shrinkDatabase(home, { least: 1 }), 0)
  await home.db.deleteFrom('dataset_versions').execute()
  assert.equal(await shrinkDatabase(home), 0, 'too little to rewrite the file for')
  assert.ok((await shrinkDatabase(home, { least: 1 })) > 1_000_000)
  assert.deepEqual(
    await home.db.selectFrom('projects').select('id').execute(),
    [{ id: 'default' }].map(row => Object.assign(Object.create(null), row)),
  )
})
