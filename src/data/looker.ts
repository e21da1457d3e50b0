/** One thread of lookers.ts. */
import { parentPort } from 'node:worker_threads'
import { Failure } from '../failure.ts'
import { lookAt } from './facts.ts'
import type { Look, Looked } from './lookers.ts'

const port = parentPort!
port.on('message', (look: Look | null) => {
  if (look === null) return port.close() // ends the thread when all that it has begun is done
  const { number, bytes, content } = look
  lookAt(bytes, content).then(
    seen => port.postMessage({ number, seen } satisfies Looked, [seen.grey.buffer as ArrayBuffer]),
    (error: unknown) => {
      if (error instanceof Failure) port.postMessage({ number, failure: { code: error.code, details: error.details } } satisfies Looked)
      else port.postMessage({ number, problem: error instanceof Error ? error.message : String(error) } satisfies Looked)
    },
  )
})
