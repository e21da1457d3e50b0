/** What a training is about to do, worked out before it starts and printed: pictures, split, device, memory, time. */
import { smallSide } from '../data/copies/pictures.ts'
import { splitDataset } from '../data/split.ts'
import { add, input, matMul, parameter } from '../engine/index.ts'
import { backbone as backboneById } from '../models/catalogue.ts'
import { type DatasetReference, type Device, formatForecast, type Manifest, type Side } from '../sdk/index.ts'
import { sampleSize as alterationSample } from './choices/augmentation.ts'
import { fitIsAQuestion, fitSample } from './choices/fit.ts'
import { ownGroups } from './copies.ts'
import { type Forecast, forecast, multiplyAdds, type Rates, stepMemory, type Work } from './forecast.ts'
import { batchSize, defaultEpochs, epochsWithin, type Settings } from './recipes/image-classification.ts'

export interface Plan {
  lines: string[]
  /** Seconds expected from now to the end. */
  seconds: number
  /** Of its parts, and what they were worked out from. */
  expected: Forecast
  work: Work
}

export function planTraining({ manifest, dataset, settings, device, secondsBefore, earlier }: PlanInput, rates: Rates): Plan {
  const base = backboneById(settings.backbone)
  const groups = ownGroups(manifest, settings.groupBy)
  const split = splitDataset(manifest, {
    seed: settings.seed,
    dataset: dataset.digest,
    groups,
    ...(earlier !== undefined && { earlier }),
  })
  const classes = manifest.classes.length
  const picture = input('picture', [1, 3, settings.imageSize, settings.imageSize])
  const head = parameter('head', [classes, base.features])
  const logits = add(matMul(base.build(picture).features, head, { transposeB: true }), parameter('bias', [classes]))
  const cost = multiplyAdds(logits)
  const learned = split.train.length + split.validation.length
  const workWith = (epochs: number): Work => ({
    pictures: manifest.rows.length,
    searched: manifest.rows.some(({ width, height }) => Math.min(width, height) >= smallSide) ? manifest.rows.length : 0,
    pixels: manifest.rows.reduce((sum, { width, height }) => sum + width * height, 0),
    trainPictures: split.train.length,
    testPictures: split.test.length,
    classes,
    features: base.features,
    epochs,
    multiplyAdds: cost,
    threads: settings.threads,
    fitSample: fitIsAQuestion(manifest.rows) ? Math.min(fitSample, learned) : 0,
    alterationSample: Math.min(alterationSample(classes), learned),
  })
  const one = forecast(workWith(1), rates)
  const budget = settings.budgetSeconds
  const epochs =
    settings.epochs ??
    (budget
      ? epochsWithin(budget - secondsBefore - one.features - one.before - one.after, one.finetune)
      : defaultEpochs(split.train.length))
  const work = workWith(epochs)
  const expected = forecast(work, rates)
  const seconds = expected.features + expected.before + expected.finetune + expected.after
  const memoryBytes = stepMemory(logits, batchSize)
  const sides = split.notes.map(note => `             ${note}`)
  return {
    seconds,
    expected,
    work,
    lines: [
      `Pictures     ${manifest.rows.length} in ${classes} classes (${nameSome(manifest.classes)})`,
      ...leftOut(manifest),
      ...(settings.groupBy === null ? [] : [`Groups       ${groupsSaid(groups)}`]),
      `Split        ${split.train.length} to train, ${split.validation.length} to choose (validation), ${split.test.length} to test once at the end`,
      ...sides,
      '             Look-alikes are found next and kept on one side, which may move a few pictures.',
      `Network      ${base.title}, pictures ${settings.imageSize} × ${settings.imageSize}, ${epochs === 0 ? 'head only' : `${epochs} ${epochs === 1 ? 'epoch' : 'epochs'}${budget && settings.epochs === null ? ' (to fit the budget)' : ''}`}`,
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

const groupsSaid = (groups: readonly (readonly number[])[]) =>
  groups.length === 0
    ? 'none: no two pictures have the same text where --group-by finds it'
    : `${groups.length} by --group-by, with ${groups.reduce((sum, group) => sum + group.length, 0)} pictures; each stays on one side`

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
