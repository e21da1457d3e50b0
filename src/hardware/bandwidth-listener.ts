/** The thread that listens for `measureLoopback`. */
import { parentPort, workerData } from 'node:worker_threads'
import { listenForBandwidth } from './bandwidth.ts'

const { host, port, word } = await listenForBandwidth(workerData as string, { patience: 10_000 })
parentPort!.postMessage({ host, port, word })
