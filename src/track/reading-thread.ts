/** One thread of readers.ts, with a connection of its own that only reads. */
import { parentPort, workerData } from 'node:worker_threads'
import { sql } from 'kysely'
import { connect } from '../db/sqlite.ts'
import { Failure } from '../failure.ts'
import { historyPage, samplesInBulk, wholeHistories } from './mlflow/history.ts'
import { foundRuns } from './mlflow/run-words.ts'
import type { Asked, Read } from './readers.ts'
import type { Question } from './reads.ts'
import { foundRunsText, historyText } from './run-answers.ts'

/** Everything that is asked of readers. */
const questions = [foundRunsText, historyText, foundRuns, historyPage, wholeHistories, samplesInBulk] as Question<unknown>[]
const byName = new Map(questions.map(question => [question.name, question]))

const port = parentPort!
const db = await connect(workerData as string)
await sql`pragma query_only = on`.execute(db)
port.on('message', async (asked: Asked | null) => {
  if (asked === null) {
    port.close()
    return await db.destroy()
  }
  try {
    const { bytes } = await byName.get(asked.question)!(db, asked.project, asked.input)
    port.postMessage({ json: bytes } satisfies Read, [bytes.buffer])
  } catch (error) {
    if (error instanceof Failure) port.postMessage({ failure: { code: error.code, details: error.details } } satisfies Read)
    else port.postMessage({ problem: error instanceof Error ? error.message : String(error) } satisfies Read)
  }
})
port.postMessage(null)
