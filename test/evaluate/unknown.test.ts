import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import fc from 'fast-check'
import { openFeatureNetwork } from '../../src/data/features.ts'
import { extractSample } from '../../src/data/samples.ts'
import { randomFrom } from '../../src/engine/random.ts'
import { conformal } from '../../src/evaluate/held-back.ts'
import { auroc } from '../../src/evaluate/left-out.ts'
import { falseAlarms, fitUnknown, type UnknownTask } from '../../src/evaluate/unknown.ts'
import { decodePicture } from '../../src/images/decode.ts'
import { createPreprocessor } from '../../src/models/artefact.ts'
import { backbone } from '../../src/models/catalogue.ts'
import { measure } from '../../src/models/feature-space.ts'
import { fitLogisticRegression, softmax } from '../../src/models/logistic-regression.ts'
import { distancesOf, entropies, type UnknownParts } from '../../src/models/unknown.ts'

// ── made-up features: clouds of which the truth is known ────────────────────────────────────────────────────────────────────

const width = 48

/** `perClass` rows around each of the classes; a class lies around a centre that depends on its number alone. `spread` 1 = as wide as they lie apart. */
function cloud(classNumbers: readonly number[], perClass: number, { seed, spread = 1 }: { seed: number; spread?: number }) {
  const random = randomFrom(seed, 77)
  const gauss = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random())
  const rows = classNumbers.flatMap(k => {
    const place = randomFrom(k, 5)
    const centre = Array.from({ length: width }, () => 2 + place() * 2)
    return Array.from({ length: perClass }, () => centre.map(c => Math.max(0, c + spread * 0.55 * gauss())))
  })
  return { features: Float32Array.from(rows.flat()), labels: Int32Array.from(rows.keys(), i => Math.floor(i / perClass)), n: rows.length }
}
const classNames = (n: number) => Array.from({ length: n }, (_, k) => `class ${k}`)
const all = (n: number, from = 0) => Array.from({ length: n }, (_, i) => from + i)

interface Asked {
  features: Float32Array
  labels: Int32Array
  classes: number
  /** Every fifth row is the validation side. */
  untouched?: Float32Array
  groups?: number[][] | null
  seed?: number
  width?: number
}
/** With a head fitted on four of five rows, as a training does it. */
async function fitted({ features, labels, classes, untouched, groups = null, seed = 0, width: columns = width }: Asked) {
  const fresh = all(labels.length).filter(i => i % 5 === 0)
  const learned = all(labels.length).filter(i => i % 5 !== 0)
  const side = (rows: readonly number[]) => ({
    features: Float32Array.from(rows.flatMap(row => Array.from(features.subarray(row * columns, (row + 1) * columns)))),
    labels: rows.map(row => labels[row]!),
  })
  const head = await fitLogisticRegression({
    train: side(learned),
    validation: side(fresh),
    width: columns,
    classes,
    threads: 2,
    grid: [0.003],
  })
  const task: UnknownTask = {
    features,
    width: columns,
    labels,
    classes: classNames(classes),
    groups,
    head,
    temperature: 1.3,
    fresh,
    untouched,
    seed,
    threads: 2,
  }
  const answer = await fitUnknown(task)
  const distances = async (of: Float32Array) => {
    const { space, scales } = answer.parts as UnknownParts
    const n = of.length / columns
    const logits = Float64Array.from({ length: n * classes }, (_, at) => {
      const [i, k] = [Math.floor(at / classes), at % classes]
      let sum = head.bias[k]!
      for (let f = 0; f < columns; f++) sum += of[i * columns + f]! * head.weight[k * columns + f]!
      return sum
    })
    const measures = {
      ...(await measure(space, { features: of, width: columns, rows: all(n) }, 2)),
      entropy: entropies(softmax(logits, classes, 1.3), classes),
    }
    return distancesOf(measures, scales)
  }
  return {
    ...answer,
    distances,
    alarms: async (of: Float32Array) => falseAlarms([...(await distances(of))], answer.parts!.metadata.threshold)!,
  }
}

