import type { Blobs } from '../storage/blobs.ts'
import type { Db } from './open.ts'

/** An opened home: where truth lives. */
export interface Home {
  readonly path: string
  readonly db: Db
  /** What `openDatabase` took: the file, or postgres://… with its password. Not for messages: see `showTarget`. */
  readonly target: string
  readonly blobs: Blobs
  close(): Promise<void>
}
