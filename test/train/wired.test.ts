/** A whole training in this process: copies and groups stay on one side, everything it finds is in the result and in the run's folder. */
import assert from 'node:assert/strict'
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import sharp from 'sharp'
import { extractSample } from '../../src/data/samples.ts'
import { randomFrom } from '../../src/engine/random.ts'
import { Failure } from '../../src/failure.ts'
import { readArtefact } from '../../src/models/artefact.ts'
import { Copies, type Manifest, Mislabels, type RecipeEvent, Split, TrainResult } from '../../src/sdk/index.ts'
import { type Home, openDataset, openHome, prepareTraining, type TrainingRequest, train } from '../../src/server.ts'

const scratch = mkdtempSync(join(tmpdir(), 'plinth-wired-'))
process.env['PLINTH_HOME'] = join(scratch, 'home')
process.env['PLINTH_CACHE'] = join(scratch, 'cache')
const home: Home = await openHome()
after(async () => {
  await home.close()
  rmSync(scratch, { recursive: true, force: true })
})

/** A scene of its own in 160 × 120: blobs anywhere, in shades of the class's colour. */
function scene(label: number, thing: number): Buffer {
  const random = randomFrom(7, label, thing)
  const [width, height] = [160, 120]
  const blobs = Array.from({ length: 14 }, () => ({
    x: random() * width,
    y: random() * height,
    r: 6 + 22 * random(),
    shade: [0, 1, 2].map(channel => 40 + 150 * random() + (channel === label ? 60 : 0)),
  }))
  const data = Buffer.alloc(width * height * 3, 110)
  for (let y = 0, at = 0; y < height; y++)
    for (let x = 0; x < width; x++, at += 3) {
      const blob = blobs.findLast(each => Math.hypot(x - each.x, y - each.y) < each.r)
      for (let channel = 0; channel < 3; channel++) data[at + channel] = Math.min(255, (blob ? blob.shade[channel]! : 110) + 10 * random())
    }
  return data
}

/** Three classes of 16 things; of each thing a PNG and, under a name that says nothing of it, an edited copy. */
async function folderWithCopies(): Promise<string> {
  const folder = join(scratch, 'pictures')
  if (existsSync(folder)) return folder
  for (const [label, name] of ['red', 'green', 'blue'].entries()) {
    mkdirSync(join(folder, name), { recursive: true })
    for (let thing = 0; thing < 16; thing++) {
      const picture = sharp(scene(label, thing), { raw: { width: 160, height: 120, channels: 3 } })
      await picture
        .clone()
        .png()
        .toFile(join(folder, name, `${'abcdefghijklmnop'[thing]}.png`))
      await picture
        .clone()
        .resize(120, 90)
        .jpeg({ quality: 60 })
        .toFile(join(folder, name, `copy-${(thing * 7) % 16}.jpg`))
    }
  }
  return folder
}

async function trained(source: string, request: Partial<TrainingRequest> & { name: string }, stopAt?: RegExp) {
  const dataset = await openDataset(home, source, { name: request.name })
  const { run } = await prepareTraining(home, dataset, { seed: 1, threads: 2, epochs: 0, imageSize: 64, ...request }, 0)
  const said: string[] = []
  const work = (stop = new AbortController()) =>
    train(home, run.run.run, {
      signal: stop.signal,
      say: (event: RecipeEvent) => {
        if (event.kind === 'note') said.push(event.text)
        if (stopAt && event.kind === 'stage' && stopAt.test(event.title)) stop.abort()
      },
    })
  if (stopAt) {
    await assert.rejects(work(), error => error instanceof Failure && error.code === 'interrupted')
    stopAt = undefined
  }
  const result = TrainResult.parse(JSON.parse(JSON.stringify(await work())))
  const kept = <T>(file: string) => JSON.parse(readFileSync(join(run.directory, file), 'utf8')) as T
  return { result, run, said, kept, manifest: dataset.manifest }
}

