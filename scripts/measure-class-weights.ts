/**
 * What to do about uneven classes, tried with heads on the two samples: nothing, weights in the loss, or the classes' shares taken out of the answers
 * (src/train/choices/class-weights.ts). Half of the classes are thinned to a fifth and to a twentieth; what is tested on is left as it is.
 * Prints the table of docs/inside/train.md: balanced accuracy, and accuracy as it would be under the training shares, mean of the splits.
 *
 *   node scripts/measure-class-weights.ts [SPLITS=4]        (about two minutes on 2 cores)
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { preparePictures } from '../src/data/features.ts'
import { importPictures, manifestDigest } from '../src/data/import.ts'
import { extractSample } from '../src/data/samples.ts'
import { permutation, randomFrom } from '../src/engine/random.ts'
import { backbone } from '../src/models/catalogue.ts'
import { fitLogisticRegression } from '../src/models/logistic-regression.ts'
import { openBlobs } from '../src/storage/blobs.ts'
import { rowsOf } from '../src/train/choices/evidence.ts'

const splits = Number(process.argv[2] ?? 4)
const threads = 2
const network = backbone('efficientnet-lite0')
const weights = await network.loadWeights()
const folder = await mkdtemp(join(tmpdir(), 'plinth-class-weights-'))
console.log('| sample | as rare | as it is | weights in the loss | shares taken out |\n|---|---|---|---|---|')
try {
  for (const [name, side] of [
    ['fashion', 96],
    ['emoji', 128],
  ] as const)
    await measure(name, side)
} finally {
  await rm(folder, { recursive: true, force: true })
}

async function measure(name: 'fashion' | 'emoji', side: number): Promise<void> {
  await extractSample(name, join(folder, name))
  const blobs = openBlobs(join(folder, 'blobs'))
  const { rows, classes, ...others } = await importPictures(join(folder, name), { blobs, groupBy: /([^/]*)__/ })
  const dataset = manifestDigest({ rows, classes, ...others })
  const blob = (content: string) => blobs.get(content)
  const pictures = await preparePictures({ folder, dataset, rows, blob, backbone: network, weights, side, threads })
  const label = (row: number) => classes.indexOf(rows[row]!.labels[0]!)
  const chosen = (which: readonly number[]) => ({
    features: rowsOf(pictures.features, pictures.width, which),
    labels: Int32Array.from(which, label),
  })

  for (const rare of [5, 20]) {
    const found: Record<'plain' | 'weighted' | 'taken', [balanced: number, accuracy: number][]> = { plain: [], weighted: [], taken: [] }
    for (let seed = 0; seed < splits; seed++) {
      const [train, validation, test] = deal(rare, seed)
      const shares = classes.map((_, k) => train.filter(row => label(row) === k).length / train.length)
      const task = { train: chosen(train), validation: chosen(validation), width: pictures.width, classes: classes.length, threads }
      const plain = await fitLogisticRegression(task)
      const weighted = await fitLogisticRegression({ ...task, classWeights: 'balanced' })
      const tested = chosen(test)
      const score = (probabilities: Float64Array, taken: (k: number) => number): [number, number] => {
        const recall = classes.map((_, k) => {
          const own = [...test.keys()].filter(i => tested.labels[i] === k)
          const right = own.filter(i => {
            const row = classes.map((_, each) => probabilities[i * classes.length + each]! / taken(each))
            return row.indexOf(Math.max(...row)) === k
          })
          return right.length / own.length
        })
        return [recall.reduce((sum, each) => sum + each / classes.length, 0), recall.reduce((sum, each, k) => sum + each * shares[k]!, 0)]
      }
      const said = plain.probabilities(tested.features)
      found.plain.push(score(said, () => 1))
      found.weighted.push(score(weighted.probabilities(tested.features), () => 1))
      found.taken.push(score(said, k => shares[k]!))
    }
    const mean = (scores: [number, number][], which: 0 | 1) => (100 * scores.reduce((sum, each) => sum + each[which], 0)) / scores.length
    const cells = Object.values(found).map(scores => `${mean(scores, 0).toFixed(1)} / ${mean(scores, 1).toFixed(1)} %`)
    console.log(`| ${name} | 1 : ${rare} | ${cells.join(' | ')} |`)
  }
  pictures.close()

  /** Two fifths of each class are tested on; of every second class only so few of the others are kept. Groups stay together. */
  function deal(rare: number, seed: number): [number[], number[], number[]] {
    const random = randomFrom(seed, 9)
    const sides: [number[], number[], number[]] = [[], [], []]
    for (const [k, own] of Map.groupBy(rows.keys(), label)) {
      const units = [...Map.groupBy(own, row => rows[row]!.group ?? row).values()]
      const dealt = permutation(units.length, random).flatMap(i => units[i]!)
      const tested = Math.round(0.4 * dealt.length)
      const kept = dealt.slice(tested, tested + Math.max(4, Math.round((dealt.length - tested) / (k % 2 === seed % 2 ? 1 : rare))))
      const chosenOn = Math.max(1, Math.round(0.18 * kept.length))
      sides[2].push(...dealt.slice(0, tested))
      sides[1].push(...kept.slice(0, chosenOn))
      sides[0].push(...kept.slice(chosenOn))
    }
    return sides
  }
}
