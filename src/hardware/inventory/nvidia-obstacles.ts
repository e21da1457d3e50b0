/** Why an NVIDIA card cannot be used, or not wholly, and the next command. */
import { hasLibrary, inContainer, install } from '../packages.ts'
import type { Answer, System } from '../system.ts'
import type { Device, Obstacle } from './device.ts'
import { heldObstacle, nodeObstacle } from './nodes.ts'
import type { Card } from './pci.ts'

const handIn =
  'Start the container with the cards: docker run --gpus all … (NVIDIA Container Toolkit), or podman run --device nvidia.com/gpu=all …'

/** What nvidia-smi's refusal means. The words are those that it prints. */
export function saidByTool(answer: Answer, system: System): Obstacle {
  const words = firstLine(`${answer.output}\n${answer.errors}`)
  const quoted = words ? `nvidia-smi says "${words}"` : 'nvidia-smi says nothing'
  if (answer.late)
    return {
      code: 'tool_late',
      says: 'nvidia-smi does not answer in time: a card may have fallen off the bus, or the driver is stuck',
      next: "sudo dmesg | grep -iE 'NVRM|Xid' | tail; a restart usually helps",
      effect: 'stops',
    }
  if (/version mismatch/i.test(words))
    return {
      code: 'driver_mismatch',
      says: `${quoted}: the driver was updated, the old one is still loaded`,
      next: 'sudo reboot (or, with nothing on the card: sudo rmmod nvidia_uvm nvidia_drm nvidia_modeset nvidia && sudo modprobe nvidia)',
      effect: 'stops',
    }
  if (/couldn'?t communicate with the NVIDIA driver/i.test(words))
    return {
      code: 'driver_not_running',
      says: 'nvidia-smi finds no running driver',
      next: `sudo modprobe nvidia; where that fails: ${install('nvidia-driver', system)}`,
      effect: 'stops',
    }
  if (/insufficient permissions/i.test(words))
    return { code: 'tool_refused', says: quoted, next: 'sudo usermod -aG video,render "$USER", then log in again', effect: 'stops' }
  if (/GPU is lost|fallen off|handle for (?:GPU|device)/i.test(words)) return lost(words)
  // a control group that forgot its devices says "Unknown Error" (NVIDIA/nvidia-container-toolkit, "NOTICE: Containers losing access to GPUs")
  if (/Unknown Error/i.test(words) && inContainer(system))
    return {
      code: 'node_refused',
      says: `${quoted}: the container lost its access to the card`,
      next: 'Restart the container.',
      effect: 'stops',
    }
  if (/No devices were found/i.test(words))
    return {
      code: 'driver_not_running',
      says: 'the driver is loaded and finds no card',
      next: "sudo dmesg | grep -iE 'NVRM|Xid' | tail",
      effect: 'stops',
    }
  return { code: 'driver_not_running', says: quoted, next: "sudo dmesg | grep -iE 'NVRM|Xid' | tail", effect: 'stops' }
}

const lost = (words: string): Obstacle => ({
  code: 'device_lost',
  says: `the card does not answer any more (${words})`,
  next: 'sudo reboot; if it happens again, look at power and cooling of the card',
  effect: 'stops',
})

const firstLine = (text: string): string =>
  text
    .split('\n')
    .map(line => line.trim())
    .find(line => line !== '')
    ?.slice(0, 200) ?? ''

/** The driver shows cards, nvidia-smi is not there: they work, nothing can be measured. */
export const toolAbsent = (system: System): Obstacle => ({
  code: 'tool_missing',
  says: 'nvidia-smi is missing: memory and load cannot be seen',
  next: install('nvidia-smi', system),
  effect: 'warns',
})

/** A card on the bus of which neither nvidia-smi nor the driver speaks. */
export async function cardObstacles({ driver }: Card, said: Obstacle | null, system: System): Promise<Obstacle[]> {
  if (driver === null)
    return [{ code: 'driver_missing', says: 'no driver is loaded for it', next: install('nvidia-driver', system), effect: 'stops' }]
  if (driver === 'vfio-pci')
    return [
      {
        code: 'set_aside',
        says: 'it is set aside for virtual machines (driver vfio-pci)',
        next: 'Give it back to the driver nvidia, or use it in the virtual machine.',
        effect: 'stops',
      },
    ]
  if (driver === 'nouveau' || driver === 'nova_core')
    return [
      {
        code: 'driver_other',
        says: `its driver is ${driver}; CUDA needs the one of NVIDIA`,
        next: install('nvidia-driver', system),
        effect: 'stops',
      },
    ]
  const node = await nodeObstacle(['/dev/nvidiactl'], { groups: 'video,render', handIn }, system)
  if (node) return [node]
  if (said) return [said]
  if (await hasLibrary('libcuda.so.1', system)) return [toolAbsent(system)]
  return [
    {
      code: 'tool_missing',
      says: inContainer(system)
        ? 'the driver of the machine below is there, its programs and libraries were not handed in'
        : 'the driver is there, its programs and libraries are not (nvidia-smi, libcuda)',
      next: inContainer(system) ? handIn : install('nvidia-smi', system),
      effect: 'stops',
    },
  ]
}

/** Of a card that nvidia-smi lists. `words`: all it said about it. */
export async function deviceObstacles(
  card: Pick<Device, 'nodes' | 'used' | 'holders' | 'memory' | 'details' | 'integrated'> & { slices: number; words: readonly string[] },
  system: System,
): Promise<Obstacle[]> {
  const obstacles: Obstacle[] = []
  const reset = card.words.find(word => /requires reset|GPU is lost/i.test(word))
  if (reset) obstacles.push(lost(reset))
  const node = system.platform === 'linux' ? await nodeObstacle(card.nodes.slice(0, 2), { groups: 'video,render', handIn }, system) : null
  if (node && (await system.access('/dev/dxg')) === 'missing') obstacles.push(node)
  if (card.details['mig'] === 'Enabled')
    obstacles.push(
      card.slices > 0
        ? {
            code: 'mig_whole',
            says: `it is cut into ${card.slices} ${card.slices === 1 ? 'slice' : 'slices'} (MIG), which are used in its place`,
            next: 'Ask for a slice; sudo nvidia-smi -mig 0 makes it whole again.',
            effect: 'stops',
          }
        : {
            code: 'mig_without_instances',
            says: 'it is to be cut into slices (MIG), and there is none',
            next: 'sudo nvidia-smi mig -cgi 19 -C makes one; sudo nvidia-smi -mig 0 makes the card whole again',
            effect: 'stops',
          },
    )
  const errors = Number(card.details['memory errors'] ?? 0)
  if (errors > 0)
    obstacles.push({
      code: 'memory_errors',
      says: `its memory had ${errors} ${errors === 1 ? 'error' : 'errors'} that could not be corrected since the driver was loaded: results may be wrong`,
      next: 'nvidia-smi -q -d ECC,ROW_REMAPPER; sudo nvidia-smi --gpu-reset with nothing running on it',
      effect: 'stops',
    })
  if (card.details['compute mode'] === 'Prohibited')
    obstacles.push({ code: 'not_supported', says: 'computing on it is switched off', next: 'sudo nvidia-smi -c DEFAULT', effect: 'stops' })
  const held = heldObstacle(card)
  if (held) obstacles.push(held)
  return obstacles
}
