/**
 * Downloads one file of known origin into the cache: resumed where it was cut, checked against its hash, and renamed into place
 * only when it is whole. Written for the Hugging Face hub, whose `resolve` address redirects to a storage host and says beforehand
 * which file that is (X-Linked-Etag, the sha256 of large files; X-Linked-Size; X-Repo-Commit); any plain file server works too.
 * Source: huggingface_hub, src/huggingface_hub/file_download.py, for what the headers mean.
 */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { type FileHandle, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { Failure } from '../failure.ts'
import { makeFolder, storageFailure, syncFolder, writeFileAtomic } from '../storage/disk.ts'
import { isProcessAlive } from '../storage/process.ts'

export interface DownloadRequest {
  /** For messages: whose weights these are. */
  id: string
  url: string
  path: string
  /** Of the whole file, or its first digits. */
  sha256?: string | undefined
  size?: number | undefined
  onProgress?: ((progress: { received: number; total: number | null }) => void) | undefined
  signal?: AbortSignal | undefined
  /** Milliseconds before the second try without progress; doubles. */
  retryDelay?: number
}
export interface Downloaded {
  sha256: string
  size: number
  /** Git commit the hub named, if it named one. */
  revision: string | null
}

const patience = { tries: 4, redirects: 5, stall: 60_000, largest: 2 ** 31 }

/** $HF_ENDPOINT is the variable that Hugging Face's own tools and mirrors use. @throws hub_endpoint_invalid */
export function hubAddress(repository: string, revision: string, file: string): string {
  const endpoint = (process.env['HF_ENDPOINT'] || 'https://huggingface.co').replace(/\/+$/, '')
  if (!/^https?:\/\//.test(endpoint) || !URL.canParse(endpoint)) throw new Failure('hub_endpoint_invalid') // not shown: it may hold a password
  return `${endpoint}/${repository}/resolve/${revision}/${file}`
}

/** An address as it may be shown: without user, password and query, where secrets and signatures are. */
export function shownAddress(address: string): string {
  const { protocol, host, pathname } = new URL(address)
  return `${protocol}//${host}${pathname}`
}

/** One download a file and process; who asks for the same file meanwhile gets the same answer. */
const running = new Map<string, Promise<Downloaded & { announced: boolean }>>()

/**
 * Half a file left by a process that is gone is continued; two processes at once each bring their own.
 * @throws weights_unreachable (what has arrived is kept), weights_corrupt (what has arrived is thrown away)
 */
export function download(request: DownloadRequest): Promise<Downloaded & { announced: boolean }> {
  const known = running.get(request.path)
  if (known) return known
  const promise = persist(request).finally(() => running.delete(request.path))
  running.set(request.path, promise)
  return promise
}

async function persist(request: DownloadRequest): Promise<Downloaded & { announced: boolean }> {
  const { id, url, path, signal, retryDelay = 500 } = request
  await makeFolder(dirname(path))
  const part = await ownPart(path)
  let without = 0 // tries in a row that brought nothing
  for (;;) {
    const before = await sizeOf(part)
    try {
      return await finish(request, part, await attempt(request, part))
    } catch (error) {
      signal?.throwIfAborted()
      if (!(error instanceof Interrupted)) throw error
      without = (await sizeOf(part)) > before ? 0 : without + 1
      if (!error.retry || without >= patience.tries)
        throw new Failure('weights_unreachable', { id, url: shownAddress(url), path, problem: error.message }, { cause: error.cause })
      if (without) await wait(retryDelay * 2 ** (without - 1), undefined, { signal })
    }
  }
}

/** `<path>.part-<process id>`, taken over from a process that no longer lives where there is one. */
async function ownPart(path: string): Promise<string> {
  const own = `${path}.part-${process.pid}`
  if (await sizeOf(own)) return own
  for (const name of await readdir(dirname(path))) {
    const pid = name.startsWith(`${basename(path)}.part-`) && /\.part-(\d+)$/.exec(name)?.[1]
    if (!pid || isProcessAlive(Number(pid))) continue
    const left = join(dirname(path), name)
    // of two who find it, one wins the rename; without its .of a part is not continued
    const won = await rename(left, own).then(
      () => true,
      () => false,
    )
    if (won) {
      await rename(`${left}.of`, `${own}.of`).catch(() => {})
      break
    }
  }
  return own
}

/** The network's fault: worth another try, or not (`retry`). */
class Interrupted extends Error {
  readonly retry: boolean
  constructor(message: string, { retry = true, cause }: { retry?: boolean; cause?: unknown } = {}) {
    super(message, { cause })
    this.retry = retry
  }
}

/** What the server says about the file. */
interface Facts {
  /** Tells one version of the file from another. */
  identity: string | null
  /** sha256 that the hub announces for it. */
  announced: string | null
  revision: string | null
  total: number | null
}

/** One connection: brings the part as far as it comes. */
async function attempt(request: DownloadRequest, part: string): Promise<Facts> {
  const { url, signal } = request
  const connection = new AbortController()
  const together = signal ? AbortSignal.any([signal, connection.signal]) : connection.signal
  let timer: NodeJS.Timeout | undefined
  let stalled = false
  const alive = () => {
    clearTimeout(timer)
    timer = setTimeout(() => {
      stalled = true
      connection.abort()
    }, patience.stall)
  }
  try {
    alive()
    const started = await sizeOf(part)
    const { response, facts } = await follow(url, started, together)
    checkAnnounced(request, facts)
    const version = facts.identity && `${shownAddress(url)} ${facts.identity}\n`
    const answersRest = response.status === 206 && started > 0
    if (answersRest && (version === null || (await versionOf(part)) !== version)) {
      // the part is of another version, or nobody knows of which: worth nothing
      await forget(part)
      throw new Interrupted('the file changed between two tries')
    }
    if (!answersRest) await writeFileAtomic(`${part}.of`, version ?? '')
    const file = await open(part, answersRest ? 'r+' : 'w').catch(error => Promise.reject(storageFailure(error, part)))
    try {
      await receive(request, part, response, file, { from: answersRest ? started : 0, total: facts.total, alive })
    } finally {
      await file.close()
    }
    return facts
  } catch (error) {
    if (error instanceof Failure || error instanceof Interrupted) throw error
    if (stalled) throw new Interrupted('nothing came for a minute', { cause: error })
    if (isNetworkError(error)) throw new Interrupted(reasonOf(error), { cause: error })
    throw error
  } finally {
    clearTimeout(timer)
    connection.abort() // an answer that nobody read to its end must not hold the socket
  }
}

async function receive(
  request: DownloadRequest,
  part: string,
  response: Response,
  file: FileHandle,
  { from, total, alive }: { from: number; total: number | null; alive(): void },
) {
  let at = from
  request.onProgress?.({ received: at, total })
  for await (const chunk of response.body ?? []) {
    alive()
    if (at + chunk.length > (total ?? patience.largest)) {
      await forget(part)
      throw wrong(request, `more than the ${total ?? patience.largest} bytes announced arrived`)
    }
    await file.write(chunk, 0, chunk.length, at).catch(error => Promise.reject(storageFailure(error, part)))
    at += chunk.length
    request.onProgress?.({ received: at, total })
  }
  if (total !== null && at < total) throw new Interrupted(`the connection was cut after ${at} of ${total} bytes`)
  await file.sync().catch(error => Promise.reject(storageFailure(error, part)))
}

/** Follows redirects by hand, because the facts are in the headers of the first answer and fetch would hide them. */
async function follow(url: string, from: number, signal: AbortSignal): Promise<{ response: Response; facts: Facts }> {
  let address = new URL(url)
  const first = address
  const facts: Facts = { identity: null, announced: null, revision: null, total: null }
  for (let hop = 0; hop <= patience.redirects; hop++) {
    const response = await fetch(withoutUser(address), { headers: headersFor(address, first, from), redirect: 'manual', signal })
    collect(facts, response.headers)
    if (response.status >= 300 && response.status < 400 && response.headers.has('location')) {
      const next = new URL(response.headers.get('location')!, address)
      if (next.protocol !== address.protocol && next.protocol !== 'https:')
        throw new Interrupted('it redirects to an address without encryption', { retry: false })
      address = next
      continue
    }
    if (response.status === 416 && from > 0) return follow(url, 0, signal) // the part is as long as the file or longer: start anew
    if (response.status !== 200 && response.status !== 206) {
      throw new Interrupted(`it answers ${response.status}`, { retry: response.status === 429 || response.status >= 500 })
    }
    const length = Number(response.headers.get('content-length') ?? Number.NaN)
    const range = /^bytes (\d+)-\d+\/(\d+)$/.exec(response.headers.get('content-range') ?? '')
    if (response.status === 206 && Number(range?.[1]) !== from)
      throw new Interrupted('it answers another part than was asked for', { retry: false })
    facts.total ??= range ? Number(range[2]) : Number.isFinite(length) && !response.headers.has('content-encoding') ? length : null
    return { response, facts }
  }
  throw new Interrupted(`it redirects more than ${patience.redirects} times`, { retry: false })
}

/** $HF_TOKEN and a user in the address go to the host they were meant for and not to where it redirects. */
function headersFor(address: URL, first: URL, from: number): Record<string, string> {
  const headers: Record<string, string> = { 'accept-encoding': 'identity', 'user-agent': 'plinth' }
  if (from > 0) headers['range'] = `bytes=${from}-`
  if (address.origin !== first.origin) return headers
  const token = address.pathname.includes('/resolve/') ? process.env['HF_TOKEN'] : undefined
  if (first.username)
    headers['authorization'] =
      `Basic ${Buffer.from(`${decodeURIComponent(first.username)}:${decodeURIComponent(first.password)}`).toString('base64')}`
  else if (token) headers['authorization'] = `Bearer ${token}`
  return headers
}
function withoutUser(address: URL): URL {
  const plain = new URL(address)
  plain.username = ''
  plain.password = ''
  return plain
}

function collect(facts: Facts, headers: Headers) {
  const tag = headers.get('x-linked-etag') ?? headers.get('etag')
  facts.identity ??= tag && unquoted(tag)
  const linked = unquoted(headers.get('x-linked-etag') ?? '')
  if (/^[0-9a-f]{64}$/.test(linked)) facts.announced ??= linked
  const commit = headers.get('x-repo-commit')
  if (commit && /^[0-9a-f]{40}$/.test(commit)) facts.revision ??= commit
  const size = headers.get('x-linked-size')
  if (size && /^\d{1,12}$/.test(size)) facts.total ??= Number(size)
}
const unquoted = (tag: string) => tag.replace(/^W\//, '').replace(/^"|"$/g, '')

/** Before a byte is fetched: does the server have the file that is wanted? */
function checkAnnounced(request: DownloadRequest, { announced, total }: Facts) {
  const { sha256, size } = request
  if (sha256 && announced && !announced.startsWith(sha256))
    throw wrong(request, `the server announces the sha256 ${announced} instead of ${sha256}`)
  if (size !== undefined && total !== null && total !== size) throw wrong(request, `the server announces ${total} bytes instead of ${size}`)
  if (total !== null && total > patience.largest) throw wrong(request, 'it is larger than 2 GiB')
}

async function finish(
  request: DownloadRequest,
  part: string,
  { announced, revision }: Facts,
): Promise<Downloaded & { announced: boolean }> {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(part)) hash.update(chunk as Buffer)
  const sha256 = hash.digest('hex')
  const expected = request.sha256?.length === 64 ? request.sha256 : (announced ?? request.sha256)
  if (expected && !sha256.startsWith(expected)) {
    await forget(part)
    throw wrong(request, `its sha256 is ${sha256} instead of ${expected}`)
  }
  const size = await sizeOf(part)
  await rename(part, request.path).catch(error => Promise.reject(storageFailure(error, request.path))) // readers see no file or the whole one
  await syncFolder(dirname(request.path))
  await rm(`${part}.of`, { force: true })
  return { sha256, size, revision, announced: announced !== null }
}

const wrong = ({ url, path }: DownloadRequest, problem: string) => new Failure('weights_corrupt', { url: shownAddress(url), path, problem })
async function forget(part: string) {
  await rm(part, { force: true })
  await rm(`${part}.of`, { force: true })
}
const sizeOf = async (path: string): Promise<number> => (await stat(path).catch(() => null))?.size ?? 0
const versionOf = (part: string): Promise<string | null> => readFile(`${part}.of`, 'utf8').catch(() => null)

/** fetch reports every network trouble as a TypeError with a cause, in the body as well. */
const isNetworkError = (error: unknown): error is Error => error instanceof TypeError && error.cause !== undefined
function reasonOf(error: Error): string {
  const { code, message } = error.cause as { code?: unknown; message?: unknown }
  return String(code ?? message ?? error.message)
}
