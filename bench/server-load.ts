/**
 * Asks a server over keep-alive connections, one request at a time on each, as fast as it answers. A process of its own, so that what it
 * does is not in the server's time; raw sockets, because a client library costs more than the server that is measured.
 *
 *     node bench/server-load.ts '{"port":6420,"connections":8,"seconds":3,"kind":"log-metric","runs":["…"]}'
 *
 * Takes a Load, there or on stdin, and prints a Measured.
 */
import { readFileSync } from 'node:fs'
import { connect } from 'node:net'

export interface Load {
  port: number
  token?: string
  connections: number
  /** Ends after so many seconds, or so many requests. */
  seconds: number
  requests?: number
  kind: keyof typeof kinds
  /** Connection i speaks of run i. */
  runs: string[]
  /** Where its points begin, so that no two loads send the same. */
  from?: number
  /** Of `any`, one after the other: GET, or POST where there is a body. */
  questions?: Question[]
}
export interface Question {
  path: string
  body?: string
}
export interface Measured {
  requests: number
  seconds: number
  perSecond: number
  /** Milliseconds. */
  p50: number
  p95: number
  /** Of the answers. */
  bytes: number
  /** Answers other than 200, and the first of them. */
  refused: number
  firstRefused: string | null
}

/** What is asked by MLflow's clients; `i` counts over all connections. */
const kinds = {
  'log-metric': ({ runs }: Load, connection: number, i: number) => ({
    path: '/api/2.0/mlflow/runs/log-metric',
    body: `{"run_id":"${runs[connection % runs.length]}","key":"loss","value":${1 / (i + 1)},"timestamp":${1_700_000_000_000 + i},"step":${i}}`,
  }),
  /** 1,000 metrics, ten names of a hundred steps each, as the Python client writes them. */
  'log-batch': ({ runs }: Load, connection: number, i: number) => {
    const run = runs[connection % runs.length]!
    const metrics: string[] = []
    for (let step = i * 100; step < i * 100 + 100; step++)
      for (let key = 0; key < 10; key++)
        metrics.push(
          `{"key":"metric_${key}","value":${(step * 7 + key) / 13},"timestamp":${1_700_000_000_000 + step * 20},"step":${step},"run_id":"${run}"}`,
        )
    return { path: '/api/2.0/mlflow/runs/log-batch', body: `{"run_id":"${run}","metrics":[${metrics.join(',')}],"params":[],"tags":[]}` }
  },
  any: ({ questions }: Load, _connection: number, i: number) => {
    const { path, body = null } = questions![i % questions!.length]!
    return { path, body }
  },
} satisfies Record<string, (load: Load, connection: number, i: number) => { path: string; body: string | null }>

/** Seconds that what was asked before the end may take longer. */
const patience = 12

export async function run(load: Load): Promise<Measured> {
  const { port, token, connections, seconds, requests = Number.POSITIVE_INFINITY, kind, from = 0 } = load
  const times: number[] = []
  let asked = 0
  let bytes = 0
  let refused = 0
  let firstRefused: string | null = null
  const begun = performance.now()
  const end = begun + seconds * 1000
  const closes: (() => void)[] = []
  const late = setTimeout(
    () => {
      for (const close of closes) close()
    },
    (seconds + patience) * 1000,
  )
  await Promise.all(
    Array.from({ length: connections }, async (_, connection) => {
      const { ask, close } = await openConnection(port)
      closes.push(close)
      while (asked < requests && performance.now() < end) {
        const { path, body } = kinds[kind](load, connection, from + asked++)
        const head = `${body === null ? 'GET' : 'POST'} ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n${token ? `Authorization: Bearer ${token}\r\n` : ''}`
        const at = performance.now()
        const answer = await ask(
          body === null
            ? `${head}\r\n`
            : `${head}Content-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
        ).catch((error: Error) => ({ status: 0, bytes: 0, beginning: error.message }))
        times.push(performance.now() - at)
        bytes += answer.bytes
        if (answer.status !== 200) {
          refused++
          firstRefused ??= answer.beginning
          if (answer.status === 0) break
        }
      }
      close()
    }),
  )
  clearTimeout(late)
  const took = (performance.now() - begun) / 1000
  times.sort((a, b) => a - b)
  const at = (share: number) => times[Math.min(times.length - 1, Math.floor(times.length * share))] ?? 0
  return {
    requests: times.length,
    seconds: took,
    perSecond: (times.length - refused) / took,
    p50: at(0.5),
    p95: at(0.95),
    bytes,
    refused,
    firstRefused,
  }
}

interface Answer {
  status: number
  bytes: number
  beginning: string
}

/** As much of HTTP/1.1 as these answers need: Content-Length, or chunks whose end is looked for and nothing else. */
function openConnection(port: number): Promise<{ ask(text: string): Promise<Answer>; close(): void }> {
  return new Promise((opened, failed) => {
    const socket = connect(port, '127.0.0.1')
    socket.setNoDelay(true)
    let answered: ((answer: Answer) => void) | null = null
    let lost: ((error: Error) => void) | null = null
    let head = ''
    let bytes = 0
    /** Bytes of the body still to come; null while the head is read, -1 for chunks. */
    let left: number | null = null
    let tail = ''
    socket.on('data', part => {
      bytes += part.length
      if (left === null) {
        head += part.toString('latin1')
        const end = head.indexOf('\r\n\r\n')
        if (end < 0) return
        const length = /\r\ncontent-length: *(\d+)/i.exec(head.slice(0, end + 2))?.[1]
        left = length === undefined ? -1 : Number(length) - (head.length - end - 4)
        tail = head.slice(-5)
      } else if (left >= 0) left -= part.length
      else tail = (tail + part.toString('latin1', Math.max(0, part.length - 5))).slice(-5)
      if (left === 0 || (left === -1 && tail === '0\r\n\r\n')) {
        const answer = { status: Number(head.slice(9, 12)), bytes, beginning: head.slice(0, 600) }
        head = ''
        bytes = 0
        left = null
        answered!(answer)
      }
    })
    socket.on('error', error => (lost ?? failed)(error))
    socket.on('close', () => lost?.(new Error('the server closed the connection')))
    socket.once('connect', () =>
      opened({
        ask: text =>
          new Promise((resolve, reject) => {
            answered = resolve
            lost = reject
            socket.write(text)
          }),
        close: () => socket.destroy(new Error('no answer in time')),
      }),
    )
  })
}

if (import.meta.main) console.log(JSON.stringify(await run(JSON.parse(process.argv[2] ?? readFileSync(0, 'utf8')) as Load)))
