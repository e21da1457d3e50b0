/**
 * Graphics processors: which are there, and why one that is there cannot be used. Everything is read through `System`, so that
 * tests replay what was recorded on machines that are not at hand.
 */
import { execFile } from 'node:child_process'
import { access, constants, readdir, readlink } from 'node:fs/promises'
import { basename, join } from 'node:path'
import type { Check } from './check.ts'
import { readText } from './limits.ts'

export interface System {
  platform: NodeJS.Platform
  read(path: string): string | null
  /** Names in a folder; none where it is not there. */
  list(folder: string): Promise<string[]>
  /** Last part of what a link points to; null where there is none. */
  link(path: string): Promise<string | null>
  /** Whether this user may read and write it. */
  access(path: string): Promise<'granted' | 'refused' | 'missing'>
  /** What a tool prints; null where there is no such tool. */
  run(command: string, ...args: string[]): Promise<{ code: number; output: string } | null>
}

/** One check a card, or one that says there is none. */
export async function examineGpus(system: System = thisSystem): Promise<Check[]> {
  if (system.platform !== 'linux')
    return [{ name: 'GPU', status: 'ok', found: `not looked for on ${system.platform}; not needed`, next: engineNeedsNone }]
  const cards = await cardsOf(system)
  const nvidia = await nvidiaCards(system)
  const usable = nvidia.cards.map(card => `${card} (idle: the embedded engine does not use it)`)
  const others = cards.filter(card => card.vendor !== 'NVIDIA' || nvidia.cards.length === 0)
  const unusable: string[] = []
  for (const card of others) {
    const reason = await whyNot(card, nvidia.problem, system)
    if (reason === null) usable.push(`${card.vendor} graphics with ${card.driver} (idle: the embedded engine does not use it)`)
    else unusable.push(`${card.vendor} graphics, not usable: ${reason}`)
  }
  if (cards.length === 0 && nvidia.cards.length === 0) {
    if ((await system.access('/dev/dxg')) !== 'missing')
      usable.push('the graphics of the Windows below (idle: the embedded engine does not use it)')
    else if (nvidia.problem) unusable.push(`an NVIDIA driver without a card: ${nvidia.problem}`)
    else return [{ name: 'GPU', status: 'ok', found: 'none found; not needed' }]
  }
  return [
    ...usable.map((found): Check => ({ name: 'GPU', status: 'ok', found, next: engineNeedsNone })),
    ...unusable.map((found): Check => ({ name: 'GPU', status: 'warning', found, next: engineNeedsNone })),
  ]
}

const engineNeedsNone = 'The embedded engine trains on the processor. A GPU is for jobs with PyTorch or TensorFlow.'

// ── what is in the machine ──────────────────────────────────────────────────────────────────────────────────────────────────

interface Card {
  vendor: 'NVIDIA' | 'AMD' | 'Intel'
  /** Module of the kernel that holds it; null: none does. */
  driver: string | null
}

const vendors: Record<string, Card['vendor']> = { '0x10de': 'NVIDIA', '0x1002': 'AMD', '0x8086': 'Intel' }

/** Display controllers (class 0x03…) and accelerators (0x12…) on the PCI bus; the picture that a virtual machine draws is not one. */
async function cardsOf(system: System): Promise<Card[]> {
  const bus = '/sys/bus/pci/devices'
  const cards: Card[] = []
  for (const device of await system.list(bus)) {
    const kind = system.read(join(bus, device, 'class'))?.trim() ?? ''
    const vendor = vendors[system.read(join(bus, device, 'vendor'))?.trim() ?? '']
    if (/^0x(03|12)/.test(kind) && vendor) cards.push({ vendor, driver: await system.link(join(bus, device, 'driver')) })
  }
  return cards
}

async function nvidiaCards(system: System): Promise<{ cards: string[]; problem: string | null }> {
  const answer = await system.run('nvidia-smi', '--query-gpu=name,memory.total,driver_version', '--format=csv,noheader,nounits')
  if (!answer) return { cards: [], problem: null }
  const cards = answer.code === 0 ? parseNvidia(answer.output) : []
  if (cards.length > 0) return { cards, problem: null }
  const words = answer.output
    .split('\n')
    .map(line => line.trim())
    .find(line => line !== '')
  return { cards, problem: words ? `nvidia-smi says "${words.slice(0, 200)}"` : 'nvidia-smi does not answer' }
}

/** Lines of `nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader,nounits`; memory may be `[N/A]`. */
export function parseNvidia(text: string): string[] {
  return text.split('\n').flatMap(line => {
    const [name, mebibytes, driver, ...more] = line.split(',').map(part => part.trim())
    if (!name || !mebibytes || !/^\d+(\.\d+)+$/.test(driver ?? '') || more.length > 0) return []
    const memory = Number(mebibytes) > 0 ? `${((Number(mebibytes) * 2 ** 20) / 1e9).toFixed(1)} GB, ` : ''
    return [`${name}, ${memory}driver ${driver}`]
  })
}

/** Null: nothing stands in the way. */
async function whyNot({ vendor, driver }: Card, nvidiaProblem: string | null, system: System): Promise<string | null> {
  if (driver === null) return 'no driver is loaded for it'
  if (driver === 'vfio-pci') return 'it is set aside for virtual machines (driver vfio-pci)'
  if (vendor === 'NVIDIA') {
    if (driver === 'nouveau') return 'its driver is nouveau; CUDA needs the one of NVIDIA'
    const device = await accessTo(['/dev/nvidiactl', '/dev/nvidia0'], system)
    return device ?? nvidiaProblem ?? 'the driver is there, nvidia-smi is not; a container needs --gpus all'
  }
  if (vendor === 'AMD' && driver === 'amdgpu') return accessTo(['/dev/kfd'], system)
  return accessTo(['/dev/dri/renderD128'], system)
}

async function accessTo(devices: readonly string[], system: System): Promise<string | null> {
  for (const device of devices) {
    const rights = await system.access(device)
    if (rights === 'refused') return `this user may not open ${device} (groups render and video usually may)`
    if (rights === 'missing') return `there is no ${device}; a container has to be started with it`
  }
  return null
}

// ── this machine ────────────────────────────────────────────────────────────────────────────────────────────────────────────

const thisSystem: System = {
  platform: process.platform,
  read: readText,
  list: folder => readdir(folder).catch(() => []),
  link: path =>
    readlink(path).then(
      target => basename(target),
      () => null,
    ),
  access: path =>
    access(path, constants.R_OK | constants.W_OK).then(
      () => 'granted',
      error => (error.code === 'ENOENT' ? 'missing' : 'refused'),
    ),
  run: (command, ...args) =>
    new Promise(resolve => {
      execFile(command, args, { timeout: 5000, killSignal: 'SIGKILL' }, (error, stdout, stderr) => {
        if (error?.code === 'ENOENT') resolve(null)
        else resolve({ code: error ? 1 : 0, output: error?.killed ? '' : `${stdout}${stderr}` })
      })
    }),
}
