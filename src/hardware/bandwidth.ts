/**
 * What really gets through between two addresses: one side listens for one caller that knows its word, the other sends for a second. A network
 * card says what it was built for; a wrong cable, a shared uplink or a firewall that looks into everything show only here.
 */
import { randomBytes, timingSafeEqual } from 'node:crypto'
import { connect, createServer, type Socket } from 'node:net'
import { Failure } from '../failure.ts'

export interface Bandwidth {
  from: string
  to: string
  /** Bytes that arrived, and seconds they took. */
  bytes: number
  seconds: number
  /** Bits a second. */
  rate: number
}

export interface Listener {
  host: string
  port: number
  /** The word that a caller has to say. */
  word: string
  /** What arrived from the one caller; rejects with bandwidth_refused where none came in time. */
  measured: Promise<Bandwidth>
  close(): void
}

/** Milliseconds that a listener waits for its caller, and that a sender sends. */
const waiting = 120_000
const sending = 1000
const length = 32

/** Listens on one address for one measurement; whoever does not say the word is dropped. throws bandwidth_refused */
export async function listenForBandwidth(host: string, { port = 0, patience = waiting } = {}): Promise<Listener> {
  const word = randomBytes(length / 2).toString('hex')
  const { promise: measured, resolve, reject } = Promise.withResolvers<Bandwidth>()
  measured.catch(() => {}) // whoever closes without waiting has asked for it
  const sockets = new Set<Socket>()
  const server = createServer(socket => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket)).on('error', () => socket.destroy())
    socket.setTimeout(10_000, () => socket.destroy())
    receive(socket, word, result => {
      resolve(result)
      close()
    })
  })
  const close = () => {
    clearTimeout(late)
    server.close()
    for (const socket of sockets) socket.destroy()
    reject(new Failure('bandwidth_refused', { address: host, problem: 'nobody called in time' }))
  }
  const late = setTimeout(close, patience)
  await new Promise<void>((ready, failed) => {
    server.once('error', error => {
      clearTimeout(late)
      failed(
        new Failure(
          'bandwidth_refused',
          { address: host, problem: (error as NodeJS.ErrnoException).code ?? error.message },
          { cause: error },
        ),
      )
    })
    server.listen(port, host, ready)
  })
  const bound = server.address()
  return { host, port: typeof bound === 'object' && bound ? bound.port : port, word, measured, close }
}

/** Counts from the first byte behind the word to the end, and tells the sender. */
function receive(socket: Socket, word: string, done: (result: Bandwidth) => void): void {
  let said = Buffer.alloc(0)
  let bytes = 0
  let first = 0
  let last = 0
  socket.on('data', (chunk: Buffer) => {
    if (said.length < length) {
      said = Buffer.concat([said, chunk])
      if (said.length < length) return
      if (!timingSafeEqual(said.subarray(0, length), Buffer.from(word))) return void socket.destroy()
      chunk = said.subarray(length)
      said = said.subarray(0, length)
      first = performance.now()
    }
    bytes += chunk.length
    last = performance.now()
  })
  socket.on('end', () => {
    if (said.length < length || bytes === 0) return void socket.destroy()
    const seconds = Math.max(1e-6, (last - first) / 1000)
    socket.end(JSON.stringify({ bytes, seconds }))
    done({ from: socket.remoteAddress ?? '', to: socket.localAddress ?? '', bytes, seconds, rate: (8 * bytes) / seconds })
  })
}

/** Sends to a listener from an address of this machine (null: the one that the system takes), and answers what arrived there. throws bandwidth_refused */
export function measureBandwidth(
  { host, port, word }: Pick<Listener, 'host' | 'port' | 'word'>,
  { from = null, milliseconds = sending }: { from?: string | null; milliseconds?: number } = {},
): Promise<Bandwidth> {
  return new Promise((resolve, reject) => {
    const refuse = (problem: string, cause?: unknown) =>
      reject(new Failure('bandwidth_refused', { address: `${host}:${port}`, problem }, { cause }))
    const socket = connect({ host, port, allowHalfOpen: true, ...(from !== null && { localAddress: from }) })
    const chunk = Buffer.alloc(256 * 1024)
    let answer = ''
    let mine = ''
    socket.setTimeout(10_000, () => socket.destroy(new Error('no answer')))
    socket.on('connect', () => {
      mine = socket.localAddress ?? ''
      const end = performance.now() + milliseconds
      socket.write(word)
      const send = () => {
        while (performance.now() < end) if (!socket.write(chunk)) return void socket.once('drain', send)
        socket.end()
      }
      send()
    })
    socket.setEncoding('utf8').on('data', (text: string) => {
      answer += text.slice(0, 1000 - answer.length)
    })
    socket.on('error', error => refuse((error as NodeJS.ErrnoException).code ?? error.message, error))
    socket.on('close', () => {
      const { bytes, seconds } = parsed(answer)
      if (!(bytes > 0) || !(seconds > 0)) return refuse('the other side hung up: is the word right?')
      resolve({ from: mine, to: host, bytes, seconds, rate: (8 * bytes) / seconds })
    })
  })
}

function parsed(text: string): { bytes: number; seconds: number } {
  try {
    const { bytes, seconds } = JSON.parse(text) as { bytes?: unknown; seconds?: unknown }
    return { bytes: Number(bytes), seconds: Number(seconds) }
  } catch {
    return { bytes: 0, seconds: 0 }
  }
}
