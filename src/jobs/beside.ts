/**
 * What goes along with an attempt on this machine and neither starts nor ends it: the record of what it was made of, and the look at whether it
 * computes on the accelerators that it was given.
 */
import { createReadStream } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { afterRun } from '../hardware/advisor/after-run.ts'
import { type DeviceWatch, watchDeviceUse } from '../hardware/device-use.ts'
import type { Device } from '../hardware/inventory/device.ts'
import type { Allocation } from './attempt.ts'
import { type Capture, capture, captureFiles, captureTags } from './capture.ts'
import type { JobSpec } from './spec.ts'
import type { JobTracking } from './tracking.ts'

export interface Machine {
  /** Where the files of an attempt are; null where they are elsewhere. */
  folderOf(engine: string, job: number, attempt: number): string | null
  /** What the inventory has, to look at. */
  devices(): Promise<readonly Device[]>
  processes(engine: string, job: number, attempt: number): Promise<readonly number[]>
  about: { host: string; platform: string; processor: string }
  /** Version of Plinth. */
  version: string
  /** The home, where forecasts and what runs took are kept. */
  home: string
}

export interface Recorded {
  engine: string
  job: number
  attempt: number
  project: string
  run: string
  allocation: Allocation
}

/** Once for each attempt: taken when it starts, or later where whoever should have was killed. Its tags stand at the run. */
export async function recordAttempt(
  machine: Machine,
  tracking: JobTracking,
  { engine, job, attempt, project, run, allocation }: Recorded,
  spec: JobSpec,
  secrets: Readonly<Record<string, string>>,
): Promise<void> {
  const folder = machine.folderOf(engine, job, attempt)
  if (folder === null) return
  const before = await readFile(join(folder, 'capture', 'job.json'), 'utf8').catch(() => null)
  const record: Capture =
    before === null
      ? await capture({ attempt: { spec, allocation }, folder, secrets, machine: machine.about, plinth: machine.version })
      : JSON.parse(before)
  await tracking.tagRun(project, run, captureTags(record))
}

/** Its files among those of the run. */
export async function keepRecord(machine: Machine, tracking: JobTracking, { engine, job, attempt, project, run }: Recorded): Promise<void> {
  const folder = machine.folderOf(engine, job, attempt)
  if (folder === null) return
  for (const { path, name } of await captureFiles(folder)) await tracking.keepFile(project, run, name, createReadStream(path))
}

const Phase = z.object({ phase: z.string(), since: z.number() })
const Ended = z.object({ reason: z.string().nullable(), ended: z.number() })
const Peak = z.object({ memory: z.number() })

/** What it took, beside what `plinth advise` had said of its script: at its run, and for the forecasts to come. Only of what ended well. */
export async function compareWithForecast(machine: Machine, tracking: JobTracking, recorded: Recorded, spec: JobSpec): Promise<void> {
  const folder = machine.folderOf(recorded.engine, recorded.job, recorded.attempt)
  if (folder === null) return
  const read = async <T>(name: string, shape: z.ZodType<T>): Promise<T | null> => {
    const text = await readFile(join(folder, name), 'utf8').catch(() => null)
    return text === null ? null : shape.parse(JSON.parse(text))
  }
  const [phase, exit, peak] = await Promise.all([read('phase.json', Phase), read('exit.json', Ended), read('peak.json', Peak)])
  if (phase?.phase !== 'run' || exit === null || exit.reason !== null) return
  const device = recorded.allocation.nodes.flatMap(({ devices }) => devices)[0]?.name ?? null
  const { says } =
    (await afterRun(machine.home, {
      ...{ run: spec.run, workdir: spec.workdir, device },
      memory: device === null ? (peak?.memory ?? null) : null, // what was seen is the machine's, not the accelerator's
      seconds: (exit.ended - phase.since) / 1000,
    })) ?? {}
  if (says) await tracking.tagRun(recorded.project, recorded.run, { 'plinth.forecast': says })
}

/**
 * Looks at the start and every minute. `onDoubt`: it does not compute there, or that cannot be seen; null: it does. Null where there is
 * nothing to look at.
 */
export async function watchDevices(
  machine: Machine,
  { engine, job, attempt, allocation }: Pick<Recorded, 'engine' | 'job' | 'attempt' | 'allocation'>,
  { onDoubt, onError }: { onDoubt(doubt: { text: string; notUsed: boolean } | null): void; onError(error: unknown): void },
): Promise<DeviceWatch | null> {
  const wanted = new Set(allocation.nodes.flatMap(({ devices }) => devices.map(({ id }) => id)))
  if (wanted.size === 0 || machine.folderOf(engine, job, attempt) === null) return null
  const devices = (await machine.devices()).filter(({ id }) => wanted.has(id))
  if (devices.length === 0) return null
  return watchDeviceUse({
    devices,
    pids: () => machine.processes(engine, job, attempt),
    onError,
    onVerdict: ({ verdict, reason }) => {
      if (verdict !== 'waiting') onDoubt(verdict === 'used' ? null : { text: reason, notUsed: verdict === 'not_used' })
    },
  })
}
