/** Who asks, and what they may do: the one place where rights are decided. Denied unless something here allows it. */
import { Failure } from '../failure.ts'
import { type Right, rights } from '../sdk/contract.ts'

export type Role = Exclude<Right, 'public' | 'tracker' | 'owner'>
/** What a token may be used for at most, whatever its user may do: everything, reading only, or what a training script needs. */
export type Scope = 'all' | 'read' | 'track'

export interface Principal {
  /** Name of the user, for the audit log. */
  user: string
  /** The owner of the installation may do everything in every project. */
  owner: boolean
  /** The project that this token falls into. */
  project: string
  /** Role in that project; null = none. */
  role: Role | null
  scope: Scope
  /** Public id of the token. */
  token: string
  /** A job's token is for this run and those beneath it, and for nothing else (track/confined.ts). */
  run?: string
}

/** throws token_required for nobody, forbidden for somebody without the right, scope_too_narrow where only the token is in the way */
export function checkRight(principal: Principal | null, right: Right): void {
  if (right === 'public') return
  if (!principal) throw new Failure('token_required')
  if (allows(principal, right)) return
  if (allows({ ...principal, scope: 'all' }, right)) throw new Failure('scope_too_narrow', { scope: principal.scope })
  throw new Failure('forbidden', { user: principal.user, right: right === 'tracker' ? 'editor' : right })
}

export function allows({ owner, role, scope }: Principal, right: Right): boolean {
  const most: Right = scope === 'read' ? 'viewer' : scope === 'track' ? 'tracker' : 'owner'
  const own: Right = owner ? 'owner' : (role ?? 'public')
  return level(right) <= Math.min(level(own), level(most))
}

const level = (right: Right) => rights.indexOf(right)
