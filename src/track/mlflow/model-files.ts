/**
 * Versions that are ONNX files of Plinth, as MLflow's clients fetch models: a folder `registered/<name>/<version>` with the file and an MLmodel
 * that says what it is. Nothing can be written there: a version never changes.
 */
import type { Db } from '../../db/open.ts'
import { Failure } from '../../failure.ts'
import { getRegisteredVersion, type RegisteredVersion } from '../../models/registered.ts'
import { memoryObjects } from '../../storage/memory-objects.ts'
import type { Objects } from '../../storage/objects.ts'
import { root, safe } from './artifact-paths.ts'

const folder = 'registered'
const file = 'model.onnx'

/** Names hold no slash and may hold nearly anything else. */
export const placeOfArtefact = ({ name, version }: RegisteredVersion): string => `${root}:/${folder}/${encodeURIComponent(name)}/${version}`

export type ReadableObjects = Pick<Objects, 'get' | 'head' | 'list'>
/** Null for a path that is not of this kind. throws artifact_not_found, registered_version_not_found */
export async function artefactFiles(db: Db, project: string, path: string, models: Objects): Promise<ReadableObjects | null> {
  const [, name, number] = /^registered\/([^/]+)\/(\d{1,9})(?:\/|$)/.exec(safe(path)) ?? []
  if (!path.startsWith(`${folder}/`)) return null
  if (!name || !number) throw new Failure('artifact_not_found', { path: path.slice(0, 200) })
  const decoded = decodedName(name)
  const version = await getRegisteredVersion(db, project, decoded, Number(number))
  if (version.kind !== 'artefact') throw new Failure('artifact_not_found', { path: path.slice(0, 200) })
  const at = `${folder}/${name}/${number}`
  const digest = await digestOf(db, project, decoded, Number(number))
  const described = memoryObjects()
  await described.put(`${at}/MLmodel`, [Buffer.from(describe(version))] as unknown as AsyncIterable<Uint8Array>)
  const of = (asked: string) =>
    asked === `${at}/${file}` ? { objects: models, name: `${digest}.onnx` } : { objects: described, name: asked }
  return {
    get: (asked, range) => of(asked).objects.get(of(asked).name, range),
    head: asked => of(asked).objects.head(of(asked).name),
    async list(asked) {
      if (asked !== at) return []
      const found = await models.head(`${digest}.onnx`)
      return [...(await described.list(at)), ...(found ? [{ name: file, bytes: found.bytes }] : [])]
    },
  }
}

/** The client sends back what `placeOfArtefact` said, decoded once by the server; a name with a percent sign is still encoded then. */
function decodedName(name: string): string {
  try {
    return decodeURIComponent(name)
  } catch {
    return name
  }
}

async function digestOf(db: Db, project: string, name: string, version: number): Promise<string> {
  const row = await db
    .selectFrom('model_versions')
    .select('digest')
    .where('project', '=', project)
    .where('name', '=', name)
    .where('version', '=', version)
    .executeTakeFirstOrThrow()
  return row.digest
}

/** YAML, whose strings may be JSON's. Read by mlflow.onnx. */
const describe = ({ run, created }: RegisteredVersion): string => `artifact_path: model
flavors:
  onnx:
    data: ${file}
    onnx_version: "1.16.0"
    providers:
    - CPUExecutionProvider
  python_function:
    data: ${file}
    loader_module: mlflow.onnx
${run ? `run_id: ${run}\n` : ''}utc_time_created: ${JSON.stringify(new Date(created).toISOString().replace('T', ' ').replace('Z', ''))}
`
