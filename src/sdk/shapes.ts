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
  /** 'jpeg', 'png' …, what the content is whatever the name says. Absent, like the three below, in versions imported before they were kept. */
  format: z.string().optional(),
  bytes: z.int().optional(),
  /** When it was taken by the camera's own clock, without a zone: 2026-05-01T12:00:00.250; absent where the file does not say. */
  captured: z.string().optional(),
  /** Make, model and, where given, serial number. */
  camera: z.string().optional(),
})
export type ManifestRow = z.infer<typeof ManifestRow>

export const Unreadable = z.strictObject({ path: z.string(), code: z.string(), reason: z.string() })
export type Unreadable = z.infer<typeof Unreadable>

/** What somebody decided about one picture in a review. Known by its pixels, so it holds in later versions too. */
export const ReviewVerdict = z.strictObject({
  path: z.string(),
  pixels: z.string(),
  verdict: z.enum(['keep', 'relabel', 'drop']),
  from: z.array(z.string()),
  /** New labels of `relabel`. */
  to: z.array(z.string()).min(1).optional(),
  reason: z.enum(['mislabel', 'conflict', 'copy', 'other']),
  /** ISO 8601, UTC. */
  at: z.string(),
})
export type ReviewVerdict = z.infer<typeof ReviewVerdict>

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
  /** The version that this one was made from by a review, and what was decided there. Not part of the digest. */
  parent: z.strictObject({ name: z.string(), version: z.int().positive(), digest: z.string().max(36) }).optional(),
  verdicts: z.array(ReviewVerdict).optional(),
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

// ── what the doctor finds ───────────────────────────────────────────────────────────────────────────────────────────────────

/**
 * Which pictures of a dataset version belong together, in three verdicts. Numbers are rows of its manifest.
 * Groups of `samePicture` and `sameScene` never sit on two sides of a split; only `samePicture` is ever suggested for removal.
 */
export const Copies = z.strictObject({
  schema: z.literal(1),
  /** Digest of the dataset version. */
  dataset: z.string(),
  /** What was looked at: equal pixels, the hash, the features of the backbone, capture time, numbers and stems in names. */
  tiers: z.array(z.enum(['pixels', 'hash', 'features', 'time', 'names'])),
  /** The same picture, edited or not: every member was verified against the first. */
  samePicture: z.array(z.array(z.int()).min(2)),
  /** The same scene, burst or source. A picture may be here and in `samePicture`. */
  sameScene: z.array(z.strictObject({ rows: z.array(z.int()).min(2), evidence: z.enum(['pixels', 'time', 'names']) })),
  /** Merely alike, the most alike first; shown on request, never acted on. */
  alike: z.array(z.strictObject({ rows: z.tuple([z.int(), z.int()]), score: z.number() })),
  /** Too flat or too small to be compared by anything but equal pixels. */
  notJudged: z.array(z.int()),
  /** Correlation from which two pictures count as the same, calibrated on these very pictures. */
  threshold: z.number(),
  /** How many of the edits made of the user's own pictures were found at that threshold. */
  recall: z.array(z.strictObject({ edit: z.string(), made: z.int(), found: z.int() })),
  /** Sentences for the user. */
  notes: z.array(z.string()),
})
export type Copies = z.infer<typeof Copies>

/** Labels that look wrong, the most suspicious first: proposals with their evidence, never acted on by themselves. */
export const Mislabels = z.strictObject({
  /** Pictures that were judged. */
  n: z.int(),
  /** How many are wrong, with a 95 % interval. */
  estimate: z.strictObject({ count: z.number(), low: z.number(), high: z.number() }),
  /** The pairs of classes most often exchanged. */
  exchanged: z.array(z.strictObject({ label: z.string(), suggestion: z.string(), count: z.int() })),
  listed: z.array(
    z.strictObject({
      path: z.string(),
      label: z.string(),
      /** Surely another class (see `suggestion`), none of the classes, or two at once. */
      pile: z.enum(['another', 'none', 'two']),
      suggestion: z.string().nullable(),
      /** 0 … 1, higher is more suspicious. */
      score: z.number(),
      /** Out-of-fold probabilities of its label and of the suggestion. */
      probabilityOfLabel: z.number(),
      probabilityOfSuggestion: z.number(),
      neighbours: z.array(z.strictObject({ path: z.string(), label: z.string(), similarity: z.number() })),
    }),
  ),
  notes: z.array(z.string()),
})
export type Mislabels = z.infer<typeof Mislabels>

