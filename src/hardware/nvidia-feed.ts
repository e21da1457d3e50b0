/** nvidia-smi as one child that prints a row a card every few seconds; started anew, ever later, when it ends or falls silent. */
import { type ChildProcess, spawn } from 'node:child_process'
import type { Socket } from 'node:net'
import { numberOf } from './inventory/device.ts'
import type { DeviceReading } from './telemetry.ts'

const fields = ['uuid', 'utilization.gpu', 'memory.used', 'temperature.gpu', 'power.draw', 'ecc.errors.uncorrected.volatile.total']

export interface NvidiaFeed {
  /** One reading a card, none where the tool has been silent for three rounds. */
  latest(): DeviceReading[]
  close(): void
}

/** A row of those fields, null where it is something else; fields may be [N/A]. */
export function parseReading(line: string): DeviceReading | null {
  const [id, utilisation, memory, celsius, watts, errors, ...more] = line.split(',').map(word => word.trim())
  if (!id || !/^GPU-[\w-]+$/.test(id) || errors === undefined || more.length > 0) return null
  const percent = numberOf(utilisation)
  const mebibytes = numberOf(memory)
  return {
    id,
    utilisation: percent === null ? null : Math.min(1, percent / 100),
    used: mebibytes === null ? null : mebibytes * 2 ** 20,
    celsius: numberOf(celsius),
    watts: numberOf(watts),
    errors: numberOf(errors),
  }
}

/** `every`: milliseconds between rows. `longest`: milliseconds between two starts at most. */
export function followNvidia({
  every,
  onError,
  command = 'nvidia-smi',
  longest = 300_000,
}: {
  every: number
  onError(error: unknown): void
  command?: string
  longest?: number
}): NvidiaFeed {
  const readings = new Map<string, { reading: DeviceReading; at: number }>()
  let child: ChildProcess | null = null
  let again: NodeJS.Timeout | null = null
  let pause = every
  let heard = performance.now()
  let closed = false

  const start = () => {
    again = null
    heard = performance.now()
    const seconds = Math.max(1, Math.round(every / 1000))
    child = spawn(command, [`--query-gpu=${fields.join(',')}`, '--format=csv,noheader,nounits', `--loop=${seconds}`], {
      stdio: ['ignore', 'pipe', 'ignore'],
      env: { ...process.env, LC_ALL: 'C' },
    })
    let rest = ''
    child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      const lines = (rest + text).split('\n')
      rest = lines.pop()!.slice(-10_000)
      for (const reading of lines.map(parseReading)) {
        if (!reading) continue
        heard = performance.now()
        pause = every
        readings.set(reading.id, { reading, at: heard })
      }
    })
    child.on('error', onError)
    child.once('close', later)
    child.unref()
    ;(child.stdout as Socket).unref()
  }
  const later = () => {
    if (closed || again) return
    child = null
    again = setTimeout(start, pause)
    again.unref()
    pause = Math.min(longest, pause * 2)
  }
  const silent = setInterval(() => {
    if (child && performance.now() - heard > 3 * every + 10_000) {
      // it may never end (a driver that hangs in the kernel); the next start does not wait for it
      child.removeListener('close', later)
      child.stdout?.destroy()
      child.kill('SIGKILL')
      later()
    }
  }, every)
  silent.unref()
  start()
  return {
    latest: () => [...readings.values()].filter(({ at }) => performance.now() - at < 3 * every + 1000).map(({ reading }) => reading),
    close: () => {
      closed = true
      clearInterval(silent)
      if (again) clearTimeout(again)
      child?.kill('SIGKILL')
    },
  }
}
