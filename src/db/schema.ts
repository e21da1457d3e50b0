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
  registered_models: { project: string; name: string; description: string | null; created: number; updated: number }
  registered_model_tags: { project: string; name: string; key: string; value: string }
  model_versions: {
    project: string
    name: string
    version: number
    /** 'artefact': an ONNX file of ours; 'mlflow': files of a run or a logged model, by their `source`. */
    kind: string
    labels: string
    run: string | null
    dataset: string | null
    created: string
    bytes: number
    digest: string
    accuracy: string | null
    /** Set when the version was deleted: its number is never given again. */
    deleted: string | null
    description: string | null
    /** None, Staging, Production, Archived: MLflow's older way to say what aliases say. */
    stage: string
    source: string
    logged_model: string | null
    user: string
    updated: number
    /** Where its run can be looked at, for a run of another server. */
    run_link: string | null
  }
  model_version_tags: { project: string; name: string; version: number; key: string; value: string }
  model_aliases: { project: string; name: string; alias: string; version: number }

  // ── who ──
  projects: { id: string; created: string }
  users: { name: string; owner: 0 | 1; created: string; disabled: string | null }
  memberships: { project: string; user: string; role: string }
  tokens: {
    id: string
    hash: string
    user: string
    name: string
    project: string
    scope: string
    created: string
    expires: string | null
    revoked: string | null
    /** Of a job's token: the one run that it is for. */
    run: string | null
  }
  /** Only ever appended to. */
  audit: { id: Generated<number>; at: string; project: string; user: string; action: string; subject: string; details: string }

  // ── tracking ──
  /** Times of tracking are milliseconds since 1970. `deleted`: when, or null. */
  experiments: {
    id: Generated<number>
    project: string
    name: string
    location: string
    created: number
    updated: number
    deleted: number | null
  }
  experiment_tags: { experiment: number; key: string; value: string }
  /** Runs that a server tracks; `number` is their short name inside the database. Runs of recipes are here too, from their folder's log. */
  tracked_runs: {
    number: Generated<number>
    id: string
    experiment: number
    name: string
    status: string
    reason: string | null
    user: string
    started: number
    ended: number | null
    deleted: number | null
    location: string
    /** Process that works on it as JSON (track/worker.ts), and its last sign of life; null where nobody promised one. */
    worker: string | null
    heartbeat: number | null
  }
  params: { run: number; key: string; value: string }
  tags: { run: number; key: string; value: string }
  /** Datasets that runs say they used, one row for each (name, digest) of an experiment. */
  logged_datasets: {
    id: Generated<number>
    experiment: number
    name: string
    digest: string
    source_type: string
    source: string
    schema: string | null
    profile: string | null
  }
  /** `tags`: JSON list of {key, value}; `context`: the tag mlflow.data.context. */
  run_inputs: { run: number; dataset: number; context: string | null; tags: string }
  /** Models that runs logged, before and beside the registry. */
  logged_models: {
    id: string
    experiment: number
    name: string
    type: string | null
    status: string
    message: string | null
    run: string | null
    location: string
    created: number
    updated: number
    deleted: number | null
  }
  logged_model_params: { model: string; key: string; value: string }
  logged_model_tags: { model: string; key: string; value: string }
  logged_model_metrics: {
    model: string
    key: string
    value: number
    special: number
    timestamp: number
    step: number
    run: string
    dataset_name: string
    dataset_digest: string
  }
  /** `direction`: 'input' or 'output'. */
  run_models: { run: number; model: string; direction: string; step: number }
  metric_keys: { id: Generated<number>; key: string }
  /** `special`: 0 a number, 1 NaN (value 0), 2 and 3 infinities (value ± the largest double). */
  metrics: { run: number; key: number; step: number; timestamp: number; value: number; special: number }
  /** The greatest by (step, timestamp, value). */
  latest_metrics: { run: number; key: number; step: number; timestamp: number; value: number; special: number }

  // ── jobs ──
  /** Times in milliseconds since 1970. The process of an attempt is told by its folder (jobs/attempt.ts), never by these rows alone. */
  jobs: {
    id: Generated<number>
    project: string
    user: string
    name: string
    /** A JobSpec as JSON. */
    spec: string
    status: string
    reason: string | null
    message: string | null
    exit_code: number | null
    priority: number
    submitted: number
    started: number | null
    ended: number | null
    /** Not before this time: a retry that waits. */
    due: number
    /** The newest attempt; 0 before the first. */
    attempt: number
    /** Attempts that the controller made by itself since somebody last asked for one. */
    retries: number
    run: string | null
    device: string | null
    warnings: string
    environment: string | null
    /** Made by who submitted it: asking twice queues one. */
    key: string | null
    group: string | null
    index: number | null
    /** Somebody wants it to end: milliseconds of when, and seconds of grace. */
    stop: number | null
    grace: number | null
  }
  job_attempts: {
    job: number
    attempt: number
    engine: string
    status: string
    reason: string | null
    message: string | null
    exit_code: number | null
    signal: string | null
    started: number | null
    ended: number | null
    /** An Allocation as JSON: what is leased while it has not ended. */
    allocation: string
  }

  migrations: { id: Generated<number>; name: string; applied: string }
}

