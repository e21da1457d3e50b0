/** The composition root of `plinth doctor` and `plinth advise`: this machine, with what the engine measures on it. Starts no server, opens no home. */
import { open, stat } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { cpus } from 'node:os'
import { dirname, resolve } from 'node:path'
import { cache, hardwareFile, home } from './config.ts'
import { openSource } from './data/open-source.ts'
import { Failure } from './failure.ts'
import { benchmark, type Measured } from './hardware/advisor/benchmark.ts'
import { acceleratorTarget, processorTarget, type Target } from './hardware/advisor/devices.ts'
import { estimate, exactly, type Term, term, times } from './hardware/advisor/estimate.ts'
import { type Choice, chooseDevice } from './hardware/advisor/index.ts'
import { correctionOf, earlierRuns, type Outcome, readOutcomes, storeForecast } from './hardware/advisor/outcomes.ts'
import { readPrices } from './hardware/advisor/prices.ts'
import { type Asked, type Said, workloadOf } from './hardware/advisor/request.ts'
import { readScript } from './hardware/advisor/script.ts'
import { examine } from './hardware/doctor.ts'
import { devicesOf, readInventory } from './hardware/inventory/index.ts'
import { readMemory } from './hardware/inventory/memory.ts'
import { defaultThreads } from './hardware/limits.ts'
import { thisSystem } from './hardware/system.ts'

export type { Estimate } from './hardware/advisor/estimate.ts'
export type { Choice } from './hardware/advisor/index.ts'
export { optimisers, precisions, shardings } from './hardware/advisor/workload.ts'
export { listenForBandwidth, measureBandwidth } from './hardware/bandwidth.ts'
export { groups as doctorGroups } from './hardware/check.ts'

const processorName = () => cpus()[0]?.model.trim() || process.arch

function runtime(): { version: string; folder: string } {
  const manifest = createRequire(import.meta.url).resolve('onnxruntime-node/package.json')
  const { version } = createRequire(import.meta.url)(manifest) as { version: string }
  return { version, folder: dirname(manifest) }
}

/** throws hardware_file */
export async function examineMachine() {
  const examined = await examine({ home: home(), cache: cache(), runtime: runtime(), override: hardwareFile() })
  return { ...examined, device: { kind: 'cpu', name: processorName(), threads: defaultThreads() } }
}

// ── advice ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

export interface AdviceRequest extends Said {
  /** A script, or a folder or zip of pictures; null: all is said in numbers. */
  what: string | null
  /** Accelerators that are not here: `H100`, `A100:8`. */
  devices: readonly string[]
  /** File of a price table. */
  prices: string | null
  /** Measures this machine whatever was measured before. */
  anew: boolean
  /** Of the embedded trainer, for folders: its rates, measured by earlier trainings or typical. */
  rates(backbone: string): Promise<Rates>
}
export type Rates = import('./train/forecast.ts').Rates

export interface Advice extends Asked {
  choices: Choice[]
  measured: Measured
  /** What this very script took here before, newest first. */
  earlier: Outcome[]
}

