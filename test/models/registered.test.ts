/** The registry on both databases: against a model in memory, and deed by deed. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import fc from 'fast-check'
import { listAudit } from '../../src/accounts/audit.ts'
import type { Db } from '../../src/db/open.ts'
import { Failure } from '../../src/failure.ts'
import { type Deployed, deleteVersions } from '../../src/models/deletion.ts'
import { scoresOf } from '../../src/models/gates.ts'
import { findVersions, lineageOf } from '../../src/models/lineage.ts'
import { moveToStage, promote, takeAlias } from '../../src/models/promote.ts'
import {
  createRegisteredModel,
  createRegisteredVersion,
  getRegisteredModel,
  getRegisteredVersion,
  registeredModels,
  renameRegisteredModel,
  versionByAlias,
} from '../../src/models/registered.ts'
import { createExperiment } from '../../src/track/experiments.ts'
import { logInputs } from '../../src/track/run-links.ts'
import { createTrackedRun } from '../../src/track/tracked-runs.ts'
import { databases } from '../db/databases.ts'

const ada = { project: 'default', user: 'ada' }
const version = { source: 's3://b/m', run: null, loggedModel: null, description: null, user: 'ada', tags: {} }
const folder = mkdtempSync(join(tmpdir(), 'registry-'))
after(() => rmSync(folder, { recursive: true, force: true }))
const nobody = async (): Promise<Deployed[]> => []

for (const { kind, missing, open } of databases())
  describe(kind, { skip: missing ?? false }, () => {
    let db: Db
    const opened = (async () => {
      if (!missing) db = await open()
    })()
    after(() => db?.destroy())
    const remove = (
      name: string,
      version: number | null,
      { preview = false, aliases = 'stay' as 'stay' | 'go', deployments = nobody } = {},
    ) => deleteVersions({ path: folder, db }, ada, { name, version, preview, aliases, deployments })
    const made = async (name: string, count = 1) => {
      await opened
      await createRegisteredModel(db, 'default', { name, description: null, tags: {} })
      for (let i = 0; i < count; i++) await createRegisteredVersion(db, 'default', { ...version, name })
    }

    test('any sequence of making, naming, moving, renaming and deleting leaves what a model in memory says', async () => {
      await opened
      let round = 0
      const name = fc.constantFrom('a', 'b', 'c')
      const number = fc.integer({ min: 1, max: 4 })
      const alias = fc.constantFrom('champion', 'next')
      const deed = fc.oneof(
        fc.record({ do: fc.constant('model' as const), name }),
        fc.record({ do: fc.constant('version' as const), name }),
        fc.record({ do: fc.constant('alias' as const), name, number, alias }),
        fc.record({ do: fc.constant('unalias' as const), name, alias }),
        fc.record({ do: fc.constant('rename' as const), name, to: name }),
        fc.record({ do: fc.constant('delete' as const), name, number }),
        fc.record({ do: fc.constant('deleteAll' as const), name }),
      )
      await fc.assert(
        fc.asyncProperty(fc.array(deed, { minLength: 5, maxLength: 25 }), async deeds => {
          const project = `p${round++}`
          const actor = { project, user: 'ada' }
          // name → what is there; `spent` outlives what is deleted
          const there = new Map<string, { versions: Set<number>; aliases: Map<string, number> }>()
          const spent = new Map<string, number>()
          for (const each of deeds) {
            const model = there.get(each.name)
            const outcome = await attempt(db, project, actor, each)
            if (each.do === 'model') {
              assert.equal(outcome, model ? 'registered_model_exists' : 'done')
              if (!model) there.set(each.name, { versions: new Set(), aliases: new Map() })
            } else if (!model) assert.match(outcome, /registered_(model|version)_not_found/)
            else if (each.do === 'version') {
              const next = (spent.get(each.name) ?? 0) + 1
              assert.equal(outcome, String(next), 'no number is given twice')
              spent.set(each.name, next)
              model.versions.add(next)
            } else if (each.do === 'alias') {
              assert.equal(outcome, model.versions.has(each.number) ? 'done' : 'registered_version_not_found')
              if (outcome === 'done') model.aliases.set(each.alias, each.number)
            } else if (each.do === 'unalias') model.aliases.delete(each.alias)
            else if (each.do === 'rename') {
              const taken = there.has(each.to) ? 'registered_model_exists' : spent.has(each.to) ? 'model_name_spent' : 'done'
              assert.equal(outcome, taken)
              if (taken === 'done') {
                there.set(each.to, model)
                there.delete(each.name)
                const used = spent.get(each.name)
                if (used !== undefined) spent.set(each.to, used)
                spent.delete(each.name)
              }
            } else if (each.do === 'delete') {
              const used = [...model.aliases.values()].includes(each.number)
              assert.equal(outcome, !model.versions.has(each.number) ? 'registered_version_not_found' : used ? 'model_in_use' : 'done')
              if (outcome === 'done') model.versions.delete(each.number)
            } else {
              assert.equal(outcome, model.aliases.size > 0 ? 'model_in_use' : 'done')
              if (outcome === 'done') there.delete(each.name)
            }
          }
          const found = await registeredModels(db, project, ['a', 'b', 'c'])
          assert.deepEqual(
            found.map(({ name, aliases }) => [name, aliases]),
            [...there].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, { aliases }]) => [name, Object.fromEntries(aliases)]),
          )
          const { items } = await findVersions(db, project, { limit: 1000 })
          const expected = [...there]
            .sort(([a], [b]) => (a < b ? -1 : 1))
            .flatMap(([name, { versions }]) => [...versions].sort((a, b) => b - a).map(version => ({ name, version })))
          assert.deepEqual(items, expected)
          for (const [name, { aliases }] of there)
            for (const [alias, version] of aliases) assert.equal((await versionByAlias(db, project, name, alias)).version, version)
        }),
        { numRuns: kind === 'SQLite' ? 30 : 10 },
      )
    })

    async function attempt(
      db: Db,
      project: string,
      actor: { project: string; user: string },
      // biome-ignore lint/suspicious/noExplicitAny: one of the deeds above
      each: any,
    ): Promise<string> {
      try {
        if (each.do === 'model') await createRegisteredModel(db, project, { name: each.name, description: null, tags: { k: 'v' } })
        if (each.do === 'version')
          return String((await createRegisteredVersion(db, project, { ...version, name: each.name, tags: { k: 'v' } })).version)
        if (each.do === 'alias') await promote(db, actor, { name: each.name, version: each.number, alias: each.alias, reason: 'r' })
        if (each.do === 'unalias') await takeAlias(db, actor, { name: each.name, alias: each.alias, reason: null })
        if (each.do === 'rename') await renameRegisteredModel(db, actor, each.name, each.to)
        if (each.do === 'delete' || each.do === 'deleteAll')
          await deleteVersions({ path: folder, db }, actor, {
            name: each.name,
            version: each.number ?? null,
            preview: false,
            deployments: nobody,
          })
        return 'done'
      } catch (error) {
        if (error instanceof Failure) return error.code
        throw error
      }
    }

    test('twenty versions made at once get numbers of their own', async () => {
      await made('crowd', 0)
      const versions = await Promise.all(
        Array.from({ length: 20 }, () => createRegisteredVersion(db, 'default', { ...version, name: 'crowd' })),
      )
      assert.deepEqual(
        versions.map(each => each.version).sort((a, b) => a - b),
        Array.from({ length: 20 }, (_, i) => i + 1),
      )
    })

    test('a worse version is refused by alias and by stage; forced with a reason it goes, and the log tells both', async () => {
      await made('gated', 3)
      const scores = [
        [1, 900],
        [2, 700],
        [3, 895],
      ] as const
      for (const [number, right] of scores) await scored(db, 'gated', number, 'site-B', right)
      await promote(db, ada, { name: 'gated', version: 1, alias: 'champion', reason: 'first' })
      await assert.rejects(promote(db, ada, { name: 'gated', version: 2, alias: 'champion', reason: 'smaller' }), {
        code: 'promotion_refused',
        status: 400,
        message: /gated@2 does not get alias champion: it is worse than gated@1.*70\.0 % instead of 90\.0 % on site-B@1/,
      })
      assert.equal((await versionByAlias(db, 'default', 'gated', 'champion')).version, 1)
      await assert.rejects(promote(db, ada, { name: 'gated', version: 2, alias: 'champion', reason: null, force: true }), {
        code: 'promotion_without_reason',
      })
      const done = await promote(db, ada, { name: 'gated', version: 2, alias: 'champion', reason: 'must fit the camera', force: true })
      assert.deepEqual([done.before, done.forced, done.comparisons.map(({ set, worse }) => [set, worse])], [1, true, [['site-B@1', true]]])
      await promote(db, ada, { name: 'gated', version: 3, alias: 'champion', reason: 'better' })
      const { items } = await listAudit(db, 'default', { limit: 50 })
      const told = items
        .filter(({ subject }) => subject.startsWith('gated@'))
        .map(({ action, subject, user, details }) => [
          action,
          subject,
          user,
          details['reason'],
          details['forced'],
          (details['comparisons'] as unknown[]).length,
        ])
      assert.deepEqual(told, [
        ['models.promote', 'gated@3', 'ada', 'better', false, 1],
        ['models.promote', 'gated@2', 'ada', 'must fit the camera', true, 1],
        ['models.promote_refused', 'gated@2', 'ada', 'smaller', false, 1],
        ['models.promote', 'gated@1', 'ada', 'first', false, 0],
      ])
      // stages
      await moveToStage(db, ada, { name: 'gated', version: 1, stage: 'Production', archive: false, reason: null })
      const staged = { name: 'gated', version: 2, archive: true, reason: null }
      await assert.rejects(moveToStage(db, ada, { ...staged, stage: 'Production' }), {
        code: 'promotion_refused',
        message: /stage Production/,
      })
      await moveToStage(db, ada, { ...staged, stage: 'Staging' })
      // not told apart: 89.5 against 90
      await moveToStage(db, ada, { ...staged, version: 3, stage: 'Production' })
      assert.equal((await getRegisteredVersion(db, 'default', 'gated', 1)).stage, 'Archived')
    })

    test('without a score in common a version may go, and so may a copy of a better one', async () => {
      await made('free', 2)
      await scored(db, 'free', 1, 'site-C', 900)
      await scored(db, 'free', 2, 'site-D', 100)
      await promote(db, ada, { name: 'free', version: 1, alias: 'champion', reason: 'r' })
      assert.deepEqual((await promote(db, ada, { name: 'free', version: 2, alias: 'champion', reason: 'r' })).comparisons, [])
      const copy = await createRegisteredVersion(db, 'default', { ...version, name: 'free', source: 'models:/free/1' })
      assert.deepEqual(await scoresOf(db, 'default', 'free', copy.version), await scoresOf(db, 'default', 'free', 1))
    })

    test('what an alias or a running process uses is not deleted; a preview says so, and what would be freed', async () => {
      await made('used', 2)
      await artefact(db, 'used', 1, 'a'.repeat(64), 500)
      await artefact(db, 'used', 2, 'a'.repeat(64), 500)
      await promote(db, ada, { name: 'used', version: 1, alias: 'champion', reason: 'r' })
      const deployments = async () => [{ model: { name: 'used', version: 2, digest: 'a'.repeat(64) }, worker: { pid: 7 } }]
      const preview = await remove('used', null, { preview: true, deployments })
      assert.deepEqual([preview.bytes, preview.users], [500, ['alias champion of version 1', 'process 7, which serves version 2']])
      assert.equal((await remove('used', 1, { preview: true })).bytes, 0, 'version 2 has the same file')
      await assert.rejects(remove('used', 1), { code: 'model_in_use', status: 409, message: /alias champion/ })
      await assert.rejects(remove('used', 2, { deployments }), { code: 'model_in_use', message: /process 7/ })
      await assert.rejects(remove('used', 2, { deployments, aliases: 'go' }), { code: 'model_in_use' })
      await takeAlias(db, ada, { name: 'used', alias: 'champion', reason: null })
      assert.equal((await remove('used', 1)).bytes, 0)
      assert.equal((await remove('used', null)).bytes, 500)
      await assert.rejects(getRegisteredModel(db, 'default', 'used'), { code: 'registered_model_not_found' })
      await createRegisteredModel(db, 'default', { name: 'used', description: null, tags: {} })
      assert.equal((await createRegisteredVersion(db, 'default', { ...version, name: 'used' })).version, 3)
      const { items } = await listAudit(db, 'default', { limit: 3, action: 'models.delete' })
      assert.deepEqual(
        items.slice(0, 2).map(({ subject }) => subject),
        ['used', 'used@1'],
      )
    })

    test('where a model comes from is told both ways, and nothing of another project', async () => {
      await opened
      const { experiment } = await createExperiment(db, 'default', { name: `lineage ${crypto.randomUUID()}`, tags: {} })
      const tags = {
        'mlflow.source.git.commit': 'c0ffee',
        'mlflow.source.name': 'train.py',
        'plinth.device': 'gpu: H100, 8 threads',
        'plinth.version': '9',
      }
      const run = await createTrackedRun(db, 'default', {
        experiment,
        user: 'ada',
        tags: Object.entries(tags).map(([key, value]) => ({ key, value })),
      })
      const dataset = {
        name: '50%_birds!',
        digest: 'abc123',
        sourceType: 'http',
        source: 'https://data.example.org',
        schema: null,
        profile: null,
      }
      await logInputs(db, 'default', run.run, { datasets: [{ ...dataset, tags: [] }], models: [] } as never)
      await made('lined', 0)
      await createRegisteredVersion(db, 'default', { ...version, name: 'lined', run: run.run })
      const lineage = await lineageOf(db, 'default', 'lined', 1)
      assert.deepEqual(
        [lineage.run?.run, lineage.code, lineage.hardware, lineage.environment, lineage.datasets],
        [
          run.run,
          { commit: 'c0ffee', repository: null, source: 'train.py' },
          'gpu: H100, 8 threads',
          { plinth: '9' },
          [{ name: '50%_birds!', version: null, digest: 'abc123', source: 'https://data.example.org' }],
        ],
      )
      const from = async (query: object, project = 'default') => (await findVersions(db, project, { limit: 10, ...query })).items
      for (const query of [{ run: run.run }, { dataset: '50%_birds!' }, { dataset: 'abc123' }])
        assert.deepEqual(await from(query), [{ name: 'lined', version: 1 }], JSON.stringify(query))
      assert.deepEqual(await from({ dataset: '50%_birds!' }, 'other'), [])
      assert.deepEqual(await from({ dataset: '%' }), [])
      await createRegisteredVersion(db, 'default', { ...version, name: 'lined' })
      await artefact(db, 'lined', 2, 'b'.repeat(64), 1, { name: 'birds', version: 2, digest: 'd1' })
      for (const dataset of ['birds', 'birds@2', 'd1']) assert.deepEqual(await from({ dataset }), [{ name: 'lined', version: 2 }], dataset)
      for (const dataset of ['birds@1', 'bird', 'birds@22', '%']) assert.deepEqual(await from({ dataset }), [], dataset)
      await assert.rejects(lineageOf(db, 'other', 'lined', 1), { code: 'registered_version_not_found' })
    })
  })

async function artefact(
  db: Db,
  name: string,
  version: number,
  digest: string,
  bytes: number,
  dataset: object | null = null,
): Promise<void> {
  await db
    .updateTable('model_versions')
    .set({ kind: 'artefact', digest, bytes, dataset: dataset && JSON.stringify(dataset) })
    .where('name', '=', name)
    .where('version', '=', version)
    .execute()
}

/** A score as `plinth testset score` keeps it, of 1000 pictures. */
async function scored(db: Db, name: string, version: number, set: string, right: number): Promise<void> {
  const digest = `${name}-${version}`
  await artefact(db, name, version, digest, 1)
  const accuracy = right / 1000
  const half = 1.96 * Math.sqrt((accuracy * (1 - accuracy)) / 1000)
  const reference = { name: set, version: 1, digest: `digest of ${set}` }
  const score = {
    set: reference,
    model: digest,
    n: 1000,
    accuracy,
    low: accuracy - half,
    high: accuracy + half,
    balancedAccuracy: accuracy,
    seen: null,
    at: '',
  }
  await db
    .insertInto('test_set_scores')
    .values({ model: digest, test_set: set, version: 1, digest: reference.digest, score: JSON.stringify(score) })
    .execute()
}