/** For each group the sides that its pictures are on. */
const sidesOf = (groups: readonly (readonly number[])[], split: Split) =>
  groups.map(group => (['train', 'validation', 'test'] as const).filter(side => group.some(row => split[side].includes(row))))

/** Pictures of one thing. */
const things = ({ rows }: Manifest) => {
  const thing = ({ path }: { path: string }) => {
    const [, copy] = /copy-(\d+)/.exec(path) ?? []
    const number =
      copy === undefined
        ? path.charCodeAt(path.indexOf('/') + 1) - 97
        : Array.from({ length: 16 }, (_, i) => i).find(i => (i * 7) % 16 === Number(copy))
    return `${path.split('/')[0]} ${number}`
  }
  return [...Map.groupBy(rows.keys(), row => thing(rows[row]!)).values()]
}

test('edited copies are found, stay on one side, and everything that was found is in the result', async () => {
  const { result, said, kept, manifest } = await trained(await folderWithCopies(), { name: 'copies' })
  const copies = Copies.parse(kept('copies.json'))
  const split = Split.parse(kept('split.json'))
  assert.equal(things(manifest).length, 48)
  const found = things(manifest).filter(([a, b]) => copies.samePicture.some(group => group.includes(a!) && group.includes(b!)))
  assert.ok(found.length >= 46, `${found.length} of 48 pairs of copies were found`)
  for (const sides of sidesOf([...copies.samePicture, ...copies.sameScene.map(({ rows }) => rows)], split)) assert.equal(sides.length, 1)
  assert.ok(
    said.some(text => /^Look-alikes: \d+ pictures that are copies of each other/.test(text)),
    said.join('\n'),
  )

  assert.equal(result.test.interval?.method, 'grouped-wilson')
  assert.equal(result.test.ece, result.test.calibration.expectedCalibrationErrorAfter)
  assert.equal(result.test.randomSplit?.repeats, 3)
  assert.equal(result.test.crossValidation?.n, 96)
  assert.ok(result.test.crossValidation!.groups <= 96 - found.length)
  const mislabels = Mislabels.parse(kept('mislabels.json'))
  assert.equal(mislabels.n, 96)
  assert.deepEqual(result.mislabels, { ...mislabels, listed: mislabels.listed.slice(0, 100) })
  assert.equal(result.choices?.find(({ what }) => what === 'fit')?.chosen !== undefined, true)
  const report = readFileSync(result.report, 'utf8')
  assert.match(report, /What was chosen, and what the network sees/)
})

test('--group-by is respected, and still is when a stopped training goes on', async () => {
  const pattern = '/[a-d]\\.png$'
  const { result, kept, manifest, run } = await trained(
    await folderWithCopies(),
    { name: 'grouped', groupBy: `^([^/]*)${pattern}` },
    /^Testing/,
  )
  const split = Split.parse(kept('split.json'))
  const groups = ['red', 'green', 'blue'].map(label =>
    [...manifest.rows.keys()].filter(row => new RegExp(`^${label}${pattern}`).test(manifest.rows[row]!.path)),
  )
  assert.deepEqual(
    groups.map(group => group.length),
    [4, 4, 4],
  )
  for (const sides of sidesOf(groups, split)) assert.equal(sides.length, 1)
  assert.equal(run.run.params['groupBy'], `^([^/]*)${pattern}`)
  assert.match(readFileSync(result.report, 'utf8'), /--group-by/)
})

/** Four classes that are easily taken for each other, every second with a twentieth of the training pictures; as many test pictures of each. */
async function unevenClothes(): Promise<string> {
  const sample = join(scratch, 'sample')
  await extractSample('fashion', sample)
  const folder = join(scratch, 'uneven')
  for (const [k, name] of ['coat', 'dress', 'pullover', 'shirt'].entries()) {
    const files = readdirSync(join(sample, name)).sort()
    const sizes = { train: k % 2 ? 4 : 80, validation: k % 2 ? 2 : 16, test: 60 }
    for (const [side, size] of Object.entries(sizes)) {
      mkdirSync(join(folder, side, name), { recursive: true })
      for (const file of files.splice(0, size)) copyFileSync(join(sample, name, file), join(folder, side, name, file))
    }
  }
  return folder
}

