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
    /** 'dataset', or 'test set': pictures that models are only tested on. */
    kind: Generated<string>
  }
  /** The newest numbers of each model on each version of a test set. */
  test_set_scores: {
    /** sha256 of the model file: a model keeps its scores under another name. */
    model: string
    test_set: string
    version: number
    digest: string
    /** A TestSetScore as JSON. */
    score: string
  }
  /** Every time a test set answered how good a model is; never deleted, so that the same pictures under a new name are not fresh again. */
  test_set_looks: {
    id: Generated<number>
    /** Digest of the set's version. */
    digest: string
    model: string
    at: string
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
  {
    name: '002-test-sets',
    up: [
      "alter table dataset_versions add column kind text not null default 'dataset'",
      `create table test_set_scores (
        model text not null, test_set text not null, version integer not null, digest text not null, score text not null,
        primary key (model, test_set, version)) strict`,
      `create table test_set_looks (id integer primary key, digest text not null, model text not null, at text not null) strict`,
      'create index test_set_looks_digest on test_set_looks (digest)',
    ],
    down: ['drop table test_set_looks', 'drop table test_set_scores', 'alter table dataset_versions drop column kind'],
  },
]
