/** The nouns of Plinth as plain data, described once with zod: what is stored, what commands print, what servers answer. */
import { z } from 'zod'

// ── datasets ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** One picture of a dataset version. `path` is relative to the imported folder, with forward slashes. */
export const ManifestRow = z.strictObject({
  path: z.string(),
  /** sha256 of the file's bytes, hex; also its name in the home's blob store. */
  content: z.string(),
  /** sha256 of the decoded, EXIF-turned RGB pixels with their size, hex: equal means the same picture. */
  pixels: z.string(),
  labels: z.array(z.string()).min(1),
  /** Pictures of one group never sit on two sides of a split; null = alone. */
  group: z.string().nullable(),
  /** The side the user's own folders put it on, if any. */
  side: z.enum(['train', 'validation', 'test']).nullable(),
  width: z.int().positive(),
  height: z.int().positive(),
  /** What decoding noticed: 'exif-turned', 'cmyk', '16-bit', 'grey', 'alpha', 'palette', 'truncated', 'animated' … */
  flags: z.array(z.string()),
})
export type ManifestRow = z.infer<typeof ManifestRow>

export const Unreadable = z.strictObject({ path: z.string(), code: z.string(), reason: z.string() })
export type Unreadable = z.infer<typeof Unreadable>

/** An immutable dataset version. The digest covers classes and rows, so the same folder gives the same version. */
export const Manifest = z.strictObject({
  schema: z.literal(1),
  classes: z.array(z.string()),
  rows: z.array(ManifestRow),
  unreadable: z.array(Unreadable),
  /** Folders and files left out on purpose, with the reason (hidden, empty, not a picture). */
  ignored: z.array(z.strictObject({ path: z.string(), reason: z.string() })),
  exactDuplicates: z.array(z.array(z.string())),
  /** Groups of identical pictures that carry different labels. */
  conflicts: z.array(z.array(z.string())),
})
export type Manifest = z.infer<typeof Manifest>

export const DatasetReference = z.strictObject({ name: z.string(), version: z.int().positive(), digest: z.string().max(36) })
export type DatasetReference = z.infer<typeof DatasetReference>

export const Side = z.enum(['train', 'validation', 'test'])
export type Side = z.infer<typeof Side>
/** Its own record beside the dataset version: row indices into the manifest for each side. */
export const Split = z.strictObject({
  schema: z.literal(1),
  dataset: z.string(),
  seed: z.int(),
  ratios: z.tuple([z.number(), z.number(), z.number()]),
  train: z.array(z.int()),
  validation: z.array(z.int()),
  test: z.array(z.int()),
  /** What was decided and why, in sentences for the user (own folders kept, groups kept together, class too small …). */
  notes: z.array(z.string()),
})
export type Split = z.infer<typeof Split>

// ── runs ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

export const RunStatus = z.enum(['queued', 'starting', 'setting_up', 'running', 'stopping', 'succeeded', 'failed', 'cancelled'])
export type RunStatus = z.infer<typeof RunStatus>

export const Device = z.strictObject({ kind: z.enum(['cpu', 'gpu', 'tpu']), name: z.string(), threads: z.int().positive() })
export type Device = z.infer<typeof Device>

export const Run = z.strictObject({
  run: z.string().regex(/^[0-9a-f]{32}$/),
  name: z.string(),
  recipe: z.string(),
  status: RunStatus,
  /** Why it is where it is, apart from the status: 'lost', 'interrupted', a failure code. */
  reason: z.string().nullable(),
  started: z.string(),
  ended: z.string().nullable(),
  /** Optimiser steps covered by the newest checkpoint on disk; 0 before the first. */
  checkpointStep: z.int().min(0),
  params: z.record(z.string(), z.json()),
  /** Newest value of each metric. */
  metrics: z.record(z.string(), z.union([z.number(), z.literal(['NaN', 'Infinity', '-Infinity'])])),
  environment: z.record(z.string(), z.json()),
  dataset: DatasetReference.nullable(),
  device: Device.nullable(),
  model: z.strictObject({ name: z.string(), version: z.int().positive() }).nullable(),
})
export type Run = z.infer<typeof Run>

// ── evaluation ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

