/**
 * From a file of published weights to the numbers a backbone needs: found in the package, in the cache or on the network, held to
 * its hash, read without executing anything, and checked name by name. See hub.ts for the network.
 */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { cache } from '../config.ts'
import type { Node } from '../engine/graph.ts'
import { elements } from '../engine/graph.ts'
import type { Weights } from '../engine/lowering.ts'
import { readSafetensors } from '../engine/safetensors.ts'
import { readTorchFile } from '../engine/torch-file.ts'
import { Failure } from '../failure.ts'
import { writeFileAtomic } from '../storage/disk.ts'
import { type Downloaded, download, hubAddress, shownAddress } from './hub.ts'

interface SourceFacts {
  licence: string
  /** Of the whole file; the first digits where only they are known (torchvision writes them into its file names). */
  sha256?: string
  /** In bytes. */
  size?: number
}
export type WeightsSource =
  | (SourceFacts & { kind: 'bundled'; file: string; sha256: string })
  /** A file of a repository on the Hugging Face hub (or its mirror, $HF_ENDPOINT) at a git commit. */
  | (SourceFacts & { kind: 'hub'; repository: string; revision: string; file: string })
  | (SourceFacts & { kind: 'address'; url: string })

export interface LoadOptions {
  /** A file of the user's (.safetensors, or .pth/.pt/.bin of torch.save), instead of the published sources. */
  file?: string
  onProgress?(progress: { received: number; total: number | null }): void
  /** Told once, when it is clear which source the weights come from. */
  onSource?(origin: WeightsOrigin): void
  signal?: AbortSignal
  /** Never use the network. Default: $HF_HUB_OFFLINE. */
  offline?: boolean
}
export interface WeightsOrigin {
  /** Address or path. */
  from: string
  licence: string | null
  sha256: string
}
/** What is loaded for whom. */
export interface Wanted {
  id: string
  sources: readonly WeightsSource[]
  parameters: readonly Node<'Parameter'>[]
}

/** What is kept beside a cached file, so that tomorrow's file is today's. */
interface CacheRecord extends Downloaded {
  url: string
  /** Who says that this is the right file: the catalogue, the hub's own header, or nobody before the first use. */
  trusted: 'catalogue' | 'hub' | 'first use'
}

const largestFile = 2 ** 31

/** See Backbone.loadWeights. */
export async function loadWeights(wanted: Wanted, options: LoadOptions = {}): Promise<Weights> {
  const { path, ...origin } = await locate(wanted, options)
  options.onSource?.(origin)
  return fit(wanted, await readWeightsFile(path), path)
}

/** Where a source's file lies in the cache, or has to be put by hand. */
export const cachedPath = (source: WeightsSource): string => join(cache(), 'weights', cacheName(source))
const cacheName = (source: WeightsSource): string =>
  source.kind === 'hub'
    ? `${basename(source.repository)}.${source.file.split('.').at(-1)}`
    : basename(source.kind === 'address' ? new URL(source.url).pathname : source.file)

// ── which file ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

type Located = WeightsOrigin & { path: string }

async function locate({ id, sources }: Wanted, options: LoadOptions): Promise<Located> {
  if (options.file !== undefined) {
    const { file } = options
    const found = await stat(file).catch(error => Promise.reject(unreadable(file, error)))
    // before it is opened: reading a pipe would wait for a writer
    if (!found.isFile()) throw new Failure('weights_file_unreadable', { path: file, problem: 'it is not a file' })
    return { path: file, from: file, licence: null, sha256: await hashOf(file) }
  }
  // what is here comes before what is elsewhere: a training must not change its weights because a network came back
  for (const source of sources) {
    const found = source.kind === 'bundled' ? await bundled(source) : await cached(source)
    if (found) return found
  }
  let unreachable: unknown
  for (const source of sources) {
    if (source.kind === 'bundled') continue
    try {
      return await fetched(id, source, options)
    } catch (error) {
      if (!(error instanceof Failure) || error.code !== 'weights_unreachable') throw error
      unreachable ??= error // the first source is the one to name
    }
  }
  throw unreachable
}

async function bundled(source: WeightsSource & { kind: 'bundled' }): Promise<Located> {
  const path = fileURLToPath(new URL(`./weights/${source.file}`, import.meta.url))
  const sha256 = await hashOf(path)
  if (sha256 !== source.sha256) throw changed(path, sha256, source.sha256)
  return { path, from: path, licence: source.licence, sha256 }
}

async function cached(source: WeightsSource): Promise<Located | null> {
  const path = cachedPath(source)
  if (!(await stat(path).catch(() => null))?.isFile()) return null
  const sha256 = await hashOf(path)
  const record = await readRecord(path)
  const expected = fullHash(source) ?? record?.sha256 ?? source.sha256
  if (expected !== undefined && !sha256.startsWith(expected)) throw changed(path, sha256, expected)
  // put here by hand: from now on it is held to what it is
  if (!record)
    await writeRecord(path, {
      url: addressOf(source),
      sha256,
      size: (await stat(path)).size,
      revision: null,
      trusted: fullHash(source) ? 'catalogue' : 'first use',
    })
  return { path, from: record?.url ?? path, licence: source.licence, sha256 }
}

