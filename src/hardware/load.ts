/**
 * What devices do right now: bytes taken, utilisation, who computes. Read again and again, so it asks little: two calls of nvidia-smi for all
 * cards of NVIDIA, and files of /sys for the others.
 */
import type { Device, Holder, Obstacle } from './inventory/device.ts'
import { heldObstacle } from './inventory/nodes.ts'
import { answered, bytes, parseApps, parseTable, query, share, toolOf } from './inventory/nvidia.ts'
import { addressOfLocation } from './inventory/pci.ts'
import type { System } from './system.ts'

export interface Load {
  /** Bytes; null: not told. */
  used: number | null
  /** 0…1; null: not told. */
  utilisation: number | null
  /** Null: cannot be seen from here. */
  holders: Holder[] | null
}

const unknown: Load = { used: null, utilisation: null, holders: null }

/** By device id. */
export async function readLoad(system: System, devices: readonly Device[]): Promise<Map<string, Load>> {
  const real = devices.filter(({ fake }) => !fake)
  const nvidia = real.some(({ vendor, driver }) => vendor === 'nvidia' && driver !== null) ? await nvidiaLoad(system) : null
  const amd = real.some(({ vendor }) => vendor === 'amd') ? await kfdHolders(system) : null
  return new Map(
    await Promise.all(
      devices.map(async (each): Promise<[string, Load]> => {
        if (each.fake) return [each.id, { ...unknown, utilisation: each.utilisation, holders: await openedBy(system, each.nodes) }]
        if (each.vendor === 'nvidia') return [each.id, nvidia?.get(each.id) ?? unknown]
        if (each.vendor === 'amd') return [each.id, amdLoad(system, each, amd)]
        return [each.id, unknown]
      }),
    ),
  )
}

/** The device as it is now. */
export function withLoad(each: Device, load: Load | undefined): Device {
  if (!load) return each
  const now = { ...each, ...load }
  const held = heldObstacle(now)
  const obstacles: Obstacle[] = [...each.obstacles.filter(({ code }) => code !== 'memory_held'), ...(held ? [held] : [])]
  return { ...now, obstacles }
}

async function nvidiaLoad(system: System): Promise<Map<string, Load>> {
  const tool = await toolOf(system)
  const fields = ['uuid', 'memory.used', 'utilization.gpu']
  const [table, apps] = await Promise.all([
    system.run(tool, ...query(fields)),
    system.run(tool, '--query-compute-apps=gpu_uuid,pid,used_memory', '--format=csv,noheader,nounits'),
  ])
  const holders = answered(apps) ? parseApps(apps!.output) : null
  return new Map(
    (answered(table) ? parseTable(table!.output, fields) : []).map(row => [
      row['uuid']!,
      {
        used: bytes(row['memory.used']),
        utilisation: share(row['utilization.gpu']),
        holders: holders?.filter(({ gpu }) => gpu === row['uuid']).map(({ pid, memory }) => ({ pid, memory })) ?? null,
      },
    ]),
  )
}

/** Files of amdgpu in /sys (kernel documentation, gpu/amdgpu). */
function amdLoad(system: System, { address }: Device, holders: ReadonlyMap<string, Holder[]> | null): Load {
  const number = (file: string) => {
    const text = address === null ? null : system.read(`/sys/bus/pci/devices/${address}/${file}`)?.trim()
    return text && /^\d+$/.test(text) ? Number(text) : null
  }
  const busy = number('gpu_busy_percent')
  return {
    used: number('mem_info_vram_used'),
    utilisation: busy === null ? null : busy / 100,
    holders: holders === null ? null : (holders.get(address ?? '') ?? []),
  }
}

/** /sys/class/kfd/kfd/proc/<pid>/vram_<gpu_id>: bytes of each process that uses ROCm, by address. */
async function kfdHolders(system: System): Promise<Map<string, Holder[]> | null> {
  const root = '/sys/class/kfd/kfd'
  const nodes = await system.list(`${root}/topology/nodes`)
  if (nodes.length === 0) return null
  const address = new Map<string, string>()
  for (const node of nodes) {
    const id = system.read(`${root}/topology/nodes/${node}/gpu_id`)?.trim()
    const properties = system.read(`${root}/topology/nodes/${node}/properties`) ?? ''
    const value = (name: string) => Number(new RegExp(`^${name} (\\d+)`, 'm').exec(properties)?.[1] ?? 0)
    if (id && id !== '0') address.set(id, addressOfLocation(value('domain'), value('location_id')))
  }
  const found = new Map<string, Holder[]>()
  for (const pid of await system.list(`${root}/proc`))
    for (const file of await system.list(`${root}/proc/${pid}`)) {
      const at = address.get(/^vram_(\d+)$/.exec(file)?.[1] ?? '')
      const taken = Number(system.read(`${root}/proc/${pid}/${file}`)?.trim() ?? 0)
      if (at && taken > 0) found.set(at, [...(found.get(at) ?? []), { pid: Number(pid), memory: taken }])
    }
  return found
}

/** Processes that have one of the files open; those of other users cannot be looked into. Null: no file stands for it. */
export async function openedBy(system: System, files: readonly string[], among?: readonly number[]): Promise<Holder[] | null> {
  if (files.length === 0) return null
  const pids = among ?? (await system.list('/proc')).filter(name => /^\d+$/.test(name)).map(Number)
  const holders: Holder[] = []
  for (const pid of pids) {
    const open = await Promise.all((await system.list(`/proc/${pid}/fd`)).map(fd => system.link(`/proc/${pid}/fd/${fd}`)))
    if (open.some(target => target !== null && files.includes(target))) holders.push({ pid, memory: null })
  }
  return holders
}
