/**
 * How much memory the processes of each node hold, and whether that is more than they may where the kernel keeps no limit.
 *
 * Only node: modules are imported: the shim uses it.
 */
import { readJson, tryToWriteJson } from './folder.ts'
import { proportionalBytes, residentBytes } from './processes.ts'

/** peak.json */
export interface Peak {
  /** Bytes: the greatest sum over the processes of one node that was seen. */
  memory: number
}

export interface MemoryWatch {
  /**
   * `counted`: bytes of each node as its control group counts them, null where there is none and `processes` (numbers by node) are added up.
   * Answers in words when a node that no control group limits holds more than it may.
   */
  look(counted: readonly (number | null)[], processes: () => readonly (readonly number[])[]): string | null
}

/** `limits`: bytes a node, 0: none. */
export function createMemoryWatch(limits: readonly number[], path: string): MemoryWatch {
  let peak = readJson<Peak>(path)?.memory ?? 0
  let written = peak
  return {
    look(counted, processes) {
      let over: string | null = null
      const pids = counted.includes(null) ? processes() : []
      for (const [node, group] of counted.entries()) {
        let bytes = group ?? sum(pids[node]!, residentBytes)
        const limit = limits[node]!
        if (group === null && limit > 0 && bytes > limit) {
          // pages that several of them share were counted for each
          bytes = sum(pids[node]!, proportionalBytes)
          if (bytes > limit) over = `It used ${megabytes(bytes)} of memory; it may use ${megabytes(limit)}.`
        }
        peak = Math.max(peak, bytes)
      }
      if (peak > written * 1.02) {
        tryToWriteJson(path, { memory: peak } satisfies Peak)
        written = peak
      }
      return over
    },
  }
}

const sum = (pids: readonly number[], bytesOf: (pid: number) => number) => pids.reduce((total, pid) => total + bytesOf(pid), 0)
const megabytes = (bytes: number) => `${Math.round(bytes / 2 ** 20)} MiB`
