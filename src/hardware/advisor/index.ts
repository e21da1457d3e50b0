/** Which device for which work: memory and time before the run, with intervals and terms; those that hold it, the fastest first, then the least waste. */
import type { Target } from './devices.ts'
import type { Estimate, Range } from './estimate.ts'
import { times } from './estimate.ts'
import { memoryOf } from './memory.ts'
import { type Correction, corrected } from './outcomes.ts'
import { type Time, timeOf } from './time.ts'
import type { Workload } from './workload.ts'

/** Part of the memory that is to stay free. */
export const headRoom = 0.1

export interface Choice {
  target: Pick<Target, 'name' | 'device' | 'kind' | 'count' | 'memory' | 'here' | 'source'>
  memory: Estimate
  /** `yes`: the likely need leaves head room. `tight`: it does, the highest does not. */
  fits: 'yes' | 'tight' | 'no'
  /** Null: nothing is known of its speed. */
  time: Time | null
  /** Of the run where its length is known, else an hour's. */
  price: { amount: Range; currency: string; per: 'run' | 'hour' } | null
}

export interface Learnt {
  memory: (target: Target) => Correction | null
  seconds: (target: Target) => Correction | null
}

const nothing: Learnt = { memory: () => null, seconds: () => null }

export function chooseDevice(workload: Workload, targets: readonly Target[], learnt: Learnt = nothing): Choice[] {
  return targets.map(target => judge(workload, target, learnt)).toSorted(better)
}

function judge(workload: Workload, target: Target, learnt: Learnt): Choice {
  const { name, device, kind, count, here, source } = target
  const memory = corrected(memoryOf(workload, target), learnt.memory(target))
  const plain = timeOf(workload, target)
  const time = plain && { ...plain, step: plain.step, run: plain.run && corrected(plain.run, learnt.seconds(target)) }
  const room = target.memory * (1 - headRoom)
  return {
    target: { name, device, kind, count, memory: target.memory, here, source },
    memory,
    fits: memory.likely > room ? 'no' : memory.high > room ? 'tight' : 'yes',
    time,
    price: target.price && priceOf(target.price, time),
  }
}

function priceOf({ amount, currency }: NonNullable<Target['price']>, time: Time | null): Choice['price'] {
  const run = time?.run
  return run
    ? { amount: times({ low: run.low, likely: run.likely, high: run.high }, amount / 3600), currency, per: 'run' }
    : { amount: { low: amount, likely: amount, high: amount }, currency, per: 'hour' }
}

/** Times within a twentieth of each other count as one: then who wastes less is better. Steps of a scale, so that the order is one. */
const scale = (seconds: number) => Math.round(Math.log(seconds) / Math.log(1.05))

function better(a: Choice, b: Choice): number {
  if ((a.fits === 'no') !== (b.fits === 'no')) return a.fits === 'no' ? 1 : -1
  const [x, y] = [scale(secondsOf(a)), scale(secondsOf(b))]
  return x === y ? waste(a) - waste(b) : x - y
}

const secondsOf = ({ time }: Choice) => time?.run?.likely ?? time?.step.likely ?? Number.POSITIVE_INFINITY
/** Bytes that would lie idle. */
const waste = ({ target, memory }: Choice) => (target.memory - memory.likely) * target.count
