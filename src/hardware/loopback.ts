/** What this machine sends itself: above it no network of it can be, and a slow one says that the processor or a filter is in the way. */
import { extname } from 'node:path'
import { Worker } from 'node:worker_threads'
import { type Bandwidth, type Listener, measureBandwidth } from './bandwidth.ts'

/** Between two addresses of this machine; the listener has a thread of its own, as on another machine it would have cores of its own. */
export async function measureLoopback({ from = '127.0.0.1', to = '127.0.0.1', milliseconds = 300 } = {}): Promise<Bandwidth> {
  const worker = new Worker(new URL(`./bandwidth-listener${extname(import.meta.url)}`, import.meta.url), { workerData: to })
  try {
    const listener = await new Promise<Pick<Listener, 'host' | 'port' | 'word'>>((resolve, reject) => {
      worker.once('message', resolve).once('error', reject)
    })
    return await measureBandwidth(listener, { from, milliseconds })
  } finally {
    await worker.terminate()
  }
}