/** Something besides the subject that gives the class away. */
export const Shortcut = z.strictObject({
  /** 'format', 'size', 'aspect', 'brightness', 'camera', 'hour' … or 'all of them together'. */
  property: z.string(),
  /** Balanced accuracy of guessing the class from it alone, out of fold, and of the best constant answer. */
  accuracy: z.number(),
  majority: z.number(),
  /** Said aloud: "All “defect” pictures are 4:3 PNG; none of the others is." */
  sentence: z.string(),
})
export type Shortcut = z.infer<typeof Shortcut>

/** Last line of `plinth data check --json` is `{dataset: DataCheck}`. */
export const DataCheck = z.strictObject({
  /** `name@version` of an imported dataset, else the digest that an import would give it. */
  version: z.string(),
  images: z.int(),
  classes: z.int(),
  unreadable: z.array(z.strictObject({ path: z.string(), code: z.string(), reason: z.string() })),
  ignored: z.array(z.strictObject({ path: z.string(), reason: z.string() })),
  exactDuplicates: z.array(z.array(z.string())),
  /** Verdict “same picture, edited”; exact copies of a member are in the group too. */
  nearDuplicateGroups: z.array(z.array(z.string())),
  sameSceneGroups: z.array(z.strictObject({ paths: z.array(z.string()), evidence: z.string() })),
  alike: z.array(z.strictObject({ paths: z.tuple([z.string(), z.string()]), score: z.number() })),
  notJudged: z.array(z.string()),
  /** The same picture, edited or not, under different labels. */
  conflicts: z.array(z.strictObject({ paths: z.array(z.string()), labels: z.array(z.string()) })),
  shortcuts: z.array(Shortcut),
  tiny: z.array(z.string()),
  uniform: z.array(z.string()),
  blurred: z.array(z.string()),
  dark: z.array(z.string()),
  oddShaped: z.array(z.string()),
  perClass: z.array(z.strictObject({ label: z.string(), images: z.int(), different: z.int() })),
  recallOnOwnEdits: z.array(z.strictObject({ edit: z.string(), made: z.int(), found: z.int() })),
  /** Where the user's own folders are a split: copies on both sides of it, and (with --deep) what the score is with and without them. */
  acrossSplit: z
    .strictObject({
      groups: z.array(z.array(z.string())),
      testPictures: z.int(),
      leaked: z.int(),
      accuracyAsGiven: z.number().nullable(),
      accuracyWithout: z.number().nullable(),
    })
    .nullable(),
  mislabels: Mislabels.nullable(),
  notes: z.array(z.string()),
  report: z.string().nullable(),
})
export type DataCheck = z.infer<typeof DataCheck>

// ── runs ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

