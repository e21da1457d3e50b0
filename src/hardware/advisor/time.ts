/** Seconds of a step and of a whole run: the larger of arithmetic and memory traffic (the roofline), and what comes besides. */
import type { Target } from './devices.ts'
import { beyond, type Estimate, estimate, over, type Range, term, times } from './estimate.ts'
import { costOfSample, elementBytes, type Workload } from './workload.ts'

/**
 * How often an output of a layer goes to memory and back in a step: written, normalised, activated, read by the next layer, and all that again
 * on the way back for both gradients. Read off timm's published training speeds (test/hardware/advisor.test.ts).
 */
const passes = { training: { low: 22, likely: 34, high: 70 }, inference: { low: 4, likely: 8, high: 16 } } as const satisfies Record<
  string,
  Range
>

export interface Time {
  step: Estimate
  /** Of all rounds; null where it is not said how many samples there are. */
  run: Estimate | null
  steps: number | null
}

/** Null where nothing is known of the device's arithmetic in this precision, or of what the method does with a table. */
export function timeOf(workload: Workload, target: Target): Time | null {
  const operations = target.operations(workload.precision)
  if (operations === null || workload.shape.kind === 'table') return null
  const { batch, training, parameters, trained, precision, samples, epochs, recompute } = workload
  const cost = costOfSample(workload)
  const each = Math.ceil(batch / target.count)
  // forward once, backward twice: for what comes in and for the weights, of which frozen ones need none
  const rounds = training ? 1 + 1 + trained / parameters + (recompute ? 1 : 0) : 1
  const arithmetic = over(times(cost.multiplyAdds, 2 * each * rounds), operations)
  const bytes = elementBytes(precision)
  const layers = times(times(cost.activations, each * bytes), training ? passes.training : passes.inference)
  const weights = parameters * bytes * (training ? 3 : 1) + (training ? trained * 28 : 0)
  const traffic = over(
    { low: layers.low + weights / 2, likely: layers.likely + weights, high: layers.high + 2 * weights },
    target.bandwidth,
  )
  const step = estimate('seconds', [
    term(
      'arithmetic',
      arithmetic,
      'estimated',
      `${(cost.multiplyAdds.likely * 2 * each * rounds).toExponential(1)} operations; ${cost.how}; speed ${target.basis}`,
    ),
    term('memory traffic', beyond(traffic, arithmetic), 'estimated', 'what moving numbers takes beyond that'),
    term(
      'starting',
      target.kind === 'accelerator' ? { low: 0.5e-3, likely: 3e-3, high: 15e-3 } : { low: 0.1e-3, likely: 1e-3, high: 8e-3 },
      'estimated',
      'the framework, a step',
    ),
    ...(target.exchange && training
      ? [
          term(
            'exchange',
            over(times({ low: 0.3, likely: 1, high: 1 }, (2 * trained * bytes * (target.count - 1)) / target.count), target.exchange),
            'estimated',
            'gradients between the devices, partly hidden',
          ),
        ]
      : []),
  ])
  const steps = samples === null ? null : Math.ceil(samples / batch) * epochs
  return { step, steps, run: steps === null ? null : runOf(step, steps) }
}

function runOf(step: Estimate, steps: number): Estimate {
  const all = times(step, steps)
  return estimate('seconds', [
    term('steps', all, step.basis, `${steps} steps`),
    term('besides', { low: 0, likely: all.likely * 0.1, high: all.high * 0.5 }, 'estimated', 'reading data, validation, checkpoints'),
    term('start', { low: 2, likely: 10, high: 60 }, 'estimated', 'loading the framework and opening the device'),
  ])
}