export const ClassScore = z.strictObject({
  label: z.string(),
  n: z.int(),
  precision: z.number().nullable(),
  recall: z.number().nullable(),
  f1: z.number().nullable(),
})
export const Mistake = z.strictObject({
  path: z.string(),
  label: z.string(),
  predicted: z.string(),
  probability: z.number(),
  probabilityOfLabel: z.number(),
})
export const Evaluation = z.strictObject({
  n: z.int(),
  accuracy: z.number(),
  /** 95 % Wilson interval. */
  low: z.number(),
  high: z.number(),
  /** Accuracy of always answering the most frequent class of the *training* side. */
  majority: z.number(),
  /** Accuracy of a logistic regression on the untouched backbone's features, fitted on the same training side; null outside a training. */
  linearProbe: z.number().nullable(),
  balancedAccuracy: z.number(),
  perClass: z.array(ClassScore),
  /** confusion[true][predicted], both in the order of `labels`. */
  confusion: z.array(z.array(z.int())),
  calibration: z.strictObject({
    temperature: z.number(),
    expectedCalibrationErrorBefore: z.number(),
    expectedCalibrationErrorAfter: z.number(),
    /** Reliability of the calibrated answers in bins of their probability; null where a bin is empty. */
    bins: z
      .array(
        z.strictObject({
          low: z.number(),
          high: z.number(),
          n: z.int(),
          confidence: z.number().nullable(),
          accuracy: z.number().nullable(),
        }),
      )
      .optional(),
  }),
  /** The model (A) against the linear probe (B) on the same pictures; absent where there is no probe. `p`: exact McNemar test. */
  versusLinearProbe: z
    .strictObject({
      n: z.int(),
      onlyA: z.int(),
      onlyB: z.int(),
      difference: z.number(),
      low: z.number(),
      high: z.number(),
      p: z.number(),
    })
    .optional(),
  worstMistakes: z.array(Mistake),
})
export type Evaluation = z.infer<typeof Evaluation>

// ── models ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

export const ModelVersion = z.strictObject({
  name: z.string(),
  version: z.int().positive(),
  /** Absolute path of the ONNX file. */
  path: z.string(),
  labels: z.array(z.string()),
  run: z.string().nullable(),
  dataset: DatasetReference.nullable(),
  created: z.string(),
  bytes: z.int(),
  digest: z.string(),
  accuracy: z.strictObject({ n: z.int(), accuracy: z.number(), low: z.number(), high: z.number() }).nullable(),
})
export type ModelVersion = z.infer<typeof ModelVersion>

/** What is written into the artefact's ONNX metadata under `plinth.*`, each value as JSON. */
export const ArtefactMetadata = z.strictObject({
  schema: z.literal(1),
  labels: z.array(z.string()).min(2),
  temperature: z.number().positive(),
  /** Below this probability the answer is marked `unknown`. */
  threshold: z.number().min(0).max(1),
  backbone: z.string(),
  /** Side of the square that pictures reach before the network, and how. */
  imageSize: z.int().positive(),
  /** Name of the tensor in the graph where pictures have reached model size: uint8 [1, 3, S, S] in front, batch behind. */
  modelSizeTensor: z.string(),
  lineage: z.strictObject({
    run: z.string().nullable(),
    dataset: DatasetReference.nullable(),
    parent: z.string().nullable(),
    plinth: z.string(),
    commit: z.string().nullable(),
    created: z.string(),
  }),
  licence: z.string(),
  /** Small pictures (PNG, base64) with the probabilities that this very file gave when it was made. */
  golden: z.array(z.strictObject({ png: z.string(), probabilities: z.array(z.number()) })),
})
export type ArtefactMetadata = z.infer<typeof ArtefactMetadata>

// ── answers ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

export const Prediction = z.strictObject({
  label: z.string(),
  probability: z.number(),
  unknown: z.boolean(),
  probabilities: z.array(z.strictObject({ label: z.string(), probability: z.number() })),
})
export type Prediction = z.infer<typeof Prediction>
/** One row of `plinth predict`; with `error` the picture could not be read and the other fields are absent. */
export const FilePrediction = z.union([
  Prediction.extend({ path: z.string() }),
  z.strictObject({ path: z.string(), error: z.strictObject({ code: z.string(), message: z.string(), next: z.string() }) }),
])
export type FilePrediction = z.infer<typeof FilePrediction>
/** The answer of POST /predict. */
export const PredictAnswer = Prediction.extend({ model: z.string(), milliseconds: z.number() })
export type PredictAnswer = z.infer<typeof PredictAnswer>

/** Last line of `plinth train --json` and `plinth quickstart --json`. */
export const TrainResult = z.strictObject({
  run: z.string(),
  resumedFrom: z.strictObject({ step: z.int().positive() }).optional(),
  model: z.strictObject({ name: z.string(), version: z.int().positive(), path: z.string(), labels: z.array(z.string()) }),
  dataset: DatasetReference.extend({
    images: z.int(),
    classes: z.int(),
    unreadable: z.array(z.strictObject({ path: z.string(), reason: z.string() })),
    exactDuplicates: z.array(z.array(z.string())),
    split: z.strictObject({ train: z.int(), validation: z.int(), test: z.int() }),
  }),
  test: Evaluation,
  /** The better of the two on validation. */
  chosen: z.enum(['head', 'finetune']),
  validation: z.strictObject({ head: z.number(), finetune: z.number().nullable() }),
  device: Device,
  seconds: z.number(),
  /** What the plan said it would take. */
  forecastSeconds: z.number(),
  report: z.string(),
})
export type TrainResult = z.infer<typeof TrainResult>