export const RunStatus = z.enum(['queued', 'starting', 'setting_up', 'running', 'stopping', 'succeeded', 'failed', 'cancelled'])
export type RunStatus = z.infer<typeof RunStatus>
/** Nothing works on it any more: its status is its last. */
export const hasEnded = (status: string): boolean => status === 'succeeded' || status === 'failed' || status === 'cancelled'

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
  /** 95 % interval; `interval` says how it was made. */
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
  /**
   * How `low` and `high` were made: Wilson's interval for pictures that stand alone; where some come in groups, Wilson's for as many
   * pictures as the groups are worth. Absent in older results: Wilson. `groups`: of any size, lone pictures counted too.
   */
  interval: z.strictObject({ method: z.enum(['wilson', 'grouped-wilson']), groups: z.int() }).optional(),
  /** Expected calibration error as the answers are given, that is after the temperature: a short name for calibration.expectedCalibrationErrorAfter. */
  ece: z.number().optional(),
  /** The linear probe under the honest split and under one by chance that tears groups apart: what the score would have been called elsewhere. */
  randomSplit: z.strictObject({ grouped: z.number(), random: z.number(), repeats: z.int(), n: z.int() }).optional(),
  /** Repeated grouped cross-validation of the head on all pictures. */
  crossValidation: z
    .strictObject({
      folds: z.int(),
      repeats: z.int(),
      n: z.int(),
      groups: z.int(),
      accuracy: z.number(),
      low: z.number(),
      high: z.number(),
    })
    .optional(),
  /** Parts of the test set by where they come from; `stands` says whether the part differs from the rest beyond luck. */
  slices: z
    .array(
      z.strictObject({
        by: z.enum(['folder', 'camera', 'month', 'format']),
        value: z.string(),
        n: z.int(),
        accuracy: z.number(),
        low: z.number(),
        high: z.number(),
        stands: z.enum(['worse', 'better', 'not told apart']),
      }),
    )
    .optional(),
})
export type Evaluation = z.infer<typeof Evaluation>

/** What “unknown” is worth: pictures of a class the model was never shown, by leaving each class out in turn. */
export const Unknown = z.strictObject({
  /** Distance in feature space from which a picture is called unknown. */
  threshold: z.number(),
  /** Share of right pictures that the threshold was chosen to call unknown by mistake, and the share reached on the test side. */
  falseAlarmRate: z.number(),
  falseAlarmsOnTest: z.number().nullable(),
  /** Area under the ROC curve: how often a picture of the left-out class is farther away than one of the others. 0.5 is a coin. */
  auroc: z.number().nullable(),
  /** The same with the largest probability instead of the distance, for comparison. */
  aurocOfProbability: z.number().nullable(),
  /** Share of the pictures of left-out classes that were called unknown where `falseAlarmRate` of the known ones were, by distance and by probability. */
  detected: z.number().nullable().optional(),
  detectedByProbability: z.number().nullable().optional(),
  perClass: z.array(z.strictObject({ label: z.string(), n: z.int(), auroc: z.number(), aurocOfProbability: z.number() })),
})
export type Unknown = z.infer<typeof Unknown>

/** Pictures of a set that a model has met when it was made, known by their pixels: a score on those flatters. */
export const Seen = z.strictObject({
  /** Learned from. */
  trained: z.int(),
  /** Used to choose between models. */
  chosenOn: z.int(),
  /** Edited copies of such: compressed again, cropped, brighter … */
  copies: z.int(),
  /** The score without all of these; null where nothing is left. */
  without: z.strictObject({ n: z.int(), accuracy: z.number(), low: z.number(), high: z.number() }).nullable(),
})
export type Seen = z.infer<typeof Seen>

/** One model on one test set. */
export const TestSetScore = z.strictObject({
  set: DatasetReference,
  /** sha256 of the model file. */
  model: z.string(),
  n: z.int(),
  accuracy: z.number(),
  low: z.number(),
  high: z.number(),
  balancedAccuracy: z.number(),
  /** null: which pictures the model learned from is not known here. */
  seen: Seen.nullable(),
  at: z.string(),
})
export type TestSetScore = z.infer<typeof TestSetScore>

/** A named test set in its newest version, and how worn it is. */
export const TestSet = DatasetReference.extend({
  images: z.int(),
  classes: z.int(),
  created: z.string(),
  /** How often it has answered how good a model is, and how many different models that were, over all of its versions. */
  looks: z.int(),
  models: z.int(),
})
export type TestSet = z.infer<typeof TestSet>