export type Statement = string | { sqlite: string; postgres: string }
export interface Migration {
  name: string
  /** In SQLite's words, which db/dialect.ts translates; both where they have nothing in common. */
  up: readonly Statement[]
  down: readonly Statement[]
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
  {
    name: '003-control-plane',
    up: [
      'drop index model_versions_run',
      'alter table model_versions rename to model_versions_before',
      `create table model_versions (
        project text not null, name text not null, version integer not null, kind text not null, labels text not null, run text, dataset text,
        created text not null, bytes integer not null, digest text not null, accuracy text, deleted text, description text,
        stage text not null, source text not null, logged_model text, "user" text not null, updated integer not null,
        run_link text, primary key (project, name, version)) strict`,
      `insert into model_versions
        select 'default', name, version, 'artefact', labels, run, dataset, created, bytes, digest, accuracy, deleted, null, 'None', '', null, 'owner', 0, null
        from model_versions_before`,
      'drop table model_versions_before',
      'create index model_versions_run on model_versions (run)',
      'create index model_versions_digest on model_versions (digest)',
      `create table registered_models (
        project text not null, name text not null, description text, created integer not null, updated integer not null,
        primary key (project, name)) strict`,
      "insert into registered_models select distinct 'default', name, null, 0, 0 from model_versions where deleted is null",
      'create table registered_model_tags (project text not null, name text not null, key text not null, value text not null, primary key (project, name, key)) strict',
      `create table model_version_tags (
        project text not null, name text not null, version integer not null, key text not null, value text not null,
        primary key (project, name, version, key)) strict`,
      'create table model_aliases (project text not null, name text not null, alias text not null, version integer not null, primary key (project, name, alias)) strict',
      'create table projects (id text primary key, created text not null) strict',
      "insert into projects (id, created) values ('default', '2026-11-25T00:00:00.000Z')",
      'create table users (name text primary key, owner integer not null, created text not null, disabled text) strict',
      `create table memberships (
        project text not null references projects (id), "user" text not null references users (name), role text not null,
        primary key (project, "user")) strict`,
      `create table tokens (
        id text primary key, hash text not null, "user" text not null references users (name), name text not null, project text not null,
        scope text not null, created text not null, expires text, revoked text) strict`,
      `create table audit (
        id integer primary key, at text not null, project text not null, "user" text not null, action text not null, subject text not null,
        details text not null) strict`,
      // raised, not ignored: who tries it is told, and the transaction that tried leaves nothing
      {
        sqlite: `create trigger audit_no_update before update on audit begin select raise(abort, 'the audit log is only appended to'); end`,
        postgres: `create function audit_only_appended() returns trigger language plpgsql as
          $$ begin raise exception 'the audit log is only appended to'; end $$`,
      },
      {
        sqlite: `create trigger audit_no_delete before delete on audit begin select raise(abort, 'the audit log is only appended to'); end`,
        postgres: 'create trigger audit_no_change before update or delete on audit for each row execute function audit_only_appended()',
      },
      {
        // "insert or replace" fires no trigger for the row that goes
        sqlite: `create trigger audit_no_replace before insert on audit when exists (select 1 from audit where id = new.id)
          begin select raise(abort, 'the audit log is only appended to'); end`,
        postgres: 'create trigger audit_no_truncate before truncate on audit for each statement execute function audit_only_appended()',
      },
      // a number is never given again: files and points of one that is being cleared away could fall to another
      `create table experiments (
        id integer primary key autoincrement, project text not null references projects (id), name text not null, location text not null,
        created integer not null, updated integer not null, deleted integer, unique (project, name)) strict`,
      "insert into experiments (id, project, name, location, created, updated) values (0, 'default', 'Default', 'mlflow-artifacts:/0', 0, 0)",
      `create table experiment_tags (
        experiment integer not null references experiments (id), key text not null, value text not null, primary key (experiment, key)) strict`,
      `create table tracked_runs (
        number integer primary key autoincrement, id text not null unique, experiment integer not null references experiments (id), name text not null,
        status text not null, reason text, "user" text not null, started integer not null, ended integer, deleted integer,
        location text not null, worker text, heartbeat integer) strict`,
      'create index tracked_runs_started on tracked_runs (experiment, started desc, id)',
      'create table params (run integer not null, key text not null, value text not null, primary key (run, key)) strict, without rowid',
      'create table tags (run integer not null, key text not null, value text not null, primary key (run, key)) strict, without rowid',
      `create table logged_datasets (
        id integer primary key, experiment integer not null references experiments (id), name text not null, digest text not null,
        source_type text not null, source text not null, schema text, profile text, unique (experiment, name, digest)) strict`,
      'create table run_inputs (run integer not null, dataset integer not null, context text, tags text not null, primary key (run, dataset)) strict',
      `create table logged_models (
        id text primary key, experiment integer not null references experiments (id), name text not null, type text, status text not null,
        message text, run text, location text not null, created integer not null, updated integer not null, deleted integer) strict`,
      'create index logged_models_experiment on logged_models (experiment, created desc)',
      'create table logged_model_params (model text not null, key text not null, value text not null, primary key (model, key)) strict, without rowid',
      'create table logged_model_tags (model text not null, key text not null, value text not null, primary key (model, key)) strict, without rowid',
      `create table logged_model_metrics (
        model text not null, key text not null, value real not null, special integer not null, timestamp integer not null, step integer not null,
        run text not null, dataset_name text not null, dataset_digest text not null,
        primary key (model, key, dataset_name, dataset_digest, step, timestamp, value, special)) strict, without rowid`,
      'create table run_models (run integer not null, model text not null, direction text not null, step integer not null, primary key (run, model, direction)) strict, without rowid',
      'create table metric_keys (id integer primary key, key text not null unique) strict',
      `create table metrics (
        run integer not null, key integer not null, step integer not null, timestamp integer not null, value real not null,
        special integer not null, primary key (run, key, step, timestamp, value, special)) strict, without rowid`,
      `create table latest_metrics (
        run integer not null, key integer not null, step integer not null, timestamp integer not null, value real not null,
        special integer not null, primary key (run, key)) strict, without rowid`,
    ],
    down: [
      'drop table model_aliases',
      'drop table model_version_tags',
      'drop table registered_model_tags',
      'drop table registered_models',
      'drop index model_versions_run',
      'drop index model_versions_digest',
      "delete from model_versions where kind <> 'artefact' or project <> 'default'",
      'alter table model_versions rename to model_versions_after',
      `create table model_versions (
        name text not null, version integer not null, labels text not null, run text, dataset text, created text not null,
        bytes integer not null, digest text not null, accuracy text, deleted text, primary key (name, version)) strict`,
      `insert into model_versions
        select name, version, labels, run, dataset, created, bytes, digest, accuracy, deleted from model_versions_after`,
      'drop table model_versions_after',
      'create index model_versions_run on model_versions (run)',
      'drop table latest_metrics',
      'drop table metrics',
      'drop table metric_keys',
      'drop table run_inputs',
      'drop table run_models',
      'drop table logged_model_metrics',
      'drop table logged_model_tags',
      'drop table logged_model_params',
      'drop table logged_models',
      'drop table logged_datasets',
      'drop table tags',
      'drop table params',
      'drop table tracked_runs',
      'drop table experiment_tags',
      'drop table experiments',
      'drop table audit',
      { sqlite: 'select 1', postgres: 'drop function audit_only_appended()' },
      'drop table tokens',
      'drop table memberships',
      'drop table users',
      'drop table projects',
    ],
  },
  {
    name: '004-jobs',
    up: [
      `create table jobs (
        id integer primary key autoincrement, project text not null, "user" text not null, name text not null, spec text not null,
        status text not null, reason text, message text, exit_code integer, priority integer not null, submitted integer not null,
        started integer, ended integer, due integer not null, attempt integer not null, retries integer not null, run text, device text, warnings text not null,
        environment text, key text, "group" text, "index" integer, stop integer, grace real) strict`,
      'create index jobs_status on jobs (status, priority desc, submitted)',
      'create unique index jobs_key on jobs (project, key)',
      'create index jobs_project on jobs (project, id)',
      'create index jobs_group on jobs (project, "group", "index")',
      `create table job_attempts (
        job integer not null references jobs (id) on delete cascade, attempt integer not null, engine text not null, status text not null,
        reason text, message text, exit_code integer, signal text, started integer, ended integer, allocation text not null,
        primary key (job, attempt)) strict`,
      'alter table tokens add column run text',
    ],
    down: ['drop table job_attempts', 'drop table jobs', 'alter table tokens drop column run'],
  },
]
