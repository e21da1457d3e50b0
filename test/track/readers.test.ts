/** Questions asked beside the main thread are answered as here. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import type { JsonText } from '../../src/api/answers.ts'
import { createRunLog } from '../../src/track/log.ts'
import { foundRuns } from '../../src/track/mlflow/run-words.ts'
import { openReaders } from '../../src/track/readers.ts'
import { readHere } from '../../src/track/reads.ts'
import { foundRunsText, historyText } from '../../src/track/run-answers.ts'
import { createTrackedRun } from '../../src/track/tracked-runs.ts'
import { databases } from '../db/databases.ts'

const [sqlite] = databases()
const path = await sqlite!.target()
const { openDatabase } = await import('../../src/db/open.ts')
const db = await openDatabase(path)
const log = createRunLog(db)
const readers = openReaders(db, path, 3)
after(async () => {
  await readers.close()
  await log.close()
  await db.destroy()
})
const everything = { experiments: ['0'], filter: '', orderBy: [], view: 'active', limit: 100 } as const
const textOf = ({ bytes }: JsonText) => Buffer.from(bytes).toString()

test('what was acknowledged is seen, and every answer is the same as in this thread', async () => {
  const here = readHere(db)
  for (let i = 0; i < 30; i++) {
    const { run } = await createTrackedRun(db, 'default', { experiment: '0', user: 'u', name: `ÿ ${i}`, tags: [] })
    await log.log({ project: 'default', run, metrics: [{ key: 'loss', value: i / 7, timestamp: 1, step: 1 }], params: [], tags: [] })
    const search = { ...everything, experiments: ['0'], orderBy: [] }
    const [ours, theirs, history, wanted, wantedTheirs] = await Promise.all([
      readers.ask(foundRunsText, 'default', search),
      readers.ask(foundRuns, 'default', search),
      readers.ask(historyText, 'default', { run, key: 'loss', points: 10 }),
      here.ask(foundRunsText, 'default', search),
      here.ask(foundRuns, 'default', search),
    ])
    assert.equal(textOf(ours), textOf(wanted))
    assert.equal(textOf(theirs), textOf(wantedTheirs))
    assert.equal(JSON.parse(textOf(history)).total, 1)
  }
})

test('a refusal comes with its code, and the next question is answered', async () => {
  const wrong = { ...everything, experiments: ['0'], orderBy: [], filter: 'nonsense' }
  const asked = await Promise.allSettled(Array.from({ length: 8 }, () => readers.ask(foundRunsText, 'default', wrong)))
  for (const answer of asked) assert.equal(answer.status === 'rejected' && answer.reason.code, 'search_invalid')
  assert.match(textOf(await readers.ask(foundRunsText, 'other', { ...wrong, filter: '' })), /"items":\[\]/)
})

test('a database that a reader cannot open is read here', async () => {
  const nowhere = openReaders(db, '/nowhere/plinth.db')
  for (let i = 0; i < 3; i++)
    assert.match(textOf(await nowhere.ask(foundRunsText, 'default', { ...everything, experiments: ['0'], orderBy: [] })), /"items":\[\{/)
  await nowhere.close()
})

test('what is asked while they close is answered', async () => {
  const closing = openReaders(db, path)
  const search = { ...everything, experiments: ['0'], orderBy: [] }
  await closing.ask(foundRunsText, 'default', search)
  const [answer] = await Promise.all([closing.ask(foundRunsText, 'default', search), closing.close()])
  assert.match(textOf(answer), /"items":\[\{/)
  assert.match(textOf(await closing.ask(foundRunsText, 'default', search)), /"items":\[\{/)
})
