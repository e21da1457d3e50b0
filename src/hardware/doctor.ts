/** The inventory in plain words: what is here, what of it can be used, why not the rest, and what to do about it. */
import { access, constants, statfs } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname } from 'node:path'
import type { Check } from './check.ts'
import { acceleratorChecks, runtimeChecks } from './doctor-devices.ts'
import type { InventoryOptions, WholeInventory } from './inventory/index.ts'
import { readWholeInventory } from './inventory/index.ts'
import type { Memory } from './inventory/memory.ts'
import type { Network } from './inventory/network.ts'
import type { Processor } from './inventory/processor.ts'
import { measureLoopback } from './loopback.ts'
import { inContainer, install } from './packages.ts'
import { type System, thisSystem, within } from './system.ts'
import type { Tool, ToolName } from './tools.ts'

export interface Examined {
  checks: Check[]
  inventory: WholeInventory & { loopback: { rate: number } | null }
}

/** `home`, `cache`: folders, there or not. `runtime`: version and folder of onnxruntime-node; it is not loaded here. throws hardware_file */
export async function examine({
  home,
  cache,
  runtime,
  ...options
}: InventoryOptions & { home: string; cache: string; runtime: { version: string; folder: string | null } }): Promise<Examined> {
  const { system = thisSystem } = options
  const whole = await readWholeInventory({ ...options, folders: [home, cache, tmpdir()], runtime: runtime.folder })
  // measured when the tools have ended: they would share the cores
  const loopback = await within(3000, measureLoopback())
  const inventory = { ...whole, loopback }
  return {
    inventory,
    checks: [
      processor(inventory.processor),
      memory(inventory.memory),
      ...sharedMemory(inventory.memory, system),
      {
        group: 'this machine',
        name: 'system',
        status: 'ok',
        found: `${inventory.system.title}${inContainer(system) ? ', in a container' : ''}, ${inventory.system.platform}`,
      },
      ...acceleratorChecks(inventory),
      await disk('home', home, 'Set PLINTH_HOME to a folder of your own.'),
      await disk('cache', cache, 'Set PLINTH_CACHE to a folder of your own.'),
      await disk('temporary', tmpdir(), 'Set TMPDIR to a folder of your own.'),
      ...otherDisks(inventory),
      ...network(inventory.network, loopback?.rate ?? null),
      ...tools(inventory.tools.tools, system),
      node(process.versions.node),
      { group: 'Plinth', name: 'runtime', status: 'ok', found: `onnxruntime-node ${runtime.version}, on the processor` },
      ...runtimeChecks(inventory, system),
    ],
  }
}

// ── this machine ────────────────────────────────────────────────────────────────────────────────────────────────────────────

export function processor({ model, threads, usable, affinity, quota, instructions, numa }: Processor): Check {
  const reasons = [
    ...(affinity !== null ? [`this process is bound to ${affinity}`] : []),
    ...(quota !== null && quota < threads ? [`the container grants the time of ${Number(quota.toFixed(2))}`] : []),
  ]
  const cores =
    usable >= threads ? `${threads} cores` : `${usable} of ${threads} cores usable${reasons.length ? ` (${reasons.join('; ')})` : ''}`
  const best = instructions.filter(name => !instructions.some(other => other !== name && other.startsWith(name)))
  const nodes = numa.length > 1 ? `, memory in ${numa.length} nodes` : ''
  return { group: 'this machine', name: 'processor', status: 'ok', found: [model, cores, ...best.slice(-3)].join(', ') + nodes }
}

export function memory({ total, limit, usable, available, swap }: Memory): Check {
  const within = limit === null ? '' : ` (the container's limit; the machine has ${gigabytes(total)})`
  const found = `${gigabytes(available)} of ${gigabytes(usable)} free${within}${swap && swap.total > 0 ? `, ${gigabytes(swap.total)} swap` : ''}`
  if (available > 1e9) return { group: 'this machine', name: 'memory', status: 'ok', found }
  return {
    group: 'this machine',
    name: 'memory',
    status: 'warning',
    found,
    next: 'Training needs about 1 GB: close other programs, or train with a smaller --image-size.',
  }
}

