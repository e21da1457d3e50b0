/**
 * What a careless split is worth, on the emoji sample: accuracy of a linear probe when pictures are dealt at random, when drawings of one thing
 * stay on one side, and on a vendor that was never seen. Prints the table of docs/samples.md.
 *
 *   node scripts/measure-split.ts [SIDE=224] [SEEDS=5]        (about two minutes on 2 cores)
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { preparePictures } from '../src/data/features.ts'
import { importPictures, manifestDigest } from '../src/data/import.ts'
import { extractSample } from '../src/data/samples.ts'
import { splitDataset } from '../src/data/split.ts'
import { backbone } from '../src/models/catalogue.ts'
import { fitLogisticRegression } from '../src/models/logistic-regression.ts'
import type { Manifest } from '../src/sdk/shapes.ts'
import { openBlobs } from '../src/storage/blobs.ts'

const [side = 224, seeds = 5] = process.argv.slice(2).map(Number)
const threads = 2
const folder = await mkdtemp(join(tmpdir(), 'plinth-split-'))
try {
  await extractSample('emoji', join(folder, 'emoji'))
  const blobs = openBlobs(join(folder, 'blobs'))
  const vendor = (path: string) => /__(\w+)/.exec(path)![1]!
  const careless = await importPictures(join(folder, 'emoji'), { blobs })
  const careful = await importPictures(join(folder, 'emoji'), { blobs, groupBy: /([^/]*)__/ })

  const network = backbone('efficientnet-lite0')
  const weights = await network.loadWeights()
  const { rows } = careless
  const blob = (content: string) => blobs.get(content)
  const dataset = manifestDigest(careless)
  const { features, width, close } = await preparePictures({ folder, dataset, rows, blob, backbone: network, weights, side, threads })
  const chosen = (rowNumbers: readonly number[]) => ({
    features: Float32Array.from(rowNumbers.flatMap(row => [...features.subarray(row * width, (row + 1) * width)])),
    labels: rowNumbers.map(row => careless.classes.indexOf(rows[row]!.labels[0]!)),
  })
  async function accuracy(train: readonly number[], validation: readonly number[], test: readonly number[]): Promise<number> {
    const classes = careless.classes.length
    const probe = await fitLogisticRegression({ train: chosen(train), validation: chosen(validation), width, classes, threads })
    const { features: tested, labels } = chosen(test)
    const probabilities = probe.probabilities(tested)
    const answers = labels.map((_, index) => probabilities.subarray(index * classes, (index + 1) * classes))
    return answers.filter((answer, index) => answer.indexOf(Math.max(...answer)) === labels[index]).length / labels.length
  }

  const percent = (values: number[]) => {
    const mean = values.reduce((a, b) => a + b) / values.length
    return `${(100 * mean).toFixed(1)} %${values.length > 1 ? ` (${(100 * Math.min(...values)).toFixed(1)} to ${(100 * Math.max(...values)).toFixed(1)})` : ''}`
  }
  const overSeeds = async (manifest: Manifest) => {
    const results: number[] = []
    for (let seed = 1; seed <= seeds; seed++) {
      const { train, validation, test } = splitDataset(manifest, { seed, dataset: 'any' })
      results.push(await accuracy(train, validation, test))
    }
    return percent(results)
  }
  console.log(`| dealt at random | ${await overSeeds(careless)} |`)
  console.log(`| drawings of one thing kept together | ${await overSeeds(careful)} |`)
  for (const unseen of ['noto', 'twemoji', 'fluent']) {
    const of = (own: boolean) => [...rows.keys()].filter(row => (vendor(rows[row]!.path) === unseen) === own)
    const learned = splitDataset({ ...careful, rows: of(false).map(row => careful.rows[row]!) }, { seed: 1, dataset: 'any' })
    const back = (numbers: readonly number[]) => numbers.map(number => of(false)[number]!)
    console.log(
      `| ${unseen} never seen | ${percent([await accuracy(back([...learned.train, ...learned.test]), back(learned.validation), of(true))])} |`,
    )
  }
  close()
} finally {
  await rm(folder, { recursive: true, force: true })
}
