/**
 * No silent CPU: whether a job that asked for accelerators computes on them. A pure verdict over samples, and what takes the samples. Looked at
 * when the job starts and every minute.
 *
 *     const watch = watchDeviceUse({ devices, pids: () => processesOfTheJob(), onVerdict: use => … })
 *     … watch.stop()
 */
import type { Device, Holder } from './inventory/device.ts'
import { openedBy, readLoad } from './load.ts'
import { type System, thisSystem } from './system.ts'

/** One device at one time, as far as it can be told. */
export interface DeviceSample {
  id: string
  /** 0…1; null: not told. */
  utilisation: number | null
  /** Processes of the job on it; null: it cannot be seen who uses it. */
  ours: Holder[] | null
  /** How that was seen: the vendor's list of processes, or that they have its device file open. */
  seen: 'listed' | 'opened' | 'unseen'
}
export interface UseSample {
  /** Milliseconds of a clock that never goes back. */
  time: number
  devices: DeviceSample[]
}

export interface DeviceUse {
  /**
   * `used`: a process of the job computes there. `idle`: it holds the device and nothing has run on it for a while. `not_used`: no process of
   * the job is on any of its devices. `waiting`: too early to say. `unknown`: it cannot be told on this machine.
   */
  verdict: 'used' | 'idle' | 'not_used' | 'waiting' | 'unknown'
  /** In words for the run's page and the command line. */
  reason: string
  devices: { id: string; used: boolean | null; utilisation: number | null; memory: number | null }[]
}

/** Milliseconds: frameworks take their time to load before they open a device; an epoch may read data for minutes. */
export const patience = { start: 60_000, idle: 600_000 } as const

/** `started`: when the job's command was started, on the clock of the samples. `samples`: in order, at least the latest. */
export function judgeDeviceUse({ samples, started }: { samples: readonly UseSample[]; started: number }): DeviceUse {
  const last = samples.at(-1)
  if (!last || last.devices.length === 0) return { verdict: 'unknown', reason: 'No device was looked at.', devices: [] }
  const devices = last.devices.map(({ id, ours, utilisation }) => ({
    id,
    used: ours === null ? null : ours.length > 0,
    utilisation,
    memory: ours?.reduce<number | null>((sum, { memory }) => (memory === null ? sum : (sum ?? 0) + memory), null) ?? null,
  }))
  const said = (verdict: DeviceUse['verdict'], reason: string): DeviceUse => ({ verdict, reason, devices })
  const on = devices.filter(({ used }) => used)
  const unseen = devices.filter(({ used }) => used === null)
  if (on.length === 0 && unseen.length > 0)
    return said(
      'unknown',
      `Who uses ${names(unseen)} cannot be seen on this machine, so a job that computes on the processor would not be noticed.`,
    )
  if (on.length === 0) {
    const ever = samples.some(sample => sample.devices.some(({ ours }) => ours !== null && ours.length > 0))
    if (last.time - started < patience.start) return said('waiting', 'Its processes have not opened a device yet.')
    return said(
      'not_used',
      ever
        ? `No process of the job is on ${names(devices)} any more.`
        : `No process of the job has opened ${names(devices)}: it computes on the processor. Often the framework was installed without support for the device.`,
    )
  }
  const idleSince = idleFor(
    samples,
    on.map(({ id }) => id),
  )
  if (idleSince !== null && last.time - idleSince >= patience.idle)
    return said('idle', `The job holds ${names(on)}, and nothing has run there for ${minutes(last.time - idleSince)}.`)
  const free = devices.length - on.length
  return said(
    'used',
    free > 0
      ? `${on.length} of ${devices.length} devices are used; no process is on ${names(devices.filter(({ used }) => !used))}.`
      : `It computes on ${names(on)}.`,
  )
}

/** Since when utilisation was told as nothing on all of `ids`, without a gap; null where it was not. */
function idleFor(samples: readonly UseSample[], ids: readonly string[]): number | null {
  let since: number | null = null
  for (const sample of samples.toReversed()) {
    const mine = sample.devices.filter(({ id }) => ids.includes(id))
    if (mine.length === 0 || mine.some(({ utilisation, ours }) => utilisation === null || utilisation > 0 || !ours?.length)) break
    since = sample.time
  }
  return since
}

const names = (devices: readonly { id: string }[]) => devices.map(({ id }) => id).join(', ')
const minutes = (milliseconds: number) => `${Math.round(milliseconds / 60_000)} minutes`

