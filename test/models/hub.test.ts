/** Downloads against a replay of the hub on loopback. The live hub was never reached while this was written (docs/backbones.md). */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { parameter } from '../../src/engine/graph.ts'
import { writeSafetensors } from '../../src/engine/safetensors.ts'
import { Failure, type FailureCode } from '../../src/failure.ts'
import { backbone } from '../../src/models/catalogue.ts'
import { download } from '../../src/models/hub.ts'
import { cachedPath, type LoadOptions, loadWeights, type WeightsSource } from '../../src/models/weights.ts'

// ── the replay ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

const count = 50_000
const values = Float32Array.from({ length: count }, (_, i) => i / 7)
const file = Buffer.from(writeSafetensors(new Map([['w', { shape: [count], data: values }]])))
const sha256 = createHash('sha256').update(file).digest('hex')
const revision = '0123456789abcdef0123456789abcdef01234567'

type Answer = (request: IncomingMessage, response: ServerResponse, from: number) => void
interface Seen {
  host: 'hub' | 'storage'
  url: string
  range: string | undefined
  authorization: string | undefined
}
let seen: Seen[] = []
/** What the storage host does, request by request; the last one repeats. */
let storage: Answer[] = []
let cut: { at: number; now(): void } | null = null
let hubHeaders: Record<string, string> = {}
let hubAnswer: Answer | null = null
let close: (() => Promise<void>)[] = []
let endpoint = ''
let storageAddress = ''
let folder = ''
let environment: NodeJS.ProcessEnv

/** The rest of the file from where it was asked, as the storage hosts of the hub answer. */
const whole: Answer = (_request, response, from) => send(response, from, file)
const send = (response: ServerResponse, from: number, content: Buffer, { end = content.length, ranges = true } = {}) => {
  const start = ranges ? from : 0
  const headers = { 'content-length': content.length - start, etag: '"cdn"' }
  if (start) response.writeHead(206, { ...headers, 'content-range': `bytes ${start}-${content.length - 1}/${content.length}` })
  else response.writeHead(200, headers)
  if (end < content.length) {
    response.write(content.subarray(start, end))
    cut = { at: end, now: () => response.socket?.destroy() }
  } else response.end(content.subarray(start))
}
/** Closes the connection when `end` bytes of the file have arrived (`fetchNow` says when). */
const cutAt =
  (end: number): Answer =>
  (_request, response, from) =>
    send(response, from, file, { end })
const status =
  (code: number): Answer =>
  (_request, response) =>
    response.writeHead(code).end()

