/** One thread of lookers.ts. */
import { parentPort } from 'node:worker_threads'
import { Failure } from '../failure.ts'
import { lookAt } from './facts.ts'
import type { Look, Looked } from './lookers.ts'

const port = parentPort!
const under = new Set<Promise<void>>()

port.on('message', (look: Look | null) => {
  if (look === null) return void Promise.all(under).then(() => port.close()) // which ends the thread
  const work: Promise<void> = answer(look).finally(() => under.delete(work))
  under.add(work)
})

async function answer({ number, bytes, content }: Look): Promise<void> {
  try {
    const seen = await lookAt(bytes, content)
    port.postMessage({ number, seen } satisfies Looked, [seen.grey.buffer as ArrayBuffer])
  } catch (error) {
    if (error instanceof Failure) port.postMessage({ number, failure: { code: error.code, details: error.details } } satisfies Looked)
    else port.postMessage({ number, problem: error instanceof Error ? error.message : String(error) } satisfies Looked)
  }
}
