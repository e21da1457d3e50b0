/** The log of an attempt: what becomes of bytes that processes print, and how it is read while it grows. */
import assert from 'node:assert/strict'
import { appendFileSync, mkdtempSync, readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import fc from 'fast-check'
import { openLog, redactor } from '../../../src/jobs/backends/local/log-writer.ts'
import { lineLimit, offsetOfLine, readLogFile, segmentsAmong } from '../../../src/jobs/log-file.ts'
import { long, makeEngine, shimOf, until } from './engine.ts'

const folder = () => mkdtempSync(join(tmpdir(), 'log-'))
const usual = { limit: 1 << 30, secrets: [] as string[], inspect() {} }
const never = new AbortController().signal
const over = async () => true

/** The lines' texts, times and streams taken off. */
async function texts(path: string): Promise<string[]> {
  const read: Uint8Array[] = []
  for (let offset = 0; ; ) {
    const { bytes, next, end } = await readLogFile(path, { offset, limit: 1 << 16, follow: false, signal: never, ended: over })
    read.push(bytes)
    offset = next
    if (end) break
  }
  const lines = Buffer.concat(read).toString().split('\n')
  assert.equal(lines.pop(), '')
  return lines.map(line => /^\d{13} [oep] (.*)$/s.exec(line)![1]!)
}

/** What stands in the log after these chunks of standard output. */
async function written(chunks: readonly (string | Buffer)[], options: Partial<typeof usual> = {}): Promise<string[]> {
  const path = folder()
  const log = openLog(path, { ...usual, ...options })
  const sink = log.sink('o', () => '')
  for (const chunk of chunks) sink.feed(Buffer.from(chunk as string))
  sink.end()
  log.close()
  return texts(path)
}

const cutAt = (bytes: Buffer, cuts: readonly number[]): Buffer[] => {
  const ends = [...new Set(cuts.map(cut => cut % (bytes.length + 1)))].sort((a, b) => a - b)
  return [...ends, bytes.length].map((end, i) => bytes.subarray(i === 0 ? 0 : ends[i - 1], end))
}

test('lines come out as they went in, however the pipe cuts them', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.string({ unit: 'binary', maxLength: 30 }).map(text => text.replace(/[\r\n]/g, ' '))),
      fc.array(fc.nat(500)),
      fc.boolean(),
      async (lines, cuts, windows) => {
        const text = lines.map(line => line + (windows ? '\r\n' : '\n')).join('')
        assert.deepEqual(
          await written(cutAt(Buffer.from(text), cuts)),
          lines.map(line => Buffer.from(line).toString()),
        )
      },
    ),
    { numRuns: long ? 5000 : 60 },
  )
})

test('any bytes make whole lines of valid UTF-8, none over the limit', async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 400 }), fc.array(fc.nat(400)), async (bytes, cuts) => {
      for (const line of await written(cutAt(Buffer.from(bytes), cuts)))
        assert.ok(!line.includes('\n') && Buffer.byteLength(line) <= lineLimit)
    }),
    { numRuns: long ? 5000 : 60 },
  )
})

test('a line over the limit goes on in the next, never within a character', async () => {
  const line = `${'x'.repeat(lineLimit - 1)}€${'y'.repeat(lineLimit)}end`
  const lines = await written([`${line}\nnext\n`])
  assert.equal(lines.slice(0, -1).join(''), line)
  assert.equal(lines.at(-1), 'next')
  assert.ok(lines.every(each => Buffer.byteLength(each) <= lineLimit && !each.includes('�')))
})

test('of a progress bar one line a second stays, and always the last', async () => {
  const bar = Array.from({ length: 500 }, (_, i) => `\r${i / 5}%|###|`).join('')
  assert.deepEqual(await written([`start\n${bar}\r100%|###|\ndone\n`]), ['start', '0%|###|', '100%|###|', 'done'])
  assert.deepEqual(await written(['a\r', '\nb\r', 'c\rd']), ['a', 'b', 'd'])
  assert.deepEqual(await written(['50%\r60%\r']), ['50%', '60%'])
})