async function listen(host: Seen['host'], answer: Answer): Promise<string> {
  const server = createServer((request, response) => {
    const range = request.headers.range
    seen.push({ host, url: request.url!, range, authorization: request.headers.authorization })
    answer(request, response, Number(/^bytes=(\d+)-$/.exec(range ?? '')?.[1] ?? 0))
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  close.push(
    () =>
      new Promise(resolve => {
        server.closeAllConnections()
        server.close(() => resolve())
      }),
  )
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

beforeEach(async () => {
  environment = { ...process.env }
  folder = mkdtempSync(join(tmpdir(), 'plinth-hub-'))
  seen = []
  storage = [whole]
  cut = null
  hubAnswer = null
  let request = 0
  storageAddress = await listen('storage', (q, s, from) => storage[Math.min(request++, storage.length - 1)]!(q, s, from))
  // what huggingface.co answers for a large file
  hubHeaders = { 'x-repo-commit': revision, 'x-linked-etag': `"${sha256}"`, 'x-linked-size': String(file.length) }
  endpoint = await listen('hub', (q, s, from) =>
    hubAnswer ? hubAnswer(q, s, from) : s.writeHead(302, { ...hubHeaders, location: `${storageAddress}/blob/1?Signature=secret` }).end(),
  )
  process.env['PLINTH_CACHE'] = folder
  process.env['HF_ENDPOINT'] = endpoint
  for (const name of ['HF_TOKEN', 'HF_HUB_OFFLINE']) delete process.env[name]
})
afterEach(async () => {
  process.env = environment
  for (const stop of close) await stop()
  close = []
  rmSync(folder, { recursive: true })
})

const source: WeightsSource = { kind: 'hub', repository: 'timm/net.a1', revision, file: 'model.safetensors', licence: 'Apache-2.0', sha256 }
const { sha256: _, ...unpinned } = source
const load = (options: LoadOptions = {}, from: WeightsSource = source) =>
  loadWeights({ id: 'net', sources: [from], parameters: [parameter('w', [count])] }, options)
const fails = (code: FailureCode, problem: RegExp) => (error: unknown) => {
  assert.ok(error instanceof Failure, String(error))
  assert.equal(error.code, code, error.message)
  assert.match(`${error.message} ${error.next}`, problem)
  return true
}
const cacheFiles = () => (existsSync(join(folder, 'weights')) ? readdirSync(join(folder, 'weights')).sort() : [])
const requestsTo = (host: Seen['host']) => seen.filter(request => request.host === host)
/** The same without waiting between tries. */
const fetchNow = (more: Partial<Parameters<typeof download>[0]> = {}) =>
  download({
    id: 'net',
    url: `${endpoint}/timm/net.a1/resolve/${revision}/model.safetensors`,
    path: cachedPath(source),
    sha256,
    retryDelay: 0,
    onProgress: ({ received }) => received === cut?.at && cut.now(),
    ...more,
  })

// ── the good way ────────────────────────────────────────────────────────────────────────────────────────────────────────────

test('weights come from the hub once, then from the cache', async () => {
  const progress: number[] = []
  let origin = ''
  const options: LoadOptions = {
    onProgress: ({ received }) => progress.push(received),
    onSource: from => (origin = `${from.from} ${from.sha256} ${from.licence}`),
  }
  assert.deepEqual((await load(options)).get('w'), values)
  assert.deepEqual(
    seen.map(s => `${s.host} ${s.url}`),
    [`hub /timm/net.a1/resolve/${revision}/model.safetensors`, 'storage /blob/1?Signature=secret'],
  )
  assert.equal(progress.at(-1), file.length)
  assert.equal(origin, `${endpoint}/timm/net.a1/resolve/${revision}/model.safetensors ${sha256} Apache-2.0`)
  const record = JSON.parse(readFileSync(`${cachedPath(source)}.json`, 'utf8'))
  assert.deepEqual(record, { url: origin.split(' ')[0], sha256, size: file.length, revision, trusted: 'catalogue' })
  assert.deepEqual(cacheFiles(), ['net.a1.safetensors', 'net.a1.safetensors.json'])

  assert.deepEqual((await load()).get('w'), values)
  assert.deepEqual((await load({ offline: true })).get('w'), values)
  assert.equal(seen.length, 2, 'no further request')
})

test('the token goes to the hub and not to where it redirects, and is nowhere in the cache', async () => {
  process.env['HF_TOKEN'] = 'hf_topsecret'
  await load()
  assert.deepEqual(
    seen.map(s => s.authorization),
    ['Bearer hf_topsecret', undefined],
  )
  for (const name of cacheFiles()) assert.ok(!readFileSync(join(folder, 'weights', name)).includes('topsecret'))
})

test('a mirror with a user in its address gets them as a header; no message and no record shows them', async () => {
  process.env['HF_ENDPOINT'] = endpoint.replace('//', '//anna:geheim@')
  await load()
  assert.deepEqual(
    seen.map(s => s.authorization),
    [`Basic ${Buffer.from('anna:geheim').toString('base64')}`, undefined],
  )
  assert.ok(!readFileSync(`${cachedPath(source)}.json`, 'utf8').includes('geheim'))
  rmSync(cachedPath(source))
  hubAnswer = status(404)
  await assert.rejects(load(), (error: unknown) => !JSON.stringify(error).includes('geheim') && fails('weights_unreachable', /404/)(error))
})

// ── cuts ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

test('a download that is cut goes on where it was', async () => {
  storage = [cutAt(60_000), cutAt(130_000), whole]
  assert.equal((await fetchNow()).sha256, sha256)
  const ranges = requestsTo('storage').map(s => s.range)
  assert.deepEqual(ranges, [undefined, 'bytes=60000-', 'bytes=130000-'])
  assert.deepEqual(cacheFiles(), ['net.a1.safetensors'])
})

test('half a file left behind by an earlier run is continued by the next', async () => {
  storage = [cutAt(100_000), status(404)]
  await assert.rejects(fetchNow(), fails('weights_unreachable', /404/))
  const own = `net.a1.safetensors.part-${process.pid}`
  assert.deepEqual(cacheFiles(), [own, `${own}.of`])
  const { pid: gone } = spawnSync(process.execPath, ['--version'])
  for (const suffix of ['', '.of']) renameSync(join(folder, 'weights', own + suffix), `${cachedPath(source)}.part-${gone}${suffix}`)
  storage = [whole]
  assert.equal((await fetchNow()).sha256, sha256)
  assert.equal(requestsTo('storage').at(-1)!.range, 'bytes=100000-')
  assert.deepEqual(cacheFiles(), ['net.a1.safetensors'])
})

test('half of another version is thrown away', async () => {
  storage = [cutAt(100_000), status(404)]
  hubHeaders['x-linked-etag'] = `"${'0'.repeat(64)}"`
  await assert.rejects(fetchNow({ sha256: undefined }), fails('weights_unreachable', /404/))
  storage = [whole]
  hubHeaders['x-linked-etag'] = `"${sha256}"`
  assert.equal((await fetchNow()).sha256, sha256)
  assert.deepEqual(
    requestsTo('storage')
      .slice(2)
      .map(s => s.range),
    ['bytes=100000-', undefined],
  )
})

test('a part that nobody knows anything about is not trusted', async () => {
  await fetchNow()
  rmSync(cachedPath(source))
  writeFileSync(`${cachedPath(source)}.part-${process.pid}`, Buffer.alloc(1000, 7))
  assert.equal((await fetchNow()).sha256, sha256)
})

test('a part longer than the file, and a server that knows no ranges', async () => {
  storage = [cutAt(100_000), (_q, s) => send(s, 0, file, { ranges: false })]
  assert.equal((await fetchNow()).sha256, sha256)
  rmSync(cachedPath(source))
  writeFileSync(`${cachedPath(source)}.part-${process.pid}`, Buffer.alloc(file.length + 10))
  storage = [(_q, s, from) => (from ? s.writeHead(416).end() : send(s, 0, file))]
  assert.equal((await fetchNow()).sha256, sha256)
})

test('a server that is busy is asked again, four times without progress', async () => {
  storage = [status(503), status(429), status(500), whole]
  assert.equal((await fetchNow()).sha256, sha256)
  rmSync(cachedPath(source))
  seen = []
  hubAnswer = status(503)
  await assert.rejects(fetchNow(), fails('weights_unreachable', /it answers 503/))
  assert.equal(seen.length, 4)
})

test('stopping stops at once and keeps what came', async () => {
  const stop = new AbortController()
  storage = [(_q, s) => s.writeHead(200, { 'content-length': file.length }).write(file.subarray(0, 50_000))]
  const loading = fetchNow({ signal: stop.signal, onProgress: ({ received }) => received >= 50_000 && stop.abort(new Error('enough')) })
  await assert.rejects(loading, /enough/)
  assert.equal(readFileSync(`${cachedPath(source)}.part-${process.pid}`).length, 50_000)
})

// ── the wrong file ──────────────────────────────────────────────────────────────────────────────────────────────────────────

test('a file with another hash is refused and not kept', async () => {
  const other = Buffer.from(file)
  other[1000]! ^= 1
  storage = [(_q, s, from) => send(s, from, other)]
  await assert.rejects(load(), fails('weights_corrupt', /its sha256 is [0-9a-f]{64} instead of/))
  assert.deepEqual(cacheFiles(), [])
})

test('a hub that announces another file is refused before a byte of it is kept', async () => {
  hubHeaders['x-linked-etag'] = `"${'0'.repeat(64)}"`
  await assert.rejects(load(), fails('weights_corrupt', /announces the sha256 0000/))
  assert.deepEqual(cacheFiles(), [])
  await assert.rejects(load({}, { ...source, size: 5 }), fails('weights_corrupt', /announces/))
})

test('a file that is longer than announced, or announced as huge', async () => {
  hubHeaders['x-linked-size'] = '1000'
  await assert.rejects(load(), fails('weights_corrupt', /more than the 1000 bytes/))
  assert.deepEqual(cacheFiles(), [])
  hubHeaders['x-linked-size'] = '99999999999'
  await assert.rejects(load(), fails('weights_corrupt', /larger than 2 GiB/))
})

test('a file without weights in it', async () => {
  const page = Buffer.from('<html>Please log in to this network</html>')
  hubAnswer = (_q, s) => send(s, 0, page)
  await assert.rejects(load(), fails('weights_corrupt', /instead of/))
  await assert.rejects(load({}, unpinned), fails('safetensors_malformed', /./))
})

// ── whom to trust ───────────────────────────────────────────────────────────────────────────────────────────────────────────

test('without a hash in the catalogue the hub is held to the one it announces', async () => {
  await load({}, unpinned)
  assert.equal(JSON.parse(readFileSync(`${cachedPath(source)}.json`, 'utf8')).trusted, 'hub')
  rmSync(cachedPath(source))
  const other = Buffer.from(file)
  other[1000]! ^= 1
  storage = [(_q, s, from) => send(s, from, other)]
  await assert.rejects(load({}, unpinned), fails('weights_corrupt', /instead of/))
})

test('without any hash the first use is trusted, and the file is held to it from then on', async () => {
  hubAnswer = (_q, s) => send(s, 0, file)
  await load({}, unpinned)
  assert.equal(JSON.parse(readFileSync(`${cachedPath(source)}.json`, 'utf8')).trusted, 'first use')
  writeFileSync(cachedPath(source), Buffer.concat([file, Buffer.alloc(1)]))
  await assert.rejects(load({}, unpinned), fails('weights_changed', /Delete it/))
})

test('the first digits of a hash, as torchvision has them in its file names, are held too', async () => {
  const address = (digits: string): WeightsSource => ({
    kind: 'address',
    url: `${storageAddress}/models/net-1234.pth?x=1`,
    licence: 'BSD-3-Clause',
    sha256: digits,
  })
  await assert.rejects(load({}, address('12345678')), fails('weights_corrupt', /instead of 12345678/))
  assert.deepEqual((await load({}, address(sha256.slice(0, 8)))).get('w'), values)
  assert.deepEqual(cacheFiles(), ['net-1234.pth', 'net-1234.pth.json'])
})

test('a file put by hand where the message says is taken, and held to its hash', async () => {
  let path = ''
  await assert.rejects(load({ offline: true }), (error: unknown) => {
    path = / put the file at (\S+)\. /.exec((error as Failure).next)![1]!
    return fails('weights_unreachable', /asked to stay offline/)(error)
  })
  assert.equal(path, cachedPath(source))
  await load() // makes the folder
  writeFileSync(path, file)
  rmSync(`${path}.json`)
  assert.deepEqual((await load({ offline: true })).get('w'), values)
  writeFileSync(path, Buffer.from('something else'))
  rmSync(`${path}.json`)
  await assert.rejects(load({ offline: true }), fails('weights_changed', /instead of/))
})

test('half a file of a process that still runs is left alone', async () => {
  await fetchNow()
  rmSync(cachedPath(source))
  const theirs = `${cachedPath(source)}.part-${process.ppid}`
  writeFileSync(theirs, Buffer.alloc(1000))
  await fetchNow()
  assert.deepEqual(readFileSync(theirs), Buffer.alloc(1000))
})

test('two at once end with one sound file', async () => {
  const both = await Promise.all([load(), load()])
  for (const weights of both) assert.deepEqual(weights.get('w'), values)
  assert.deepEqual(cacheFiles(), ['net.a1.safetensors', 'net.a1.safetensors.json'])
})

// ── no way there ────────────────────────────────────────────────────────────────────────────────────────────────────────────

test('offline, the message names the address and the place for the file', async () => {
  process.env['HF_HUB_OFFLINE'] = '1'
  const name = 'resnet18.a1_in1k.safetensors'
  await assert.rejects(backbone('resnet18').loadWeights(), (error: unknown) => {
    assert.match(
      (error as Failure).message,
      /http:\/\/127\.0\.0\.1:\d+\/timm\/resnet18\.a1_in1k\/resolve\/[0-9a-f]{40}\/model\.safetensors/,
    )
    assert.ok((error as Failure).next.includes(join(folder, 'weights', name)))
    return fails('weights_unreachable', /efficientnet-lite0 needs no download/)(error)
  })
  assert.equal(seen.length, 0)
})

test('nobody listens, nothing is there, redirects that go nowhere', async () => {
  for (const stop of close) await stop()
  close = []
  await assert.rejects(fetchNow(), fails('weights_unreachable', /ECONNREFUSED/))
  endpoint = await listen('hub', status(404))
  await assert.rejects(fetchNow(), fails('weights_unreachable', /it answers 404/))
  endpoint = await listen('hub', (_q, s) => s.writeHead(302, { location: '/again' }).end())
  await assert.rejects(fetchNow(), fails('weights_unreachable', /redirects more than 5 times/))
  endpoint = await listen('hub', (_q, s) => s.writeHead(302, { location: 'file:///etc/passwd' }).end())
  await assert.rejects(fetchNow(), fails('weights_unreachable', /without encryption/))
  process.env['HF_ENDPOINT'] = 'geheim'
  await assert.rejects(load(), fails('hub_endpoint_invalid', /not a web address/))
})

test('the second source is used where the first cannot be reached', async () => {
  hubAnswer = status(404)
  const second: WeightsSource = { kind: 'address', url: `${storageAddress}/net-2.safetensors`, licence: 'BSD-3-Clause', sha256 }
  let licence: string | null = ''
  const wanted = { id: 'net', sources: [source, second], parameters: [parameter('w', [count])] }
  await loadWeights(wanted, { onSource: origin => (licence = origin.licence) })
  assert.equal(licence, 'BSD-3-Clause')
  hubAnswer = null
  await loadWeights(wanted, { onSource: origin => (licence = origin.licence) })
  assert.equal(licence, 'BSD-3-Clause', 'what is in the cache stays, although the first source is back')
})
