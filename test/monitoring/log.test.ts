import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { type TestContext, test } from 'node:test'
import fc from 'fast-check'
import { Failure } from '../../src/failure.ts'
import { createLog, fileSink, jsonLine, masked, openLog, plainLine, streamSink } from '../../src/monitoring/log.ts'
import { createServerMetrics } from '../../src/monitoring/metrics.ts'

const now = new Date('2026-11-25T10:31:02.123Z')
const token = `plinth_0123456789ab_${'x'.repeat(43)}`

function folderFor(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'log-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

test('a line is one JSON object in UTC, whatever is in it', () => {
  const line = jsonLine('info', 'request', { route: '/api', status: 200, text: 'a\nb\u2028c' }, now)
  assert.deepEqual(JSON.parse(line), {
    time: '2026-11-25T10:31:02.123Z',
    level: 'info',
    event: 'request',
    route: '/api',
    status: 200,
    text: 'a\nb\u2028c',
  })
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue()), fields => {
      const text = jsonLine('warn', 'x', fields, now)
      assert.equal(text.includes('\n'), false)
      assert.equal(typeof JSON.parse(text), 'object')
      assert.doesNotMatch(plainLine('warn', 'x', fields, now), /[\0-\x1f]/)
    }),
  )
})

test('secrets are masked wherever they stand; the public half of a token stays', () => {
  const error = new Error(`for Bearer ${token}`, {
    cause: new Failure('database_unreachable', { database: 'x', problem: 'postgres://me:hidden@host/db' }),
  })
  const fields = {
    authorization: 'hidden',
    password: 'hidden',
    nested: { token: 'hidden', list: [`Basic aGlkZGVu`] },
    url: 'postgres://me:hidden@host/db',
    error,
  }
  for (const line of [jsonLine('error', 'x', fields, now), plainLine('error', 'x', fields, now)]) {
    assert.doesNotMatch(line, /hidden|aGlkZGVu|xxxxx/)
    assert.match(line, /me:…@host/)
  }
  assert.equal(masked(`a ${token} b`), 'a plinth_0123456789ab_… b')
  assert.match(jsonLine('error', 'x', { error }, now), /"code":|"message":"for Bearer …"/)
})

test('on a terminal a request is a short line', () => {
  const line = plainLine(
    'info',
    'request',
    { request: 'id', method: 'GET', route: '/api/runs/:run', status: 200, ms: 3.4, user: 'owner', address: '127.0.0.1' },
    now,
  )
  assert.match(line, /^\d\d:\d\d:\d\d GET \/api\/runs\/:run 200 3 ms owner$/)
  assert.match(plainLine('error', 'loop', { error: new Error('it broke') }, now), /error loop — it broke$/)
})

test('a file is turned over by its size, keeps so many, loses nothing, and is for its user alone', async t => {
  const path = join(folderFor(t), 'plinth.log')
  const log = createLog(await fileSink(path, { bytes: 2000, keep: 3, every: 1 }))
  for (let i = 0; i < 20; i++) {
    log.info('count', { i, filler: 'x'.repeat(300) })
    await new Promise(resolve => setTimeout(resolve, 3))
  }
  await log.close()
  const files = readdirSync(join(path, '..')).sort()
  assert.deepEqual(files, ['plinth.log', 'plinth.log.1', 'plinth.log.2'])
  for (const name of files) {
    const { size, mode } = statSync(join(path, '..', name))
    assert.ok(size <= 2000, `${name}: ${size}`)
    assert.equal(mode & 0o077, 0)
  }
  const numbers = files.toReversed().flatMap(name =>
    readFileSync(join(path, '..', name), 'utf8')
      .trim()
      .split('\n')
      .map(line => JSON.parse(line).i),
  )
  assert.deepEqual(
    numbers,
    Array.from({ length: numbers.length }, (_, i) => 20 - numbers.length + i),
    'the newest, in order, without a gap',
  )
  const again = createLog(await fileSink(path, { bytes: 2000, keep: 3 }))
  again.info('more')
  await again.close()
  assert.match(readFileSync(path, 'utf8'), /"event":"more"/)
})

test('a reader that does not read holds nobody up: what does not fit is counted', () => {
  const stream = new PassThrough({ highWaterMark: 1000 })
  const log = createLog(streamSink(stream, { most: 5000 }))
  for (let i = 0; i < 100; i++) log.info('x', { filler: 'x'.repeat(200) })
  assert.ok(log.dropped > 50)
  assert.ok(stream.writableLength < 6000)
  stream.emit('error', new Error('EPIPE'))
  log.info('still alive')
})

test('a log that cannot be opened is told', async t => {
  await assert.rejects(openLog({ file: join(folderFor(t), 'no', 'where') }), { code: 'log_file' })
})

test('numbers for Prometheus: histograms add up, labels are escaped', () => {
  const metrics = createServerMetrics()
  const asked = (milliseconds: number, status = 200) => metrics.answered({ method: 'GET', route: '/a"b\\c\nd', status, milliseconds })
  for (const milliseconds of [0.5, 1, 3, 40, 20_000]) asked(milliseconds)
  asked(3, 404)
  const text = metrics.text([{ name: 'plinth_x', help: 'X.', kind: 'gauge', values: [{ labels: { a: '1' }, value: 2 }, { value: 3 }] }])
  metrics.close()
  const lines = text.split('\n')
  const value = (start: string) => Number(lines.find(line => line.startsWith(start))?.slice(start.length))
  const labels = 'method="GET",route="/a\\"b\\\\c\\nd"'
  assert.equal(value(`plinth_http_requests_total{${labels},status="200"} `), 5)
  assert.equal(value(`plinth_http_requests_total{${labels},status="404"} `), 1)
  const buckets = ['0.001', '0.005', '0.05', '10', '+Inf'].map(le => value(`plinth_http_request_seconds_bucket{${labels},le="${le}"} `))
  assert.deepEqual(buckets, [2, 4, 5, 5, 6])
  assert.equal(value(`plinth_http_request_seconds_count{${labels}} `), 6)
  assert.equal(value('plinth_x{a="1"} '), 2)
  assert.ok(value('process_resident_memory_bytes ') > 1e6)
  // the text format: each line is a comment or a name, labels and a number
  for (const line of lines.filter(Boolean))
    assert.match(line, /^(# (HELP|TYPE) [a-z_]+ .+|[a-z_]+(\{([a-z]+="([^"\\\n]|\\["\\n])*",?)+\})? [-+.\deInfNa]+)$/)
})
