/** What a training decides on its training and validation pictures: how pictures are fitted, whether classes weigh alike, what is safe to alter. */
import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import sharp from 'sharp'
import { openFeatureNetwork, preparePictures } from '../../src/data/features.ts'
import { extractSample } from '../../src/data/samples.ts'
import { randomFrom } from '../../src/engine/random.ts'
import { backbone } from '../../src/models/catalogue.ts'
import { chooseAugmentation } from '../../src/train/choices/augmentation.ts'
import { chooseClassWeights } from '../../src/train/choices/class-weights.ts'
import { chooseFit } from '../../src/train/choices/fit.ts'
import { fitHead } from '../../src/train/head.ts'

const scratch = mkdtempSync(join(tmpdir(), 'plinth-choices-'))
process.on('exit', () => rmSync(scratch, { recursive: true, force: true }))
const base = backbone('efficientnet-lite0')
const weights = await base.loadWeights({})
const [side, seed, threads] = [64, 3, 2]
const network = await openFeatureNetwork({ backbone: base, weights, side, threads })
after(() => network.close())

interface Drawn {
  label: string
  png: Buffer
}
/** Pictures as a training has them: rows of a manifest, labels, features. */
async function prepared(name: string, drawn: readonly Drawn[]) {
  const labels = [...new Set(drawn.map(({ label }) => label))]
  const rows = await Promise.all(
    drawn.map(async ({ label, png }, i) => {
      const { width, height } = await sharp(png).metadata()
      const text = String(i)
      return { path: `${i}.png`, content: text, pixels: text, labels: [label], group: null, side: null, width, height, flags: [] }
    }),
  )
  const blob = async (content: string): Promise<Uint8Array> => drawn[Number(content)]!.png
  const pictures = await preparePictures({ folder: scratch, dataset: name, rows, blob, backbone: base, weights, side, threads })
  const labelOf = (row: number) => labels.indexOf(drawn[row]!.label)
  const every = [...drawn.keys()]
  return { labels, rows, blob, pictures, labelOf, every }
}

type Colour = readonly [number, number, number]
/** A picture by what is at each point, with a little noise. */
function painted(width: number, height: number, random: () => number, colourAt: (x: number, y: number) => Colour): Promise<Buffer> {
  const data = new Uint8ClampedArray(width * height * 3)
  for (let y = 0, at = 0; y < height; y++)
    for (let x = 0; x < width; x++) for (const value of colourAt(x, y)) data[at++] = value + 16 * random() - 8
  return sharp(data, { raw: { width, height, channels: 3 } })
    .png()
    .toBuffer()
}
const anyColour = (random: () => number, from: number): Colour => [from + 80 * random(), from + 80 * random(), from + 80 * random()]

/** An arrow somewhere in a square, in colours that say nothing. */
function arrow(direction: 'left' | 'right', random: () => number): Promise<Buffer> {
  const [cx, cy, size] = [48 + 12 * (random() - 0.5), 48 + 20 * (random() - 0.5), 26 + 12 * random()]
  const [ink, paper] = [anyColour(random, 20), anyColour(random, 150)]
  return painted(96, 96, random, (x, y) => {
    const along = ((x - cx) / size) * (direction === 'left' ? -1 : 1)
    const across = Math.abs(y - cy) / size
    const shaft = along > -1 && along <= 0.2 && across < 0.18
    const tip = along > 0.2 && along < 1 && across < (1 - along) * 0.75
    return shaft || tip ? ink : paper
  })
}

async function augmentationFor(name: string, drawn: readonly Drawn[]) {
  const { pictures, labels, labelOf, every } = await prepared(name, drawn)
  const augmentation = { flip: true, shift: 0.07, zoom: 0.1, light: 0.1 }
  try {
    return await chooseAugmentation({ augmentation, pictures, network, labels, labelOf, among: every, groups: [], seed, threads })
  } finally {
    pictures.close()
  }
}

test('arrows to the left and to the right are not mirrored, and the reason is given', async () => {
  const random = randomFrom(seed)
  const drawn = await Promise.all(
    Array.from({ length: 120 }, async (_, i) => {
      const label = i % 2 ? 'left' : 'right'
      return { label, png: await arrow(label, random) }
    }),
  )
  const { augmentation, choices } = await augmentationFor('arrows', drawn)
  assert.equal(augmentation.flip, false)
  assert.deepEqual([augmentation.shift, augmentation.zoom, augmentation.light], [0.07, 0.1, 0.1])
  const mirror = choices.find(({ what }) => what === 'augmentation: mirror')
  assert.equal(mirror?.chosen, 'off')
  assert.match(mirror!.sentence, /^Training pictures are not mirrored/)
  assert.match(mirror!.sentence, /of “(left|right)” \d+ are taken for “(left|right)” when they are mirrored/)
})

test('clothes may be mirrored, shifted, zoomed and lit', async () => {
  const { augmentation, choices } = await augmentationFor('clothes', await clothes(12))
  assert.deepEqual(augmentation, { flip: true, shift: 0.07, zoom: 0.1, light: 0.1 })
  assert.deepEqual(
    choices.map(({ chosen }) => chosen),
    ['mirror, shift, zoom, light'],
  )
})

