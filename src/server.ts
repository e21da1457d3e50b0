/**
 * The composition root: the only file that knows every part. Commands call it in this process; a control plane will call it behind HTTP.
 */
import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { cpus } from 'node:os'
import { basename, join, resolve } from 'node:path'
import { cache as cachePath, home as homePath, version } from './config.ts'
import { type CheckedSource, checkSource, type DataCheckRequest } from './data/check/check-source.ts'
import { openFactsOrForget } from './data/check/pictures.ts'
import { type DatasetDiff, diffDatasets } from './data/diff.ts'
import { type Exported, type ExportTask, exportDataset } from './data/export.ts'
import { openFacts } from './data/facts.ts'
import { groupPattern } from './data/groups.ts'
import { importPictures } from './data/import.ts'
import { findings, nothing, readSides } from './data/review/found.ts'
import type { ReviewKind } from './data/review/queue.ts'
import { openReview, type Review } from './data/review/session.ts'
import { listTestSets, refuseTestSet } from './data/test-sets.ts'
import { resolveDataset, saveDataset } from './data/versions.ts'
import type { Home } from './db/home.ts'
import { askAboutModel, askOnTestSets, askWhichIsBetter } from './evaluate/ask.ts'
import { percent } from './evaluate/index.ts'
import { findMislabels } from './evaluate/mislabels.ts'
import { earlierSides } from './evaluate/past.ts'
import { listPictures, type PredictFilesOptions, predictFiles } from './evaluate/predict-files.ts'
import { seenSentence } from './evaluate/test-sets.ts'
import { Failure } from './failure.ts'
import { defaultThreads } from './hardware/limits.ts'
import { openArtefact, readArtefact } from './models/artefact.ts'
import { backbone } from './models/catalogue.ts'
import { listModels, registerModel, resolveModel } from './models/registry.ts'
import type { LoadOptions } from './models/weights.ts'
import {
  type DatasetReference,
  type Device,
  type Manifest,
  type ModelVersion,
  PredictAnswer,
  type RecipeEvent,
  type TrainResult,
} from './sdk/index.ts'
import { type Example, startServer } from './serve/gateway.ts'
import { writeFileAtomic } from './storage/disk.ts'
import { deployed } from './track/deployments.ts'
import { openHome as openHomeAt } from './track/home.ts'
import { completeId, createRun, getRun, listRuns, openRun, type RunWriter } from './track/runs.ts'
import { defaultRates, type Rates } from './train/forecast.ts'
import { type Plan, planTraining } from './train/plan.ts'
import { defaultImageSize, Settings, trainImageClassifier } from './train/recipes/image-classification.ts'

export const openHome = (): Promise<Home> => openHomeAt(homePath())

/** With a slash, or there on disk: a path. Otherwise a name. */
export const isPath = (source: string): boolean => /[/\\]/.test(source) || existsSync(source)

export interface OpenedDataset {
  reference: DatasetReference
  manifest: Manifest
}

export interface ImportRequest {
  name?: string
  /** A regular expression over the paths; see `groupsBy`. */
  groupBy?: string
  onUnderstood?(text: string): void
  onProgress?(progress: { done: number; total: number }): void
  signal?: AbortSignal
}

/** A folder, zip or list becomes a dataset version; a name (`birds`, `birds@2`) is looked up. */
export async function openDataset(home: Home, source: string, request: ImportRequest): Promise<OpenedDataset> {
  return isPath(source) ? await importDataset(home, source, request) : await resolveDataset(home, source)
}

/** Pictures whose files were looked at before, by whatever command, are copied and not decoded again. */
export async function importDataset(home: Home, source: string, { name, groupBy, ...options }: ImportRequest): Promise<OpenedDataset> {
  const pattern = groupBy === undefined ? undefined : groupPattern(groupBy)
  const facts = await openFacts(join(cachePath(), 'facts'))
  try {
    const manifest = await importPictures(source, { blobs: home.blobs, facts, ...options, ...(pattern && { groupBy: pattern }) })
    return { reference: await saveDataset(home, name ?? nameFrom(source), manifest, 'dataset'), manifest }
  } finally {
    facts.close()
  }
}

/** `./My Photos.zip` → `my-photos`. */
export function nameFrom(path: string): string {
  const name = basename(path.replace(/[/\\]+$/, ''))
    .replace(/\.(zip|csv|tsv|jsonl|ndjson)$/i, '')
    .normalize('NFKD')
    .toLowerCase()
    .replace(/[^a-z0-9._-]+/g, '-')
    .replace(/^[^a-z0-9]+|-+$/g, '')
  return name || 'pictures'
}

