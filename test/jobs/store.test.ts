/** The queue, over each kind of database. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import fc from 'fast-check'
import type { Db } from '../../src/db/open.ts'
import type { Failure } from '../../src/failure.ts'
import { type JobSpec, plainSpec } from '../../src/jobs/spec.ts'
import { activeJobs, deleteJob, getJob, listJobs, passNumbers, readSpec, retryJob, stopJob, submitJob } from '../../src/jobs/store.ts'
import { databases } from '../db/databases.ts'

const actor = { user: 'ann', project: 'default' }
const spec = (rest: Partial<JobSpec> = {}, name = 'job') => plainSpec(name, { argv: ['true'] }, rest)
const code = (expected: string) => (error: Failure) => error.code === expected

for (const database of databases()) {
  let db: Db
  const its = (name: string, run: () => Promise<void>) =>
    test(`${database.kind}: ${name}`, async t => {
      if (database.missing) return t.skip(database.missing)
      db ??= await database.open()
      await run()
    })
  after(() => db?.destroy())
  const submit = async (rest: Partial<JobSpec> = {}, more: { key?: string; group?: string; index?: number } = {}, who = actor) =>
    (await submitJob(db, who, { spec: spec(rest, rest.name), ...more })).job

  its('asked twice under one key, one job is queued, also when both ask at once', async () => {
    const asked = await Promise.all(Array.from({ length: 8 }, () => submitJob(db, actor, { spec: spec(), key: 'the-same-key' })))
    assert.equal(new Set(asked.map(({ job }) => job)).size, 1)
    assert.equal(asked.filter(({ fresh }) => fresh).length, 1)
    await assert.rejects(submit({ priority: 3 }, { key: 'the-same-key' }), code('job_key_taken'))
    const elsewhere = await submit({}, { key: 'the-same-key' }, { user: 'bob', project: 'other' })
    assert.notEqual(elsewhere, asked[0]!.job)
  })

  its('what a job says comes back as it was, and other projects do not see it', async () => {
    const given = spec({ envs: { EPOCHS: '3', ODD: 'ümläut "quotes"\nlines' }, priority: -7, parallel: 2, preemptible: true })
    const { job } = await submitJob(db, actor, { spec: given, group: 'array', index: 4 })
    const found = await getJob(db, 'default', job)
    assert.deepEqual(found.spec, given)
    assert.deepEqual([found.state, found.user, found.group, found.index, found.priority], ['queued', 'ann', 'array', 4, -7])
    assert.deepEqual([found.attempts, found.run, found.device, found.warnings], [[], null, null, []])
    for (const ask of [
      () => getJob(db, 'other', job),
      () => stopJob(db, { user: 'eve', project: 'other' }, job, 0),
      () => retryJob(db, { user: 'eve', project: 'other' }, job),
      () => deleteJob(db, { user: 'eve', project: 'other' }, job),
    ])
      await assert.rejects(ask(), code('job_not_found'))
    assert.equal((await listJobs(db, 'elsewhere', { limit: 10 })).items.length, 0)
    assert.equal((await getJob(db, 'default', job)).state, 'queued')
  })

  its('lists go in pages, newest first, by state and by group', async () => {
    const group = `g-${crypto.randomUUID()}`
    const jobs: number[] = []
    for (let i = 0; i < 5; i++) jobs.push(await submit({}, { group, index: i }))
    await stopJob(db, actor, jobs[1]!, undefined)
    const pages: number[][] = []
    for (let after: string | undefined; ; ) {
      const { items, next } = await listJobs(db, 'default', { limit: 2, group, after })
      pages.push(items.map(({ job }) => job))
      if (next === null) break
      after = next
    }
    assert.deepEqual(pages, [[jobs[4], jobs[3]], [jobs[2], jobs[1]], [jobs[0]]])
    const active = await listJobs(db, 'default', { limit: 10, group, state: 'active' })
    assert.deepEqual(
      active.items.map(({ job }) => job),
      [4, 3, 2, 0].map(i => jobs[i]),
    )
    assert.equal((await listJobs(db, 'default', { limit: 10, group, state: 'cancelled' })).items.length, 1)
    assert.equal((await listJobs(db, 'default', { limit: 10, group, after: "x' or 1=1" })).items.length, 0)
  })

  its('a job that has ended can be asked for again and be deleted; one that has not can do neither', async () => {
    const job = await submit()
    await assert.rejects(retryJob(db, actor, job), code('job_active'))
    await assert.rejects(deleteJob(db, actor, job), code('job_active'))
    await stopJob(db, actor, job, undefined)
    await stopJob(db, actor, job, undefined) // it is as it is
    await retryJob(db, actor, job)
    assert.deepEqual([(await getJob(db, 'default', job)).state, (await getJob(db, 'default', job)).ended], ['queued', null])
    await stopJob(db, actor, job, undefined)
    await deleteJob(db, actor, job)
    await assert.rejects(getJob(db, 'default', job), code('job_not_found'))
    const deeds = await db.selectFrom('audit').select(['action', 'user']).where('subject', '=', String(job)).orderBy('id').execute()
    assert.deepEqual(
      deeds.map(({ action }) => action),
      ['jobs.submit', 'jobs.stop', 'jobs.retry', 'jobs.stop', 'jobs.delete'],
    )
  })

  its('values of secrets are nowhere in the database, and a job that has ended has none to be tried again with', async () => {
    const kept: number[] = []
    const given = { spec: spec({ secrets: ['HF_TOKEN'] }), secrets: { HF_TOKEN: 'hush-hush' } }
    const { job } = await submitJob(db, actor, given, { keepSecrets: async number => void kept.push(number) })
    assert.deepEqual(kept, [job])
    for (const { name } of await db.introspection.getTables()) {
      const rows = await db
        .selectFrom(name as 'jobs')
        .selectAll()
        .execute()
      assert.ok(!JSON.stringify(rows).includes('hush-hush'), name)
    }
    await stopJob(db, actor, job, undefined)
    await assert.rejects(retryJob(db, actor, job), code('job_secrets_gone'))
    await assert.rejects(submitJob(db, actor, { spec: spec({ secrets: ['A'] }) }), code('job_secret_missing'))
    await assert.rejects(submitJob(db, actor, { spec: spec(), secrets: { A: '1' } }), code('job_spec_invalid'))
    const unsafe = { ...given, secrets: { HF_TOKEN: 'x' } }
    const full = async () => {
      throw new Error('the disk is full')
    }
    const before = (await listJobs(db, 'default', { limit: 1 })).items[0]!.job
    await assert.rejects(submitJob(db, actor, unsafe, { keepSecrets: full }))
    assert.equal((await listJobs(db, 'default', { limit: 1 })).items[0]!.job, before, 'a job whose secrets could not be kept is not there')
  })

  its('dependencies are by number, or by name within the group', async () => {
    const first = await submit({ name: 'prepare' }, { group: 'pipeline' })
    const second = await submit({ dependsOn: [{ job: 'prepare', when: 'succeeded' }] }, { group: 'pipeline' })
    assert.deepEqual((await getJob(db, 'default', second)).spec['dependsOn'], [{ job: first, when: 'succeeded' }])
    for (const [job, group] of [
      ['prepare', 'another'],
      ['prepare', undefined],
      [99_999_999, 'pipeline'],
    ] as const)
      await assert.rejects(submit({ dependsOn: [{ job, when: 'ended' }] }, { ...(group && { group }) }), code('job_dependency_unknown'))
    await assert.rejects(
      submit({ dependsOn: [{ job: first, when: 'ended' }] }, {}, { user: 'eve', project: 'other' }),
      code('job_dependency_unknown'),
    )
  })

  its('numbers up to one that an engine knows are given to nobody', async () => {
    const job = await submit()
    await passNumbers(db, job + 1000)
    assert.equal(await submit(), job + 1001)
    await passNumbers(db, 5)
    assert.equal(await submit(), job + 1002)
    assert.deepEqual(await activeJobs(db), [])
  })
}

test('what a job cannot be is told by the name of what is wrong', () => {
  const wrong: [Record<string, unknown>, RegExp][] = [
    [{ nodes: 0 }, /^The job cannot be taken: nodes: /],
    [{ unknown: 1 }, /unknown/],
    [{ envs: { 'A=B': 'x' } }, /"A=B" is no name of a variable/],
    [{ envs: { PLINTH_TOKEN: 'mine' } }, /begin with PLINTH_ are set by Plinth/],
    [{ secrets: ['LD PRELOAD'] }, /no name of a variable/],
    [{ workdir: 'relative/path' }, /workdir: it has to be an absolute path/],
    [{ envs: { A: 'x\0y' } }, /NUL character/],
    [{ run: { argv: [] } }, /run/],
    [{ setup: 'x'.repeat(1_000_001) }, /larger than 1 MB/],
    [
      { resources: { ...spec().resources, devices: [{ vendor: null, name: null, count: 1.5, memory: null }] } },
      /neither whole ones nor a part/,
    ],
    [{ timeouts: { pending: null, run: -1, stop: 1 } }, /timeouts.run/],
    [{ priority: 5000 }, /priority/],
  ]
  for (const [change, message] of wrong)
    assert.throws(
      () => readSpec({ ...spec(), ...change }),
      (error: Failure) => error.code === 'job_spec_invalid' && message.test(error.message),
      JSON.stringify(change).slice(0, 80),
    )
})

test('whatever is sent as a job is a job or refused with a code', () => {
  fc.assert(
    fc.property(
      fc.oneof(fc.anything(), fc.record({ ...Object.fromEntries(Object.keys(spec()).map(key => [key, fc.anything()])) })),
      given => {
        try {
          readSpec(given)
        } catch (error) {
          assert.equal((error as Failure).code, 'job_spec_invalid')
        }
      },
    ),
  )
})