test('classes that are twenty times as rare are found more often when classes weigh alike, in the head and in fine-tuning', async () => {
  const folder = await unevenClothes()
  const train = (request: Partial<TrainingRequest>) => trained(folder, { name: 'uneven', ...request })
  const plain = (await train({ classWeights: 'none' })).result
  const tuned = (await train({ epochs: 1 })).result
  const recallOfRare = ({ test }: TrainResult) => test.perClass.filter((_, k) => k % 2).reduce((sum, { recall }) => sum + recall! / 2, 0)
  const choice = tuned.choices!.find(({ what }) => what === 'class weights')
  assert.equal(choice?.chosen, 'balanced', choice?.sentence)
  assert.match(choice.sentence, /Answers assume that every class is equally frequent/)
  assert.ok(recallOfRare(tuned) > recallOfRare(plain) + 0.1, `${recallOfRare(plain)} → ${recallOfRare(tuned)}`)
  assert.ok(tuned.test.balancedAccuracy > plain.test.balancedAccuracy, `${plain.test.balancedAccuracy} → ${tuned.test.balancedAccuracy}`)
  // eleven steps from a good head: whichever of the two was taken, the other is not far off
  const { head, finetune } = tuned.validation
  assert.ok(Math.abs(finetune! - head) < 0.15, `head ${head}, fine-tuned ${finetune}`)
  assert.equal(
    plain.choices!.find(({ what }) => what === 'class weights'),
    undefined,
  )
  assert.match(tuned.choices!.find(({ what }) => what === 'head or fine-tune')!.sentence, /balanced accuracy on validation/)
  assert.ok(tuned.unknown && tuned.unknown.falseAlarmsOnTest !== null)
})

test('a model of pictures with the thing at the edge sees the whole picture, in training and in the file', async () => {
  const folder = join(scratch, 'edge')
  const random = randomFrom(11)
  for (const [label, name] of ['disc', 'bars'].entries()) {
    mkdirSync(join(folder, name), { recursive: true })
    for (let i = 0; i < 40; i++) {
      const [ink, paper, x0, y0] = [20 + 60 * random(), 150 + 60 * random(), i % 2 ? 16 : 144, 25 + 40 * random()]
      const data = Buffer.from(
        Array.from({ length: 160 * 90 * 3 }, (_, at) => {
          const [x, y] = [(Math.floor(at / 3) % 160) - x0, Math.floor(at / 480) - y0]
          const inside = label === 0 ? Math.hypot(x, y) < 13 : Math.max(Math.abs(x), Math.abs(y)) < 13 && Math.floor((y + 13) / 5) % 2 === 0
          return (inside ? ink : paper) + 10 * random()
        }),
      )
      await sharp(data, { raw: { width: 160, height: 90, channels: 3 } })
        .png()
        .toFile(join(folder, name, `${i}.png`))
    }
  }
  const { result, said } = await trained(folder, { name: 'edge' })
  const choice = result.choices!.find(({ what }) => what === 'fit')!
  assert.notEqual(choice.chosen, 'crop', choice.sentence)
  assert.ok(said.includes(choice.sentence))
  const { metadata } = readArtefact(readFileSync(result.model.path))
  assert.equal(metadata.fit, choice.chosen)
  assert.ok(result.test.accuracy > 0.8, `${result.test.accuracy}`) // cropped it is a coin
})

test('a pattern that is none is refused before anything is written', async () => {
  const dataset = await openDataset(home, await folderWithCopies(), { name: 'grouped' })
  await assert.rejects(
    prepareTraining(home, dataset, { name: 'grouped', seed: 1, groupBy: '(' }, 0),
    error => error instanceof Failure && error.code === 'group_pattern_invalid',
  )
})
