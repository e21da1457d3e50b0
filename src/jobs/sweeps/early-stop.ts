/**
 * Asynchronous successive halving, the stopping kind (Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning"): at the rungs
 * minSteps, minSteps·eta, minSteps·eta² … a trial goes on only while its value is among the best 1/eta of all that reached that rung before.
 */

export interface Point {
  step: number
  value: number
}

/** Steps of the rungs up to the last one that a trial with `steps` has reached. */
export function rungsReached(steps: number, { minSteps, eta }: { minSteps: number; eta: number }): number[] {
  const rungs: number[] = []
  for (let rung = minSteps; rung <= steps; rung *= eta) rungs.push(rung)
  return rungs
}

/** The best value up to and at a rung; null where there is none that is a number. */
export function valueAtRung(points: readonly Point[], rung: number, goal: 'maximise' | 'minimise'): number | null {
  const values = points.filter(({ step, value }) => step <= rung && Number.isFinite(value)).map(({ value }) => value)
  if (values.length === 0) return null
  return goal === 'maximise' ? Math.max(...values) : Math.min(...values)
}

/** The rung at which this trial is among the rest, or null: it goes on. `others`: points of every other trial, ended ones too. */
export function stoppedAt(
  mine: readonly Point[],
  others: readonly (readonly Point[])[],
  rule: { minSteps: number; eta: number },
  goal: 'maximise' | 'minimise',
): number | null {
  const steps = (points: readonly Point[]) => points.reduce((most, { step }) => Math.max(most, step), Number.NEGATIVE_INFINITY)
  const sign = goal === 'maximise' ? 1 : -1
  for (const rung of rungsReached(steps(mine), rule)) {
    const own = valueAtRung(mine, rung, goal)
    const seen = others.filter(points => steps(points) >= rung).map(points => valueAtRung(points, rung, goal))
    // nothing but NaN by now is worse than any number
    if (own === null) {
      if (seen.some(value => value !== null)) return rung
      continue
    }
    const all = [own, ...seen.filter(value => value !== null)].map(value => sign * value).toSorted((a, b) => b - a)
    const kept = Math.max(1, Math.floor(all.length / rule.eta))
    // among fewer than eta nobody can be told to be in the lower part
    if (all.length >= rule.eta && sign * own < all[kept - 1]!) return rung
  }
  return null
}
