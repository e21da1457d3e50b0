/** The registry: models, their versions, what leads to them and where they come from. */
import { z } from 'zod'
import { call, inQuery, page, pageInput } from '../contract.ts'
import { DatasetReference, TestSetScore } from '../shapes.ts'

const modelName = z.string().min(1).max(250)
const alias = z.string().min(1).max(255)
const text = z.record(z.string(), z.string())

export const RegisteredModel = z.strictObject({
  name: z.string(),
  description: z.string().nullable(),
  /** Milliseconds since 1970. */
  created: z.int(),
  updated: z.int(),
  tags: text,
  /** Alias → version. */
  aliases: z.record(z.string(), z.int()),
})
export const RegisteredVersion = z.strictObject({
  name: z.string(),
  version: z.int(),
  /** `artefact`: an ONNX file of Plinth; `mlflow`: files of a run or a logged model. */
  kind: z.enum(['artefact', 'mlflow']),
  created: z.int(),
  updated: z.int(),
  description: z.string().nullable(),
  stage: z.enum(['None', 'Staging', 'Production', 'Archived']),
  source: z.string(),
  run: z.string().nullable(),
  loggedModel: z.string().nullable(),
  /** Where its run can be looked at, for a run of another server. */
  runLink: z.string().nullable(),
  user: z.string(),
  tags: text,
  aliases: z.array(z.string()),
  labels: z.array(z.string()),
  dataset: DatasetReference.nullable(),
  accuracy: z.strictObject({ n: z.int(), accuracy: z.number(), low: z.number(), high: z.number() }).nullable(),
  bytes: z.int(),
  /** sha256 of the file; empty where there is none of ours. */
  digest: z.string(),
})
export type RegisteredVersion = z.infer<typeof RegisteredVersion>

const Share = z.strictObject({ n: z.int(), accuracy: z.number(), low: z.number(), high: z.number() })
export const Promotion = z.strictObject({
  name: z.string(),
  version: z.int(),
  alias: z.string(),
  /** What the alias led to before. */
  before: z.int().nullable(),
  /** On test sets that both have a score on; empty: nothing could be compared. */
  comparisons: z.array(
    z.strictObject({
      set: z.string(),
      before: Share,
      after: Share,
      difference: z.number(),
      low: z.number(),
      high: z.number(),
      worse: z.boolean(),
    }),
  ),
  /** Whether it is worse and was wanted all the same. */
  forced: z.boolean(),
})

export const Lineage = z.strictObject({
  name: z.string(),
  version: z.int(),
  run: z
    .strictObject({ run: z.string(), name: z.string(), status: z.string(), user: z.string(), started: z.int(), experiment: z.string() })
    .nullable(),
  datasets: z.array(z.strictObject({ name: z.string(), version: z.int().nullable(), digest: z.string(), source: z.string().nullable() })),
  code: z.strictObject({ commit: z.string().nullable(), repository: z.string().nullable(), source: z.string().nullable() }),
  /** What is known of the software: plinth, node, platform, python … */
  environment: text,
  hardware: z.string().nullable(),
  /** What it was copied from: name@version. */
  copiedFrom: z.string().nullable(),
})
export type Lineage = z.infer<typeof Lineage>

export const Deletion = z.strictObject({
  deleted: z.boolean(),
  versions: z.array(z.strictObject({ name: z.string(), version: z.int(), bytes: z.int(), digest: z.string() })),
  /** What the disk gets back; a file that several versions share counts once, and only when the last of them goes. */
  bytes: z.int(),
  /** What is in the way: aliases and processes that serve it. */
  users: z.array(z.string()),
})

/** A number, an alias, or `latest`. */
const version = z.string().min(1).max(255)
const reason = z.string().min(1).max(2000)

export const calls = {
  listModels: call({
    method: 'GET',
    path: '/api/models',
    summary: 'Models; conditions and order as in MLflow',
    right: 'viewer',
    input: z.strictObject({ ...pageInput, filter: z.string().max(10_000).default('') }),
    output: page(RegisteredModel),
  }),
  getModel: call({
    method: 'GET',
    path: '/api/models/:name',
    summary: 'One model, with its aliases',
    right: 'viewer',
    input: z.strictObject({ name: modelName }),
    output: RegisteredModel,
  }),
  listVersions: call({
    method: 'GET',
    path: '/api/model-versions',
    summary: 'Versions of one model or of all, of one run, or that came from a dataset (name, name@version or digest)',
    right: 'viewer',
    input: z.strictObject({
      ...pageInput,
      name: modelName.optional(),
      run: z.string().max(64).optional(),
      dataset: z.string().min(1).max(600).optional(),
    }),
    output: page(RegisteredVersion),
  }),
  getVersion: call({
    method: 'GET',
    path: '/api/models/:name/versions/:version',
    summary: 'One version, by its number, an alias or latest, with its scores on test sets',
    right: 'viewer',
    input: z.strictObject({ name: modelName, version }),
    output: RegisteredVersion.extend({ testSets: z.array(TestSetScore) }),
  }),
  getLineage: call({
    method: 'GET',
    path: '/api/models/:name/versions/:version/lineage',
    summary: 'Where a version comes from: run, data, code, environment, hardware',
    right: 'viewer',
    input: z.strictObject({ name: modelName, version }),
    output: Lineage,
  }),
  promoteModel: call({
    method: 'PUT',
    path: '/api/models/:name/aliases/:alias',
    summary: 'Let an alias lead to a version; one that is worse on a common test set is refused unless forced',
    right: 'editor',
    input: z.strictObject({ name: modelName, alias, version: z.int().positive(), reason, force: z.boolean().default(false) }),
    output: Promotion,
  }),
  removeAlias: call({
    method: 'DELETE',
    path: '/api/models/:name/aliases/:alias',
    summary: 'Take an alias away',
    right: 'editor',
    input: z.strictObject({ name: modelName, alias, reason: reason.optional() }),
    output: z.strictObject({}),
  }),
  renameModel: call({
    method: 'POST',
    path: '/api/models/:name/rename',
    summary: 'Give a model, with all its versions, another name',
    right: 'editor',
    input: z.strictObject({ name: modelName, to: modelName }),
    output: RegisteredModel,
  }),
  deleteVersion: call({
    method: 'DELETE',
    path: '/api/models/:name/versions/:version',
    summary: 'Delete a version, or say what that would free; its number is never given again',
    right: 'editor',
    input: z.strictObject({ name: modelName, version: inQuery.integer.positive(), preview: inQuery.boolean.default(false) }),
    output: Deletion,
  }),
  deleteModel: call({
    method: 'DELETE',
    path: '/api/models/:name',
    summary: 'Delete a model with all its versions, or say what that would free',
    right: 'editor',
    input: z.strictObject({ name: modelName, preview: inQuery.boolean.default(false) }),
    output: Deletion,
  }),
}
