/** Files of runs and models through the server, as MLflow's clients send and fetch them: raw bodies, streamed both ways. */
import { posix } from 'node:path'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { ForeignRequest, ForeignRoute } from '../../api/route.ts'
import type { Db } from '../../db/open.ts'
import { Failure } from '../../failure.ts'
import { getRegisteredVersion } from '../../models/registered.ts'
import type { Objects } from '../../storage/objects.ts'
import { getLoggedModel } from '../logged-models.ts'
import { getTrackedRun } from '../tracked-runs.ts'
import { below, pathIn, root, within, withinOwner } from './artifact-paths.ts'
import { artefactFiles, type ReadableObjects } from './model-files.ts'
import { placeOfVersion } from './origins.ts'
import { runIn } from './runs.ts'
import { asMlflowError, compact, type Message, mlflowRoute, readQuery, versionIn } from './wire.ts'

/** `models`: where the ONNX files of the registry are, by digest. */
export const artifactRoutes = (db: Db, objects: Objects, models: Objects): ForeignRoute[] => [
  // ── by path, for clients ──
  ...mlflowRoute('GET', `/${root}/artifacts`, 'viewer', async (message, { project }) => {
    const path = (message.text('path') ?? '').replace(/(?<=[^/])\/$/, '')
    const artefact = await artefactFiles(db, project, path, models)
    return compact({ files: await filesIn(artefact ?? objects, artefact ? path : await within(db, project, path), '') })
  }),
  ...raw('GET', `/${root}/artifacts/*`, 'none', async (request, { project }) => {
    const path = pathIn(request)
    const artefact = await artefactFiles(db, project, path, models)
    await send(artefact ?? objects, artefact ? path : await within(db, project, path), request)
    return null
  }),
  ...raw('PUT', `/${root}/artifacts/*`, 'stream', async (request, { project }) => {
    await objects.put(await withinOwner(db, project, pathIn(request), { itself: false }), request.body as Readable)
    return {}
  }),
  ...raw('DELETE', `/${root}/artifacts/*`, 'none', async (request, { project }) => {
    await objects.remove(await withinOwner(db, project, pathIn(request), { itself: true }))
    return {}
  }),
  // clients that were told to try then send the file in one stream, which takes any size
  ...['create', 'complete', 'abort'].flatMap(step =>
    mlflowRoute('POST', `/${root}/mpu/${step}/*`, 'tracker', () => {
      throw new Failure('mlflow_not_kept', { problem: 'Multipart upload is not supported for the current artifact repository.' })
    }),
  ),
  ...mlflowRoute('GET', `/${root}/presigned/*`, 'viewer', () => {
    throw new Failure('mlflow_not_kept', { problem: 'Presigned download is not supported: files come through this server.' })
  }),
  ...mlflowRoute('POST', '/mlflow/artifacts/presigned-upload-url', 'tracker', () => {
    throw new Failure('mlflow_not_kept', { problem: 'Presigned upload is not supported: files go through this server.' })
  }),
  ...mlflowRoute('POST', '/mlflow/artifacts/presigned-download-url', 'viewer', () => {
    throw new Failure('mlflow_not_kept', { problem: 'Presigned download is not supported: files come through this server.' })
  }),
  // ── by run, model or version ──
  ...mlflowRoute('GET', '/mlflow/artifacts/list', 'viewer', async (message, { project }) => {
    const { location } = await getTrackedRun(db, project, runIn(message))
    const folder = message.text('path') ?? ''
    return compact({ root_uri: location, files: await filesIn(objects, await within(db, project, below(location, folder)), folder) })
  }),
  ...mlflowRoute('GET', '/mlflow/logged-models/:model_id/artifacts/directories', 'viewer', async (message, { project }) => {
    const { location } = await getLoggedModel(db, project, message.required('model_id'))
    const folder = message.text('artifact_directory_path') ?? ''
    return compact({ root_uri: location, files: await filesIn(objects, await within(db, project, below(location, folder)), folder) })
  }),
  ...raw('GET', '/mlflow/logged-models/:model_id/artifacts/files', 'none', async (request, { project }) => {
    const message = readQuery(request)
    const { location } = await getLoggedModel(db, project, message.required('model_id'))
    await send(objects, await within(db, project, below(location, message.required('artifact_file_path'))), request)
    return null
  }),
  ...raw('POST', '/mlflow/upload-artifact', 'stream', async (request, { project }) => {
    const message = readQuery(request)
    const { location } = await getTrackedRun(db, project, runIn(message))
    const path = below(location, message.required('path'))
    await objects.put(await withinOwner(db, project, path, { itself: false }), request.body as Readable)
    return {}
  }),
  download('/get-artifact', objects, async (message, project) => {
    const { location } = await getTrackedRun(db, project, runIn(message))
    return within(db, project, below(location, message.required('path')))
  }),
  download('/model-versions/get-artifact', objects, async (message, project) => {
    const version = await getRegisteredVersion(db, project, message.required('name'), versionIn(message))
    const path = below(await placeOfVersion(db, project, version), message.required('path'))
    const artefact = await artefactFiles(db, project, path, models)
    return { path: artefact ? path : await within(db, project, path), objects: artefact }
  }),
]

