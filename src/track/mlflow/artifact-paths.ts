/**
 * Names of files as MLflow's clients send them, and what they may reach: a path begins with an experiment, which has to be one of the
 * project, and nothing in it leads out again, however often it is encoded.
 */
import { posix } from 'node:path'
import type { ForeignRequest } from '../../api/route.ts'
import type { Db } from '../../db/open.ts'
import { Failure } from '../../failure.ts'
import { wrongParameter } from './wire.ts'

export const root = 'mlflow-artifacts'

/** `mlflow-artifacts:/1/<run>/artifacts` → `1/<run>/artifacts`; null for a location that is not here. */
export const placeOf = (location: string): string | null =>
  /^mlflow-artifacts:\/(?!\/)./.test(location) ? location.slice(`${root}:/`.length) : null

/** A file or folder below where a run or model keeps its files. throws artifact_path; mlflow_parameter where those are not on this server */
export function below(location: string, path: string): string {
  const folder = placeOf(location)
  if (folder === null) throw wrongParameter(`The files are at ${location.slice(0, 500)}, which this server never opens; ask there.`)
  return path === '' ? folder : `${folder}/${safe(path)}`
}

/** The path as it stands in the address, decoded once: browsers and proxies must not have shortened it before. throws artifact_path */
export function pathIn({ raw }: ForeignRequest): string {
  const address = Buffer.from((raw.url ?? '').split(/[?#]/, 1)[0]!, 'latin1').toString() // node hands on raw bytes as they came
  const [, encoded = ''] = /\/mlflow-artifacts\/artifacts\/(.*)$/s.exec(address) ?? []
  return safe(decoded(encoded))
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    throw new Failure('artifact_path', { path: text.slice(0, 200) })
  }
}

/** throws artifact_path for whatever could leave the place it is in, also after it is decoded again */
export function safe(path: string): string {
  const refused = new Failure('artifact_path', { path: path.slice(0, 200) })
  let text = path
  for (let i = 0; i < 5; i++) {
    const leaves =
      text.startsWith('/') ||
      /[\\\0-\x1f\x7f#]/.test(text) ||
      /^[a-z]:/i.test(text) ||
      text.split('/').some(part => part === '..' || part === '.' || part === '') ||
      posix.normalize(text) !== text
    if (leaves) throw refused
    if (!/%[0-9a-f]{2}/i.test(text)) return path
    text = decoded(text)
  }
  throw refused
}

/** The path, if its experiment is one of this project. throws artifact_path, artifact_not_found */
export async function within(db: Db, project: string, path: string): Promise<string> {
  const [experiment = ''] = safe(path).split('/')
  const known =
    /^\d{1,15}$/.test(experiment) &&
    (await db.selectFrom('experiments').select('id').where('id', '=', Number(experiment)).where('project', '=', project).executeTakeFirst())
  if (!known || String(Number(experiment)) !== experiment) throw new Failure('artifact_not_found', { path: path.slice(0, 200) })
  return path
}

/**
 * Where something may be written or deleted: in the folder of a run or a logged model that is there. `itself`: that whole folder, too.
 * throws artifact_path, artifact_not_found
 */
export async function withinOwner(db: Db, project: string, path: string, { itself }: { itself: boolean }): Promise<string> {
  const [, owner, model, rest] = /^\d{1,15}\/(models\/(m-[0-9a-f]{32})|[^/]+)\/artifacts(?:\/(.+))?$/.exec(safe(path)) ?? []
  if (!owner || (!itself && !rest)) throw new Failure('artifact_path', { path: path.slice(0, 200) })
  const from = model
    ? db.selectFrom('logged_models as o').where('o.id', '=', model)
    : db.selectFrom('tracked_runs as o').where('o.id', '=', owner)
  const found = await from
    .innerJoin('experiments as e', 'e.id', 'o.experiment')
    .select('o.location')
    .where('e.project', '=', project)
    .executeTakeFirst()
  const own = found && placeOf(found.location)
  if (!own || (path !== own && !path.startsWith(`${own}/`))) throw new Failure('artifact_not_found', { path: path.slice(0, 200) })
  return path
}
