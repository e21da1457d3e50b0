/** The few settings of Plinth, all from the environment, read in one place. */
import { readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'

/** Where truth lives: datasets, runs, models, the database. */
export const home = (): string => resolve(process.env['PLINTH_HOME'] || join(homedir(), '.plinth'))

/** What can be had again: downloaded weights, Python environments. */
export const cache = (): string => resolve(process.env['PLINTH_CACHE'] || join(homedir(), '.cache', 'plinth'))

/** What an operator says about this machine; named: it has to be there. */
export const hardwareFile = (): { path: string; named: boolean } => {
  const named = process.env['PLINTH_HARDWARE']
  return named ? { path: resolve(named), named: true } : { path: join(home(), 'hardware.yaml'), named: false }
}

/** postgres://…, with its password; without it the home says where its database is. */
export const database = (): string | undefined => process.env['PLINTH_DATABASE'] || undefined

/** Who asks an MLflow server that is taken over from, as its own clients say it; null where nothing is set. */
export function mlflowAuthorization(): string | null {
  const { MLFLOW_TRACKING_TOKEN: token, MLFLOW_TRACKING_USERNAME: user = '', MLFLOW_TRACKING_PASSWORD: password = '' } = process.env
  if (token) return `Bearer ${token}`
  return user || password ? `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}` : null
}

/** What this user keeps for programs: tokens of servers elsewhere. */
export const configFolder = (): string => join(resolve(process.env['XDG_CONFIG_HOME'] || join(homedir(), '.config')), 'plinth')

/** The server that commands ask instead of the home of this machine, and the token for it where none is stored. */
export const serverUrl = (): string | undefined => process.env['PLINTH_URL'] || undefined
export const serverToken = (): string | undefined => process.env['PLINTH_TOKEN'] || undefined

// one level up from src/ in the repository and from the compiled tree in the package
const manifest = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string }
export const version: string = manifest.version
