/** Where a client's server is: the address that it was given, or whoever keeps its home. */
import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { configFolder } from '../config.ts'
import { keeperOf } from './keeper.ts'

export interface ServerChoice {
  home: string
  url: string | null
  token: string | null
}

/** Asked before each try, because a server may come, go and move. Null: there is none. */
export async function findServer({ home, url, token }: ServerChoice): Promise<{ url: string; token: string | undefined } | null> {
  if (url !== null && token !== null) return { url, token }
  // the home's token goes to nobody but the process that keeps the home
  const keeper = await keeperOf(home).catch(() => null)
  if (url !== null && !(keeper?.url && isSame(keeper.url, url))) return { url, token: undefined }
  if (!keeper?.url) return null
  const own = token ?? (await readFile(join(home, 'token'), 'utf8').catch(() => '')).trim()
  return { url: url ?? keeper.url, token: own || undefined }
}

const Logins = z.record(z.string(), z.object({ token: z.string() }))

/** The token that `plinth login` keeps for a server (accounts/credentials.ts); null where there is none that nobody else can read. */
export async function loginToken(url: string): Promise<string | null> {
  try {
    const file = join(configFolder(), 'servers.json')
    if (process.platform !== 'win32' && ((await stat(file)).mode & 0o077) !== 0) return null
    return Logins.parse(JSON.parse(await readFile(file, 'utf8')))[new URL(url).origin]?.token ?? null
  } catch {
    return null
  }
}

/** Both on this machine, at the same port. */
function isSame(a: string, b: string): boolean {
  if (!URL.canParse(a) || !URL.canParse(b)) return false
  const [one, other] = [new URL(a), new URL(b)]
  return isThisMachine(one) && isThisMachine(other) && one.port === other.port && one.protocol === other.protocol
}

export const isThisMachine = ({ hostname }: URL): boolean => ['localhost', '127.0.0.1', '[::1]'].includes(hostname)

/** `plinth_<id>_<secret>` → the id, which is no secret. */
export const publicId = (token: string): string | null => /^plinth_([0-9a-f]{12})_/.exec(token)?.[1] ?? null