function sharedMemory({ shared }: Memory, system: System): Check[] {
  if (!shared || shared.total > 512e6) return []
  return [
    {
      group: 'this machine',
      name: 'shared memory',
      status: 'warning',
      found: `/dev/shm has ${gigabytes(shared.total)}: PyTorch's data loaders with workers end with "bus error" there`,
      next: inContainer(system) ? 'docker run --shm-size 8g …, or DataLoader(num_workers=0)' : 'sudo mount -o remount,size=50% /dev/shm',
    },
  ]
}

// ── room for files ──────────────────────────────────────────────────────────────────────────────────────────────────────────

// statfs(2): file systems over a network, where SQLite's write-ahead mode is not safe between machines
const overNetwork: Record<number, string> = { 26985: 'NFS', 4283649346: 'CIFS', 4266872130: 'SMB' }

/** The space where `path` is or will be. */
export async function disk(name: string, path: string, elsewhere: string): Promise<Check> {
  const looked = await within(3000, look(path))
  const group = 'room for files'
  if (!looked)
    return { group, name, status: 'problem', found: `${path} does not answer: is it on a network disk that is gone?`, next: elsewhere }
  const { writable, bavail, bsize, files, ffree, type } = looked
  if (!writable) return { group, name, status: 'problem', found: `${path} cannot be written`, next: elsewhere }
  const free = bavail * bsize
  const found = `${path}, ${gigabytes(free)} free`
  if (name === 'home' && overNetwork[type])
    return {
      group,
      name,
      status: 'warning',
      found: `${found}, on a network disk (${overNetwork[type]})`,
      next: 'Use the home from one machine only, or set PLINTH_HOME to a local disk: the database does not bear two machines.',
    }
  if (files > 0 && ffree === 0) return { group, name, status: 'problem', found: `${path} has no room for another file`, next: elsewhere }
  if (free > 2e9) return { group, name, status: 'ok', found }
  return { group, name, status: 'warning', found, next: 'Free some space; plinth gc shows what Plinth can spare.' }
}

async function look(path: string) {
  const there = await nearest(path)
  const space = await statfs(there)
  const writable = await access(there, constants.W_OK).then(
    () => true,
    () => false,
  )
  return { ...space, writable }
}

/** The folder itself, or the closest above it that exists. */
async function nearest(path: string): Promise<string> {
  for (let at = path; ; at = dirname(at)) {
    const exists = await access(at).then(
      () => true,
      () => false,
    )
    if (exists || at === dirname(at)) return at
  }
}

function otherDisks({ disks: { disks } }: WholeInventory): Check[] {
  const large = disks.filter(({ total, readOnly }) => !readOnly && (total === null || total > 5e9))
  const silent = large.filter(({ total }) => total === null)
  const said = large.map(({ mount, free, type, network, rotational }) => {
    const kind = network ? `${type}, over the network` : rotational ? `${type}, a disk that turns` : type
    return `${mount} ${free === null ? 'does not answer' : `${gigabytes(free)} free`} (${kind})`
  })
  if (said.length === 0) return []
  return [
    {
      group: 'room for files',
      name: 'disks',
      status: silent.length > 0 ? 'warning' : 'ok',
      found: said.slice(0, 8).join('; ') + (said.length > 8 ? `; and ${said.length - 8} more` : ''),
      ...(silent.length > 0 && { next: `Look at ${silent.map(({ mount }) => mount).join(', ')}: programs that touch it will hang.` }),
    },
  ]
}

// ── network ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