test('a progress bar that stands still is shown after a second', async () => {
  const path = folder()
  const log = openLog(path, usual)
  const sink = log.sink('e', () => '')
  sink.feed(Buffer.from('1%\r2%\r3%\r4'))
  await until(async () => {
    log.tick()
    return (await texts(path)).includes('3%')
  }, '3%, which is the newest whole one')
  log.close()
})

test('secrets are taken out of the log in every form that they are printed in, however the pipe and the line limit cut them', async () => {
  const secret = 'pa"ss wörd/with\nsecond-line'
  const { redact } = redactor([secret, 'abc'])
  const readable = (text: string) => Buffer.from(redact(Buffer.from(text).toString('latin1')), 'latin1').toString()
  assert.equal(readable(`x ${encodeURIComponent(secret)} y`), 'x *** y')
  assert.equal(readable(`{"a":${JSON.stringify(secret)}}`), '{"a":"***"}')
  assert.equal(readable('pa"ss wörd/with'), '***')
  assert.equal(readable('second-line abc'), '*** abc', 'three letters are too few to be told from words')
  await fc.assert(
    fc.asyncProperty(fc.nat(lineLimit + 100), fc.array(fc.nat(2 * lineLimit), { maxLength: 5 }), async (before, cuts) => {
      const text = `${'x'.repeat(before)}hunter2-hunter2${'y'.repeat(lineLimit)}\n`
      const all = (await written(cutAt(Buffer.from(text), cuts), { secrets: ['hunter2-hunter2'] })).join('')
      assert.equal(all, text.trimEnd().replace('hunter2-hunter2', '***'))
    }),
    { numRuns: long ? 500 : 30 },
  )
})

test('a log over its limit keeps its beginning and its end, says what is missing, and offsets stay what they were', async () => {
  const path = folder()
  const log = openLog(path, { ...usual, limit: 1 << 16 })
  const sink = log.sink('o', () => '')
  for (let i = 0; i < 20_000; i += 100) sink.feed(Buffer.from(Array.from({ length: 100 }, (_, j) => `line ${i + j}\n`).join('')))
  log.close()
  const onDisk = readdirSync(path).reduce((sum, name) => sum + statSync(join(path, name)).size, 0)
  assert.ok(onDisk < 1.4 * (1 << 16), `${onDisk} bytes`)
  const lines = await texts(path)
  assert.equal(lines[0], 'line 0')
  assert.equal(lines.at(-1), 'line 19999')
  const gap = lines.findIndex(line => /^\d+ bytes of output stood here/.test(line))
  assert.ok(gap > 0)
  for (const part of [lines.slice(0, gap), lines.slice(gap + 1)])
    for (const [i, line] of part.entries()) assert.equal(line, `line ${Number(part[0]!.slice(5)) + i}`)
  const last = await offsetOfLine(path, -3)
  const { bytes } = await readLogFile(path, { offset: last, limit: 1000, follow: false, signal: never, ended: over })
  assert.deepEqual(
    Buffer.from(bytes)
      .toString()
      .trimEnd()
      .split('\n')
      .map(line => line.slice(16)),
    ['line 19997', 'line 19998', 'line 19999'],
  )
  assert.equal((await texts(path)).length, lines.length)
})