test('pictures of 16:9 with the thing at the edge are not cropped', async () => {
  const random = randomFrom(seed, 1)
  const drawn = await Promise.all(
    Array.from({ length: 80 }, async (_, i) => {
      const label = i % 2 ? 'disc' : 'bars'
      const [ink, paper] = [anyColour(random, 20), anyColour(random, 150)]
      const [cx, cy] = [random() < 0.5 ? 16 : 144, 25 + 40 * random()]
      const png = await painted(160, 90, random, (x, y) => {
        const [dx, dy] = [x - cx, y - cy]
        const inside =
          label === 'disc' ? Math.hypot(dx, dy) < 13 : Math.abs(dx) < 13 && Math.abs(dy) < 13 && Math.floor((dy + 13) / 5) % 2 === 0
        return inside ? ink : paper
      })
      return { label, png }
    }),
  )
  const { pictures, rows, blob, labels, labelOf, every } = await prepared('edge', drawn)
  const asked = { rows, labelOf, classes: labels.length, groups: [], cropped: pictures.features, network, side, blob, seed, threads }
  const answer = await chooseFit({ ...asked, among: every })
  pictures.close()
  assert.ok(answer && answer.fit !== 'crop', answer?.choice.sentence)
  assert.equal(answer.choice.chosen, answer.fit)
  assert.match(answer.choice.sentence, /cutting out the square in the middle, which loses 44 % of a picture/)
})

test('the square in the middle stays where the whole picture is no better, and is not even asked about for square pictures', async () => {
  const random = randomFrom(seed, 2)
  const drawn = await Promise.all(
    Array.from({ length: 60 }, async (_, i) => {
      const label = i % 2 ? 'light' : 'dark'
      const colour = anyColour(random, i % 2 ? 150 : 20)
      return { label, png: await painted(120, 80, random, () => colour) }
    }),
  )
  const { pictures, rows, blob, labels, labelOf, every } = await prepared('plain', drawn)
  const asked = {
    labelOf,
    classes: labels.length,
    groups: [],
    cropped: pictures.features,
    network,
    side,
    blob,
    seed,
    threads,
    among: every,
  }
  assert.equal((await chooseFit({ ...asked, rows }))?.fit, 'crop')
  assert.equal(await chooseFit({ ...asked, rows: rows.map(row => ({ ...row, width: 82 })) }), null)
  pictures.close()
})

test('with twenty times as many pictures of half of the classes, letting classes weigh alike pays, and what is traded is said', async () => {
  const all = await clothes(100)
  const kept = [...Map.groupBy(all, ({ label }) => label).values()].flatMap((own, k) => own.slice(0, k % 2 ? 5 : 100))
  const { pictures, labels, labelOf, every } = await prepared('uneven', kept)
  pictures.close()
  const { features, width } = pictures
  const sides = { train: every.filter(i => i % 5 !== 0), validation: every.filter(i => i % 5 === 0) }
  const head = await fitHead(pictures, sides, labelOf, labels.length, threads)
  const asked = { labels, ...sides, head, labelOf, groups: [], seed, threads }
  const auto = await chooseClassWeights({ ...asked, features, width, asked: 'auto' })
  assert.equal(auto.choice?.chosen, 'balanced', auto.choice?.sentence)
  const [from, to] = auto.choice.sentence
    .match(/balanced accuracy \(the mean over the classes\) (\d+) % → (\d+) %/)!
    .slice(1)
    .map(Number)
  assert.ok(to! > from! + 5, auto.choice.sentence)
  assert.match(auto.choice.sentence, /80 training pictures of “.*”, 4 of “/)
  assert.match(auto.choice.sentence, /right answers \d+ % → \d+ %.*Answers assume that every class is equally frequent/)
  // what is taken out are the classes' shares of the training side
  assert.ok(Math.abs(auto.logShares!.reduce((sum, log) => sum + Math.exp(log), 0) - 1) < 1e-9)
  assert.equal((await chooseClassWeights({ ...asked, features, width, asked: 'none' })).logShares, null)
  // as with many pictures: by the one head, on validation
  const many = { ...asked, validation: Array.from({ length: 40 }, () => sides.validation).flat() }
  assert.match(
    (await chooseClassWeights({ ...many, features, width, asked: 'auto' })).choice!.sentence,
    /measured on [0-9,]+ validation pictures/,
  )
})

test('even classes are not asked about, unless the user asks', async () => {
  const { pictures, labels, labelOf, every } = await prepared('clothes', await clothes(12))
  const { features, width } = pictures
  pictures.close()
  const sides = { train: every, validation: every }
  const head = await fitHead(pictures, sides, labelOf, labels.length, threads)
  const asked = { labels, ...sides, head, labelOf, groups: [], seed, threads, features, width }
  assert.deepEqual(await chooseClassWeights({ ...asked, asked: 'auto' }), { logShares: null, choice: null })
  assert.equal((await chooseClassWeights({ ...asked, asked: 'balanced' })).choice?.chosen, 'balanced')
})

/** So many pictures of each of the ten classes of the sample. */
async function clothes(each: number): Promise<Drawn[]> {
  const folder = join(scratch, 'fashion')
  if (!existsSync(folder)) await extractSample('fashion', folder)
  const classes = readdirSync(folder, { withFileTypes: true }).filter(entry => entry.isDirectory())
  return classes.flatMap(({ name }) =>
    readdirSync(join(folder, name))
      .sort()
      .slice(0, each)
      .map(file => ({ label: name, png: readFileSync(join(folder, name, file)) })),
  )
}
