/**
 * Looks for lines in a log that say how the attempt will end: an accelerator's memory was used up, or a log policy of the job matches.
 *
 * Only node: modules are imported: the shim uses it.
 */
import type { JobSpec } from '../../spec.ts'
import { readJson, tryToWriteJson } from './folder.ts'

type Policy = JobSpec['logPolicies'][number]

/** What PyTorch (CUDA, ROCm), JAX, TensorFlow and CUDA itself say. */
const deviceMemory = [
  'CUDA out of memory',
  'HIP out of memory',
  'OutOfMemoryError: CUDA',
  'CUDA error: out of memory',
  'CUDA_ERROR_OUT_OF_MEMORY',
  'cudaErrorMemoryAllocation',
  'CUBLAS_STATUS_ALLOC_FAILED',
  'RESOURCE_EXHAUSTED: Out of memory',
  'OOM when allocating tensor',
]
/** Further back than so many lines before the end it was survived: a search for the largest batch provokes it. */
const recent = 400

export interface Lookout {
  /** Patterns that are not used, because matching them could take for ever. */
  unusable: readonly string[]
  onMatch: (policy: Policy) => void
  /** Whole lines, one byte a character. */
  inspect(text: string, lines: number): void
  outOfDeviceMemory(): boolean
  /** The first policy that matched. */
  matched(): { pattern: string; reason: Policy['reason']; mayRetry: boolean } | null
}

/** `path`: where the match is kept, for a shim that takes over. */
export function createLookout(policies: readonly Policy[], path: string): Lookout {
  const usable = policies.flatMap(policy => {
    const regex = linear(policy.pattern)
    return regex ? [{ policy, regex }] : []
  })
  let matched = policies.length > 0 ? readJson<Policy>(path) : null
  let lines = 0
  let outOfMemoryAt: number | null = null
  const lookout: Lookout = {
    unusable: policies.filter(policy => !usable.some(each => each.policy === policy)).map(({ pattern }) => pattern),
    onMatch() {},
    inspect(text, count) {
      lines += count
      if (deviceMemory.some(words => text.includes(words))) outOfMemoryAt = lines
      if (matched || usable.length === 0) return
      const readable = Buffer.from(text, 'latin1').toString()
      const found = usable.find(({ regex }) => regex.test(readable))
      if (!found) return
      matched = found.policy
      tryToWriteJson(path, matched)
      // after the lines that matched are in the log
      setImmediate(() => lookout.onMatch(found.policy))
    },
    outOfDeviceMemory: () => outOfMemoryAt !== null && lines - outOfMemoryAt <= recent,
    matched: () => matched && { pattern: matched.pattern, reason: matched.reason, mayRetry: matched.action !== 'cancel_retries' },
  }
  return lookout
}

/**
 * A pattern of the user's that cannot hang the shim: it must be one that V8 can match in linear time (flag l), and is then matched the usual
 * way, which falls back to that one when it backtracks too often. Both need flags of the command line (backend.ts).
 */
function linear(pattern: string): RegExp | null {
  try {
    new RegExp(pattern, 'l')
    return new RegExp(pattern, 'm')
  } catch {
    return null
  }
}
