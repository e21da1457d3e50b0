/** The questions that commands ask of finished models: how good on these pictures, better than that one, how good on all test sets. */
import { importPictures } from '../data/import.ts'
import { addTestSet, type Home, isTestSet, listTestSets, openTestSet, recordLook } from '../data/test-sets.ts'
import { resolveDataset } from '../data/versions.ts'
import { Failure } from '../failure.ts'
import { type Classifier, openArtefact } from '../models/artefact.ts'
import { resolveModel } from '../models/registry.ts'
import type { Comparison, DatasetReference, Evaluation, Manifest, ModelVersion, Seen, TestSet } from '../sdk/index.ts'
import { compareModels } from './compare.ts'
import { evaluateModel, type Learned } from './evaluate-model.ts'
import { earlierSides, trainLabels } from './past.ts'
import { keepScore, scoreOnSets, type TestSetOutcome } from './test-sets.ts'

export interface Asking {
  threads: number
  signal: AbortSignal
  onProgress(done: number, total: number): void
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
  /** Where the pictures are a test set: as worn as it is now. */
  testSet: TestSet | null
}

/** How good is this model on these pictures? A test set keeps the score and counts the look. */
export async function askAboutModel(home: Home, reference: string, source: Source, asking: Asking): Promise<Answer> {
  const model = await resolveModel(home, reference)
  const { manifest, testSet } = await labelledPictures(home, source, asking.signal)
  const answer = await withModel(home, model, asking, async (classifier, past) => ({
    ...(await evaluateModel({ ...asking, ...past, classifier, manifest, blob: content => home.blobs.get(content) })),
    threshold: classifier.metadata.unknown ? null : classifier.metadata.threshold,
  }))
  if (testSet) await keepScore(home, testSet, model.digest, answer.evaluation, answer.seen)
  return { model, set: nameOf(source, testSet), manifest, ...answer, testSet: testSet && (await openTestSet(home, testSet.name)).set }
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
  const { manifest, testSet } = await labelledPictures(home, source, asking.signal)
  const names = models.map(({ name, version }) => `${name}@${version}`)
  const [nameA, nameB] = a.digest !== b.digest && names[0] === names[1] ? references : (names as [string, string])
  const comparison = await withModel(home, a, asking, (classifierA, pastA) =>
    withModel(home, b, asking, (classifierB, pastB) =>
      compareModels(
        { name: nameA, classifier: classifierA, learned: pastA.learned },
        { name: nameB, classifier: classifierB, learned: pastB.learned },
        nameOf(source, testSet),
        { ...asking, manifest, blob: content => home.blobs.get(content) },
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
  return withModel(home, model, asking, (classifier, past) =>
    scoreOnSets(sets, { ...asking, ...past, home, classifier, model: model.digest }),
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

async function labelledPictures(home: Home, source: Source, signal: AbortSignal): Promise<{ manifest: Manifest; testSet: TestSet | null }> {
  if ('path' in source)
    return { manifest: await importPictures(source.path, { blobs: home.blobs, signal, accept: 'anything' }), testSet: null }
  const { reference, manifest } = await resolveDataset(home, source.name)
  return { manifest, testSet: (await isTestSet(home, reference.name)) ? (await openTestSet(home, source.name)).set : null }
}

/** Opens a model with what is known of the pictures it was made from, and closes it. */
async function withModel<T>(
  home: Home,
  model: ModelVersion,
  { threads }: Asking,
  work: (classifier: Classifier, past: { trainTruth: string[] | null; learned: Learned }) => Promise<T>,
): Promise<T> {
  const past = { trainTruth: await trainLabels(home, model), learned: await earlierSides(home, model.path) }
  const classifier = await openArtefact(model.path, { threads })
  try {
    return await work(classifier, past)
  } finally {
    await classifier.close()
  }
}
