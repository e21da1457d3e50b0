/** PyTorch in a process of its own (torch-peer.py): one JSON line asked, one answered. */
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { python } from '../test/peers.ts'

export interface TorchAnswer {
  milliseconds?: number
  peakMegabytes?: number
  correct?: boolean[]
}

export function startTorch(threads: number) {
  const interpreter = python()
  if (!interpreter) throw new Error('PyTorch is not here. Install it with: npm run peers')
  const child = spawn(interpreter, [fileURLToPath(new URL('./torch-peer.py', import.meta.url)), String(threads)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const waiting: { resolve(answer: TorchAnswer): void; reject(error: Error): void }[] = []
  createInterface({ input: child.stdout }).on('line', line => waiting.shift()?.resolve(JSON.parse(line)))
  child.on('exit', code => {
    for (const { reject } of waiting.splice(0)) reject(new Error(`PyTorch ended with ${code}`))
  })
  return {
    ask: (request: object) =>
      new Promise<TorchAnswer>((resolve, reject) => {
        waiting.push({ resolve, reject })
        child.stdin.write(`${JSON.stringify(request)}\n`)
      }),
    end: () => child.stdin.end(),
  }
}
