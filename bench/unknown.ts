/**
 * What “none of these” is worth, on both samples: `node bench/unknown.ts` (about a minute a sample on 2 cores). Features are the untouched
 * network's, 15 % of the things are the test side, and the other sample stands for pictures from another world. Beside the distance: the
 * largest probability with a limit for the same share of false alarms, both rules together, and the plain Mahalanobis distance to class means.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openFeatureNetwork } from '../src/data/features.ts'
import { groupedFolds } from '../src/data/folds.ts'
import { extractSample } from '../src/data/samples.ts'
import { randomFrom } from '../src/engine/random.ts'
import { conformal } from '../src/evaluate/held-back.ts'
import { auroc } from '../src/evaluate/left-out.ts'
import { falseAlarmRate, fitUnknown } from '../src/evaluate/unknown.ts'
import { decodePicture } from '../src/images/decode.ts'
import { createPreprocessor } from '../src/models/artefact.ts'
import { backbone } from '../src/models/catalogue.ts'
import { type FeatureSpace, fitFeatureSpace, measure } from '../src/models/feature-space.ts'
import { fitLogisticRegression } from '../src/models/logistic-regression.ts'
import { distancesOf, entropies } from '../src/models/unknown.ts'

const threads = 2
const sides = { fashion: 96, emoji: 128 } as const
type Name = keyof typeof sides
const network = backbone('efficientnet-lite0')
const weights = await network.loadWeights({ offline: true })
const width = network.features
const folder = mkdtempSync(join(tmpdir(), 'plinth-bench-unknown-'))

async function sampleAt(name: Name, side: number, every = 1) {
  const directory = join(folder, name)
  await extractSample(name, directory)
  const classes = readdirSync(directory, { withFileTypes: true })
    .filter(entry => entry.isDirectory())
    .map(entry => entry.name)
    .sort()
  const rows = classes
    .flatMap((label, k) =>
      readdirSync(join(directory, label)).map(file => ({
        path: join(directory, label, file),
        k,
        thing: `${label}/${file.split('__')[0]}`,
      })),
    )
    .filter((_, i) => i % every === 0)
  const preprocessor = await createPreprocessor(side, { threads })
  const program = await openFeatureNetwork({ backbone: network, weights, side, threads })
  const squares = new Uint8Array(rows.length * 3 * side * side)
  for (const [i, { path }] of rows.entries())
    squares.set(await preprocessor.run(await decodePicture(readFileSync(path), { formats: 'local' })), i * 3 * side * side)
  const features = await program.features(squares)
  await Promise.all([preprocessor.close(), program.close()])
  return { classes, rows, features }
}

/** The usual proposal: squared distance to the nearest class mean, in units of the spread within the classes. */
function toNearestMean({ dimensions: d, center, projection, within, means }: FeatureSpace, features: Float32Array, row: number): number {
  const x = features.subarray(row * width, (row + 1) * width)
  const length = Math.hypot(...x)
  const q = Float64Array.from({ length: d }, (_, i) => {
    let sum = 0
    for (let f = 0; f < width; f++) sum += (x[f]! / length - center[f]!) * projection[i * width + f]!
    return sum
  })
  const u = Float64Array.from({ length: d }, (_, i) => q.reduce((sum, value, j) => sum + value * within[i * d + j]!, 0))
  let nearest = Number.POSITIVE_INFINITY
  for (let k = 0; k < means.length / d; k++)
    nearest = Math.min(
      nearest,
      u.reduce((sum, value, i) => sum + (value - means[k * d + i]!) ** 2, 0),
    )
  return nearest
}

