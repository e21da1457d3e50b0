/** What was asked of finished models, written as a page. */
import { basename } from 'node:path'
import type { Home } from '../data/test-sets.ts'
import { decodePicture } from '../images/decode.ts'
import { thumbnail } from '../images/encode.ts'
import { openArtefact } from '../models/artefact.ts'
import type { Comparison, Manifest } from '../sdk/index.ts'
import { writeFileAtomic } from '../storage/disk.ts'
import { activationPicture } from './activation-picture.ts'
import type { Answer } from './ask.ts'
import { renderComparisonReport } from './compare-report.ts'
import { doubtfulFinding } from './doubtful.ts'
import { renderReport } from './report.ts'
import { areForeign, strangersFinding } from './strangers.ts'
import { seenSentence, wear } from './test-sets.ts'
import type { Finding } from './verdicts.ts'

/** With the rights of any file of this user: it is theirs, not the home's. */
const mode = 0o666

/** What is known beside the test itself: what to know before believing any number, and what else there is to say. */
export function findingsBeside(answer: Answer): { warnings: Finding[]; further: Finding[] } {
  const { model, manifest, evaluation, seen, testSet, unknown, mislabels, right } = answer
  const worn = testSet && wear(testSet, evaluation)
  const strangers = strangersFinding(unknown, evaluation.n)
  const foreign = unknown !== null && areForeign(unknown)
  return {
    warnings: [
      ...seenSentence(seen, evaluation.n, nameOf(model)).map(sentence => ({ sentence, how: 'seen' as const })),
      ...(worn ? [{ sentence: worn, how: 'looks' as const }] : []),
      ...(foreign ? strangers : []),
    ],
    further: [...(foreign ? [] : strangers), ...doubtfulFinding(mislabels, manifest, right)],
  }
}
const nameOf = ({ name, version }: Answer['model']) => `${name}@${version}`

/** Throws disk_full, read_only, not_permitted, storage. */
export async function writeEvaluationReport(home: Home, answer: Answer, path: string): Promise<void> {
  const { model, manifest, evaluation, threshold, testSet, unknown, mislabels } = answer
  const name = nameOf(model)
  const unreadable = manifest.unreadable.map(each => `${each.path} could not be read and is left out: ${each.reason}`)
  const contentOf = new Map(manifest.rows.map(row => [row.path, row.content]))
  const classifier = await openArtefact(model.path, { threads: 1 })
  const page = await renderReport({
    title: `${name} on ${basename(answer.set)}`,
    result: null,
    evaluation,
    classes: model.labels,
    ...findingsBeside(answer),
    strangers: unknown?.paths ?? [],
    ...(mislabels && { mislabels }),
    activation: async path =>
      activationPicture(classifier, await decodePicture(await home.blobs.get(contentOf.get(path)!), { formats: 'local' })),
    notes: unreadable,
    plan: [],
    pictures: picturesOf(manifest, content => home.blobs.get(content)),
    history: [],
    conflicts: manifest.conflicts,
    ...(threshold !== null && { threshold }),
    lineage: {
      Model: name,
      'Model file': `sha256 ${model.digest}`,
      ...(model.run && { Run: model.run }),
      ...(model.dataset && { 'Trained on': `${model.dataset.name}@${model.dataset.version}` }),
      ...(testSet && { 'Test set': `${testSet.name}@${testSet.version}, digest ${testSet.digest}` }),
    },
  }).finally(() => classifier.close())
  await writeFileAtomic(path, page, { mode })
}

export async function writeComparisonReport(
  home: Home,
  { comparison, manifest, notes }: { comparison: Comparison; manifest: Manifest; notes: readonly string[] },
  path: string,
): Promise<void> {
  const pictures = picturesOf(manifest, content => home.blobs.get(content))
  await writeFileAtomic(path, await renderComparisonReport({ comparison, pictures, notes }), { mode })
}

/** Path of a row → `data:image/webp;base64,…` within a square of `side` pixels; null for a path that is not in the manifest. */
export function picturesOf(
  { rows }: Pick<Manifest, 'rows'>,
  blob: (content: string) => Promise<Uint8Array>,
  side = 240,
): (path: string) => Promise<string | null> {
  const contentOf = new Map(rows.map(row => [row.path, row.content]))
  return async path => {
    const content = contentOf.get(path)
    if (content === undefined) return null
    return `data:image/webp;base64,${Buffer.from(await thumbnail(await blob(content), side)).toString('base64')}`
  }
}
