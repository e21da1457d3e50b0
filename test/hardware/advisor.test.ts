/** The advisor: properties that must hold for every workload, and what others have published or measured. */
import assert from 'node:assert/strict'
import { appendFileSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { afterRun, scriptOf } from '../../src/hardware/advisor/after-run.ts'
import { benchmark } from '../../src/hardware/advisor/benchmark.ts'
import { acceleratorTarget, processorTarget, type Target } from '../../src/hardware/advisor/devices.ts'
import { beyond, type Estimate, estimate, exactly, over, plus, type Range, term, times } from '../../src/hardware/advisor/estimate.ts'
import { chooseDevice, headRoom } from '../../src/hardware/advisor/index.ts'
import { memoryOf } from '../../src/hardware/advisor/memory.ts'
import { costOf, likeKnown, networkCalled, networks } from '../../src/hardware/advisor/networks.ts'
import {
  corrected,
  correctionOf,
  earlierRuns,
  type Outcome,
  readOutcomes,
  recordOutcome,
  storeForecast,
} from '../../src/hardware/advisor/outcomes.ts'
import { parsePrices } from '../../src/hardware/advisor/prices.ts'
import { readCount, workloadOf } from '../../src/hardware/advisor/request.ts'
import { readScript } from '../../src/hardware/advisor/script.ts'
import { timeOf } from '../../src/hardware/advisor/time.ts'
import { optimisers, precisions, type Shape, shardings, transformerOf, type Workload } from '../../src/hardware/advisor/workload.ts'
import { temporaryFolder } from '../track/homes.ts'

const numRuns = process.env['PLINTH_TEST'] === 'long' ? 20_000 : 400

const shape: fc.Arbitrary<Shape> = fc.oneof(
  fc.record({
    kind: fc.constant('picture' as const),
    size: fc.integer({ min: 32, max: 512 }),
    network: fc.option(fc.constantFrom(...networks)),
  }),
  fc.record({
    kind: fc.constant('sequence' as const),
    length: fc.integer({ min: 1, max: 8192 }),
    layers: fc.option(fc.integer({ min: 1, max: 100 })),
    hidden: fc.option(fc.integer({ min: 64, max: 8192 })),
    heads: fc.option(fc.integer({ min: 1, max: 64 })),
    vocabulary: fc.option(fc.integer({ min: 100, max: 100_000 })),
  }),
  fc.constant({ kind: 'dense' as const }),
  fc.record({ kind: fc.constant('table' as const), rows: fc.integer({ min: 1, max: 1e9 }), columns: fc.integer({ min: 1, max: 1e4 }) }),
)
const workload: fc.Arbitrary<Workload> = fc
  .record({
    training: fc.boolean(),
    parameters: fc.integer({ min: 1e4, max: 1e11 }),
    share: fc.double({ min: 0.001, max: 1, noNaN: true }),
    precision: fc.constantFrom(...precisions),
    optimiser: fc.constantFrom(...optimisers),
    batch: fc.integer({ min: 1, max: 4096 }),
    shape,
    recompute: fc.boolean(),
    sharding: fc.constantFrom(...shardings),
    samples: fc.option(fc.integer({ min: 1, max: 1e7 })),
    epochs: fc.integer({ min: 1, max: 100 }),
  })
  .map(({ share, ...rest }) => ({ ...rest, trained: Math.max(1, Math.round(rest.parameters * share)) }))
const processor = processorTarget('CPU', 32e9, { operations: 4e11, bandwidth: 2e10, basis: 'measured' })
const target: fc.Arbitrary<Target> = fc.oneof(
  fc.constant(processor),
  fc
    .record({ name: fc.constantFrom('H100', 'T4', 'RTX 4090', 'K80', 'MI300X', 'TPU v4'), count: fc.constantFrom(1, 2, 8) })
    .map(({ name, count }) => acceleratorTarget(name, { count })!),
)

const ordered = ({ low, likely, high }: Range) =>
  low >= 0 && low <= likely * (1 + 1e-9) && likely <= high * (1 + 1e-9) && Number.isFinite(high)
const close = (a: number, b: number) => Math.abs(a - b) <= 1e-9 * Math.max(1, Math.abs(a), Math.abs(b))
const isSum = (whole: Estimate) => {
  const sum = plus(...whole.terms)
  return close(sum.low, whole.low) && close(sum.likely, whole.likely) && close(sum.high, whole.high)
}

test('an interval is the sum of its terms, end by end, and every term has an order', () => {
  fc.assert(
    fc.property(workload, target, (work, device) => {
      const time = timeOf(work, device)
      for (const each of [memoryOf(work, device), time?.step, time?.run].filter(each => each)) {
        assert.ok(isSum(each!))
        assert.ok(ordered(each!) && each!.terms.every(ordered), JSON.stringify(each))
        assert.equal(each!.basis, 'estimated', 'nothing that is worked out is called measured')
      }
    }),
    { numRuns },
  )
  const range = fc
    .tuple(
      fc.double({ min: 0.1, max: 1e6, noNaN: true }),
      fc.double({ min: 1, max: 10, noNaN: true }),
      fc.double({ min: 1, max: 10, noNaN: true }),
    )
    .map(([low, a, b]) => ({ low, likely: low * a, high: low * a * b }))
  fc.assert(
    fc.property(range, range, (a, b) => {
      for (const each of [times(a, b), over(a, b), plus(a, b), beyond(a, b)]) assert.ok(ordered(each))
      const larger = plus(b, beyond(a, b))
      assert.ok(close(larger.likely, Math.max(a.likely, b.likely)) && larger.high >= Math.max(a.high, b.high) * (1 - 1e-9))
    }),
  )
})

test('a table is two to five times itself in memory, and no time is made up for it', () => {
  const { workload: work } = workloadOf({ rows: 1_000_000, columns: 100 }, null)
  const [data] = memoryOf(work, processor).terms
  assert.deepEqual([data!.low, data!.likely, data!.high], [1.6e9, 2.4e9, 4e9])
  assert.equal(timeOf(work, processor), null)
})

test('more parameters, larger batches and more samples never need less', () => {
  const more = fc.integer({ min: 1, max: 8 }) // whole, so that the share of what is trained stays the same
  fc.assert(
    fc.property(workload, target, more, (work, device, factor) => {
      const heavier: Workload[] = [
        { ...work, batch: work.batch * factor },
        { ...work, parameters: work.parameters * factor, trained: work.trained * factor },
      ]
      const fewer = memoryOf(work, device)
      const time = timeOf(work, device)
      for (const other of heavier) {
        const larger = memoryOf(other, device)
        for (const end of ['low', 'likely', 'high'] as const) assert.ok(larger[end] >= fewer[end] * (1 - 1e-9), `memory, ${end}`)
        if (time) assert.ok(timeOf(other, device)!.step.likely >= time.step.likely * (1 - 1e-9))
      }
      if (work.samples && time?.run) assert.ok(timeOf({ ...work, samples: work.samples * 2 }, device)!.run!.likely >= time.run.likely)
    }),
    { numRuns },
  )
})

test('units: bytes a parameter and seconds are those of the literature', () => {
  const plain: Workload = {
    training: true,
    parameters: 1e9,
    trained: 1e9,
    precision: 'float32',
    optimiser: 'adam',
    batch: 1,
    shape: { kind: 'dense' },
    recompute: false,
    sharding: 'none',
    samples: null,
    epochs: 1,
  }
  const gpu = acceleratorTarget('A100', {})!
  const of = (change: Partial<Workload>, count = 1) => {
    const { terms } = memoryOf({ ...plain, ...change }, { ...gpu, count })
    const states = terms.filter(({ name }) => ['weights', 'gradients', 'optimiser'].includes(name))
    return plus(...states)
  }
  // ZeRO paper (Rajbhandari et al. 2020): 16 bytes a parameter with Adam, in float32 and mixed
  assert.equal(of({}).likely, 16e9)
  assert.deepEqual([of({ precision: 'mixed' }).low, of({ precision: 'mixed' }).high], [14e9, 18e9])
  assert.equal(of({ optimiser: 'momentum' }).likely, 12e9)
  assert.equal(of({ optimiser: 'adam8bit' }).likely, 10e9)
  assert.equal(of({ sharding: 'zero3' }, 8).likely, 2e9)
  assert.equal(of({ training: false }).likely, 4e9)
  // LoRA: weights as they are, 12 bytes beside for each trained parameter
  assert.equal(of({ trained: 1e7 }).likely, 4e9 + 1.2e8)
  // 6 operations a parameter and token (Kaplan et al. 2020)
  const tokens: Workload = {
    ...plain,
    precision: 'bfloat16',
    batch: 8,
    shape: { kind: 'sequence', length: 1024, layers: 24, hidden: 1800, heads: 16, vocabulary: null },
  }
  const arithmetic = timeOf(tokens, gpu)!.step.terms.find(({ name }) => name === 'arithmetic')!
  const bySix = (6 * 1e9 * 8 * 1024) / (312e12 * 0.48)
  assert.ok(arithmetic.likely > bySix && arithmetic.likely < bySix * 1.2, `${arithmetic.likely} beside ${bySix}`)
})

/**
 * Training on one RTX 3090 with autocast and channels_last: milliseconds a step and samples a step, as published in timm's results
 * (huggingface/pytorch-image-models, results/benchmark-train-amp-nhwc-pt112-cu113-rtx3090.csv). The estimate's constants were read off these.
 */
const published: [network: string, batch: number, size: number, milliseconds: number][] = [
  ['resnet18', 512, 224, 146.7],
  ['resnet34', 512, 224, 250.8],
  ['resnet50', 512, 224, 419.5],
  ['resnet101', 256, 224, 340.7],
  ['efficientnet_lite0', 512, 224, 245.5],
  ['efficientnet_b0', 512, 224, 291.2],
  ['efficientnet_b4', 96, 320, 268.4],
  ['mobilenetv2_100', 512, 224, 220.6],
  ['mobilenetv3_large_100', 512, 224, 186.5],
  ['convnext_base', 128, 224, 376.1],
  ['vit_base_patch16_224', 192, 224, 487.7],
  ['swin_base_patch4_window7_224', 128, 224, 453.7],
  ['densenet121', 256, 224, 278.4],
  ['vgg16', 384, 224, 703.0],
  ['inception_v3', 384, 299, 489.4],
]

test('published training speeds lie in the intervals, and in the middle of them on the whole', () => {
  const logs = published.map(([name, batch, size, milliseconds]) => {
    const network = networkCalled(name)!
    const parameters = network.parameters * 1e6
    const { step } = timeOf(
      {
        training: true,
        parameters,
        trained: parameters,
        precision: 'mixed',
        optimiser: 'momentum',
        batch,
        shape: { kind: 'picture', size, network },
        recompute: false,
        sharding: 'none',
        samples: null,
        epochs: 1,
      },
      acceleratorTarget('RTX 3090', {})!,
    )!
    assert.ok(
      step.low <= milliseconds / 1000 && milliseconds / 1000 <= step.high,
      `${name}: ${step.low}…${step.high}, really ${milliseconds} ms`,
    )
    return Math.log(step.likely / (milliseconds / 1000))
  })
  const middle = Math.exp(logs.reduce((sum, each) => sum + each, 0) / logs.length)
  assert.ok(middle > 0.8 && middle < 1.3, `${middle}`)
})

test('networks are found by the names of timm, torchvision, Keras and ours; others are taken to be like them', () => {
  for (const name of ['resnet50', 'ResNet50', 'resnet-50', 'efficientnet-lite0', 'EfficientNetB0', 'vit_b_16', 'MobileNetV2'])
    assert.ok(networkCalled(name), name)
  assert.equal(networkCalled('resnet'), undefined)
  assert.ok(close(costOf(networkCalled('resnet50')!, 448).multiplyAdds, 4 * 4.11e9))
  const like = likeKnown(25e6, 224)
  assert.ok(like.multiplyAdds.low < 4.11e9 && 4.11e9 < like.multiplyAdds.high)
  const inside = networks.filter(each => {
    const { low, high } = likeKnown(each.parameters * 1e6, each.size).activations
    return each.activations * 1e6 >= low && each.activations * 1e6 <= high
  })
  assert.ok(inside.length >= networks.length * 0.9, `${inside.length} of ${networks.length}`)
})

test('the shape of a transformer follows from its size as those of published ones do', () => {
  const models: [name: string, parameters: number, layers: number, hidden: number][] = [
    ['GPT-2', 124e6, 12, 768],
    ['BERT large', 335e6, 24, 1024],
    ['Llama 7B', 6.7e9, 32, 4096],
    ['GPT-3', 175e9, 96, 12288],
  ]
  for (const [name, parameters, layers, hidden] of models) {
    const guess = transformerOf(parameters, { layers: null, hidden: null, vocabulary: null })
    const real = layers * hidden
    assert.ok(
      guess.layers.low * guess.hidden.low <= real * 1.05 && real <= guess.layers.high * guess.hidden.high * 1.05,
      `${name}: ${JSON.stringify(guess)}`,
    )
  }
})

test('who holds it comes first, then the faster, then who wastes less; what is tight is said', () => {
  const work = workloadOf({ params: '25M', batch: 32, imageSize: 224, precision: 'mixed', samples: 10_000 }, null).workload
  const target = (name: string, change: Partial<Target> = {}): Target => ({ ...acceleratorTarget(name, {})!, ...change })
  const choices = chooseDevice(work, [
    processor,
    target('T4'),
    target('A100', { name: 'small', memory: 1e9 }),
    target('A100'),
    target('A100', { name: 'A100 large', memory: 80e9 }),
  ])
  assert.deepEqual(
    choices.map(({ target }) => target.name),
    ['A100', 'A100 large', 'T4', 'this processor', 'small'],
  )
  assert.equal(choices.at(-1)!.fits, 'no')
  fc.assert(
    fc.property(workload, fc.array(target_(), { minLength: 1, maxLength: 6 }), (anything, targets) => {
      const sorted = chooseDevice(anything, targets)
      assert.equal(sorted.length, targets.length)
      for (const { fits, memory, target } of sorted) {
        const room = target.memory * (1 - headRoom)
        assert.equal(fits, memory.likely > room ? 'no' : memory.high > room ? 'tight' : 'yes')
      }
      const first = sorted.findIndex(({ fits }) => fits === 'no')
      assert.ok(first < 0 || sorted.slice(first).every(({ fits }) => fits === 'no'))
    }),
    { numRuns: numRuns / 4 },
  )
})
const target_ = () => target

test('a price table gives what a run costs, and is refused where it is wrong', () => {
  const { targets, unknown } = parsePrices(
    'currency: EUR\nmachines:\n  - {name: g5.xlarge, device: A10G, price: 1.0}\n  - {name: odd, device: Frobnicator, price: 2}\n  - {name: p4d, device: A100, count: 8, memory: 40, price: 32}\n',
  )
  assert.deepEqual(
    [targets.map(({ name, count, memory }) => [name, count, memory]), unknown],
    [
      [
        ['g5.xlarge', 1, 24e9],
        ['p4d', 8, 40e9],
      ],
      ['odd'],
    ],
  )
  const { workload: work } = workloadOf({ params: '25M', batch: 32, imageSize: 224, samples: 100_000 }, null)
  const [choice] = chooseDevice(work, [targets[0]!])
  assert.deepEqual([choice!.price!.currency, choice!.price!.per], ['EUR', 'run'])
  assert.ok(close(choice!.price!.amount.likely, choice!.time!.run!.likely / 3600))
  for (const text of [
    '',
    'machines: []',
    'machines: [{name: a, device: b}]',
    'machines: [{name: a, device: b, price: -1}]',
    '{',
    'currency: [',
    'machines: [{name: a, device: b, price: 1, cost: 2}]',
  ])
    assert.throws(() => parsePrices(text), { code: 'price_table' }, text)
})

test('a script is read for what it says, not run; what is said on the command line wins', () => {
  const script = readScript(
    'import torch\nfrom torchvision import models\n# batch_size = 999\nmodel = models.mobilenet_v2(weights=None)\nopt = torch.optim.SGD(model.parameters(), lr=.1, momentum=0.9)\nloader = DataLoader(data, batch_size=64)\nfor epoch in range(EPOCHS): pass\nNUM_EPOCHS = 12\nT.RandomResizedCrop(192)\nwith torch.autocast("cuda"): pass\n',
  )
  assert.deepEqual(
    [script.framework, script.network!.name, script.optimiser, script.precision, script.batch, script.epochs, script.imageSize],
    ['pytorch', 'mobilenetv2_100', 'momentum', 'mixed', 64, 12, 192],
  )
  const { workload: work, notes } = workloadOf({ batch: 8 }, script)
  assert.deepEqual(
    [work.batch, work.parameters, work.shape],
    [8, 3.5e6, { kind: 'picture', size: 192, network: networkCalled('mobilenet_v2') }],
  )
  assert.match(notes[0]!, /without running it/)
  assert.equal(readScript('import tensorflow as tf\nmodel.compile(optimizer="adam")\n').optimiser, 'adam')
  assert.equal(readScript('from sklearn.svm import SVC\n').framework, 'scikit-learn')
  assert.equal(readScript('').framework, 'other')
  fc.assert(fc.property(fc.string({ maxLength: 300 }), text => void readScript(text)))
})

test('too little to go by is refused with what to say', () => {
  assert.throws(() => workloadOf({}, null), { code: 'advice_incomplete', next: /--params 25M/ })
  assert.throws(() => workloadOf({ rows: 5 }, null), { code: 'advice_incomplete' })
  assert.throws(() => workloadOf({ backbone: 'resnet51' }, null), { code: 'advice_incomplete', next: /resnet50/ })
  for (const text of ['', 'lots', '25Q', '-3', '0', '1e99'])
    assert.throws(() => readCount(text, '--params'), { code: 'advice_incomplete' }, text)
  assert.deepEqual([readCount('25M', ''), readCount('7b', ''), readCount('1.5e3', ''), readCount('120000', '')], [25e6, 7e9, 1500, 120000])
})

test('a run is compared with its forecast, and the next one learns from it', async t => {
  const home = temporaryFolder(t)
  const forecast = {
    subject: '/code/train.py',
    framework: 'pytorch',
    device: 'cpu',
    memory: { low: 1e9, likely: 2e9, high: 4e9 },
    seconds: { low: 50, likely: 100, high: 400 },
  }
  await storeForecast(home, forecast)
  const run = { subject: '/code/train.py', framework: 'pytorch', device: 'cpu', memory: 2.4e9, seconds: 200 }
  const error = await recordOutcome(home, run)
  assert.deepEqual([error.memory, error.seconds], [1.2, 2])
  assert.equal(error.says, 'Against the forecast: memory +20 %, time +100 %.')
  assert.equal((await recordOutcome(home, { ...run, subject: '/code/other.py' })).says, null, 'nothing was said of that one')
  for (let i = 0; i < 9; i++) await recordOutcome(home, { ...run, seconds: 190 + 2 * i })
  appendFileSync(join(home, 'hardware', 'outcomes.jsonl'), '{"version":1,"time":17') // the power went
  const outcomes = await readOutcomes(home)
  assert.equal(outcomes.length, 11)
  const correction = correctionOf(outcomes, { framework: 'pytorch', device: 'cpu', quantity: 'seconds' })!
  assert.equal(correction.runs, 10)
  assert.ok(correction.factor > 1.9 && correction.factor < 2.05, `${correction.factor}`)
  assert.equal(correctionOf(outcomes, { framework: 'pytorch', device: 'H100', quantity: 'seconds' }), null)
  const before = estimate('seconds', [term('steps', { low: 50, likely: 100, high: 400 }, 'estimated', 'x')])
  const after = corrected(before, correction)
  assert.ok(isSum(after) && after.low < 200 && 200 < after.high && after.high - after.low < before.high - before.low)
  assert.match(after.terms[0]!.how, /by 10 runs here/)
  assert.deepEqual(earlierRuns(outcomes, '/code/train.py').length, 10)
  assert.equal(corrected(before, null), before)
})

test('the script of a command is the one that advice was asked for', async t => {
  assert.equal(scriptOf({ argv: ['python3', '-u', 'train.py', '--out', 'x.json'] }, '/code'), '/code/train.py')
  assert.equal(scriptOf({ shell: 'cd src && OMP_NUM_THREADS=2 python "/abs/train.py" --lr .1' }, '/code'), '/abs/train.py')
  assert.equal(scriptOf({ argv: ['sleep', '5'] }, '/code'), null)
  const home = temporaryFolder(t)
  const script = join(home, 'train.py')
  writeFileSync(script, 'import torch\n')
  const said = { low: 1, likely: 10, high: 100 }
  await storeForecast(home, { subject: script, framework: 'pytorch', device: 'H100', memory: null, seconds: said })
  const ran = { run: { argv: ['python', 'train.py'] }, workdir: home, memory: null, seconds: 5 }
  assert.deepEqual(await afterRun(home, { ...ran, device: 'H100' }), {
    memory: null,
    seconds: 0.5,
    says: 'Against the forecast: time −50 %.',
  })
  assert.equal((await afterRun(home, { ...ran, device: null }))!.says, null, 'nothing was said of the processor')
  assert.equal(await afterRun(home, { ...ran, run: { argv: ['true'] }, device: null }), null)
  assert.deepEqual(
    (await readOutcomes(home)).map(({ framework, device }) => [framework, device]),
    [
      ['pytorch', 'H100'],
      ['pytorch', 'cpu'],
    ],
  )
})

test('one run moves a forecast part of the way, and many runs all of it, whatever they say', () => {
  const outcome = (ratio: number): Outcome => ({
    version: 1,
    time: 0,
    subject: 's',
    framework: 'f',
    device: 'd',
    memory: 1e9 * ratio,
    seconds: 100 * ratio,
    forecast: { memory: { low: 1, likely: 1e9, high: 1e10 }, seconds: { low: 1, likely: 100, high: 1000 } },
  })
  fc.assert(
    fc.property(fc.double({ min: 0.05, max: 20, noNaN: true }), ratio => {
      for (const quantity of ['memory', 'seconds'] as const) {
        const after = (n: number) =>
          correctionOf(
            Array.from({ length: n }, () => outcome(ratio)),
            { framework: 'f', device: 'd', quantity },
          )!
        const distance = (n: number) => Math.abs(Math.log(after(n).factor / ratio))
        assert.ok(distance(1) <= Math.abs(Math.log(ratio)) + 1e-12)
        assert.ok(distance(30) <= distance(1) + 1e-12)
        assert.ok(distance(30) < 0.05 * Math.abs(Math.log(ratio)) + 1e-9)
        assert.ok(after(30).spread < after(1).spread)
      }
    }),
  )
})

test('this machine is measured once, and again when it is asked to', async t => {
  const cache = temporaryFolder(t)
  let products = 0
  const options = {
    cache,
    threads: 1,
    runtime: 'test 1',
    each: 20,
    open: async () => ({
      multiply: async () => {
        products++
        for (let i = 0; i < 1e5; i++) Math.sqrt(i)
      },
      close: async () => {},
    }),
  }
  const first = await benchmark(options)
  assert.ok(products > 1 && first.operations > 0 && first.bandwidth > 1e8)
  const counted = products
  assert.deepEqual(await benchmark(options), first)
  assert.equal(products, counted)
  mkdirSync(join(cache, 'file'), { recursive: true })
  writeFileSync(join(cache, 'hardware-is-a-file'), '')
  assert.ok((await benchmark({ ...options, anew: true })).time >= first.time && products > counted)
  assert.ok(
    (await benchmark({ ...options, cache: join(cache, 'hardware-is-a-file') })).operations > 0,
    'a cache that cannot be written does not matter',
  )
})

test('a sum of measured terms is measured, one estimate among them makes it an estimate', () => {
  assert.equal(estimate('bytes', [term('a', exactly(1), 'measured', ''), term('b', exactly(2), 'measured', '')]).basis, 'measured')
  assert.equal(estimate('bytes', [term('a', exactly(1), 'measured', ''), term('b', exactly(2), 'estimated', '')]).basis, 'estimated')
})