/** throws advice_incomplete, price_table, hardware_file, source_… */
export async function advise(request: AdviceRequest, signal: AbortSignal): Promise<Advice> {
  const subject = request.what === null ? null : await subjectOf(request.what, signal)
  const asked = subject?.pictures ? picturesAsked(request, subject.pictures) : workloadOf(request, subject?.script ?? null)
  const [measured, prices, inventory, memory, outcomes] = await Promise.all([
    measureMachine(request.anew),
    request.prices === null ? { targets: [], unknown: [] } : readPrices(request.prices),
    readInventory({ override: hardwareFile() }),
    readMemory(thisSystem),
    readOutcomes(home()),
  ])
  signal.throwIfAborted()
  const notes = [...asked.notes]
  const processor = processorTarget(processorName(), memory.available, { ...measured, basis: 'measured' })
  const here = [
    ...Map.groupBy(
      devicesOf(inventory).filter(({ usable }) => usable),
      ({ model }) => model,
    ).values(),
  ].flatMap(devices => {
    const [first] = devices as [(typeof devices)[number]]
    const target = acceleratorTarget(first.model, { memory: first.memory, here: !first.fake })
    if (!target) notes.push(`Nothing is known of the speed of ${first.model}, which is here.`)
    return target ? [{ ...target, name: `${target.name}${first.fake ? ' (fake)' : ' (here)'}` }] : []
  })
  const elsewhere = request.devices.flatMap(text => {
    const [, name = '', count = '1'] = /^(.*?)(?::(\d{1,4}))?$/.exec(text.trim()) ?? []
    const target = acceleratorTarget(name, { count: Number(count) })
    if (!target)
      throw new Failure('advice_incomplete', {
        problem: `no accelerator called ${name} is known`,
        remedy: 'Names are like H100, A100:8, L4 or RTX 4090; docs/advise.md lists them.',
      })
    return [target]
  })
  if (prices.unknown.length > 0) notes.push(`Nothing is known of the devices of ${prices.unknown.join(', ')}.`)
  const targets: Target[] = [processor, ...here, ...elsewhere, ...prices.targets]
  const keyOf = ({ kind, device }: Pick<Target, 'kind' | 'device'>) => (kind === 'processor' ? 'cpu' : device)
  const learnt = (quantity: 'memory' | 'seconds') => (target: Target) =>
    correctionOf(outcomes, { framework: asked.framework, device: keyOf(target), quantity })
  const choices = chooseDevice(asked.workload, targets, { memory: learnt('memory'), seconds: learnt('seconds') })
  if (subject && !subject.pictures) {
    // kept as it was before correction, so that what is learnt next is about the estimate itself
    for (const { target, memory: bytes, time } of chooseDevice(asked.workload, targets).filter(({ target }) => target.here)) {
      const range = ({ low, likely, high }: { low: number; likely: number; high: number }) => ({ low, likely, high })
      await storeForecast(home(), {
        subject: subject.path,
        framework: asked.framework,
        device: keyOf(target),
        memory: range(bytes),
        seconds: time?.run ? range(time.run) : null,
      })
    }
  }
  const own = subject?.pictures ? [await ownTrainer(request, subject.pictures, memory.available)] : []
  return {
    ...asked,
    notes,
    choices: [...own, ...choices],
    measured,
    earlier: subject ? earlierRuns(outcomes, subject.path).slice(0, 10) : [],
  }
}

interface Pictures {
  count: number
  bytes: number
  classes: number
}

/** A script is read, never run; a folder or zip of pictures is listed, not decoded. */
async function subjectOf(what: string, signal: AbortSignal) {
  const path = resolve(what)
  const found = await stat(path).catch(() => null)
  if (found?.isFile() && !/\.zip$/i.test(path)) {
    const file = await open(path)
    try {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(1 << 20), 0, 1 << 20, 0)
      return { path, script: readScript(buffer.toString('utf8', 0, bytesRead)), pictures: null }
    } finally {
      await file.close()
    }
  }
  const source = await openSource(path, signal)
  try {
    const files = source.files.filter(({ path: name }) => /\.(jpe?g|png|webp|gif|tiff?|avif|bmp)$/i.test(name))
    if (files.length === 0)
      throw new Failure('advice_incomplete', {
        problem: `there is no picture in ${what}`,
        remedy: 'Give a training script, or a folder with pictures.',
      })
    const classes = new Set(files.map(({ path: name }) => dirname(name)))
    return {
      path,
      script: null,
      pictures: { count: files.length, bytes: files.reduce((sum, { size }) => sum + size, 0), classes: classes.size },
    }
  } finally {
    await source.close()
  }
}

/** The same training as a PyTorch job on accelerators would do it: of the pictures, 70 in 100 are learned from. */
function picturesAsked(request: AdviceRequest, { count, classes }: Pictures): Asked {
  const asked = workloadOf(
    { backbone: 'efficientnet-lite0', precision: 'mixed', optimiser: 'adam', epochs: epochsFor(count), ...defined(request) },
    null,
    Math.ceil(count * 0.7),
  )
  return { ...asked, notes: [`${count} pictures in ${classes} folders; 70 in 100 are learned from.`, ...asked.notes] }
}