for (const name of ['fashion', 'emoji'] as const) {
  const { classes, rows, features } = await sampleAt(name, sides[name])
  const elsewhere = await sampleAt(name === 'fashion' ? 'emoji' : 'fashion', sides[name], 4)
  const random = randomFrom(1)
  const chance = new Map([...new Set(rows.map(row => row.thing))].map(thing => [thing, random()]))
  const part = (from: number, to: number) =>
    [...rows.keys()].filter(i => chance.get(rows[i]!.thing)! >= from && chance.get(rows[i]!.thing)! < to)
  const [train, validation, test] = [part(0, 0.7), part(0.7, 0.85), part(0.85, 1)]
  const both = [...train, ...validation]
  const of = (which: readonly number[]) => {
    const out = new Float32Array(which.length * width)
    for (const [i, row] of which.entries()) out.set(features.subarray(row * width, (row + 1) * width), i * width)
    return out
  }
  const labelsOf = (which: readonly number[]) => Int32Array.from(which, row => rows[row]!.k)
  const groupsOf = (which: readonly number[]) =>
    [...Map.groupBy(which.keys(), i => rows[which[i]!]!.thing).values()].filter(group => group.length > 1)
  const head = await fitLogisticRegression({
    train: { features: of(train), labels: labelsOf(train) },
    validation: { features: of(validation), labels: labelsOf(validation) },
    width,
    classes: classes.length,
    threads,
  })
  const began = performance.now()
  const { parts, unknown } = await fitUnknown({
    features: of(both),
    width,
    labels: labelsOf(both),
    classes,
    groups: groupsOf(both),
    head,
    temperature: 1,
    fresh: validation.map((_, i) => train.length + i),
    seed: 0,
    threads,
  })
  const seconds = (performance.now() - began) / 1000

  const judge = async (of: Float32Array) => {
    const n = of.length / width
    const probabilities = head.probabilities(of)
    const measures = {
      ...(await measure(parts!.space, { features: of, width, rows: [...Array(n).keys()] }, threads)),
      entropy: entropies(probabilities, classes.length),
    }
    const best = Float64Array.from(
      { length: n },
      (_, i) => -Math.max(...probabilities.subarray(i * classes.length, (i + 1) * classes.length)),
    )
    return { distance: distancesOf(measures, parts!.scales), doubt: best }
  }
  const [known, fresh, far] = [await judge(of(validation)), await judge(of(test)), await judge(elsewhere.features)]
  const limit = parts!.metadata.threshold
  const doubtLimit = conformal(known.doubt, falseAlarmRate)
  const share = (values: Float64Array, most: number) => values.filter(value => value > most).length / values.length
  const either = ({ distance, doubt }: typeof known) =>
    distance.filter((value, i) => value > limit || doubt[i]! > doubtLimit).length / distance.length

  const fold = groupedFolds({ labels: labelsOf(both), groups: groupsOf(both), folds: 5, seed: 0 })
  const plain: number[] = []
  for (const k of classes.keys()) {
    const learned = both.filter((row, i) => rows[row]!.k !== k && fold[i] !== k % 5)
    const space = (await fitFeatureSpace({ features, width, rows: learned }, { labels: rows.map(row => row.k), threads, seed: 0 }))!
    const held = both.filter((row, i) => rows[row]!.k !== k && fold[i] === k % 5)
    const strangers = both.filter(row => rows[row]!.k === k)
    const score = (which: readonly number[]) => Float64Array.from(which, row => toNearestMean(space, features, row))
    plain.push(auroc(score(held), score(strangers)))
  }

  const percent = (value: number) => `${(value * 100).toFixed(1)} %`
  console.log(
    `\n## ${name}: ${train.length} + ${validation.length} pictures, ${test.length} to test, ${far.distance.length} of ${name === 'fashion' ? 'emoji' : 'fashion'}; fitted in ${seconds.toFixed(1)} s\n`,
  )
  console.log('| | distance | probability | either |\n|---|---|---|---|')
  console.log(
    `| known pictures called unknown by mistake (test side) | ${percent(share(fresh.distance, limit))} | ${percent(share(fresh.doubt, doubtLimit))} | ${percent(either(fresh))} |`,
  )
  console.log(
    `| pictures of a left-out class called unknown | ${percent(unknown!.detected!)} | ${percent(unknown!.detectedByProbability!)} | |`,
  )
  console.log(
    `| pictures from another world called unknown | ${percent(share(far.distance, limit))} | ${percent(share(far.doubt, doubtLimit))} | ${percent(either(far))} |`,
  )
  console.log(
    `| AUROC, mean over left-out classes (plain Mahalanobis: ${(plain.reduce((a, b) => a + b, 0) / plain.length).toFixed(3)}) | ${unknown!.auroc!.toFixed(3)} | ${unknown!.aurocOfProbability!.toFixed(3)} | |`,
  )
  console.log(
    `| AUROC, another world | ${auroc(fresh.distance, far.distance).toFixed(3)} | ${auroc(fresh.doubt, far.doubt).toFixed(3)} | |`,
  )
  console.log('\n| left out | pictures | distance | probability | plain Mahalanobis |\n|---|---|---|---|---|')
  for (const [k, one] of unknown!.perClass.entries())
    console.log(`| ${one.label} | ${one.n} | ${one.auroc.toFixed(2)} | ${one.aurocOfProbability.toFixed(2)} | ${plain[k]!.toFixed(2)} |`)
}
rmSync(folder, { recursive: true })
