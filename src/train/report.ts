/** The report of a training: what the page is given, and what lies beside it. */
import { join } from 'node:path'
import type { PreparedPictures } from '../data/features.ts'
import { activationPicture } from '../evaluate/activation-picture.ts'
import { renderReport, reportJson } from '../evaluate/index.ts'
import { decodePicture } from '../images/decode.ts'
import { thumbnail } from '../images/encode.ts'
import type { Classifier } from '../models/artefact.ts'
import type { Fit, Manifest, RunReporter, Split, TrainResult } from '../sdk/index.ts'
import { writeFileAtomic } from '../storage/disk.ts'
import type { Augmentation } from './augment.ts'
import { contactSheet } from './contact-sheet.ts'
import type { FineTuned } from './finetune.ts'
import type { Plan } from './plan.ts'
import type { Settings } from './recipes/image-classification.ts'

export interface ReportTask {
  run: RunReporter
  settings: Settings
  manifest: Manifest
  plan: Plan
  blob(content: string): Promise<Uint8Array>
  result: TrainResult
  split: Split
  tuned: FineTuned | null
  /** How training pictures were altered; null where nothing was trained on them. */
  augmentation: Augmentation | null
  pictures: PreparedPictures
  fit: Fit
  calibration: { threshold: number }
  classifier: Classifier
  /** What import, split and calibration had to say. */
  notes: string[]
}

export async function writeReport(task: ReportTask): Promise<void> {
  const { run, manifest, plan, result, split, tuned, calibration } = task
  const examples = manifest.classes.flatMap(label => {
    const row = split.train.find(index => manifest.rows[index]!.labels[0] === label)
    return row === undefined ? [] : [{ path: manifest.rows[row]!.path, label }]
  })
  const contentOf = new Map(manifest.rows.map(row => [row.path, row.content]))
  const page = await renderReport({
    title: result.model.name,
    result,
    evaluation: result.test,
    classes: manifest.classes,
    contactSheets: await contactSheet({
      train: split.train,
      rowOf: row => manifest.rows[row]!,
      bytesOf: row => task.blob(manifest.rows[row]!.content),
      pictures: task.pictures,
      fit: task.fit,
      augmentation: task.augmentation,
      seed: task.settings.seed,
    }),
    notes: task.notes,
    plan: plan.lines,
    pictures: async path => {
      const content = contentOf.get(path)
      if (!content) return null
      return `data:image/webp;base64,${Buffer.from(await thumbnail(await task.blob(content), 240)).toString('base64')}`
    },
    activation: async path => {
      const content = contentOf.get(path)
      return content ? activationPicture(task.classifier, await decodePicture(await task.blob(content), { formats: 'local' })) : null
    },
    examples: examples.slice(0, 24),
    history: tuned?.history ?? [],
    conflicts: manifest.conflicts,
    threshold: calibration.threshold,
    reproduce: [commandOf(task)],
  })
  await writeFileAtomic(result.report, page)
  await writeFileAtomic(join(run.directory, 'evaluation.json'), reportJson(result.test))
}

/** The command that makes the same model again. */
function commandOf({ settings, result: { dataset }, tuned }: ReportTask): string {
  const words: [string, string | number | null][] = [
    ['name', settings.name],
    ['seed', settings.seed],
    ['image-size', settings.imageSize],
    ['epochs', tuned?.epochs ?? 0],
    ['backbone', settings.backbone],
    ['threads', settings.threads],
    ['group-by', settings.groupBy && `'${settings.groupBy.replaceAll("'", "'\\''")}'`],
    ['class-weights', settings.classWeights === 'auto' ? null : settings.classWeights],
    ['from', settings.from],
    ['weights', settings.weights],
  ]
  const options = words.filter(([, value]) => value !== null).map(([name, value]) => `--${name} ${value}`)
  return `plinth train ${dataset.name}@${dataset.version} ${options.join(' ')}`
}
