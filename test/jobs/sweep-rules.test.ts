/** What a sweep tries, and when it gives a trial up. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Failure } from '../../src/failure.ts'
import { rungsReached, stoppedAt } from '../../src/jobs/sweeps/early-stop.ts'
import { gridSize, type Parameter, parametersOf, readParameter, type SweepDefinition } from '../../src/jobs/sweeps/search.ts'

const definition = (parameters: Parameter[], rest: Partial<SweepDefinition> = {}): SweepDefinition => ({
  ...{
    parameters,
    method: 'random',
    seed: 0,
    trials: 10,
    metric: 'accuracy',
    goal: 'maximise',
    earlyStop: null,
    parallel: null,
    budget: null,
  },
  ...rest,
})

test('a search is a range, whole numbers, a logarithmic range, or a list', () => {
  assert.deepEqual(readParameter('lr=log:1e-4..1e-1'), { name: 'lr', kind: 'log', from: 1e-4, to: 0.1 })
  assert.deepEqual(readParameter('dropout=0..0.5'), { name: 'dropout', kind: 'uniform', from: 0, to: 0.5 })
  assert.deepEqual(readParameter('shift=-1..1'), { name: 'shift', kind: 'uniform', from: -1, to: 1 })
  assert.deepEqual(readParameter('layers=int:1..4'), { name: 'layers', kind: 'int', from: 1, to: 4 })
  assert.deepEqual(readParameter('width=log-int:16..1024'), { name: 'width', kind: 'log-int', from: 16, to: 1024 })
  assert.deepEqual(readParameter('optimiser=sgd, adam'), { name: 'optimiser', kind: 'choice', values: ['sgd', 'adam'] })
  for (const bad of ['', 'lr', '=1', 'lr=', '1x=2', 'lr=log:0..1', 'lr=2..1', 'n=int:1..2.5', 'a=x,x', 'a=x,,y', 'lr=lin:1..2'])
    assert.throws(
      () => readParameter(bad),
      (error: Failure) => error instanceof Failure && error.code === 'sweep_search',
      bad,
    )
})

test('any text is a parameter or refused with the code', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.string().map(text => `lr=${text}`),
      ),
      text => {
        try {
          readParameter(text)
        } catch (error) {
          if (!(error instanceof Failure && error.code === 'sweep_search')) throw error
        }
      },
    ),
  )
})

test('a trial follows from seed and number alone, and lies in its range', () => {
  const sweep = definition([
    readParameter('lr=log:1e-4..1e-1'),
    readParameter('n=int:1..4'),
    readParameter('o=a,b'),
    readParameter('w=log-int:16..1024'),
  ])
  const trials = Array.from({ length: 400 }, (_, index) => parametersOf(sweep, index))
  assert.deepEqual(parametersOf(sweep, 399), trials[399])
  assert.notDeepEqual(parametersOf({ ...sweep, seed: 1 }, 0), trials[0])
  for (const { lr, n, w } of trials) {
    assert.ok(Number(lr) >= 1e-4 && Number(lr) <= 0.1)
    assert.ok(Number.isInteger(Number(n)) && Number(n) >= 1 && Number(n) <= 4)
    assert.ok(Number.isInteger(Number(w)) && Number(w) >= 16 && Number(w) <= 1024)
  }
  assert.deepEqual(new Set(trials.map(({ n }) => n)).size, 4)
  // a logarithmic range has half of its trials below the geometric middle
  const below = trials.filter(({ lr }) => Number(lr) < Math.sqrt(1e-4 * 0.1)).length
  assert.ok(below > 160 && below < 240, `${below} of 400`)
})

test('a grid goes through every combination once', () => {
  const parameters = [readParameter('a=1,2,3'), readParameter('b=x,y')]
  assert.equal(gridSize(parameters), 6)
  const sweep = definition(parameters, { method: 'grid' })
  const all = Array.from({ length: 6 }, (_, index) => parametersOf(sweep, index))
  assert.equal(new Set(all.map(each => JSON.stringify(each))).size, 6)
  assert.deepEqual(all[0], { a: '1', b: 'x' })
  assert.throws(() => gridSize([readParameter('lr=0..1')]), /grid/)
})

const rule = { minSteps: 1, eta: 3 }
const curve = (value: number, steps: number) => Array.from({ length: steps }, (_, i) => ({ step: i + 1, value: value * (i + 1) }))

test('rungs lie a factor apart', () => {
  assert.deepEqual(rungsReached(30, rule), [1, 3, 9, 27])
  assert.deepEqual(rungsReached(0, rule), [])
})

test('the best is never given up, the worst of three is', () => {
  const others = [curve(0.5, 9), curve(0.3, 9)]
  assert.equal(stoppedAt(curve(0.9, 9), others, rule, 'maximise'), null)
  assert.equal(stoppedAt(curve(0.1, 9), others, rule, 'maximise'), 1)
  assert.equal(stoppedAt(curve(0.1, 9), others, rule, 'minimise'), null)
  assert.equal(stoppedAt(curve(0.1, 9), [curve(0.5, 9)], rule, 'maximise'), null, 'of two nobody can be told to be in the lower third')
})

test('of any trials the one with the best value at each rung goes on, and one that is only NaN does not', () => {
  fc.assert(
    fc.property(
      fc.uniqueArray(fc.integer({ min: 1, max: 1000 }), { minLength: 2, maxLength: 30 }),
      fc.integer({ min: 1, max: 30 }),
      (values, steps) => {
        const curves = values.map(value => curve(value, steps))
        const best = values.indexOf(Math.max(...values))
        const rest = (at: number) => curves.filter((_, i) => i !== at)
        assert.equal(stoppedAt(curves[best]!, rest(best), rule, 'maximise'), null)
        const stopped = values.filter((_, i) => stoppedAt(curves[i]!, rest(i), rule, 'maximise') !== null).length
        if (values.length >= 3) assert.equal(values.length - stopped, Math.max(1, Math.floor(values.length / 3)))
      },
    ),
    { numRuns: 50 },
  )
  const nan = Array.from({ length: 9 }, (_, i) => ({ step: i + 1, value: Number.NaN }))
  assert.equal(stoppedAt(nan, [curve(1, 9)], rule, 'maximise'), 1)
})
