/** A whole check, from what the user named to what was found: reads, remembers in the cache, and writes nothing else. */
import { join } from 'node:path'
import { Failure } from '../../failure.ts'
import { backbone } from '../../models/catalogue.ts'
import type { DatasetReference, Manifest, Mislabels } from '../../sdk/shapes.ts'
import { forgetOldFeatures, preparePictures } from '../features.ts'
import { groupPattern } from '../groups.ts'
import { importPictures, manifestDigest } from '../import.ts'
import { type Checked, type CheckTask, checkPictures } from './index.ts'
import { openFactsOrForget, openPictureFiles, type PictureFiles } from './pictures.ts'

export interface DataCheckRequest {
  /** Computes features of every picture, too: finds cropped and turned copies and likely mislabels. */
  deep: boolean
  alike: boolean
  groupBy?: string
  seed: number
  signal: AbortSignal
  onProgress(what: string, done: number, total: number): void
}

export interface CheckSource {
  /** A folder, zip or list, or a dataset version with its files. */
  source: string | { reference: DatasetReference; manifest: Manifest; blob(content: string): Promise<Uint8Array> }
  /** Folder of what can be had again. */
  cache: string
  threads: number
  /** Pixels of the square that features are computed from. */
  featureSide(manifest: Manifest): number
  /** Lies above this folder, so it is handed in. */
  findMislabels(
    task: Parameters<NonNullable<CheckTask['findMislabels']>>[0] & {
      classes: readonly string[]
      paths: readonly string[]
      threads: number
      seed: number
      signal: AbortSignal
      onProgress(done: number, total: number): void
    },
  ): Promise<Mislabels>
}

/** What is handed over while the pictures can still be read; `understood`: how the labels of a folder were told. */
export interface CheckedSource extends Checked {
  manifest: Manifest
  bytes: PictureFiles['bytes']
  understood: string | null
}

/** `use` gets what was found. Throws what importPictures throws, group_pattern_invalid, interrupted. */
export async function checkSource<T>(
  what: CheckSource,
  request: DataCheckRequest,
  use: (checked: CheckedSource) => Promise<T>,
): Promise<T> {
  const { source, threads } = what
  const { signal, onProgress, seed } = request
  const groupBy = request.groupBy === undefined ? undefined : groupPattern(request.groupBy)
  const facts = await openFactsOrForget(join(what.cache, 'facts'))
  let files: PictureFiles | null = null
  let understood: string | null = null
  try {
    const manifest =
      typeof source !== 'string'
        ? source.manifest
        : await importPictures(source, {
            blobs: null,
            facts,
            signal,
            accept: 'anything',
            ...(groupBy && { groupBy }),
            onUnderstood: text => {
              understood = text
            },
            onProgress: ({ done, total }) => onProgress('reading', done, total),
          })
    const digest = manifestDigest(manifest)
    files =
      typeof source === 'string'
        ? await openPictureFiles(source, manifest, signal)
        : { bytes: ({ content }) => source.blob(content), close: async () => {} }
    const { bytes } = files
    const features = request.deep ? await featuresOf(manifest, digest, bytes, what, request) : null
    const checked = await checkPictures({
      manifest,
      version: typeof source === 'string' ? digest : `${source.reference.name}@${source.reference.version}`,
      digest,
      facts,
      bytes,
      alike: request.alike,
      ...(features && { features }),
      findMislabels: task =>
        what.findMislabels({
          ...task,
          classes: manifest.classes,
          paths: manifest.rows.map(row => row.path),
          threads,
          seed,
          signal,
          onProgress: (done, total) => onProgress('weighing labels', done, total),
        }),
      copiesCache: join(what.cache, 'copies'),
      threads,
      seed,
      signal,
      onProgress,
    })
    return await use({ ...checked, manifest, bytes, understood })
  } catch (error) {
    if (signal.aborted)
      throw new Failure('interrupted', { next: 'What was found out so far is remembered: the same command goes on from there.' })
    throw error
  } finally {
    await files?.close()
    facts.close()
  }
}

async function featuresOf(
  manifest: Manifest,
  dataset: string,
  bytes: PictureFiles['bytes'],
  { cache, threads, featureSide }: CheckSource,
  { signal, onProgress }: DataCheckRequest,
): Promise<{ values: Float32Array; width: number }> {
  const network = backbone('efficientnet-lite0') // its weights come with Plinth
  const rowOf = new Map(manifest.rows.map(row => [row.content, row]))
  await forgetOldFeatures(join(cache, 'features'))
  const prepared = await preparePictures({
    folder: join(cache, 'features'),
    dataset,
    rows: manifest.rows,
    blob: content => bytes(rowOf.get(content)!),
    backbone: network,
    weights: await network.loadWeights(),
    side: featureSide(manifest),
    threads,
    onProgress: (done, total) => onProgress('looking closer', done, total),
    stopRequested: () => signal.aborted,
  })
  prepared.close()
  signal.throwIfAborted()
  return { values: prepared.features, width: prepared.width }
}
