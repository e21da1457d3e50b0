/**
 * Ports of this machine for the processes of one job to meet at.
 *
 * Only node: modules are imported: the shim uses it.
 */
import { createServer } from 'node:net'
import type { Ports } from './variables.ts'

/** Below the ports that Linux gives to whoever asks for any (32768 and up). */
const first = 20_000
const last = 32_000

/** Each job begins at a place of its own, and takes the free ports from there on: two that start at once do not take the same. */
export async function findPorts(job: number, processes: number): Promise<Ports> {
  const found: number[] = []
  for (let i = 0; found.length < processes + 2 && i < last - first; i++) {
    const port = first + ((job * 20 + i) % (last - first))
    if (await isFree(port)) found.push(port)
  }
  const [torch, jax, ...tensorflow] = found as [number, number, ...number[]]
  return { torch, jax, tensorflow }
}

const isFree = (port: number): Promise<boolean> =>
  new Promise(resolve => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })
