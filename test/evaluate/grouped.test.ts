import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type Random, randomFrom } from '../../src/engine/random.ts'
import { exactExchange, groupedPairedDifference, groupedShare } from '../../src/evaluate/grouped.ts'
import { exactMcNemar, pairedDifference, wilson } from '../../src/evaluate/intervals.ts'

const long = process.env['PLINTH_TEST'] === 'long'

/** Sizes of groups as test sets have them: some copies, five frames of everything, bursts of very different length. */
const shapes: Record<string, (random: Random) => number> = {
  'a few copies': random => (random() < 0.9 ? 1 : 2 + Math.floor(4 * random())),
  'five of each': () => 5,
  'bursts of any length': random =>
    Math.max(1, Math.round(Math.exp(Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random()) + 0.8))),
}

/** Each picture is as its group with the chance `alike`, else on its own: the intraclass correlation is alike². */
function drawn(count: number, size: (random: Random) => number, accuracy: number, alike: number, random: Random) {
  const right: boolean[] = []
  const groups: (string | null)[] = []
  for (let group = 0; group < count; group++) {
    const shared = random() < accuracy
    const members = size(random)
    for (let i = 0; i < members; i++) {
      right.push(random() < alike ? shared : random() < accuracy)
      groups.push(members === 1 ? null : `group ${group}`)
    }
  }
  return { right, groups }
}

for (const [name, size] of Object.entries(shapes)) {
  test(`95 % of the intervals hold the truth where pictures come as ${name}`, () => {
    const random = randomFrom(3)
    const draws = long ? 1000 : 200
    const coverages: number[] = []
    let held = 0
    let heldByPlain = 0
    let all = 0
    for (const count of [15, 60, 200])
      for (const accuracy of [0.6, 0.85, 0.95])
        for (const alike of [0, 0.5, 1]) {
          let here = 0
          for (let draw = 0; draw < draws; draw++) {
            const { right, groups } = drawn(count, size, accuracy, alike, random)
            const { low, high } = groupedShare(right, groups)
            here += Number(low <= accuracy && accuracy <= high)
            const plain = wilson(right.filter(Boolean).length, right.length)
            heldByPlain += Number(plain[0] <= accuracy && accuracy <= plain[1])
          }
          held += here
          all += draws
          coverages.push(here / draws)
        }
    assert.ok(held / all >= 0.94 && held / all <= 0.98, `held in ${((100 * held) / all).toFixed(1)} % of all draws`)
    // at 200 draws the coverage itself is known to ±2 points only
    assert.ok(Math.min(...coverages) >= (long ? 0.92 : 0.89), `worst ${Math.min(...coverages)}`)
    assert.ok(heldByPlain / all < held / all - 0.02, `counting every picture holds in ${((100 * heldByPlain) / all).toFixed(1)} %`)
  })
}

test('pictures that stand alone get what intervals.ts says, also where groups hold one picture each', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.boolean(), fc.boolean()), { minLength: 1, maxLength: 50 }), fc.boolean(), (pairs, named) => {
      const [a, b] = [pairs.map(pair => pair[0]), pairs.map(pair => pair[1])]
      const groups = pairs.map((_, i) => (named ? `g${i}` : null))
      const { low, high, method, groups: units } = groupedShare(a, groups)
      assert.deepEqual([low, high], wilson(a.filter(Boolean).length, a.length))
      assert.deepEqual([method, units], ['wilson', a.length])
      assert.deepEqual(groupedPairedDifference(a, b, groups), pairedDifference(a, b))
    }),
  )
})

test('ten copies of each picture say no more than one of each', () => {
  const once = Array.from({ length: 40 }, (_, i) => i % 8 > 0)
  const copies = once.flatMap(right => Array<boolean>(10).fill(right))
  const groups = copies.map((_, i) => `${Math.floor(i / 10)}`)
  const grouped = groupedShare(copies, groups)
  const [low, high] = wilson(35, 40)
  assert.ok(Math.abs(grouped.low - low) < 1e-9 && Math.abs(grouped.high - high) < 1e-9, `${grouped.low} to ${grouped.high}`)
  assert.deepEqual([grouped.method, grouped.groups], ['grouped-wilson', 40])
})

