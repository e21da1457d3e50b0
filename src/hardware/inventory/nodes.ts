/** Device files, and who holds a device: whether this user may open them, and what to do where not. */
import { inContainer } from '../packages.ts'
import type { System } from '../system.ts'
import type { Device, Obstacle } from './device.ts'

/** `groups`: those that usually may. `handIn`: how a container gets the files. */
export async function nodeObstacle(
  files: readonly string[],
  { groups, handIn }: { groups: string; handIn: string },
  system: System,
): Promise<Obstacle | null> {
  for (const file of files) {
    const rights = await system.access(file)
    if (rights === 'refused')
      return {
        code: 'node_refused',
        says: `this user may not open ${file}`,
        next: inContainer(system)
          ? `Start the container with the rights of the group that owns ${file} (--group-add), or as a user who has them.`
          : `sudo usermod -aG ${groups} "$USER", then log in again (ls -l ${file} shows the group)`,
        effect: 'stops',
      }
    if (rights === 'missing')
      return {
        code: 'node_missing',
        says: `there is no ${file}${inContainer(system) ? ' in this container' : ''}`,
        next: inContainer(system) ? handIn : `Load the driver (its module makes ${file}), or start the container with it: ${handIn}`,
        effect: 'stops',
      }
  }
  return null
}

/** Bytes beside those of visible processes that are taken for a process that is not seen; drivers keep some hundred megabytes. */
const unseen = 2e9

/** Somebody computes on it, or holds its memory and cannot be seen from here. */
export function heldObstacle({
  used,
  holders,
  memory,
  integrated,
}: Pick<Device, 'used' | 'holders' | 'memory' | 'integrated'>): Obstacle | null {
  const pids = (holders ?? []).map(({ pid }) => pid)
  if (pids.length > 0) {
    const taken = used === null || integrated ? 'compute on it' : `hold ${(used / 1e9).toFixed(1)} GB of its memory`
    return {
      code: 'memory_held',
      says: `${pids.length === 1 ? 'process' : 'processes'} ${pids.join(', ')} ${pids.length === 1 ? taken.replace(/^(hold|compute)/, '$1s') : taken}`,
      next: `ps -o user,pid,etime,args -p ${pids.join(',')}`,
      effect: 'warns',
    }
  }
  if (used === null || memory === null || integrated || used < unseen || used < 0.1 * memory) return null
  return {
    code: 'memory_held',
    says: `${(used / 1e9).toFixed(1)} GB of its memory are held by a process that cannot be seen from here (another container or user)`,
    next: 'nvidia-smi or amd-smi process, as the administrator of the machine',
    effect: 'warns',
  }
}
