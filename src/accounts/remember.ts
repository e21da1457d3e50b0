/** Who asks, remembered for a second: a script that logs a thousand times a second is not looked up a thousand times. */
import { hash } from 'node:crypto'
import type { Principal } from '../api/principal.ts'

type Authenticate = (authorization: string | undefined) => Promise<Principal | null>

export interface RememberedPrincipals {
  authenticate: Authenticate
  /** Rights were changed by this process: from now on everybody is looked up again. */
  forget(): void
}

/** Milliseconds that somebody is believed from memory: so late is a change noticed that another process makes in the database. */
const believed = 1000
const most = 10_000

/** Only those who were let in; a token that was refused is looked up each time. `now`: milliseconds of a clock that only goes forward. */
export function rememberPrincipals(authenticate: Authenticate, now: () => number = () => performance.now()): RememberedPrincipals {
  const known = new Map<string, { principal: Principal; until: number }>()
  let changes = 0
  return {
    async authenticate(authorization) {
      if (authorization === undefined) return await authenticate(authorization)
      const digest = hash('sha256', authorization, 'base64') // secrets are no keys of a map, whose time to answer tells something of them
      const found = known.get(digest)
      if (found && found.until > now()) return found.principal
      const before = changes
      const principal = await authenticate(authorization)
      // what was read before a change is not kept after it
      if (principal && changes === before) {
        if (known.size >= most) known.clear()
        known.set(digest, { principal, until: now() + believed })
      }
      return principal
    },
    forget() {
      changes++
      known.clear()
    },
  }
}