test('of new pictures of known classes, about one in twenty is called unknown; of strangers, most', async () => {
  const rates: number[] = []
  for (const seed of [1, 2, 3]) {
    const known = cloud(all(5), 80, { seed })
    const { unknown, alarms, notes } = await fitted({ ...known, classes: 5, seed })
    rates.push(await alarms(cloud(all(5), 200, { seed: seed + 100 }).features))
    assert.ok((await alarms(cloud([20, 21], 100, { seed }).features)) > 0.8)
    assert.ok(unknown!.auroc! > 0.95 && unknown!.detected! > 0.8, JSON.stringify(unknown))
    assert.deepEqual([unknown!.perClass.length, unknown!.falseAlarmRate, notes], [5, 0.05, []])
  }
  const mean = rates.reduce((sum, rate) => sum + rate, 0) / rates.length
  assert.ok(mean > 0.02 && mean < 0.08, String(rates))
})

test('features of a fine-tuned network lie tighter around what it learned: the limit comes from what it did not', async () => {
  const known = cloud(all(4), 250, { seed: 4 })
  const tight = cloud(all(4), 250, { seed: 4, spread: 0.4 })
  // rows of the validation side as they are, the others drawn together around their class
  const features = known.features.map((value, at) => (Math.floor(at / width) % 5 === 0 ? value : tight.features[at]!))
  const asNew = cloud(all(4), 300, { seed: 40 }).features
  const { alarms } = await fitted({ ...known, features, classes: 4, untouched: known.features })
  const honest = await alarms(asNew)
  assert.ok(honest > 0.01 && honest < 0.1, `${honest}`)
  const { alarms: naive } = await fitted({ ...known, features: tight.features, classes: 4 })
  assert.ok((await naive(asNew)) > 0.4, 'what a limit from its own training pictures would do')
})

test('copies of one picture do not vouch for one another', async () => {
  const known = cloud(all(4), 40, { seed: 6 })
  // each picture five times: without groups every held back picture has its copies among those learned from
  const copied = Float32Array.from(
    all(160).flatMap(i => Array.from({ length: 5 }, () => Array.from(known.features.subarray(i * width, (i + 1) * width))).flat()),
  )
  const labels = Int32Array.from({ length: 800 }, (_, i) => known.labels[Math.floor(i / 5)]!)
  const groups = all(160).map(i => all(5, i * 5))
  const apart = await fitted({ features: copied, labels, classes: 4, groups })
  const torn = await fitted({ features: copied, labels, classes: 4 })
  const asNew = cloud(all(4), 300, { seed: 60 }).features
  assert.ok((await apart.alarms(asNew)) < (await torn.alarms(asNew)))
  assert.ok((await apart.alarms(asNew)) < 0.12, `${await apart.alarms(asNew)}`)
})

test('the same pictures and seed give the same file', async () => {
  const known = cloud(all(4), 50, { seed: 8 })
  const [one, two] = [await fitted({ ...known, classes: 4 }), await fitted({ ...known, classes: 4 })]
  assert.deepEqual(one.parts, two.parts)
  assert.deepEqual(one.unknown, two.unknown)
})

test('the ladder rises to the farthest picture and passes the limit near its 95th step', async () => {
  const { parts } = await fitted({ ...cloud(all(5), 80, { seed: 9 }), classes: 5 })
  const { ladder, threshold } = parts!.metadata
  assert.equal(ladder.length, 101)
  assert.ok(ladder.every((step, i) => i === 0 || step >= ladder[i - 1]!))
  assert.ok(ladder[94]! <= threshold && threshold <= ladder[97]!)
})

test('too little to choose a limit on: nothing is made up, and it is said', async () => {
  const few = await fitted({ ...cloud(all(2), 8, { seed: 1 }), classes: 2 })
  assert.deepEqual([few.parts, few.unknown], [null, null])
  assert.match(few.notes[0]!, /^Only 16 pictures to choose a limit/)
  const tuned = cloud(all(3), 25, { seed: 2 })
  const fewFresh = await fitted({ ...tuned, classes: 3, untouched: tuned.features })
  assert.match(fewFresh.notes[0]!, /^Only 15 pictures/)
})