export function device(threads?: number): Device {
  return { kind: 'cpu', name: cpus()[0]?.model.trim() || process.arch, threads: threads ?? defaultThreads() }
}

// ── looking at data ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/** The doctor, on a folder, a zip, a list or a dataset: what data/check/check-source.ts says. A home is opened only for a dataset. */
export async function checkData<T>(
  source: string,
  { threads, ...request }: DataCheckRequest & { threads?: number },
  use: (checked: CheckedSource) => Promise<T>,
): Promise<T> {
  const home = isPath(source) ? null : await openHome()
  try {
    const what = {
      source: home ? { ...(await resolveDataset(home, source)), blob: (content: string) => home.blobs.get(content) } : source,
      cache: cachePath(),
      threads: threads ?? defaultThreads(),
      featureSide: defaultImageSize,
      findMislabels,
    }
    return await checkSource(what, request, use)
  } finally {
    await home?.close()
  }
}

/** Both are names of dataset versions: birds@1, birds@2. */
export async function diffVersions(
  before: string,
  after: string,
): Promise<DatasetDiff & { before: DatasetReference; after: DatasetReference }> {
  const home = await openHome()
  try {
    const [a, b] = [await resolveDataset(home, before), await resolveDataset(home, after)]
    return { before: a.reference, after: b.reference, ...diffDatasets(a.manifest, b.manifest) }
  } finally {
    await home.close()
  }
}

export async function exportVersion(
  dataset: string,
  directory: string,
  options: Pick<ExportTask, 'keepPaths' | 'onProgress'> & { signal: AbortSignal },
): Promise<Exported & { reference: DatasetReference }> {
  const home = await openHome()
  try {
    const { reference, manifest } = await resolveDataset(home, dataset)
    return { reference, ...(await exportDataset({ manifest, directory, blob: content => home.blobs.get(content), ...options })) }
  } catch (error) {
    if (options.signal.aborted)
      throw new Failure('interrupted', { next: 'What was written is whole: the same command goes on from there.' })
    throw error
  } finally {
    await home.close()
  }
}

// ── reviewing ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

export interface ReviewRequest {
  again?: boolean
  only?: ReviewKind
  /** Nothing is searched for: to apply verdicts, not to ask. */
  searchNothing?: boolean
  threads?: number
  signal: AbortSignal
  onProgress(what: string, done: number, total: number): void
}

/**
 * What is to be looked at in the dataset of a run, in a dataset, or in a folder, which is imported first. What a training found is taken; what nobody
 * looked for yet is looked for and remembered. Whoever asked closes it.
 * Throws what openDataset and checkData throw, run_not_found, review_run_without_dataset.
 */
export async function prepareReview(home: Home, source: string, request: ReviewRequest): Promise<Review> {
  const { signal, onProgress, only, again, threads } = request
  const named = await reviewedRun(home, source)
  const { reference, manifest } = await openDataset(home, named ? named.dataset : source, {
    signal,
    onProgress: ({ done, total }) => onProgress('reading', done, total),
  })
  const run =
    named?.run ?? (await listRuns(home)).find(each => each.status === 'succeeded' && each.dataset?.digest === reference.digest)?.run ?? null
  const folder = run && join(home.path, 'runs', run)
  const sides = folder && named ? await readSides(folder, manifest) : undefined
  const deep = only === undefined || only === 'mislabel'
  const look = async () => {
    const task = { deep: deep && manifest.classes.length > 1, alike: false, seed: 0, signal, onProgress, ...(threads && { threads }) }
    const { copies, check } = await checkData(`${reference.name}@${reference.version}`, task, async checked => checked)
    return { copies, mislabels: check.mislabels }
  }
  const found = request.searchNothing ? nothing : await findings(home, reference.digest, { folder, made: version, deep, look })
  return openReview(home, {
    reference,
    manifest,
    ...found,
    ...(sides && { sides }),
    ...(again && { again }),
    ...(only && { only }),
  })
}

/** A dataset of that name comes before a run whose id begins so. */
async function reviewedRun(home: Home, source: string): Promise<{ run: string; dataset: string } | null> {
  if (isPath(source) || !/^[0-9a-f]{4,32}$/.test(source)) return null
  if ((await home.db.selectFrom('dataset_versions').select('name').where('name', '=', source).executeTakeFirst()) !== undefined) return null
  const { run, dataset } = await getRun(home, source)
  if (!dataset) throw new Failure('review_run_without_dataset', { run })
  return { run, dataset: `${dataset.name}@${dataset.version}` }
}

