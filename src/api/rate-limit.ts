/**
 * How often somebody may ask. A bucket holds what may come at once and fills again; who finds it empty is told when to come back. The limits
 * are far above what a training logs: they are there for the loop that went wild, and for whoever tries tokens.
 */
import { createHash } from 'node:crypto'
import { Failure } from '../failure.ts'
import type { Principal } from './principal.ts'

export interface RateLimits {
  /** Requests a second with one token; twice as many from one address. */
  requests: number
  /** Wrong tokens a minute from one address. */
  failures: number
}
export const usualLimits: RateLimits = { requests: 25_000, failures: 30 }

export interface Limiter {
  /** Seconds until there is something in the bucket again; 0 where there is. */
  wait(key: string): number
  take(key: string): void
}

/** `rate`: how many a second come back; `size`: how many there are at once. */
export function createLimiter({ rate, size, now = Date.now }: { rate: number; size: number; now?: () => number }): Limiter {
  const buckets = new Map<string, { left: number; at: number }>()
  const bucketOf = (key: string) => {
    const bucket = buckets.get(key)
    const time = now()
    if (!bucket) return { left: size, at: time }
    return { left: Math.min(size, bucket.left + (Math.max(0, time - bucket.at) / 1000) * rate), at: time }
  }
  return {
    wait(key) {
      const { left } = bucketOf(key)
      return left >= 1 ? 0 : Math.max(1, Math.ceil((1 - left) / rate))
    },
    take(key) {
      const { left, at } = bucketOf(key)
      buckets.set(key, { left: Math.max(0, left - 1), at })
      // full ones need no memory; addresses are many
      if (buckets.size > 10_000) for (const other of buckets.keys()) if (bucketOf(other).left >= size) buckets.delete(other)
      if (buckets.size > 20_000) buckets.clear()
    },
  }
}

export interface Door {
  /** For every request, before anything else. throws too_many_requests */
  knock(address: string): void
  /** throws too_many_requests, too_many_attempts, and what `authenticate` throws */
  enter(address: string, authorization: string | undefined): Promise<Principal | null>
}

export function createDoor(
  { requests, failures }: RateLimits,
  authenticate: (authorization: string | undefined) => Promise<Principal | null>,
  now?: () => number,
): Door {
  const clock = now && { now }
  const addresses = createLimiter({ rate: 2 * requests, size: 4 * requests, ...clock })
  const tokens = createLimiter({ rate: requests, size: 2 * requests, ...clock })
  const wrong = createLimiter({ rate: failures / 60, size: failures, ...clock })
  // those that were right before stay welcome: somebody at the same address who tries tokens locks nobody out
  const known = new Set<string>()
  return {
    knock(address) {
      refuseAfter(addresses.wait(address), 'too_many_requests')
      addresses.take(address)
    },
    async enter(address, authorization) {
      if (authorization === undefined) return await authenticate(authorization)
      const digest = createHash('sha256').update(authorization).digest('base64')
      if (!known.has(digest)) refuseAfter(wrong.wait(address), 'too_many_attempts')
      const principal = await authenticate(authorization).catch(error => {
        known.delete(digest)
        if (error instanceof Failure && error.code === 'token_wrong') wrong.take(address)
        throw error
      })
      if (known.size >= 10_000) known.clear()
      known.add(digest)
      if (principal) {
        refuseAfter(tokens.wait(principal.token), 'too_many_requests')
        tokens.take(principal.token)
      }
      return principal
    },
  }
}

function refuseAfter(seconds: number, code: 'too_many_requests' | 'too_many_attempts'): void {
  if (seconds > 0) throw new Failure(code, { seconds })
}