/** Model A against model B on the same pictures. */
export const Comparison = z.strictObject({
  a: z.string(),
  b: z.string(),
  set: z.string(),
  n: z.int(),
  accuracyA: z.number(),
  accuracyB: z.number(),
  onlyA: z.int(),
  onlyB: z.int(),
  /** Accuracy of A minus accuracy of B, with its 95 % interval; `p`: exact McNemar test, by groups where there are any. */
  difference: z.number(),
  low: z.number(),
  high: z.number(),
  p: z.number(),
  verdict: z.enum(['A is better', 'B is better', 'not told apart']),
  /** Groups (copies, bursts) that the pictures came in, lone ones counted too: interval and p count a group as what it is worth. Absent: all stand alone. */
  groups: z.int().optional(),
  /** Classes that only one of the two knows, and their pictures: not compared. */
  leftOut: z.strictObject({ classes: z.array(z.string()), pictures: z.int() }).optional(),
  /** Pictures that each has met when it was made; null = not known. */
  seenByA: Seen.nullable().optional(),
  seenByB: Seen.nullable().optional(),
  /** Pictures where exactly one of the two is right, the surest mistake first. */
  differing: z.array(
    z.strictObject({
      path: z.string(),
      label: z.string(),
      a: z.string(),
      b: z.string(),
      probabilityA: z.number(),
      probabilityB: z.number(),
    }),
  ),
})
export type Comparison = z.infer<typeof Comparison>

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

/** How a picture that is not square reaches the square that the network sees (models/preprocessing.ts). */
export const Fit = z.enum(['crop', 'squash', 'letterbox'])
export type Fit = z.infer<typeof Fit>

/** What is written into the artefact's ONNX metadata under `plinth.*`, each value as JSON. */
export const ArtefactMetadata = z.strictObject({
  schema: z.literal(1),
  labels: z.array(z.string()).min(2),
  temperature: z.number().positive(),
  /** Below this probability the answer is marked `unknown`. */
  threshold: z.number().min(0).max(1),
  backbone: z.string(),
  /** Side of the square that pictures reach before the network. */
  imageSize: z.int().positive(),
  /** How they reach it; absent in older files, which crop. */
  fit: Fit.optional(),
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
  /**
   * Goes with the output `distance`: a picture beyond the threshold is none of the classes. The threshold was chosen so that of pictures of
   * known classes the share `falseAlarmRate` lies beyond it; `ladder[i]` is the distance that i % of them do not exceed, 0 to 100. Absent in
   * files that know an “unknown” by probability alone.
   */
  unknown: z
    .strictObject({
      threshold: z.number(),
      falseAlarmRate: z.number().min(0).max(1),
      ladder: z.array(z.number()).length(101),
    })
    .optional(),
  /** Small pictures (PNG, base64) with the probabilities, and the distance where there is one, that this very file gave when it was made. */
  golden: z.array(z.strictObject({ png: z.string(), probabilities: z.array(z.number()), distance: z.number().optional() })),
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

/** Why an answer is what it is. */
export const Explanation = z.strictObject({
  /** Null in models without a distance. */
  distance: z
    .strictObject({
      value: z.number(),
      /** Beyond it the answer is `unknown`; of pictures of known classes the share `falseAlarmRate` is. */
      threshold: z.number(),
      falseAlarmRate: z.number(),
      /** Share of known pictures that are nearer. */
      fartherThan: z.number(),
      sentence: z.string(),
    })
    .nullable(),
  /**
   * For the most probable labels, what each place of the square that the network sees (rows × columns, row by row) says for the label rather
   * than the others. The places add up to `score`, the label's score above the mean of all. Null in models without a map.
   */
  why: z
    .strictObject({
      fit: Fit,
      rows: z.int(),
      columns: z.int(),
      labels: z.array(z.strictObject({ label: z.string(), score: z.number(), places: z.array(z.number()) })),
    })
    .nullable(),
})
export type Explanation = z.infer<typeof Explanation>
/** The answer of POST /explain: that of /predict, and why. */
export const ExplainAnswer = PredictAnswer.extend(Explanation.shape)
export type ExplainAnswer = z.infer<typeof ExplainAnswer>

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
  /** Only from models that know an “unknown” by distance. */
  unknown: Unknown.optional(),
  mislabels: Mislabels.optional(),
  /** Choices made on validation, each with what was compared: fit, class weights, augmentation. */
  choices: z.array(z.strictObject({ what: z.string(), chosen: z.string(), sentence: z.string() })).optional(),
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