function raw(method: ForeignRoute['method'], path: string, body: ForeignRoute['body'], answer: ForeignRoute['answer']): ForeignRoute[] {
  const right = method === 'GET' ? 'viewer' : method === 'DELETE' ? 'editor' : 'tracker'
  return ['/api/2.0', '/ajax-api/2.0'].map(prefix => ({ method, path: `${prefix}${path}`, right, body, answer, failed: asMlflowError }))
}

/** What links in MLflow's pages lead to. */
function download(
  path: string,
  objects: Objects,
  fileOf: (message: Message, project: string) => Promise<string | { path: string; objects: ReadableObjects | null }>,
): ForeignRoute {
  return {
    ...{ method: 'GET', path, right: 'viewer', body: 'none', failed: asMlflowError },
    answer: async (request, { project }) => {
      const found = await fileOf(readQuery(request), project)
      if (typeof found === 'string') await send(objects, found, request)
      else await send(found.objects ?? objects, found.path, request)
      return null
    },
  }
}

/** Names under `shown`; a path that is a file lists itself, as clients expect. */
async function filesIn(objects: ReadableObjects, folder: string, shown: string) {
  const file = await objects.head(folder)
  if (file) return [{ path: shown === '' ? posix.basename(folder) : shown, is_dir: false, file_size: file.bytes }]
  const listed = await objects.list(folder)
  return listed.map(({ name, bytes }) => ({
    path: shown === '' ? name : `${shown}/${name}`,
    is_dir: bytes === null,
    ...(bytes !== null && { file_size: bytes }),
  }))
}

/** Always as a download that no page can run: nothing that somebody uploaded is ever shown in our own origin. */
async function send(objects: ReadableObjects, name: string, { raw, response }: ForeignRequest): Promise<void> {
  const object = await objects.head(name)
  if (!object) throw new Failure('artifact_not_found', { path: name })
  const range = rangeIn(raw.headers, object.bytes)
  const found = range === 'beyond' ? null : await objects.get(name, range ?? undefined)
  if (range !== 'beyond' && !found) throw new Failure('artifact_not_found', { path: name })
  const { from, to } = range === 'beyond' ? { from: 0, to: 0 } : (range ?? { from: 0, to: found!.object.bytes })
  const file = encodeURIComponent(posix.basename(name)).replace(/['()*]/g, letter => `%${letter.charCodeAt(0).toString(16)}`)
  response.writeHead(range === 'beyond' ? 416 : range ? 206 : 200, {
    'content-type': 'application/octet-stream',
    'content-length': to - from,
    'content-disposition': `attachment; filename*=UTF-8''${file}`,
    'content-security-policy': "sandbox; default-src 'none'",
    'x-content-type-options': 'nosniff',
    'accept-ranges': 'bytes',
    ...(range === 'beyond' && { 'content-range': `bytes */${object.bytes}` }),
    ...(range && range !== 'beyond' && { 'content-range': `bytes ${from}-${to - 1}/${object.bytes}` }),
  })
  if (raw.method === 'HEAD' || !found) {
    ;(found?.content as Partial<Readable> | undefined)?.destroy?.()
    response.end()
    return
  }
  await pipeline(found.content, response).catch(() => response.destroy()) // the client has gone, or the disk: it sees a body that is too short
}

/** One range, as resumed downloads ask; anything else is answered whole. */
function rangeIn(headers: ForeignRequest['raw']['headers'], bytes: number): { from: number; to: number } | 'beyond' | null {
  const [, from = '', to = ''] = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(headers.range ?? '') ?? []
  if ((from === '' && to === '') || headers['if-range'] !== undefined) return null // nothing here has a version to compare
  if (from !== '' && to !== '' && Number(from) > Number(to)) return null
  const start = from === '' ? Math.max(0, bytes - Number(to)) : Number(from)
  const end = from === '' || to === '' ? bytes : Math.min(bytes, Number(to) + 1)
  return start < end ? { from: start, to: end } : 'beyond'
}