async function fetched(id: string, source: WeightsSource & { kind: 'hub' | 'address' }, options: LoadOptions): Promise<Located> {
  const [url, path] = [addressOf(source), cachedPath(source)]
  if (options.offline ?? isSet(process.env['HF_HUB_OFFLINE']))
    throw new Failure('weights_unreachable', { id, url: shownAddress(url), path, problem: 'asked to stay offline' })
  const got = await download({
    id,
    url,
    path,
    sha256: source.sha256,
    size: source.size,
    onProgress: options.onProgress,
    signal: options.signal,
  })
  const trusted = fullHash(source) ? 'catalogue' : got.announced ? 'hub' : 'first use'
  await writeRecord(path, { url: shownAddress(url), sha256: got.sha256, size: got.size, revision: got.revision, trusted })
  return { path, from: shownAddress(url), licence: source.licence, sha256: got.sha256 }
}

const addressOf = (source: WeightsSource): string =>
  source.kind === 'hub' ? hubAddress(source.repository, source.revision, source.file) : source.kind === 'address' ? source.url : source.file
const fullHash = ({ sha256 }: WeightsSource): string | undefined => (sha256?.length === 64 ? sha256 : undefined)
const isSet = (value: string | undefined) => value !== undefined && !['', '0', 'false', 'no', 'off'].includes(value.toLowerCase())
const changed = (path: string, found: string, expected: string) => new Failure('weights_changed', { path, found, expected })

async function readRecord(path: string): Promise<CacheRecord | null> {
  const text = await readFile(`${path}.json`, 'utf8').catch(() => null)
  if (text === null) return null
  try {
    const record = JSON.parse(text) as CacheRecord
    return /^[0-9a-f]{64}$/.test(record.sha256) ? record : null
  } catch (error) {
    if (error instanceof SyntaxError) return null
    throw error
  }
}
const writeRecord = (path: string, record: CacheRecord) => writeFileAtomic(`${path}.json`, `${JSON.stringify(record, null, 2)}\n`)

async function hashOf(path: string): Promise<string> {
  const hash = createHash('sha256')
  try {
    for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer)
  } catch (error) {
    throw unreadable(path, error)
  }
  return hash.digest('hex')
}

// ── what is in it ───────────────────────────────────────────────────────────────────────────────────────────────────────────

/** All tensors of a weights file as float32; the kind of file is told by its first bytes, not by its name. */
export async function readWeightsFile(path: string): Promise<Map<string, { shape: readonly number[]; data: Float32Array }>> {
  const { size } = await stat(path).catch(error => Promise.reject(unreadable(path, error)))
  if (size > largestFile) throw new Failure('weights_file_unreadable', { path, problem: 'it is larger than 2 GiB' })
  const bytes = await readFile(path).catch(error => Promise.reject(unreadable(path, error)))
  if (bytes[0] === 0x80 || (bytes[0] === 0x50 && bytes[1] === 0x4b && bytes[2] === 3)) return readTorchFile(bytes)
  // a plain view: a Buffer's slice() does not copy as a Uint8Array's does
  return readSafetensors(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength)).tensors
}

/** The tensors a backbone needs and nothing else, after making sure that each is there, has its shape and is finite. */
function fit({ id, parameters }: Wanted, tensors: Map<string, { shape: readonly number[]; data: Float32Array }>, path: string): Weights {
  const unsuitable = (problem: string) => new Failure('weights_unsuitable', { id, path, problem })
  // DataParallel puts this before every name
  const prefix = [...tensors.keys()].every(name => name.startsWith('module.')) ? 'module.' : ''
  const weights = new Map<string, Float32Array>()
  for (const { name, shape } of parameters as readonly (Node<'Parameter'> & { name: string })[]) {
    const tensor = tensors.get(prefix + name)
    if (!tensor) throw unsuitable(`there is no ${name} among its ${tensors.size} tensors`)
    if (tensor.shape.length !== shape.length || tensor.shape.some((d, i) => d !== shape[i]))
      throw unsuitable(`${name} is [${tensor.shape.join(', ')}] where [${shape.join(', ')}] is needed`)
    if (tensor.data.length !== elements(shape) || !tensor.data.every(Number.isFinite))
      throw unsuitable(`${name} holds numbers that are not finite`)
    if (name.endsWith('.running_var') && tensor.data.some(v => v < 0)) throw unsuitable(`${name} holds a negative variance`)
    weights.set(name, tensor.data)
  }
  return weights
}

function unreadable(path: string, error: unknown): unknown {
  if (!(error instanceof Error) || !('code' in error)) return error
  const problem = error.code === 'ENOENT' ? 'there is no such file' : String(error.code)
  return new Failure('weights_file_unreadable', { path, problem }, { cause: error })
}
