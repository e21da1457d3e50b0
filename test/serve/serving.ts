/** A served model for tests: the tiny colours, in a folder that goes away with the test. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after } from 'node:test'
import sharp from 'sharp'
import { encodePng } from '../../src/images/encode.ts'
import { type RunningServer, type ServerOptions, startServer } from '../../src/serve/gateway.ts'
import { finishedArtefact, knownColours, plain } from '../models/tiny-model.ts'

const folder = mkdtempSync(join(tmpdir(), 'plinth-serve-'))
const started: RunningServer[] = []
after(async () => {
  await Promise.all(started.map(server => server.close()))
  rmSync(folder, { recursive: true })
})

export const file = (name: string, bytes: Uint8Array): string => {
  const path = join(folder, name)
  writeFileSync(path, bytes)
  return path
}
export const model = { name: 'colours', version: 2, path: file('colours.onnx', await finishedArtefact({ threshold: 0.6 })) }

/** The same with a distance: what is not mostly one colour is none of these. */
export const knowing = {
  name: 'colours',
  version: 3,
  path: file('knowing.onnx', await finishedArtefact({ threshold: 0, imageSize: 64, unknown: await knownColours() })),
}

export async function serve(options: Partial<ServerOptions> = {}): Promise<RunningServer> {
  const server = await startServer({ model, port: 0, threads: 1, ...options })
  started.push(server)
  return server
}

/** The left half is red, the right half black. */
export const halfRed = plain(64, 64, [0, 0, 0])
for (let y = 0; y < 64; y++) for (let x = 0; x < 32; x++) halfRed.data.set([250, 0, 0], (y * 64 + x) * 3)
export const blue = plain(60, 40, [10, 10, 240])
export const bluePng = await encodePng(blue)
export const blueJpeg = await sharp(blue.data, { raw: { width: 60, height: 40, channels: 3 } })
  .jpeg({ quality: 95 })
  .toBuffer()

export interface Answered {
  status: number
  headers: Headers
  // biome-ignore lint/suspicious/noExplicitAny: JSON from the server, looked into by the tests
  body: any
}
export async function post(
  server: RunningServer,
  body: Uint8Array | FormData | string,
  headers: Record<string, string> = {},
  path = '/predict',
): Promise<Answered> {
  const sent = body instanceof Uint8Array ? new Uint8Array(body) : body
  const response = await fetch(`${server.url}${path}`, { method: 'POST', body: sent, headers })
  return { status: response.status, headers: response.headers, body: await response.json() }
}
export function form(bytes: Uint8Array, name = 'image'): FormData {
  const data = new FormData()
  data.append(name, new Blob([new Uint8Array(bytes)]), 'a.png')
  return data
}

/** What comes back for these bytes on a socket of their own, until the server closes it or `milliseconds` of silence have passed. */
export function raw(server: RunningServer, bytes: string | Uint8Array, { milliseconds = 1000, end = false } = {}): Promise<string> {
  return new Promise(resolve => {
    const socket = connect(server.port, '127.0.0.1')
    let text = ''
    const done = () => {
      socket.destroy()
      resolve(text)
    }
    socket.setTimeout(milliseconds, done)
    socket.on('data', part => {
      text += part.toString('latin1')
    })
    socket.on('close', done)
    socket.on('error', done)
    socket.write(bytes)
    if (end) socket.end()
  })
}