/** What the devices of a job do now. `pids`: all its processes. */
export async function sampleDeviceUse(
  devices: readonly Device[],
  pids: readonly number[],
  { system = thisSystem, now = () => performance.now() }: { system?: System; now?: () => number } = {},
): Promise<UseSample> {
  const load = await readLoad(system, devices)
  return {
    time: now(),
    devices: await Promise.all(
      devices.map(async (device): Promise<DeviceSample> => {
        const { utilisation = null, holders = null } = load.get(device.id) ?? {}
        const listed = holders?.filter(({ pid }) => pids.includes(pid)) ?? null
        if (listed && listed.length > 0) return { id: device.id, utilisation, ours: listed, seen: device.fake ? 'opened' : 'listed' }
        if (device.fake) return { id: device.id, utilisation, ours: listed, seen: listed ? 'opened' : 'unseen' }
        // in a container the vendor's list has other numbers, or none; what a process has open shows it all the same
        const opened = await opener(system, device, pids)
        return { id: device.id, utilisation, ours: opened ?? listed, seen: opened ? 'opened' : listed ? 'listed' : 'unseen' }
      }),
    ),
  }
}

/**
 * Processes that have opened it to compute. /dev/nvidia<n> alone is opened by whoever looks at a card (nvidia-smi); CUDA opens nvidia-uvm too.
 * Null: there is no file that tells.
 */
async function opener(system: System, { nodes, vendor }: Device, pids: readonly number[]): Promise<Holder[] | null> {
  const own = nodes.filter(node => !/^\/dev\/(nvidiactl|nvidia-uvm|kfd)$/.test(node))
  const common = vendor === 'nvidia' ? '/dev/nvidia-uvm' : vendor === 'amd' ? '/dev/kfd' : null
  const first = await openedBy(system, own, pids)
  if (first === null || common === null) return first
  const second = await openedBy(system, [common], pids)
  return first.filter(({ pid }) => second?.some(each => each.pid === pid))
}

/** Numbers of these processes and of everything they started, of /proc. */
export async function withDescendants(pids: readonly number[], system: System = thisSystem): Promise<number[]> {
  const children = new Map<number, number[]>()
  for (const name of await system.list('/proc')) {
    if (!/^\d+$/.test(name)) continue
    // the name in brackets may hold anything; behind the last one come state and parent
    const parent = Number(
      system
        .read(`/proc/${name}/stat`)
        ?.replace(/^.*\)\s+\S+\s+/s, '')
        .split(' ')[0],
    )
    if (parent > 0) children.set(parent, [...(children.get(parent) ?? []), Number(name)])
  }
  const found = new Set(pids)
  for (const pid of found) for (const child of children.get(pid) ?? []) found.add(child)
  return [...found]
}

export interface DeviceWatch {
  /** The latest verdict, null before the first. */
  latest(): DeviceUse | null
  /** Looks now, beside the clock. */
  look(): Promise<DeviceUse>
  stop(): void
}

/** Looks now, after `first` and then every `every` milliseconds; keeps an hour of samples. `onVerdict` is told when the verdict changes. */
export function watchDeviceUse({
  devices,
  pids,
  onVerdict,
  onError = () => {},
  every = 60_000,
  first = 10_000,
  system = thisSystem,
}: {
  devices: readonly Device[]
  pids(): readonly number[] | Promise<readonly number[]>
  onVerdict(use: DeviceUse): void
  onError?(error: unknown): void
  every?: number
  first?: number
  system?: System
}): DeviceWatch {
  const started = performance.now()
  const samples: UseSample[] = []
  let latest: DeviceUse | null = null
  let stopped = false
  const look = async () => {
    samples.push(await sampleDeviceUse(devices, await pids(), { system }))
    if (samples.length > 60) samples.shift()
    const use = judgeDeviceUse({ samples, started })
    const changed = use.verdict !== latest?.verdict
    latest = use
    if (changed && !stopped) onVerdict(use)
    return use
  }
  const tick = () => {
    look().catch(onError)
  }
  tick()
  const early = setTimeout(tick, first)
  const timer = setInterval(tick, every)
  early.unref()
  timer.unref()
  return {
    latest: () => latest,
    look,
    stop: () => {
      stopped = true
      clearTimeout(early)
      clearInterval(timer)
    },
  }
}
