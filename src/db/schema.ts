/** The whole database on one page. Times are ISO 8601 in UTC; JSON columns hold the shapes of src/sdk/shapes.ts. */
import type { Generated } from 'kysely'

export interface Schema {
  dataset_versions: {
    name: string
    version: number
    digest: string
    images: number
    classes: number
    created: string
  }
  runs: {
    id: string
    name: string
    recipe: string
    status: string
    reason: string | null
    started: string
    ended: string | null
    /** The whole run as JSON, as last written to its folder. */
    run: string
  }
  model_versions: {
    name: string
    version: number
    labels: string
    run: string | null
    dataset: string | null
    created: string
    bytes: number
    digest: string
    accuracy: string | null
    /** Set when the version was deleted: its number is never given again. */
    deleted: string | null
  }
  migrations: { id: Generated<number>; name: string; applied: string }
}

export interface Migration {
  name: string
  up: readonly string[]
  down: readonly string[]
}

/** In order; a released one never changes. */
export const migrations: readonly Migration[] = [
  {
    name: '001-first',
    up: [
      `create table dataset_versions (
        name text not null, version integer not null, digest text not null, images integer not null, classes integer not null,
        created text not null, primary key (name, version)) strict`,
      `create table runs (
        id text primary key, name text not null, recipe text not null, status text not null, reason text, started text not null,
        ended text, run text not null) strict`,
      'create index runs_started on runs (started desc)',
      `create table model_versions (
        name text not null, version integer not null, labels text not null, run text, dataset text, created text not null,
        bytes integer not null, digest text not null, accuracy text, deleted text, primary key (name, version)) strict`,
      'create index model_versions_run on model_versions (run)',
    ],
    down: ['drop table dataset_versions', 'drop table runs', 'drop table model_versions'],
  },
]