test('two classes have a limit, but leaving one out leaves nothing to tell apart', async () => {
  const { parts, unknown, notes } = await fitted({ ...cloud(all(2), 60, { seed: 3 }), classes: 2 })
  assert.ok(parts)
  assert.deepEqual([unknown!.auroc, unknown!.aurocOfProbability, unknown!.perClass], [null, null, []])
  assert.match(notes[0]!, /needs three classes/)
})

test('uneven data is measured as far as it goes: classes with one picture, with none, and features that never change', async () => {
  const known = cloud(all(4), 40, { seed: 5 })
  const labels = known.labels.map((label, i) => (i < 120 ? label : i === 120 ? 3 : 0)) // of class 3 one picture is left, of 4 none
  const { unknown, parts } = await fitted({ ...known, labels, classes: 5 })
  assert.deepEqual(
    unknown!.perClass.map(({ label }) => label),
    ['class 0', 'class 1', 'class 2'],
  )
  assert.ok(parts!.space.means.every(Number.isFinite))
  const still = known.features.map((value, at) => (at % width < 20 ? 1 : value))
  assert.ok(Number.isFinite((await fitted({ ...known, features: still, classes: 4 })).unknown!.auroc))
})

test('many classes are left out several at a time, each is scored, and it is said', async () => {
  const known = cloud(all(30), 12, { seed: 11 })
  const { unknown, notes } = await fitted({ ...known, classes: 30 })
  assert.equal(unknown!.perClass.length, 30)
  assert.ok(unknown!.auroc! > 0.8)
  assert.match(notes[0]!, /30 classes.*12 parts/)
})

test('stopping stops it', async () => {
  const known = cloud(all(4), 40, { seed: 5 })
  const stop = new AbortController()
  stop.abort(new Error('stopped'))
  const head = { weight: new Float32Array(4 * width), bias: new Float32Array(4) }
  const task = { ...known, width, classes: classNames(4), groups: null, head, temperature: 1, fresh: [0, 5], seed: 0, threads: 1 }
  await assert.rejects(fitUnknown({ ...task, signal: stop.signal }), /stopped/)
})

// ── the arithmetic ──────────────────────────────────────────────────────────────────────────────────────────────────────────

test('the area under the curve is the share of pairs in which the stranger is farther, ties counting half', () => {
  const scores = fc.array(fc.integer({ min: 0, max: 6 }), { minLength: 1, maxLength: 30 })
  fc.assert(
    fc.property(scores, scores, (known, strangers) => {
      let sum = 0
      for (const a of known) for (const b of strangers) sum += b > a ? 1 : b === a ? 0.5 : 0
      assert.ok(Math.abs(auroc(Float64Array.from(known), Float64Array.from(strangers)) - sum / (known.length * strangers.length)) < 1e-12)
    }),
  )
})

test('a new one of n + 1 exchangeable distances is beyond the limit with at most the promised probability', () => {
  for (const n of [19, 20, 57, 400]) {
    const distances = Float64Array.from({ length: n }, (_, i) => i)
    // a new distance falls into each of the n + 1 gaps alike
    const beyond = (n - 1 - conformal(distances, 0.05) + 1) / (n + 1)
    assert.ok(beyond <= 0.05 + 1e-12 && beyond > 0.05 - 1 / (n + 1), `${n}: ${beyond}`)
  }
})

// ── real pictures ───────────────────────────────────────────────────────────────────────────────────────────────────────────

const folder = mkdtempSync(join(tmpdir(), 'plinth-unknown-'))
after(() => rmSync(folder, { recursive: true }))

