/** Tokens for servers elsewhere, as `plinth login` keeps them: one file of this user's configuration that nobody else can read. */
import { readFile, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { Failure } from '../failure.ts'
import { makeFolder, writeFileAtomic } from '../storage/disk.ts'

const Credentials = z.record(z.string(), z.strictObject({ token: z.string(), user: z.string(), project: z.string(), since: z.string() }))
type Credentials = z.infer<typeof Credentials>
const fileOf = (folder: string) => join(folder, 'servers.json')

/** Scheme, name and port, and the path in front of the API where there is one. throws server_address */
export function serverAddress(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : null
  if (!url || (url.protocol !== 'http:' && url.protocol !== 'https:'))
    throw new Failure('server_address', { url: text.slice(0, 200), problem: 'it is not of the form https://plinth.example.org' })
  if (url.username || url.password)
    throw new Failure('server_address', { url: url.host, problem: 'a token does not belong into an address' })
  if (url.pathname !== '/' || url.search || url.hash)
    throw new Failure('server_address', { url: `${url.origin}${url.pathname}`, problem: 'there is something behind the host and the port' })
  return url.origin
}

export async function storedToken(folder: string, url: string): Promise<string | null> {
  const all = await read(folder)
  return Object.hasOwn(all, url) ? all[url]!.token : null
}

export async function storeToken(
  folder: string,
  url: string,
  { token, user, project }: { token: string; user: string; project: string },
): Promise<void> {
  await makeFolder(folder)
  await writeFileAtomic(
    fileOf(folder),
    `${JSON.stringify({ ...(await read(folder)), [url]: { token, user, project, since: new Date().toISOString() } }, null, 2)}\n`,
  )
}

/** Whether there was one. */
export async function forgetToken(folder: string, url: string): Promise<boolean> {
  const { [url]: gone, ...rest } = await read(folder)
  if (!gone) return false
  if (Object.keys(rest).length === 0) await rm(fileOf(folder), { force: true })
  else await writeFileAtomic(fileOf(folder), `${JSON.stringify(rest, null, 2)}\n`)
  return true
}

async function read(folder: string): Promise<Credentials> {
  const file = fileOf(folder)
  const text = await readFile(file, 'utf8').catch(error => {
    if (error.code === 'ENOENT') return '{}'
    throw error
  })
  // a copy from elsewhere may have lost its mode
  if (text !== '{}' && process.platform !== 'win32' && ((await stat(file)).mode & 0o077) !== 0)
    throw new Failure('credentials_open', { path: file })
  try {
    return Credentials.parse(JSON.parse(text))
  } catch (error) {
    throw new Failure('credentials_unreadable', { path: file }, { cause: error })
  }
}