test('the index finds lines from both ends', async () => {
  const path = folder()
  const log = openLog(path, usual)
  const sink = log.sink('o', () => '')
  for (let i = 0; i < 5000; i += 10) sink.feed(Buffer.from(Array.from({ length: 10 }, (_, j) => `${i + j}\n`).join('')))
  log.close()
  assert.ok(statSync(join(path, 'log.index')).size >= 4 * 16)
  const at = async (line: number) => {
    const { bytes } = await readLogFile(path, {
      offset: await offsetOfLine(path, line),
      limit: 60,
      follow: false,
      signal: never,
      ended: over,
    })
    return Buffer.from(bytes).toString().split('\n')[0]!.slice(16)
  }
  for (const line of [0, 1, 999, 1000, 1001, 4321, 4999]) assert.equal(await at(line), String(line))
  assert.equal(await at(-1), '4999')
  assert.equal(await at(-5000), '0')
  assert.equal(await at(-9999), '0')
  assert.equal(await at(9999), '', 'beyond the end there is nothing')
})

test('whoever takes over a log that was cut in the middle of a line begins a new one, and counts on', async () => {
  const path = folder()
  const first = openLog(path, usual)
  const sink = first.sink('o', () => '')
  for (let i = 0; i < 3000; i++) sink.feed(Buffer.from(`${i}\n`))
  first.close()
  truncateSync(join(path, 'log'), statSync(join(path, 'log')).size - 2)
  appendFileSync(join(path, 'log.index'), 'torn')
  const second = openLog(path, usual)
  const more = second.sink('o', () => '')
  for (let i = 3000; i < 6000; i++) more.feed(Buffer.from(`${i}\n`))
  second.close()
  const offset = await offsetOfLine(path, 5500)
  const { bytes } = await readLogFile(path, { offset, limit: 60, follow: false, signal: never, ended: over })
  assert.match(Buffer.from(bytes).toString(), /^\d{13} o 5500\n/)
  assert.equal((await texts(path).catch(() => [])).length, 6000)
})

test('a reader gets whole lines within its limit, and goes on where it was', async () => {
  const path = folder()
  writeFileSync(join(path, 'log'), Array.from({ length: 100 }, (_, i) => `1700000000000 o line ${i}\n`).join(''))
  const pieces: string[] = []
  for (let offset = 0; ; ) {
    const { bytes, next, end } = await readLogFile(path, { offset, limit: 100, follow: false, signal: never, ended: over })
    pieces.push(Buffer.from(bytes).toString())
    assert.ok(bytes.length <= 100 && next === offset + bytes.length)
    offset = next
    if (end) break
  }
  assert.ok(pieces.every(piece => piece.endsWith('\n')))
  assert.equal(pieces.join(''), readFileSync(join(path, 'log'), 'utf8'))
})

// ── on real processes ──

const engine = makeEngine()
after(engine.close)

test('who follows a log sees a line within 200 ms, and the end when it comes', async () => {
  const job = await engine.start(
    "node -e 'let n = 0; const t = setInterval(() => { console.log(Date.now()); if (++n === 20) clearInterval(t) }, 50)'",
  )
  const lags: number[] = []
  for (let offset = 0, end = false; !end; ) {
    const read = await engine.backend.readLog(job, 1, { offset, limit: 1 << 16, follow: true, signal: never })
    const now = Date.now()
    offset = read.next
    end = read.end
    for (const line of Buffer.from(read.bytes).toString().split('\n').slice(0, -1)) lags.push(now - Number(line.slice(16)))
  }
  assert.equal(lags.length, 20)
  const median = lags.sort((a, b) => a - b)[10]!
  assert.ok(median < 200, `the middle one of the lags is ${median} ms`)
})

test('a reader that leaves is not kept', async () => {
  const job = await engine.start('while [ ! -e go ]; do sleep 0.02; done')
  const leaving = new AbortController()
  const reading = engine.backend.readLog(job, 1, { offset: 0, limit: 100, follow: true, signal: leaving.signal })
  leaving.abort()
  assert.deepEqual(await reading, { bytes: new Uint8Array(), next: 0, end: false })
  writeFileSync(join(engine.folder(job), 'work', 'go'), '')
  await engine.ended(job)
})

