/** Bytes that a device needs for a workload: the terms of the ZeRO paper (Rajbhandari et al. 2020) and what frameworks take besides. */
import type { Target } from './devices.ts'
import { type Estimate, estimate, exactly, plus, type Range, term, times } from './estimate.ts'
import { costOfSample, elementBytes, type Optimiser, type Precision, transformerOf, type Workload } from './workload.ts'

/** Bytes a parameter. Under `mixed` PyTorch keeps float32 weights and makes 16-bit ones on the way; DeepSpeed the other way round: 16 either way. */
const weightBytes: Record<Precision, Range> = {
  float32: exactly(4),
  mixed: { low: 4, likely: 6, high: 6 },
  bfloat16: exactly(2),
  float16: exactly(2),
}
const gradientBytes: Record<Precision, Range> = {
  float32: exactly(4),
  mixed: { low: 2, likely: 4, high: 4 },
  bfloat16: exactly(2),
  float16: exactly(2),
}
/** float32 moments; those of purely 16-bit trainings are 16-bit in PyTorch, and float32 with a float32 copy of the weights elsewhere. */
const stateBytes: Record<Optimiser, { full: number; half: Range }> = {
  adam: { full: 8, half: { low: 4, likely: 4, high: 12 } },
  adam8bit: { full: 2, half: { low: 2, likely: 2, high: 6 } },
  momentum: { full: 4, half: { low: 2, likely: 2, high: 8 } },
  sgd: { full: 0, half: { low: 0, likely: 0, high: 4 } },
}

export function memoryOf(workload: Workload, { kind, count, exchange }: Pick<Target, 'kind' | 'count' | 'exchange'>): Estimate {
  if (workload.shape.kind === 'table') return memoryOfTable(workload.shape, kind)
  const { parameters, trained, precision, optimiser, training, sharding } = workload
  const share = (from: 1 | 2 | 3) => (sharding !== 'none' && Number(sharding.slice(4)) >= from ? 1 / count : 1)
  const half = precision === 'bfloat16' || precision === 'float16'
  const states = half ? stateBytes[optimiser].half : exactly(stateBytes[optimiser].full)
  const terms = [
    term(
      'weights',
      times(times(weightBytes[precision], parameters), training ? share(3) : 1),
      'estimated',
      `${short(parameters)} parameters`,
    ),
    ...(training
      ? [
          term('gradients', times(times(gradientBytes[precision], trained), share(2)), 'estimated', `${short(trained)} trained parameters`),
          term('optimiser', times(times(states, trained), share(1)), 'estimated', `the moments of ${optimiser}`),
        ]
      : []),
    activations(workload, count),
    ...(exchange === null
      ? []
      : [term('exchange', { low: 0.1e9, likely: 0.4e9, high: 1.5e9 }, 'estimated', 'buffers for the other devices')]),
  ]
  const held = plus(...terms)
  return estimate('bytes', [
    ...terms,
    term('fragments', times(held, { low: 0, likely: 0.07, high: 0.15 }), 'estimated', 'what the allocator cannot use'),
    runtime(kind),
  ])
}

/** Libraries copy what they are given: to their own order of numbers, to sorted columns, to each process. */
function memoryOfTable({ rows, columns }: { rows: number; columns: number }, kind: Target['kind']): Estimate {
  const data = times({ low: 2, likely: 3, high: 5 }, rows * columns * 8)
  return estimate('bytes', [
    term('table', data, 'estimated', `${short(rows)} rows of ${columns} numbers, two to five copies`),
    runtime(kind),
  ])
}

const runtime = (kind: Target['kind']) =>
  kind === 'accelerator'
    ? term('context', { low: 0.3e9, likely: 0.8e9, high: 2e9 }, 'estimated', 'the runtime of the device, a process')
    : term('program', { low: 0.2e9, likely: 0.6e9, high: 1.2e9 }, 'estimated', 'the interpreter and the framework, with its libraries')

function activations(workload: Workload, count: number) {
  const { batch, training, shape, precision, parameters } = workload
  const cost = costOfSample(workload)
  const each = Math.ceil(batch / count)
  if (training)
    return term('activations', times(cost.kept, each), 'estimated', `${each} ${each === 1 ? 'sample' : 'samples'} a step: ${cost.how}`)
  if (shape.kind !== 'sequence') {
    // a layer's input and output at a time
    const held = times(times(cost.activations, each * elementBytes(precision)), { low: 0.03, likely: 0.12, high: 0.4 })
    return term('activations', held, 'estimated', `the largest layers of ${each} ${each === 1 ? 'sample' : 'samples'}`)
  }
  const { layers, hidden } = transformerOf(parameters, shape)
  // keys and values of every token; grouped heads keep a part of the width
  const cache = times(times(layers, hidden), {
    low: (2 * shape.length * each * elementBytes(precision)) / 8,
    likely: 2 * shape.length * each * elementBytes(precision),
    high: 2 * shape.length * each * elementBytes(precision),
  })
  return term('cache', cache, 'estimated', `keys and values of ${each} × ${shape.length} tokens`)
}

/** 25M, 7B. */
export const short = (number: number): string =>
  number >= 1e9
    ? `${Number((number / 1e9).toPrecision(3))}B`
    : number >= 1e6
      ? `${Number((number / 1e6).toPrecision(3))}M`
      : `${Math.round(number)}`
