/** Questions that read much, such as a search of thousands of runs: asked so that whoever logs does not wait for them. */
import type { JsonText } from '../api/answers.ts'
import type { Db } from '../db/open.ts'

/** A function with a name: it may be called in another thread (reading-thread.ts lists them). */
export type Question<Input> = (db: Db, project: string, input: Input) => Promise<JsonText>

export interface Reads {
  /** throws what the question throws */
  ask<Input>(question: Question<Input>, project: string, input: Input): Promise<JsonText>
  close(): Promise<void>
}

/** In this thread: PostgreSQL reads in a process of its own anyway. */
export const readHere = (db: Db): Reads => ({
  ask: (question, project, input) => question(db, project, input),
  close: async () => {},
})