/** Features of as much of a sample as any test asks for, by the untouched network, each picture with a number by chance for its thing. */
async function seen(name: 'fashion' | 'emoji', share: number) {
  const directory = join(folder, name)
  await extractSample(name, directory)
  const classes = readdirSync(directory, { withFileTypes: true })
    .filter(entry => entry.isDirectory())
    .map(entry => entry.name)
    .sort()
  const rows = classes.flatMap((label, k) =>
    readdirSync(join(directory, label))
      .sort()
      .map(file => ({ path: join(directory, label, file), k, thing: `${label}/${file.split('__')[0]!}` })),
  )
  const random = randomFrom(3)
  const chances = new Map([...new Set(rows.map(row => row.thing))].map(thing => [thing, random()]))
  const kept = rows.map(row => ({ ...row, chance: chances.get(row.thing)! })).filter(({ chance }) => chance < share)
  const network = backbone('efficientnet-lite0')
  const weights = await network.loadWeights({ offline: true })
  const [preprocessor, program] = [
    await createPreprocessor(side, { threads: 2 }),
    await openFeatureNetwork({ backbone: network, weights, side, threads: 2 }),
  ]
  const squares = new Uint8Array(kept.length * 3 * side * side)
  for (const [i, { path }] of kept.entries())
    squares.set(await preprocessor.run(await decodePicture(readFileSync(path), { formats: 'local' })), i * 3 * side * side)
  const features = await program.features(squares)
  await Promise.all([preprocessor.close(), program.close()])
  return { rows: kept, features, classes, width: network.features }
}
const side = 64
const samples = { fashion: seen('fashion', 0.2), emoji: seen('emoji', 0.5) }

/** A share of a sample, pictures of one thing together. */
async function sample(name: 'fashion' | 'emoji', share: number) {
  const { rows, features: all, classes, width } = await samples[name]
  const kept = [...rows.keys()].filter(row => rows[row]!.chance < share)
  const features = Float32Array.from(kept.flatMap(row => [...all.subarray(row * width, (row + 1) * width)]))
  const places = Map.groupBy(kept.keys(), i => rows[kept[i]!]!.thing)
  const groups = [...places.values()].filter(group => group.length > 1)
  return { features, labels: Int32Array.from(kept, row => rows[row]!.k), classes, groups, width }
}

for (const [name, share] of [
  ['fashion', 0.2],
  ['emoji', 0.3],
] as const)
  test(`${name}: a class that was left out is found by distance no worse than by probability`, { timeout: 120_000 }, async () => {
    const { features, labels, classes, groups, width } = await sample(name, share)
    const { unknown } = await fitted({ features, labels, classes: classes.length, groups, width })
    assert.equal(unknown!.perClass.length, classes.length)
    const shown = unknown!.perClass
      .map(one => `${classes[Number(one.label.slice(6))]} ${one.auroc.toFixed(2)}/${one.aurocOfProbability.toFixed(2)}`)
      .join(', ')
    assert.ok(unknown!.auroc! >= unknown!.aurocOfProbability!, `${unknown!.auroc} and ${unknown!.aurocOfProbability}: ${shown}`)
    assert.ok(unknown!.auroc! > 0.65, shown)
  })

test('animals among vehicles and buildings, and pictures from another world, are farther away than new vehicles and buildings', async () => {
  const { features, labels, classes, width } = await sample('emoji', 0.5)
  const cut = (rows: readonly number[]) =>
    Float32Array.from(rows.flatMap(row => Array.from(features.subarray(row * width, (row + 1) * width))))
  const taught = ['building', 'tool', 'vehicle'].map(label => classes.indexOf(label))
  const of = (k: number) => all(labels.length).filter(i => labels[i] === k)
  const learned = all(labels.length).filter(i => taught.includes(labels[i]!) && i % 4 !== 1)
  const { distances, parts } = await fitted({
    features: cut(learned),
    labels: Int32Array.from(learned, i => taught.indexOf(labels[i]!)),
    classes: 3,
    width,
  })
  const fresh = await distances(cut(all(labels.length).filter(i => taught.includes(labels[i]!) && i % 4 === 1)))
  const animals = await distances(cut(of(classes.indexOf('animal'))))
  assert.ok(auroc(fresh, animals) > 0.75, `animals: ${auroc(fresh, animals)}`)
  const clothes = await distances((await sample('fashion', 0.1)).features)
  assert.ok(auroc(fresh, clothes) > 0.9, `clothes: ${auroc(fresh, clothes)}`)
  assert.ok(falseAlarms([...clothes], parts!.metadata.threshold)! > 0.5)
  assert.ok(falseAlarms([...fresh], parts!.metadata.threshold)! < 0.15)
})