// ── training ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

export interface TrainingRequest {
  name: string
  backbone?: string
  from?: string
  weights?: string
  imageSize?: number
  epochs?: number
  budgetSeconds?: number
  groupBy?: string
  classWeights?: Settings['classWeights']
  seed: number
  threads?: number
}

/** Everything of a run that its child process needs and a resume must find again, in the run's folder. */
interface Order {
  settings: Settings
  dataset: DatasetReference
  plan: Plan
  secondsBefore: number
  commit: string | null
}
const orderFile = (run: RunWriter) => join(run.directory, 'order.json')

/** Plans a training and writes its run; nothing is computed yet. */
export async function prepareTraining(
  home: Home,
  { reference, manifest }: OpenedDataset,
  request: TrainingRequest,
  secondsBefore: number,
): Promise<{ run: RunWriter; plan: Plan }> {
  await refuseTestSet(home, reference)
  const on = device(request.threads)
  const from = request.from ? await fromReference(home, request.from) : null
  const settings = Settings.parse({
    name: request.name,
    backbone: request.backbone ?? 'efficientnet-lite0',
    from,
    weights: request.weights ? resolve(request.weights) : null,
    imageSize: request.imageSize ?? defaultImageSize(manifest),
    epochs: request.epochs ?? null,
    budgetSeconds: request.budgetSeconds ?? null,
    groupBy: request.groupBy ?? null,
    classWeights: request.classWeights ?? 'auto',
    seed: request.seed,
    threads: on.threads,
  })
  backbone(settings.backbone) // an unknown one is refused before anything is written
  const rates = await measuredRates(home, settings.backbone)
  const earlier = from ? await earlierSides(home, from) : undefined
  const plan = planTraining({ manifest, dataset: reference, settings, device: on, secondsBefore, ...(from && { earlier }) }, rates)
  const commit = gitCommit()
  const run = await createRun(home, {
    name: request.name,
    recipe: 'image-classification',
    params: settings,
    environment: { plinth: version, node: process.versions.node, platform: `${process.platform}-${process.arch}`, commit },
    dataset: reference,
    device: on,
  })
  const order: Order = { settings, dataset: reference, plan, secondsBefore, commit }
  await writeFileAtomic(orderFile(run), JSON.stringify(order))
  return { run, plan }
}

/** The id of a run that can be gone on with; `id` may be its first letters. throws run_not_found, run_busy, training_done */
export async function resumableRun(home: Home, id: string): Promise<string> {
  const { run } = await openRun(home, await completeId(home, id))
  if (run.status === 'succeeded')
    throw new Failure('training_done', { run: run.run, model: run.model ? `${run.model.name}@${run.model.version}` : run.name })
  return run.run
}

/** The work itself, in the training's own process; goes on from a checkpoint where there is one. */
export async function train(
  home: Home,
  runId: string,
  { say, signal }: { say(event: RecipeEvent): void; signal: AbortSignal },
): Promise<TrainResult> {
  const run = await openRun(home, runId)
  const order = JSON.parse(await readFile(orderFile(run), 'utf8')) as Order
  const settings = Settings.parse(order.settings)
  const { reference, manifest } = await resolveDataset(home, `${order.dataset.name}@${order.dataset.version}`)
  await run.start()
  const facts = await openFactsOrForget(join(cachePath(), 'facts'))
  try {
    const result = await trainImageClassifier({
      run,
      facts,
      settings,
      device: device(settings.threads),
      dataset: reference,
      manifest,
      secondsBefore: order.secondsBefore,
      plan: order.plan,
      from: settings.from && (await resolveModel(home, settings.from)).path,
      ...(settings.from && { earlier: await earlierSides(home, settings.from) }),
      featuresFolder: join(home.path, 'features'),
      commit: order.commit,
      version,
      blob: content => home.blobs.get(content),
      register: async ({ file, labels, accuracy }) => {
        const earlier = (await listModels(home)).find(model => model.run === runId)
        const model =
          earlier ?? (await registerModel(home, { name: settings.name, file, labels, run: runId, dataset: reference, accuracy }))
        await run.update({ model: { name: model.name, version: model.version } })
        return model
      },
      say,
      signal,
    })
    await run.finish('succeeded')
    await scoreNewModel(home, result, { say, signal, threads: settings.threads })
    return result
  } catch (error) {
    const code = error instanceof Failure ? error.code : 'internal'
    await run.finish(code === 'interrupted' ? 'cancelled' : 'failed', code)
    throw error
  } finally {
    facts.close()
  }
}