export function network({ interfaces, rdma, lockable }: Network, loopback: number | null): Check[] {
  const group = 'network'
  const up = interfaces.filter(({ up, virtual, addresses }) => up && (!virtual || addresses.length > 0))
  const cards = up.map(({ name, speed }) => `${name}${speed === null ? '' : ` ${rate(speed)}`}`)
  const checks: Check[] = [
    {
      group,
      name: 'cards',
      status: 'ok',
      found: `${cards.length ? cards.join(', ') : 'none is up; not needed for work on this machine'}${loopback === null ? '' : `; within this machine ${rate(loopback)} (measured)`}`,
    },
  ]
  const active = rdma.filter(({ state }) => state === 'ACTIVE')
  if (rdma.length > 0)
    checks.push({
      group,
      name: 'RDMA',
      status: active.length === rdma.length ? 'ok' : 'warning',
      found: rdma.map(({ device, port, rate, state }) => `${device} port ${port}: ${rate}, ${state.toLowerCase()}`).join('; '),
      ...(active.length < rdma.length && { next: 'ibstat shows the ports; a cable or the subnet manager may be missing.' }),
    })
  if (rdma.length > 0 && lockable !== null)
    checks.push({
      group,
      name: 'RDMA memory',
      status: 'problem',
      found: `this process may lock ${gigabytes(lockable)} of memory: RDMA needs more for its buffers`,
      next: 'ulimit -l unlimited (for good: "* - memlock unlimited" in /etc/security/limits.conf, LimitMEMLOCK=infinity in a service, --ulimit memlock=-1 for a container)',
    })
  return checks
}

/** Bits a second. */
const rate = (bits: number) => (bits >= 1e9 ? `${Number((bits / 1e9).toPrecision(3))} Gbit/s` : `${Math.round(bits / 1e6)} Mbit/s`)

// ── for jobs ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

export function tools(found: Readonly<Record<ToolName, Tool>>, system: System): Check[] {
  const group = 'for jobs'
  const { python, uv, conda, mamba, git, docker, podman, apptainer } = found
  const containers = [docker, podman, apptainer].filter(({ version }) => version !== null)
  return [
    python.version === null
      ? {
          group,
          name: 'Python',
          status: 'warning',
          found: 'not found: scripts in Python cannot run; pictures can be trained without it',
          next: install('python', system),
        }
      : {
          group,
          name: 'Python',
          status: python.problem ? 'warning' : 'ok',
          found: `${python.version}${python.problem ? `, but ${python.problem}: no environment can be made for a job` : ''}`,
          ...(python.problem && { next: install('python-venv', system) }),
        },
    {
      group,
      name: 'uv',
      status: 'ok',
      found: uv.version ?? 'not found; not needed, it makes environments faster',
      ...(uv.version === null && { next: 'pip install uv, or see docs.astral.sh/uv' }),
    },
    {
      group,
      name: 'conda',
      status: 'ok',
      found: conda.version ?? (mamba.version && `mamba ${mamba.version}`) ?? 'not found; needed only for jobs with an environment.yml',
    },
    git.version === null
      ? {
          group,
          name: 'git',
          status: 'warning',
          found: 'not found: runs cannot record which version of your code they ran',
          next: install('git', system),
        }
      : { group, name: 'git', status: 'ok', found: git.version },
    {
      group,
      name: 'containers',
      status: 'ok',
      found: containers.length
        ? containers
            .map(({ name, version, problem }) =>
              [name, version !== 'unknown' && version, problem && `(${problem})`].filter(Boolean).join(' '),
            )
            .join(', ')
        : 'no docker, podman or apptainer; needed only for jobs with an image',
    },
  ]
}

// ── Plinth ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** The release that package.json asks for; an older one could not have started this. */
export function node(version: string): Check {
  const found = `${version} on ${process.platform}-${process.arch}`
  if (Number(version.split('.')[0]) >= 24) return { group: 'Plinth', name: 'Node', status: 'ok', found }
  return {
    group: 'Plinth',
    name: 'Node',
    status: 'problem',
    found,
    next: 'Install Node 24 or newer, or run it by npx, which brings its own.',
  }
}

export const gigabytes = (bytes: number) => (bytes < 1e12 ? `${(bytes / 1e9).toFixed(1)} GB` : `${(bytes / 1e12).toFixed(1)} TB`)
