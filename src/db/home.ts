import type { Blobs } from '../storage/blobs.ts'
import type { Db } from './open.ts'

/** An opened home: where truth lives. */
export interface Home {
  readonly path: string
  readonly db: Db
  readonly blobs: Blobs
  close(): Promise<void>
}
