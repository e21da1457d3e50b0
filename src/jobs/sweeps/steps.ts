/** What a sweep does next, from how its trials stand and nothing else: whoever takes it up again goes on where it was. */
import { hasEnded } from '../../sdk/shapes.ts'
import { type Point, stoppedAt } from './early-stop.ts'
import type { SweepDefinition } from './search.ts'

export interface Trial {
  index: number
  job: number
  state: string
  reason: string | null
  run: string | null
  /** That it has computed so far. */
  seconds: number
  /** Of the sweep's metric. */
  points: readonly Point[]
  /** The rung at which it was given up. */
  stopped: number | null
}

export interface Steps {
  /** Indices of trials to submit. */
  submit: number[]
  stop: { job: number; index: number; rung: number | null }[]
  /** Nothing more will come. */
  done: boolean
  /** The budget is spent. */
  spent: boolean
}

export function nextSteps(sweep: SweepDefinition, trials: readonly Trial[]): Steps {
  const active = trials.filter(({ state }) => !hasEnded(state))
  const spent = sweep.budget !== null && trials.reduce((sum, { seconds }) => sum + seconds, 0) >= sweep.budget
  if (spent) return { submit: [], stop: active.map(({ job, index }) => ({ job, index, rung: null })), done: active.length === 0, spent }
  const known = new Set(trials.map(({ index }) => index))
  const missing = Array.from({ length: sweep.trials }, (_, index) => index).filter(index => !known.has(index))
  const room = sweep.parallel === null ? missing.length : Math.max(0, sweep.parallel - active.length)
  const rule = sweep.earlyStop
  const stop =
    rule === null
      ? []
      : active.flatMap(trial => {
          if (trial.stopped !== null || trial.points.length === 0) return []
          const others = trials.filter(({ index, points }) => index !== trial.index && points.length > 0).map(({ points }) => points)
          const rung = stoppedAt(trial.points, others, rule, sweep.goal)
          return rung === null ? [] : [{ job: trial.job, index: trial.index, rung }]
        })
  return { submit: missing.slice(0, room), stop, done: missing.length === 0 && active.length === 0, spent }
}

/** The trial's own value: the best of its points by the goal; null where it has none that is a number. */
export function bestOf({ points }: Pick<Trial, 'points'>, goal: SweepDefinition['goal']): number | null {
  const values = points.map(({ value }) => value).filter(Number.isFinite)
  if (values.length === 0) return null
  return goal === 'maximise' ? Math.max(...values) : Math.min(...values)
}

/** Best first; those without a value at the end, in the order of their numbers. */
export function ranked(sweep: Pick<SweepDefinition, 'goal'>, trials: readonly Trial[]): Trial[] {
  const sign = sweep.goal === 'maximise' ? -1 : 1
  return trials.toSorted((a, b) => {
    const [x, y] = [bestOf(a, sweep.goal), bestOf(b, sweep.goal)]
    if (x === null || y === null) return x === y ? a.index - b.index : x === null ? 1 : -1
    return sign * (x - y) || a.index - b.index
  })
}
