/** Where an import comes from: the address of a server, an SQLite file or a folder. */
import { existsSync, statSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Failure } from '../../failure.ts'
import type { Source } from './source.ts'

export interface OpenOptions {
  /** The folder that files are in, where the source does not say (`--artifacts-destination` of the server). */
  artifacts: string | null
  /** For servers that ask who it is: as in MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and …_PASSWORD. */
  authorization: string | null
  signal?: AbortSignal | undefined
}

/** throws import_source_not_found, import_source_unknown, import_source_damaged, import_unreachable */
export async function openSource(from: string, { artifacts, authorization, signal }: OpenOptions): Promise<Source> {
  if (/^https?:\/\//i.test(from)) return (await import('./rest.ts')).openRestSource(from, { authorization, signal })
  if (/^(postgres(ql)?|mysql|mssql)(\+\w+)?:\/\//i.test(from))
    throw new Failure('import_source_unknown', { source: from.split('://')[0]!, problem: 'only SQLite files are read directly' })
  const path = pathIn(from)
  if (!existsSync(path)) throw new Failure('import_source_not_found', { source: path })
  if (statSync(path).isDirectory()) return (await import('./file-store.ts')).openFileStore(path, { artifacts })
  const beside = join(dirname(path), 'mlartifacts') // where a server that was told nothing puts them
  return (await import('./sqlite.ts')).openSqliteSource(path, { artifacts: artifacts ?? (existsSync(beside) ? beside : null) })
}

/** `sqlite:///relative.db`, `sqlite:////absolute.db` as SQLAlchemy writes them, file:// or a plain path. */
function pathIn(from: string): string {
  const [, sqlite] = /^sqlite:\/\/\/(.*)$/.exec(from) ?? []
  if (sqlite !== undefined) return resolve(sqlite)
  return resolve(/^file:\/\//.test(from) ? fileURLToPath(from) : from)
}