/** The new model on every named test set. What goes wrong there does not undo the training. */
async function scoreNewModel(
  home: Home,
  { model }: TrainResult,
  { say, signal, threads }: { say(event: RecipeEvent): void; signal: AbortSignal; threads: number },
): Promise<void> {
  const name = `${model.name}@${model.version}`
  try {
    if ((await listTestSets(home)).length === 0) return
    say({ kind: 'stage', title: 'Scoring it on your test sets' })
    const onProgress = (done: number, total: number) => say({ kind: 'progress', label: 'test sets', done, total, unit: 'pictures' })
    for (const outcome of await scoreOnTestSets(home, name, { threads, signal, onProgress })) {
      const { set } = outcome
      if (outcome.outcome === 'other classes') {
        say({ kind: 'note', text: `${set}: not asked, the model does not know ${outcome.strangers.slice(0, 5).join(', ')}.` })
        continue
      }
      const { accuracy, low, high, n, seen } = outcome.score
      const said = [
        `${set}: ${percent(accuracy)} on ${n} pictures (95 %: ${percent(low)} – ${percent(high)}).`,
        ...seenSentence(seen, n, name),
      ]
      say({ kind: 'note', text: said.join(' ') })
    }
  } catch (error) {
    const problem = signal.aborted ? 'Stopped.' : error instanceof Failure ? error.message : String(error)
    say({ kind: 'note', text: `Not scored on all test sets: ${problem} Do it later with: plinth testset score ${name}` })
  }
}

/** How a model is named in what is kept: by name and version where it is registered, else by its path. */
async function fromReference(home: Home, reference: string): Promise<string> {
  const model = await resolveModel(home, reference)
  const registered = (await listModels(home)).some(each => each.digest === model.digest)
  return registered ? `${model.name}@${model.version}` : model.path
}

/** What the newest trainings with this backbone reached here. */
/** What trainings on this home have measured, for a forecast without one; typical rates where there is no home yet. */
export async function trainingRates(backboneId: string): Promise<Rates> {
  if (!existsSync(join(homePath(), 'format'))) return defaultRates
  const home = await openHome()
  try {
    return await measuredRates(home, backboneId)
  } finally {
    await home.close()
  }
}

async function measuredRates(home: Home, backboneId: string): Promise<Rates> {
  const runs = (await listRuns(home)).filter(run => run.status === 'succeeded' && run.params['backbone'] === backboneId)
  const newest = (metric: string) => runs.map(run => run.metrics[metric]).find(value => typeof value === 'number')
  const [features, step, besides] = ['rate/features', 'rate/step', 'rate/besides'].map(newest)
  return {
    features: features ?? defaultRates.features,
    step: step ?? defaultRates.step,
    besides: besides ?? defaultRates.besides,
    source: step && features ? 'measured' : 'default',
  }
}