const defined = (said: Said): Said => Object.fromEntries(Object.entries(said).filter(([, value]) => value !== undefined && value !== false))
/** As the recipe chooses where nobody says (train/recipes/image-classification.ts). */
const epochsFor = (count: number) => Math.min(Math.max(Math.round((350 * 16) / (count * 0.7)), 3), 20)

/** `plinth train` on this processor, forecast by the recipe's own model. */
async function ownTrainer(request: AdviceRequest, { count, bytes, classes }: Pictures, available: number): Promise<Choice> {
  const [{ forecast, multiplyAdds, stepMemory }, { backbone }, { add, input, matMul, parameter }] = await Promise.all([
    import('./train/forecast.ts'),
    import('./models/catalogue.ts'),
    import('./engine/index.ts'),
  ])
  const id = request.backbone?.replaceAll('_', '-') ?? 'efficientnet-lite0'
  const base = backbone(id)
  const rates = await request.rates(id)
  const size = request.imageSize ?? 160
  const head = parameter('head', [classes, base.features])
  const logits = add(
    matMul(base.build(input('picture', [1, 3, size, size])).features, head, { transposeB: true }),
    parameter('bias', [classes]),
  )
  const part = (share: number) => Math.max(1, Math.round(count * share))
  const parts = forecast(
    {
      pictures: count,
      pixels: bytes * 4, // a JPEG of a camera has a quarter of a byte a pixel
      trainPictures: part(0.7),
      testPictures: part(0.15),
      classes,
      features: base.features,
      searched: count,
      epochs: request.epochs ?? epochsFor(count),
      multiplyAdds: multiplyAdds(logits),
      threads: defaultThreads(),
      fitSample: 0,
      alterationSample: Math.min(500, part(0.85)),
    },
    rates,
  )
  const basis = rates.source === 'measured' ? ('measured' as const) : ('estimated' as const)
  const spread = basis === 'measured' ? { low: 0.7, likely: 1, high: 1.5 } : { low: 0.4, likely: 1, high: 2.5 }
  const how = basis === 'measured' ? 'speed measured by earlier trainings here' : 'speed of typical processors'
  const stage = (name: string, seconds: number): Term => term(name, times(exactly(seconds), spread), basis, how)
  const run = estimate('seconds', [
    stage('features', parts.features),
    stage('head and choices', parts.before),
    stage('fine-tuning', parts.finetune),
    stage('test and report', parts.after),
  ])
  const need = estimate('bytes', [
    term(
      'step',
      times(exactly(stepMemory(logits, 16)), { low: 0.7, likely: 1, high: 1.5 }),
      'estimated',
      'activations and weights of a step of 16 pictures',
    ),
  ])
  return {
    target: {
      name: 'plinth train, on this processor',
      device: processorName(),
      kind: 'processor',
      count: 1,
      memory: available,
      here: true,
      source: how,
    },
    memory: need,
    fits: need.likely > available * 0.9 ? 'no' : need.high > available * 0.9 ? 'tight' : 'yes',
    time: { step: estimate('seconds', []), steps: null, run },
    price: null,
  }
}

/** A float32 matrix product by the runtime that everything here computes with, and copying; kept in the cache. */
function measureMachine(anew: boolean): Promise<Measured> {
  const threads = defaultThreads()
  return benchmark({
    cache: cache(),
    threads,
    runtime: `onnxruntime-node ${runtime().version}`,
    anew,
    open: async n => {
      const { compile, input, matMul } = await import('./engine/index.ts')
      const program = await compile({ product: matMul(input('a', [n, n]), input('b', [n, n])) }, new Map(), { threads })
      const feeds = { a: new Float32Array(n * n).fill(0.5), b: new Float32Array(n * n).fill(0.25) }
      return { multiply: async () => void (await program.run(feeds)), close: () => program.close() }
    },
  })
}