test(`${long ? '1 GB' : '32 MB'} on one line and as much binary are survived in constant memory`, async () => {
  const bytes = (long ? 1000 : 32) * 1_000_000
  const small = makeEngine({ logLimit: 8 << 20 })
  const job = await small.start(
    `head -c ${bytes} /dev/zero | tr '\\0' x; head -c ${bytes} /dev/urandom >&2; echo; echo survived; while [ ! -e go ]; do sleep 0.05; done`,
  )
  const tail = () => {
    const [piece] = segmentsAmong(small.folder(job), readdirSync(small.folder(job))).slice(-1)
    return piece !== undefined && readFileSync(piece.path, 'utf8').endsWith(' o survived\n')
  }
  await until(tail, 'its last word', long ? 600 : 60)
  const peak = Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${shimOf(small, job)}/status`, 'utf8'))![1]) / 1024
  writeFileSync(join(small.folder(job), 'work', 'go'), '')
  assert.equal((await small.ended(job)).exitCode, 0)
  assert.ok(peak < 130, `the shim had ${peak.toFixed(0)} MB at most`)
})

test('a log policy decides the reason, ends retries or stops the job; a pattern that could hang is not used', async () => {
  const policy = (pattern: string, reason: 'user_error' | 'infra' | null, action: 'none' | 'cancel_retries' | 'stop') => ({
    pattern,
    reason,
    action,
  })
  const decided = await engine.run('echo "NCCL error 7"; exit 1', { logPolicies: [policy('NCCL error \\d', 'infra', 'none')] })
  assert.deepEqual([decided.reason, decided.mayRetry], ['infra', undefined])
  const final = await engine.run('echo bad data >&2; exit 1', { logPolicies: [policy('^bad', null, 'cancel_retries')] })
  assert.deepEqual([final.reason, final.mayRetry], ['user_error', false])
  const stopped = await engine.run('echo uncorrectable ECC; sleep 60', { logPolicies: [policy('uncorrectable ECC', 'infra', 'stop')] })
  assert.equal(stopped.reason, 'infra')
  assert.match(stopped.text, /The log matches the policy "uncorrectable ECC"/)
  const evil = `echo ${'a'.repeat(5000)}; echo end`
  const slow = await engine.run(evil, { logPolicies: [policy('(a+)+b', 'infra', 'stop'), policy('(?=a)b', 'infra', 'stop')] })
  assert.equal(slow.reason, null)
  assert.match(slow.text, /\(\?=a\)b" is not used/)
})

test('secrets reach the script by its environment only, and the log says ***', async () => {
  const job = await engine.start(
    `printf '%s' "$TOKEN_A" | cut -c 1-8; printf 'the-very'; sleep 0.1; printf -- '-secret-one and a rest\\n'; tr '\\0' ' ' </proc/$$/cmdline; echo; while [ ! -e go ]; do sleep 0.02; done`,
    { secretValues: { TOKEN_A: 'the-very-secret-one' } },
  )
  await engine.said(job, 'and a rest')
  const files = readdirSync(engine.folder(job))
  assert.equal(statSync(join(engine.folder(job), 'secrets.json')).mode & 0o777, 0o600)
  const others = files.filter(name => name !== 'secrets.json' && statSync(join(engine.folder(job), name)).isFile())
  for (const name of others) assert.ok(!readFileSync(join(engine.folder(job), name), 'utf8').includes('the-very-secret-one'), name)
  for (const pid of readdirSync('/proc').filter(name => /^\d+$/.test(name) && Number(name) !== process.pid))
    try {
      assert.ok(!readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('the-very-secret-one'), `argv of ${pid}`)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === undefined) throw error // it has ended
    }
  writeFileSync(join(engine.folder(job), 'work', 'go'), '')
  await engine.ended(job)
  const lines = await engine.log(job)
  assert.deepEqual(lines.slice(0, 2), ['o the-very', 'o *** and a rest'])
  assert.ok(!readdirSync(engine.folder(job)).includes('secrets.json'), 'forgotten when it has ended')
})
