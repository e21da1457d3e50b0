/**
 * Where versions of models come from and where their files are. The server never opens what a source names, except files among its own
 * artifacts, which have to be this project's; a path of its disk is refused unless it lies where the named run says its files are.
 */
import type { Db } from '../../db/open.ts'
import { getRegisteredVersion, type RegisteredVersion, versionByAlias } from '../../models/registered.ts'
import { getLoggedModel, setLoggedModelTags } from '../logged-models.ts'
import { getTrackedRun } from '../tracked-runs.ts'
import { placeOf, safe, within } from './artifact-paths.ts'
import { placeOfArtefact } from './model-files.ts'
import { type Message, wrongParameter } from './wire.ts'

interface Origin {
  source: string
  run: string | null
  loggedModel: string | null
}

/** Prompts are registered models without files; they say so with a tag and a word for a source. */
export const isPrompt = (tags: Readonly<Record<string, string>>) => tags['mlflow.prompt.is_prompt']?.toLowerCase() === 'true'
const promptSources = ['dummy-source', 'prompt-template']

/** The source of a new version, with the run and the model it came from. */
export async function originIn(db: Db, project: string, message: Message, prompt: boolean): Promise<Origin> {
  const source = message.required('source')
  const [run, model] = [message.text('run_id') || null, message.text('model_id') || null]
  if (prompt) {
    if (promptSources.includes(source)) return { source, run, loggedModel: null }
    throw wrongParameter(`Invalid prompt source: '${shownSource(source)}'. Prompt sources must use an MLflow placeholder.`)
  }
  const [, name, versionOrAlias] = /^models:\/([^/@]+)(?:[/@](.+))?$/.exec(source) ?? []
  if (name && !versionOrAlias && isLoggedModel(name)) return ofLoggedModel(db, project, { source, run, loggedModel: model ?? name })
  if (name && versionOrAlias) {
    const other =
      /^\d{1,9}$/.test(versionOrAlias) && source.includes(`/${versionOrAlias}`)
        ? await getRegisteredVersion(db, project, name, Number(versionOrAlias))
        : await versionByAlias(db, project, name, versionOrAlias)
    return { source: `models:/${name}/${other.version}`, run: run ?? other.run, loggedModel: model ?? other.loggedModel }
  }
  await checkSource(db, project, source, run, model)
  const [, ofRun] = /^runs:\/([0-9a-f]{32})\//.exec(source) ?? []
  // a run that is named beside it may be another server's
  if (ofRun && run === null) return { source, run: (await getTrackedRun(db, project, ofRun)).run, loggedModel: model }
  return model ? ofLoggedModel(db, project, { source, run, loggedModel: model }) : { source, run, loggedModel: null }
}

const isLoggedModel = (id: string) => /^m-[0-9a-f]{32}$/.test(id)
const shownSource = (source: string) => source.slice(0, 200)

async function ofLoggedModel(db: Db, project: string, origin: Origin & { loggedModel: string }): Promise<Origin> {
  const { run } = await getLoggedModel(db, project, origin.loggedModel)
  return { ...origin, run: origin.run ?? run }
}

async function checkSource(db: Db, project: string, source: string, run: string | null, model: string | null): Promise<void> {
  const refused = (why: string) => wrongParameter(`Invalid model version source: '${shownSource(source)}'. ${why}`)
  const scheme = /^([a-z][a-z0-9+.-]+):/i.exec(source)?.[1]?.toLowerCase()
  if (hidesSteps(source)) throw refused('An absolute path must be provided without relative path references present.')
  if (scheme === undefined || scheme === 'file') {
    const location = run
      ? (await getTrackedRun(db, project, run)).location
      : model
        ? (await getLoggedModel(db, project, model)).location
        : null
    if (location === null || !source.startsWith(`${location}/`) || !/^(\/|file:)/i.test(location))
      throw refused('A local path has to be contained within the artifact directory of the run or model that is named with it.')
  }
  if (scheme === 'models') throw refused('There is no such model.')
  if (scheme === 'runs' && !(run === null ? /^runs:\/[0-9a-f]{32}\/./.test(source) : source.startsWith(`runs:/${run}/`)))
    throw refused('The run_id request parameter must identify the resource that contains the source.')
  const place = placeOf(source)
  if (scheme === 'mlflow-artifacts' && place === null) throw refused('It must lie on this server: mlflow-artifacts:/…')
  if (place !== null) await within(db, project, safe(place))
}

/** `..` or NUL, also after it is decoded again and again. */
function hidesSteps(source: string): boolean {
  for (let text = source, i = 0; ; i++) {
    if (text.includes('\0') || text.split(/[/\\]/).includes('..') || i > 5) return true
    const next = text.replaceAll(/%([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
    if (next === text) return false
    text = next
  }
}

/** Where its files are, followed through versions that were copied from versions. */
export async function placeOfVersion(db: Db, project: string, version: RegisteredVersion): Promise<string> {
  for (let at = version, i = 0; i < 20; i++) {
    if (at.loggedModel) return (await getLoggedModel(db, project, at.loggedModel)).location
    const [, name, number] = /^models:\/([^/]+)\/(\d{1,9})$/.exec(at.source) ?? []
    if (!name) {
      return at.kind === 'artefact' ? placeOfArtefact(at) : at.source
    }
    at = await getRegisteredVersion(db, project, name, Number(number))
  }
  throw wrongParameter(`The source of version ${version.version} of ${version.name} leads in a circle.`)
}

/** The logged model says which versions were made from it; MLflow's pages and clients read that. */
export async function noteVersion(db: Db, project: string, model: string, { name, version }: RegisteredVersion): Promise<void> {
  const key = 'mlflow.modelVersions'
  const before = parsedList((await getLoggedModel(db, project, model)).tags[key] ?? '[]')
  const value = JSON.stringify([...before, { name, version }])
  await setLoggedModelTags(db, project, model, [{ key, value }])
}
function parsedList(text: string): unknown[] {
  try {
    const read: unknown = JSON.parse(text)
    return Array.isArray(read) ? read : []
  } catch {
    return [] // a script may have written anything there
  }
}
