/** The questions that commands ask of finished models: how good on these pictures, better than that one, how good on all test sets. */
import { join } from 'node:path'
import { cache } from '../config.ts'
import { openFactsOrForget } from '../data/check/pictures.ts'
import type { Facts } from '../data/facts.ts'
import { importPictures } from '../data/import.ts'
import { addTestSet, type Home, isTestSet, listTestSets, openTestSet, recordLook } from '../data/test-sets.ts'
import { resolveDataset } from '../data/versions.ts'
import { Failure } from '../failure.ts'
import { type Classifier, openArtefact } from '../models/artefact.ts'
import { resolveModel } from '../models/registry.ts'
import type { Comparison, DatasetReference, Evaluation, Manifest, Mislabels, ModelVersion, Seen, TestSet } from '../sdk/index.ts'
import { compareModels } from './compare.ts'
import { doubtfulLabels } from './doubtful.ts'
import { evaluateModel } from './evaluate-model.ts'
import { type Familiar, familiarPictures } from './familiar.ts'
import { type Past, pastOf, strangersFound, trainLabels } from './past.ts'
import { type Strangers, strangersAmong } from './strangers.ts'
import { keepScore, scoreOnSets, type TestSetOutcome } from './test-sets.ts'

export interface Asking {
  threads: number
  signal: AbortSignal
  onProgress(done: number, total: number): void
  /** The same for work beside the test itself. */
  onLookingAtLabels?(label: string, done: number, total: number): void
}

/** Labelled pictures to ask about: `path` of a folder, a zip or a list, or `name` of a dataset or test set. */
export type Source = { path: string } | { name: string }

export interface Answer {
  model: ModelVersion
  /** What was asked for: a test set with its version, the name of a dataset, or a path. */
  set: string
  manifest: Manifest
  evaluation: Evaluation
  /** Pictures that the model has met when it was made; null = not known. */
  seen: Seen | null
  /** Probability under which its answers are marked unknown; null where it goes by a distance. */
  threshold: number | null
  /** null for a model without a distance. */
  unknown: Strangers | null
  /** Labels of the set that look wrong; null where nobody could tell. */
  mislabels: Mislabels | null
  /** Of each picture of the set, in its order. */
  right: boolean[]
  /** Where the pictures are a test set: as worn as it is now. */
  testSet: TestSet | null
}

/** How good is this model on these pictures? A test set keeps the score and counts the look. */
export async function askAboutModel(home: Home, reference: string, source: Source, asking: Asking): Promise<Answer> {
  const model = await resolveModel(home, reference)
  const past = await pastOf(home, model.path)
  const { manifest, learned, testSet } = await labelledPictures(home, source, [past], asking.signal)
  const pictures = { ...asking, manifest, blob: (content: string) => home.blobs.get(content) }
  const trainTruth = await trainLabels(home, model)
  const { metadata, ...answer } = await withModel(model, asking, async classifier => ({
    ...(await evaluateModel({ ...pictures, classifier, trainTruth, learned: learned[0]! })),
    metadata: classifier.metadata,
  }))
  const { answers, right, evaluation, seen } = answer
  if (testSet) await keepScore(home, testSet, model.digest, evaluation, seen)
  const mislabels = await doubtfulLabels({
    ...pictures,
    cache: cache(),
    side: metadata.imageSize,
    onProgress: (label, done, total) => asking.onLookingAtLabels?.(label, done, total),
  })
  return {
    model,
    set: nameOf(source, testSet),
    manifest,
    evaluation,
    seen,
    right,
    unknown: strangersAmong(metadata, answers, right, manifest, await strangersFound(home, model)),
    mislabels,
    threshold: metadata.unknown ? null : metadata.threshold,
    testSet: testSet && (await openTestSet(home, testSet.name)).set,
  }
}

