/** What a training is about to do, worked out before it starts and printed: pictures, split, device, memory, time. */
import { splitDataset } from '../data/split.ts'
import { add, input, matMul, parameter } from '../engine/index.ts'
import { backbone as backboneById } from '../models/catalogue.ts'
import { type DatasetReference, type Device, formatForecast, type Manifest, type Side } from '../sdk/index.ts'
import { ownGroups } from './copies.ts'
import { forecast, multiplyAdds, type Rates, stepMemory } from './forecast.ts'
import { batchSize, defaultEpochs, type Settings } from './recipes/image-classification.ts'

export interface Plan {
  lines: string[]
  /** Seconds expected from now to the end. */
  seconds: number
  multiplyAdds: number
}

export function planTraining({ manifest, dataset, settings, device, secondsBefore, earlier }: PlanInput, rates: Rates): Plan {
  const base = backboneById(settings.backbone)
  const split = splitDataset(manifest, {
    seed: settings.seed,
    dataset: dataset.digest,
    groups: ownGroups(manifest, settings.groupBy),
    ...(earlier !== undefined && { earlier }),
  })
  const classes = manifest.classes.length
  const picture = input('picture', [1, 3, settings.imageSize, settings.imageSize])
  const head = parameter('head', [classes, base.features])
  const logits = add(matMul(base.build(picture).features, head, { transposeB: true }), parameter('bias', [classes]))
  const cost = multiplyAdds(logits)
  const work = {
    pictures: manifest.rows.length,
    trainPictures: split.train.length,
    epochs: 0,
    multiplyAdds: cost,
    threads: settings.threads,
  }
  const perEpoch = forecast({ ...work, epochs: 1 }, rates).finetune
  const headSeconds = forecast(work, rates).head
  const budget = settings.budgetSeconds
  const epochs =
    settings.epochs ??
    (budget
      ? Math.min(Math.max(Math.floor((budget - secondsBefore - headSeconds - 6) / perEpoch), 1), 50)
      : defaultEpochs(split.train.length))
  const seconds = headSeconds + epochs * perEpoch + 2
  const memoryBytes = stepMemory(logits, batchSize)
  const sides = split.notes.map(note => `             ${note}`)
  return {
    seconds,
    multiplyAdds: cost,
    lines: [
      `Pictures     ${manifest.rows.length} in ${classes} classes (${nameSome(manifest.classes)})`,
      ...leftOut(manifest),
      `Split        ${split.train.length} to train, ${split.validation.length} to choose (validation), ${split.test.length} to test once at the end`,
      ...sides,
      '             Look-alikes are found next and kept on one side, which may move a few pictures.',
      `Network      ${base.title}, pictures ${settings.imageSize} × ${settings.imageSize}, ${epochs === 0 ? 'head only' : `${epochs} epochs${budget && settings.epochs === null ? ' (to fit the budget)' : ''}`}`,
      `Device       ${device.name}, ${device.threads} ${device.threads === 1 ? 'thread' : 'threads'}`,
      `Memory       about ${megabytes(memoryBytes)}`,
      `Time         about ${formatForecast(seconds)} (${rates.source === 'measured' ? 'from earlier trainings here' : 'from typical processors; the next forecast learns from this training'})`,
    ],
  }
}

export interface PlanInput {
  earlier?: ReadonlyMap<string, Side> | null
  manifest: Manifest
  dataset: DatasetReference
  settings: Settings
  device: Device
  secondsBefore: number
}

function leftOut({ unreadable, exactDuplicates, conflicts, ignored }: Manifest): string[] {
  const parts = [
    unreadable.length && `${unreadable.length} unreadable`,
    exactDuplicates.length && `${exactDuplicates.length} groups of identical pictures (kept on one side)`,
    conflicts.length && `${conflicts.length} identical pictures with different labels`,
    ignored.length && `${ignored.length} ${ignored.length === 1 ? 'file or folder' : 'files or folders'} left out`,
  ].filter(Boolean)
  return parts.length ? [`             ${parts.join(', ')}`] : []
}

const nameSome = (names: readonly string[]) =>
  names.length <= 10 ? names.join(', ') : `${names.slice(0, 8).join(', ')} and ${names.length - 8} more`
const megabytes = (bytes: number) => (bytes < 1e9 ? `${Math.round(bytes / 1e6)} MB` : `${(bytes / 1e9).toFixed(1)} GB`)
