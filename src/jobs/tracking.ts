/** What a job has to do with runs and tokens, of which this folder knows nothing: the composition root brings it. */
import type { Readable } from 'node:stream'
import type { Db } from '../db/open.ts'

export interface TrackedJob {
  job: number
  attempt: number
  project: string
  user: string
  /** Made by the controller: asking twice makes one run. */
  run: string
  name: string
  /** By name; null: the default one. */
  experiment: string | null
  tags: Readonly<Record<string, string>>
}

export interface JobTracking {
  /** In the caller's transaction: the run is there and running. throws experiment_deleted … */
  startRun(db: Db, job: TrackedJob): Promise<void>
  /** The id of its experiment. */
  experimentOf(project: string, run: string): Promise<string>
  /** It waits for its next attempt. */
  pauseRun(db: Db, project: string, run: string): Promise<void>
  /** Answers the status that it ended with: where the script itself said that it failed, that stays. */
  endRun(
    db: Db,
    end: { project: string; run: string; status: 'succeeded' | 'failed' | 'cancelled'; reason: string | null; ended: number },
  ): Promise<'succeeded' | 'failed' | 'cancelled'>
  tagRun(project: string, run: string, tags: Readonly<Record<string, string>>): Promise<void>
  /** A file of the run, replacing what has that name. throws object_name, disk_full … */
  keepFile(project: string, run: string, path: string, content: Readable | AsyncIterable<Uint8Array>): Promise<void>
  /** A token for this attempt and run alone; the same each time it is asked for. In the caller's transaction. */
  giveToken(db: Db, job: Pick<TrackedJob, 'job' | 'attempt' | 'project' | 'user' | 'run'>): Promise<string>
  /** In the caller's transaction. */
  takeToken(db: Db, job: number, attempt: number): Promise<void>
  /** After the transaction: who was let in by it is not any more. */
  tokenTaken(): void
  /** Where the server answers. */
  url(): string
}
