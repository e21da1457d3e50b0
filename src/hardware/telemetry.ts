/**
 * What this machine does, sampled every five seconds: processor, memory, pressure, disks, network, accelerators. As plain gauges for whoever
 * answers Prometheus. A sample reads a few files of /proc (under a millisecond); cards of NVIDIA are read by one child that goes on running,
 * since starting nvidia-smi takes up to seconds.
 */
import type { Device } from './inventory/device.ts'
import { kilobytes } from './inventory/processor.ts'
import { memoryLimit } from './limits.ts'
import { followNvidia, type NvidiaFeed } from './nvidia-feed.ts'
import { type System, thisSystem } from './system.ts'

/** The shape of monitoring/metrics.ts. */
export interface Gauge {
  name: string
  help: string
  kind: 'gauge' | 'counter'
  values: readonly { labels?: Readonly<Record<string, string>>; value: number }[]
}

/** Of an accelerator; null: not told. */
export interface DeviceReading {
  id: string
  /** 0…1 */
  utilisation: number | null
  /** Bytes. */
  used: number | null
  celsius: number | null
  watts: number | null
  errors: number | null
}

export interface Sample {
  /** Milliseconds since 1970. */
  time: number
  /** Seconds of all cores since the machine started, by what they did; null: not told. */
  processor: { user: number; system: number; idle: number; iowait: number; steal: number } | null
  /** Bytes. */
  memory: { total: number; available: number; limit: number | null } | null
  /** Seconds that somebody (some) or everybody (full) waited for it. */
  pressure: { resource: string; kind: string; seconds: number }[]
  disks: { disk: string; read: number; written: number }[]
  network: { name: string; received: number; sent: number }[]
  devices: DeviceReading[]
}

/** Ticks of /proc/stat a second: USER_HZ, which is 100 for programs on every Linux. */
const ticks = 100

/** From the files of /proc, at one time. `devices`: those that /sys has something to say of. */
export async function takeSample(system: System, devices: readonly Device[] = [], feed: NvidiaFeed | null = null): Promise<Sample> {
  const meminfo = system.read('/proc/meminfo')
  const total = kilobytes(meminfo, 'MemTotal')
  return {
    time: Date.now(),
    processor: processorTimes(system.read('/proc/stat')),
    memory: total === null ? null : { total, available: kilobytes(meminfo, 'MemAvailable') ?? 0, limit: memoryLimit(system.read) },
    pressure: ['cpu', 'memory', 'io'].flatMap(resource => parsePressure(resource, system.read(`/proc/pressure/${resource}`))),
    disks: parseDisks(system.read('/proc/diskstats')),
    network: parseNetwork(system.read('/proc/net/dev')),
    devices: [
      ...(feed?.latest() ?? []),
      ...(await Promise.all(devices.filter(({ vendor, fake }) => vendor === 'amd' && !fake).map(each => amdReading(each, system)))),
    ],
  }
}

function processorTimes(text: string | null): Sample['processor'] {
  const words = /^cpu\s+(.*)$/m
    .exec(text ?? '')?.[1]
    ?.split(/\s+/)
    .map(Number)
  if (!words || words.length < 5) return null
  const [user = 0, nice = 0, system = 0, idle = 0, iowait = 0, irq = 0, softirq = 0, steal = 0] = words
  return {
    user: (user + nice) / ticks,
    system: (system + irq + softirq) / ticks,
    idle: idle / ticks,
    iowait: iowait / ticks,
    steal: steal / ticks,
  }
}

/** `some avg10=0.00 avg60=0.00 avg300=0.00 total=12345` (microseconds; kernel documentation, accounting/psi). */
export function parsePressure(resource: string, text: string | null): Sample['pressure'] {
  return (text ?? '').split('\n').flatMap(line => {
    const [, kind, total] = /^(some|full) .*\btotal=(\d+)$/.exec(line) ?? []
    return kind && total ? [{ resource, kind, seconds: Number(total) / 1e6 }] : []
  })
}

/** Whole disks of /proc/diskstats, in sectors of 512 bytes; partitions, loops and memory disks are left out. */
export function parseDisks(text: string | null): Sample['disks'] {
  return (text ?? '').split('\n').flatMap(line => {
    const [, , disk, , , read, , , , written] = line.trim().split(/\s+/)
    const whole = /^(sd[a-z]+|hd[a-z]+|vd[a-z]+|xvd[a-z]+|nvme\d+n\d+|mmcblk\d+|md\d+|dm-\d+)$/
    return disk && whole.test(disk) && written !== undefined ? [{ disk, read: Number(read) * 512, written: Number(written) * 512 }] : []
  })
}

export function parseNetwork(text: string | null): Sample['network'] {
  return (text ?? '').split('\n').flatMap(line => {
    const [, name, rest] = /^\s*([^\s:]+):\s*(.*)$/.exec(line) ?? []
    const words = rest?.split(/\s+/).map(Number)
    return name && name !== 'lo' && words && words.length >= 9 ? [{ name, received: words[0]!, sent: words[8]! }] : []
  })
}

/** Files of amdgpu and its sensors (kernel documentation, gpu/amdgpu/thermal). */
async function amdReading({ id, address }: Device, system: System): Promise<DeviceReading> {
  const folder = `/sys/bus/pci/devices/${address}`
  const number = (file: string, scale: number) => {
    const text = system.read(`${folder}/${file}`)?.trim()
    return text && /^\d+$/.test(text) ? Number(text) * scale : null
  }
  const [sensor = ''] = await system.list(`${folder}/hwmon`)
  return {
    id,
    utilisation: number('gpu_busy_percent', 0.01),
    used: number('mem_info_vram_used', 1),
    celsius: number(`hwmon/${sensor}/temp1_input`, 1e-3),
    watts: number(`hwmon/${sensor}/power1_average`, 1e-6),
    errors: null,
  }
}