/** Is A better than B on these pictures? A test set counts a look for each. */
export async function askWhichIsBetter(
  home: Home,
  references: readonly [a: string, b: string],
  source: Source,
  asking: Asking,
): Promise<{ comparison: Comparison; manifest: Manifest; testSet: TestSet | null }> {
  const models = await Promise.all(references.map(reference => resolveModel(home, reference)))
  const [a, b] = models as [ModelVersion, ModelVersion]
  const pasts = [await pastOf(home, a.path), await pastOf(home, b.path)]
  const { manifest, learned, testSet } = await labelledPictures(home, source, pasts, asking.signal)
  const names = models.map(({ name, version }) => `${name}@${version}`)
  const [nameA, nameB] = a.digest !== b.digest && names[0] === names[1] ? references : (names as [string, string])
  const pictures = { ...asking, manifest, blob: (content: string) => home.blobs.get(content) }
  const comparison = await withModel(a, asking, classifierA =>
    withModel(b, asking, classifierB =>
      compareModels(
        { name: nameA, classifier: classifierA, learned: learned[0]! },
        { name: nameB, classifier: classifierB, learned: learned[1]! },
        nameOf(source, testSet),
        pictures,
      ),
    ),
  )
  if (testSet) for (const digest of new Set([a.digest, b.digest])) await recordLook(home, testSet, digest)
  return { comparison, manifest, testSet: testSet && (await openTestSet(home, testSet.name)).set }
}

/** A model on every test set that it has no score on yet. */
export async function askOnTestSets(home: Home, reference: string, asking: Asking): Promise<TestSetOutcome[]> {
  const sets = await listTestSets(home)
  if (sets.length === 0) return []
  const model = await resolveModel(home, reference)
  const past = await pastOf(home, model.path)
  const trainTruth = await trainLabels(home, model)
  return withModel(model, asking, classifier =>
    scoreOnSets(sets, {
      ...asking,
      home,
      classifier,
      model: model.digest,
      trainTruth,
      look: manifest => withFacts(facts => lookedAt(home, manifest, [past], facts, asking.signal)),
    }),
  )
}

/** Keeps pictures under a name for tests alone. Throws as an import does, dataset_kind, name_invalid, evaluation_empty. */
export async function makeTestSet(
  home: Home,
  name: string,
  path: string,
  options: { signal: AbortSignal; onProgress(progress: { done: number; total: number }): void },
): Promise<{ reference: DatasetReference; manifest: Manifest }> {
  const manifest = await importPictures(path, { blobs: home.blobs, accept: 'anything', ...options })
  if (manifest.rows.length === 0) throw new Failure('evaluation_empty')
  return { reference: await addTestSet(home, name, manifest), manifest }
}

const nameOf = (source: Source, testSet: TestSet | null): string =>
  testSet ? `${testSet.name}@${testSet.version}` : 'path' in source ? source.path : source.name

async function labelledPictures(
  home: Home,
  source: Source,
  pasts: readonly (Past | null)[],
  signal: AbortSignal,
): Promise<Familiar & { testSet: TestSet | null }> {
  return withFacts(async facts => {
    if ('path' in source) {
      const manifest = await importPictures(source.path, { blobs: home.blobs, facts, signal, accept: 'anything' })
      return { ...(await lookedAt(home, manifest, pasts, facts, signal)), testSet: null }
    }
    const { reference, manifest } = await resolveDataset(home, source.name)
    const testSet = (await isTestSet(home, reference.name)) ? (await openTestSet(home, source.name)).set : null
    return { ...(await lookedAt(home, manifest, pasts, facts, signal)), testSet }
  })
}

const lookedAt = (home: Home, manifest: Manifest, pasts: readonly (Past | null)[], facts: Facts, signal: AbortSignal) =>
  familiarPictures(manifest, pasts, { facts, signal, blob: content => home.blobs.get(content) })

async function withFacts<T>(work: (facts: Facts) => Promise<T>): Promise<T> {
  const facts = await openFactsOrForget(join(cache(), 'facts'))
  try {
    return await work(facts)
  } finally {
    facts.close()
  }
}

async function withModel<T>(model: ModelVersion, { threads }: Asking, work: (classifier: Classifier) => Promise<T>): Promise<T> {
  const classifier = await openArtefact(model.path, { threads })
  try {
    return await work(classifier)
  } finally {
    await classifier.close()
  }
}
