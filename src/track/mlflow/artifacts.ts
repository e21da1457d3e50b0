/**
 * Files of runs and models through the server, as MLflow's clients send and fetch them: raw bodies, streamed both ways. The first segment
 * of a path is an experiment, which has to be one of the project; nothing outside the artifact root can be named.
 */

import { posix } from 'node:path'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { ForeignRequest, ForeignRoute } from '../../api/route.ts'
import type { Db } from '../../db/open.ts'
import { Failure } from '../../failure.ts'
import type { Objects } from '../../storage/objects.ts'
import { getTrackedRun } from '../tracked-runs.ts'
import { asMlflowError, compact, mlflowRoute } from './wire.ts'

const root = 'mlflow-artifacts'

export const artifactRoutes = (db: Db, objects: Objects): ForeignRoute[] => [
  ...both('GET', `/${root}/artifacts`, 'viewer', 'none', async ({ query }, { project }) => {
    const path = await within(db, project, query.get('path') ?? '')
    return compact({ files: await filesIn(objects, path, '') })
  }),
  ...both('GET', `/${root}/artifacts/*`, 'viewer', 'none', async (request, { project }) => {
    await send(objects, await within(db, project, pathOf(request)), request)
    return null
  }),
  ...both('PUT', `/${root}/artifacts/*`, 'editor', 'stream', async (request, { project }) => {
    await objects.put(await within(db, project, pathOf(request)), request.body as Readable)
    return {}
  }),
  ...both('DELETE', `/${root}/artifacts/*`, 'editor', 'none', async (request, { project }) => {
    await objects.remove(await within(db, project, pathOf(request)))
    return {}
  }),
  ...mlflowRoute('GET', '/mlflow/artifacts/list', 'viewer', async (message, { project }) => {
    const run = await getTrackedRun(db, project, message.text('run_id') || message.required('run_uuid'))
    const folder = message.text('path') ?? ''
    const own = placeOf(run.location)
    const files = own === null ? [] : await filesIn(objects, joined(own, folder), folder)
    return compact({ root_uri: run.location, files })
  }),
  {
    method: 'GET',
    path: '/get-artifact',
    right: 'viewer',
    body: 'none',
    failed: asMlflowError,
    answer: async (request, { project }) => {
      const run = await getTrackedRun(db, project, request.query.get('run_id') ?? request.query.get('run_uuid') ?? '')
      const own = placeOf(run.location)
      if (own === null) throw new Failure('artifact_not_found', { path: run.location })
      await send(objects, joined(own, request.query.get('path') ?? ''), request)
      return null
    },
  },
]

const both = (
  method: ForeignRoute['method'],
  path: string,
  right: ForeignRoute['right'],
  body: ForeignRoute['body'],
  answer: ForeignRoute['answer'],
): ForeignRoute[] =>
  ['/api/2.0', '/ajax-api/2.0'].map(prefix => ({ method, path: `${prefix}${path}`, right, body, answer, failed: asMlflowError }))

/** `mlflow-artifacts:/1/<run>/artifacts` → `1/<run>/artifacts`; null for a location that is not here. */
export const placeOf = (location: string): string | null =>
  location.startsWith(`${root}:/`) ? location.slice(root.length + 2).replace(/^\/+/, '') : null

export const joined = (folder: string, path: string) => (path === '' ? folder : `${folder}/${safe(path)}`)

/** The path as it stands in the address: checked before and after each decoding, so that nothing hides in a second one. */
function pathOf({ raw }: ForeignRequest): string {
  const address = (raw.url ?? '').split('?', 1)[0]!
  const encoded = address.slice(address.indexOf(`/${root}/artifacts/`) + `/${root}/artifacts/`.length)
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
  let text = path
  for (let i = 0; i < 5; i++) {
    const bad =
      text.startsWith('/') ||
      /[\\\0-\x1f\x7f#]/.test(text) ||
      /^[a-z]:/i.test(text) ||
      text.split('/').some(part => part === '..' || part === '.') ||
      posix.normalize(text) !== text
    if (bad) throw new Failure('artifact_path', { path: path.slice(0, 200) })
    if (!/%[0-9a-f]{2}/i.test(text)) return path
    text = decoded(text)
  }
  throw new Failure('artifact_path', { path: path.slice(0, 200) })
}

/** The path, if its experiment is one of this project. */
async function within(db: Db, project: string, path: string): Promise<string> {
  if (path === '') throw new Failure('artifact_path', { path })
  const [experiment = ''] = safe(path).split('/')
  const known =
    /^\d{1,15}$/.test(experiment) &&
    (await db.selectFrom('experiments').select('id').where('id', '=', Number(experiment)).where('project', '=', project).executeTakeFirst())
  if (!known) throw new Failure('artifact_not_found', { path: path.slice(0, 200) })
  return path
}

/** Names under `shown`; a path that is a file lists itself, as clients expect. */
export async function filesIn(objects: Objects, folder: string, shown: string) {
  const file = await objects.head(folder)
  if (file) return shown === '' ? [{ path: posix.basename(folder), is_dir: false, file_size: file.bytes }] : []
  const listed = await objects.list(folder)
  return listed.map(({ name, bytes }) => ({
    path: shown === '' ? name : `${shown}/${name}`,
    is_dir: bytes === null,
    ...(bytes !== null && { file_size: bytes }),
  }))
}

/** Always as a download: nothing that somebody uploaded is ever shown in our own origin. */
async function send(objects: Objects, name: string, { raw, response }: ForeignRequest): Promise<void> {
  const found = await objects.get(name)
  if (!found) throw new Failure('artifact_not_found', { path: name })
  const range = rangeIn(raw.headers.range, found.object.bytes)
  const { from, to } = range ?? { from: 0, to: found.object.bytes }
  const content = range ? (await objects.get(name, range))!.content : found.content
  if (range) (found.content as Partial<Readable>).destroy?.()
  response.writeHead(range ? 206 : 200, {
    'content-type': 'application/octet-stream',
    'content-length': to - from,
    'content-disposition': `attachment; filename*=UTF-8''${encodeURIComponent(posix.basename(name)).replace(/['()*]/g, letter => `%${letter.charCodeAt(0).toString(16)}`)}`,
    'x-content-type-options': 'nosniff',
    'accept-ranges': 'bytes',
    ...(range && { 'content-range': `bytes ${from}-${to - 1}/${found.object.bytes}` }),
  })
  await pipeline(content, response).catch(() => response.destroy()) // the client has gone, or the disk: it sees a body that is too short
}

/** One range, as resumed downloads ask; anything else is answered whole. */
function rangeIn(header: string | undefined, bytes: number): { from: number; to: number } | null {
  const [, from = '', to = ''] = /^bytes=(\d*)-(\d*)$/.exec(header ?? '') ?? []
  if (from === '' && to === '') return null
  const start = from === '' ? Math.max(0, bytes - Number(to)) : Number(from)
  const end = from === '' || to === '' ? bytes : Math.min(bytes, Number(to) + 1)
  return start < end ? { from: start, to: end } : null
}