// ── as gauges ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** `devices`: what is known of them, for names and sizes. */
export function gaugesOfSample(sample: Sample, devices: readonly Device[]): Gauge[] {
  const { processor, memory, pressure, disks, network } = sample
  const gauge = (name: string, help: string, values: Gauge['values'], kind: Gauge['kind'] = 'gauge'): Gauge[] =>
    values.length > 0 ? [{ name: `plinth_node_${name}`, help, kind, values }] : []
  const known = devices.map(each => ({ each, reading: sample.devices.find(({ id }) => id === each.id) }))
  const labels = ({ id, vendor, name, fake }: Device) => ({ device: id, vendor, name, ...(fake && { fake: 'true' }) })
  const ofDevices = (
    name: string,
    help: string,
    value: (reading: DeviceReading) => number | null,
    kind: Gauge['kind'] = 'gauge',
  ): Gauge[] => {
    const values = known.flatMap(({ each, reading }) => {
      const number = reading ? value(reading) : null
      return number === null ? [] : [{ labels: labels(each), value: number }]
    })
    return values.length > 0 ? [{ name: `plinth_device_${name}`, help, kind, values }] : []
  }
  return [
    ...gauge(
      'cpu_seconds_total',
      'Time of all cores, by what they did.',
      processor ? Object.entries(processor).map(([mode, value]) => ({ labels: { mode }, value })) : [],
      'counter',
    ),
    ...gauge(
      'memory_bytes',
      'Memory of the machine, what of it is to be had, and what the control groups grant.',
      memory
        ? [
            { labels: { kind: 'total' }, value: memory.total },
            { labels: { kind: 'available' }, value: memory.available },
            ...(memory.limit === null ? [] : [{ labels: { kind: 'limit' }, value: memory.limit }]),
          ]
        : [],
    ),
    ...gauge(
      'pressure_seconds_total',
      'Time that some or all work waited for a resource.',
      pressure.map(({ resource, kind, seconds }) => ({ labels: { resource, kind }, value: seconds })),
      'counter',
    ),
    ...gauge(
      'disk_bytes_total',
      'Read from and written to disks.',
      disks.flatMap(({ disk, read, written }) => [
        { labels: { disk, direction: 'read' }, value: read },
        { labels: { disk, direction: 'written' }, value: written },
      ]),
      'counter',
    ),
    ...gauge(
      'network_bytes_total',
      'Received and sent by network cards.',
      network.flatMap(({ name, received, sent }) => [
        { labels: { interface: name, direction: 'received' }, value: received },
        { labels: { interface: name, direction: 'sent' }, value: sent },
      ]),
      'counter',
    ),
    ...gauge('sampled_timestamp_seconds', 'When these were sampled, since 1970.', [{ value: sample.time / 1000 }]),
    ...(devices.length > 0
      ? [
          {
            name: 'plinth_device_usable',
            help: 'Whether jobs can use the accelerator.',
            kind: 'gauge' as const,
            values: devices.map(each => ({ labels: labels(each), value: each.usable ? 1 : 0 })),
          },
        ]
      : []),
    ...ofDevices('utilisation_ratio', 'Part of the time that something ran on it.', ({ utilisation }) => utilisation),
    ...ofDevices('memory_used_bytes', 'Memory of it that is taken.', ({ used }) => used),
    ...ofDevices('temperature_celsius', 'How warm it is.', ({ celsius }) => celsius),
    ...ofDevices('power_watts', 'What it draws.', ({ watts }) => watts),
    ...ofDevices('memory_errors_total', 'Errors of its memory that could not be corrected.', ({ errors }) => errors, 'counter'),
  ]
}

// ── every five seconds ──────────────────────────────────────────────────────────────────────────────────────────────────────

export interface Telemetry {
  /** Of the latest sample; none before the first. */
  gauges(): Gauge[]
  latest(): Sample | null
  close(): void
}

/** `devices`: those of the inventory; asked once, and again after an hour, since cards seldom come and go. */
export function startTelemetry({
  devices,
  onError,
  system = thisSystem,
  every = 5000,
}: {
  devices(): Promise<readonly Device[]>
  onError(error: unknown): void
  system?: System
  every?: number
}): Telemetry {
  let known: readonly Device[] = []
  let asked = Number.NEGATIVE_INFINITY
  let latest: Sample | null = null
  let feed: NvidiaFeed | null = null
  let busy = false
  let closed = false
  const tick = async () => {
    if (performance.now() - asked > 3_600_000) {
      asked = performance.now()
      known = await devices()
      if (closed) return
      if (!feed && known.some(({ vendor, fake, usable }) => vendor === 'nvidia' && usable && !fake)) feed = followNvidia({ every, onError })
    }
    latest = await takeSample(system, known, feed)
  }
  const run = () => {
    if (busy) return // what hangs is not asked twice
    busy = true
    tick()
      .catch(onError)
      .finally(() => {
        busy = false
      })
  }
  run()
  const timer = setInterval(run, every)
  timer.unref()
  return {
    gauges: () => (latest ? gaugesOfSample(latest, known) : []),
    latest: () => latest,
    close: () => {
      closed = true
      clearInterval(timer)
      feed?.close()
    },
  }
}