test('all right and one group for everything still make an interval that is one', () => {
  for (const right of [
    [true, true, true],
    [false, false],
    [true, false, true],
  ]) {
    const { low, high } = groupedShare(
      right,
      right.map(() => 'one'),
    )
    assert.ok(0 <= low && low < high && high <= 1, `${low} to ${high}`)
  }
  assert.throws(() => groupedShare([true], []), { code: 'shape_mismatch' })
})

test('the interval never gets narrower by groups, holds the share, and does not depend on names or order', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.boolean(), fc.integer({ min: 0, max: 6 })), { minLength: 2, maxLength: 60 }), pairs => {
      const right = pairs.map(pair => pair[0])
      const grouped = groupedShare(
        right,
        pairs.map(pair => `g${pair[1]}`),
      )
      const [low, high] = wilson(right.filter(Boolean).length, right.length)
      assert.ok(grouped.low <= low + 1e-12 && high <= grouped.high + 1e-12)
      assert.ok(grouped.low <= grouped.share && grouped.share <= grouped.high)
      const turned = pairs.toReversed()
      const again = groupedShare(
        turned.map(pair => pair[0]),
        turned.map(pair => `other ${pair[1]}`),
      )
      assert.ok(Math.abs(again.low - grouped.low) < 1e-9 && Math.abs(again.high - grouped.high) < 1e-9)
    }),
  )
})

test('exchanging models group by group: by hand, as McNemar where groups are single, and never surer because of copies', () => {
  // sums of ±3 ±1 ±1: 5, 3, 3, 1, −1, −3, −3, −5; seen 5: two of eight
  assert.equal(exactExchange([3, 1, 1]), 0.25)
  assert.equal(exactExchange([3, -1, -1]), 1) // the smallest sum there is
  assert.equal(exactExchange([]), 1)
  assert.equal(exactExchange([1, 1, 1, 1, 1, 1, -1, 0, 0]), exactMcNemar(6, 1))
  assert.ok(Math.abs(exactExchange([10, 10, 10]) - exactExchange([1, 1, 1])) < 1e-12)
  const sums = exactExchange(Array.from({ length: 300 }, (_, i) => (i % 3 === 0 ? -2 : 2)))
  assert.ok(Math.abs(sums - exactMcNemar(200, 100)) < 1e-12)
})

test('the paired interval of groups holds the difference, and equally good models are rarely told apart', () => {
  const random = randomFrom(5)
  const draws = long ? 3000 : 600
  let held = 0
  let called = 0
  let calledByPlain = 0
  for (let draw = 0; draw < draws; draw++) {
    const a: boolean[] = []
    const b: boolean[] = []
    const groups: string[] = []
    const [gain, loss] = [0.12 * random(), 0.12 * random()]
    const unfair = draw % 2 === 0
    for (let group = 0; group < 60; group++) {
      const u = random()
      const outcome = u < gain ? 1 : u < gain + (unfair ? loss : gain) ? -1 : 0
      const shared = random() < 0.8
      for (let i = 0; i < 1 + Math.floor(5 * random()); i++) {
        const mine = random() < 0.9 ? outcome : 0
        a.push(mine === 1 || (mine === 0 && shared))
        b.push(mine === -1 || (mine === 0 && shared))
        groups.push(`g${group}`)
      }
    }
    const { low, high, p } = groupedPairedDifference(a, b, groups)
    const truth = unfair ? 0.9 * (gain - loss) : 0
    held += Number(low <= truth && truth <= high)
    if (!unfair) {
      called += Number(p < 0.05)
      calledByPlain += Number(pairedDifference(a, b).p < 0.05)
    }
  }
  assert.ok(held / draws >= 0.93, `held in ${held} of ${draws}`)
  assert.ok(called / (draws / 2) <= 0.06, `called in ${called} of ${draws / 2}`)
  assert.ok(calledByPlain > 2 * called, `counting every picture calls ${calledByPlain}, by group ${called}`)
})
