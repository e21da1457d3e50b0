/** What all parts of an import share: where it goes, what was found where, and how much. */
import type { Db } from '../../db/open.ts'
import type { Objects } from '../../storage/objects.ts'
import type { Keys } from '../points.ts'

export const kinds = [
  ...[
    'experiments',
    'runs',
    'params',
    'tags',
    'metric points',
    'dataset inputs',
    'logged models',
    'registered models',
    'model versions',
    'aliases',
  ],
  ...['files', 'bytes of files'],
] as const
export type Kind =
  | 'experiments'
  | 'runs'
  | 'params'
  | 'tags'
  | 'metric points'
  | 'dataset inputs'
  | 'logged models'
  | 'registered models'
  | 'model versions'
  | 'aliases'
  | 'files'
  | 'bytes of files'
export interface Count {
  /** At the source. */
  source: number
  /** Of those, here afterwards. */
  here: number
  /** Of those, written by this import. */
  added: number
}
export interface Into {
  db: Db
  objects: Objects
  project: string
  keys: Keys
  /** Ids there → ids here. */
  experiments: Map<string, number>
  /** Where files of runs and models were → where they are. */
  places: Map<string, string>
  /** Places that were not read, with how many of theirs are in them. */
  far: Map<string, { owners: number; first: string }>
  count(kind: Kind, what: Partial<Count>): void
  note(text: string): void
}

export const isServed = (location: string) => /^mlflow-artifacts:/i.test(location)
/** Files that were behind a server, or on a disk of it, come along; those in a store of their own stay there. */
export const isOurs = (location: string) =>
  location === '' || /^(mlflow-artifacts|file|https?):/i.test(location) || location.startsWith('/') || location.startsWith('.')

export function* chunks<T>(items: readonly T[], size = 200): Generator<T[]> {
  for (let at = 0; at < items.length; at += size) yield items.slice(at, at + size)
}