function gitCommit(): string | null {
  try {
    return execFileSync('git', ['rev-parse', 'HEAD'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'], timeout: 2000 }).trim()
  } catch {
    return null // no git, or not a repository
  }
}

// ── serving ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** An endpoint for a model, with the worst mistakes of its report as examples. Whoever asked for it closes it. */
export async function startEndpoint(
  home: Home,
  reference: string,
  { port, host, threads, onNotice }: { port: number; host?: string; threads?: number | undefined; onNotice?(text: string): void },
) {
  const { model, release } = await deployed(home, at => resolveModel(at, reference))
  try {
    const examples = await worstMistakes(home, model)
    const server = await startServer({
      model,
      port,
      examples,
      threads: threads ?? defaultThreads(),
      ...(host && { host }),
      ...(onNotice && { onNotice }),
    })
    const close = () => server.close().finally(release)
    return { server: { ...server, close }, name: `${model.name}@${model.version}`, example: examples[0]?.path ?? null }
  } catch (error) {
    await release()
    throw error
  }
}

async function worstMistakes(home: Home, model: ModelVersion): Promise<Example[]> {
  if (!model.run || !model.dataset) return []
  const result = await readFile(join(home.path, 'runs', model.run, 'result.json'), 'utf8').catch(() => null)
  if (!result) return []
  const { test } = JSON.parse(result) as TrainResult
  const { manifest } = await resolveDataset(home, `${model.dataset.name}@${model.dataset.version}`)
  const contentOf = new Map(manifest.rows.map(row => [row.path, row.content]))
  return test.worstMistakes.slice(0, 8).flatMap(({ path, label, predicted, probability }) => {
    const content = contentOf.get(path)
    return content ? [{ path: home.blobs.path(content), title: path, label, predicted, probability }] : []
  })
}

/** One request over HTTP to an endpoint that lives just for it. */
export async function selfTest(home: Home, reference: string): Promise<PredictAnswer> {
  const { server } = await startEndpoint(home, reference, { port: 0 })
  try {
    const model = await resolveModel(home, reference)
    const { golden } = readArtefact(await readFile(model.path)).metadata
    const body = Buffer.from(golden[0]!.png, 'base64')
    const response = await fetch(`${server.url}/predict`, { method: 'POST', body, headers: { 'content-type': 'image/png' } })
    if (!response.ok) throw new Failure('internal', { problem: `the endpoint answered ${response.status} to its own picture` })
    return PredictAnswer.parse(await response.json())
  } finally {
    await server.close()
  }
}

// ── looking at pictures with a model ────────────────────────────────────────────────────────────────────────────────────────

/** Predictions for files and folders. */
export async function predict(
  home: Home,
  reference: string,
  paths: readonly string[],
  options: Omit<PredictFilesOptions, 'model'> & { threads?: number },
) {
  const model = await resolveModel(home, reference)
  const files = await listPictures(paths)
  const classifier = await openArtefact(model.path, { threads: options.threads ?? defaultThreads() })
  try {
    return await predictFiles(classifier, files, { ...options, model: `${model.name}@${model.version}` })
  } finally {
    await classifier.close()
  }
}

interface Asked {
  threads?: number
  signal: AbortSignal
  onProgress(done: number, total: number): void
  onLookingAtLabels?(label: string, done: number, total: number): void
}
const asking = (asked: Asked) => ({ ...asked, threads: asked.threads ?? defaultThreads() })
const sourceOf = (source: string) => (isPath(source) ? { path: source } : { name: source })

/** A model's score on labelled pictures: a folder, a zip, a list, a dataset or a test set. */
export const evaluate = (home: Home, model: string, source: string, asked: Asked) =>
  askAboutModel(home, model, sourceOf(source), asking(asked))
/** Two models on the same labelled pictures. */
export const compare = (home: Home, a: string, b: string, source: string, asked: Asked) =>
  askWhichIsBetter(home, [a, b], sourceOf(source), asking(asked))
/** A model on every test set that it has no score on yet; called after each training, and by `plinth testset score`. */
export const scoreOnTestSets = (home: Home, model: string, asked: Asked) => askOnTestSets(home, model, asking(asked))

export type { Home } from './db/home.ts'

// ── what commands call as it is ─────────────────────────────────────────────────────────────────────────────────────────────

export { measuredSide } from './data/check/across-split.ts'
export { findingsOf, isTrainable } from './data/check/findings.ts'
export { writeCheckReport } from './data/check/report-file.ts'
export { checkText } from './data/check/text.ts'
export { describeImport } from './data/import.ts'
export { parseVerdicts } from './data/review/file.ts'
export { type ReviewKind, reviewKinds } from './data/review/queue.ts'
export { startReviewServer } from './data/review/server.ts'
export type { Review } from './data/review/session.ts'
export { estimateSentence } from './data/review/words.ts'
export { extractSample as writeSample, samples } from './data/samples.ts'
export { listTestSets, openTestSet, removeTestSet, testSetScores } from './data/test-sets.ts'
export { listDatasets } from './data/versions.ts'
export { makeTestSet } from './evaluate/ask.ts'
export { renderComparison, renderText, trainingVerdicts, verdicts } from './evaluate/index.ts'
export { findingsBeside, writeComparisonReport, writeEvaluationReport } from './evaluate/pages.ts'
export { seenSentence, wear } from './evaluate/test-sets.ts'
export { backbones } from './models/catalogue.ts'
export { deleteModel, exportModel, listModels, renameModel, resolveModel } from './models/registry.ts'
export { deleteRun, getRun, listRuns } from './track/runs.ts'

/** Fetches the published weights of a backbone into the cache; answers how many tensors. */
export const pullWeights = async (id: string, options: LoadOptions): Promise<number> => (await backbone(id).loadWeights(options)).size
