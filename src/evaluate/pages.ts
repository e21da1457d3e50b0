/** What was asked of finished models, written as a page. */
import { basename } from 'node:path'
import type { Home } from '../data/test-sets.ts'
import { thumbnail } from '../images/encode.ts'
import type { Comparison, Manifest } from '../sdk/index.ts'
import { writeFileAtomic } from '../storage/disk.ts'
import type { Answer } from './ask.ts'
import { renderComparisonReport } from './compare-report.ts'
import { renderReport } from './report.ts'
import { seenSentence, wear } from './test-sets.ts'
import type { Finding } from './verdicts.ts'

/** With the rights of any file of this user: it is theirs, not the home's. */
const mode = 0o666

/** Throws disk_full, read_only, not_permitted, storage. */
export async function writeEvaluationReport(home: Home, answer: Answer, path: string): Promise<void> {
  const { model, manifest, evaluation, seen, threshold, testSet } = answer
  const name = `${model.name}@${model.version}`
  const worn = testSet && wear(testSet, evaluation)
  const warnings: Finding[] = [
    ...seenSentence(seen, evaluation.n, name).map(sentence => ({ sentence, how: 'seen' as const })),
    ...(worn ? [{ sentence: worn, how: 'looks' as const }] : []),
  ]
  const unreadable = manifest.unreadable.map(each => `${each.path} could not be read and is left out: ${each.reason}`)
  const page = await renderReport({
    title: `${name} on ${basename(answer.set)}`,
    result: null,
    evaluation,
    classes: model.labels,
    warnings,
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
  })
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
