/** Accelerators in the words of `plinth doctor`. */
import type { Check } from './check.ts'
import { type Device, type Reading, vendorNames } from './inventory/device.ts'
import { devicesOf, type Inventory, type WholeInventory } from './inventory/index.ts'
import { install } from './packages.ts'
import type { System } from './system.ts'

const group = 'accelerators'
const forJobs = 'Plinth trains pictures on the processor; jobs with PyTorch, TensorFlow or JAX can use it.'

/** A line a kind of device that behaves alike, and one for each that has something to say of its own. */
export function acceleratorChecks({ accelerators }: Pick<Inventory, 'accelerators'>): Check[] {
  const checks = accelerators.flatMap(reading => [
    ...readingObstacles(reading),
    ...alike(reading.devices).map(devices => deviceCheck(devices, reading)),
  ])
  if (checks.length === 0)
    return [{ group, name: 'GPU', status: 'ok', found: 'none found; not needed: Plinth trains pictures on the processor' }]
  return checks
}

const readingObstacles = ({ vendor, obstacles, provenance }: Reading): Check[] =>
  obstacles.map(({ says, next }) => ({ group, name: vendorNames[vendor], status: 'warning', found: says + unverified(provenance), next }))

/** Cards of one model without anything special are one line, eight H100 need no eight. */
function alike(devices: readonly Device[]): Device[][] {
  const kind = ({ name, model, memory, usable, driver, obstacles }: Device) =>
    JSON.stringify([name, model, memory, usable, driver, obstacles.map(({ code, says }) => [code, says])])
  return [...Map.groupBy(devices, kind).values()]
}

function deviceCheck(devices: readonly Device[], { vendor, provenance }: Reading): Check {
  const [first] = devices as [Device]
  const facts = [
    `${devices.length > 1 ? `${devices.length} × ` : ''}${first.model}`,
    first.memory === null
      ? first.integrated
        ? 'shares the memory of the processor'
        : null
      : `${(first.memory / 1e9).toFixed(first.memory < 100e9 ? 1 : 0)} GB`,
    first.driver && `driver ${first.driver}`,
    first.details['cuda'] !== undefined ? `CUDA up to ${first.details['cuda']}` : null,
  ].filter(fact => fact !== null)
  const stop = first.obstacles.find(({ effect }) => effect === 'stops')
  const warning = first.obstacles.find(({ effect }) => effect === 'warns')
  const obstacle = stop ?? warning
  const state = stop ? `: not usable, because ${stop.says}` : warning ? `: usable, but ${warning.says}` : ': usable'
  return {
    group,
    name: vendorNames[vendor],
    // a card that is cut into slices is as its owner wants it
    status: obstacle && obstacle.code !== 'mig_whole' ? 'warning' : 'ok',
    found: facts.join(', ') + state + unverified(provenance),
    next: obstacle?.next ?? forJobs,
  }
}

const unverified = ({ verified, fake }: Reading['provenance']) =>
  fake ? ' [fake, from the override file]' : verified ? '' : ' [not verified on hardware]'

/** What would let Plinth's own runtime use a graphics card; silent where there is none that could. */
export function runtimeChecks(inventory: WholeInventory, system: System): Check[] {
  const devices = devicesOf(inventory).filter(({ fake, usable }) => usable && !fake)
  const { vulkan, cudaProvider } = inventory.graphics
  const checks: Check[] = []
  if (devices.some(({ vendor }) => ['nvidia', 'amd', 'intel'].includes(vendor)) && system.platform === 'linux')
    checks.push(
      vulkan.loader && vulkan.drivers.length > 0 && !vulkan.software
        ? {
            group: 'Plinth',
            name: 'WebGPU',
            status: 'ok',
            found: 'possible: Vulkan and a driver for it are there (Plinth does not use it yet)',
          }
        : {
            group: 'Plinth',
            name: 'WebGPU',
            status: 'ok',
            found: `not possible: ${!vulkan.loader ? 'the Vulkan loader is missing' : vulkan.software ? 'the only Vulkan driver computes on the processor' : 'there is no Vulkan driver'} (Plinth does not use it yet)`,
            next: install('vulkan', system),
          },
    )
  if (devices.some(({ vendor }) => vendor === 'nvidia'))
    checks.push({
      group: 'Plinth',
      name: 'CUDA',
      status: 'ok',
      found: cudaProvider
        ? "onnxruntime's CUDA provider is installed (Plinth does not use it yet)"
        : "onnxruntime's CUDA provider is not installed: predictions are computed on the processor",
      ...(!cudaProvider && {
        next: 'node node_modules/onnxruntime-node/script/install.js --onnxruntime-node-install=cuda12',
      }),
    })
  return checks
}
