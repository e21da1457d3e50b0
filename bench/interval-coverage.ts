/**
 * How often 95 % intervals for the accuracy hold the truth where test pictures come in groups: node bench/interval-coverage.ts [draws]
 * Over three shapes of groups, 10 to 200 groups, accuracies from 60 to 95 %, answers within a group from independent to equal.
 */
import { type Random, randomFrom } from '../src/engine/random.ts'
import { groupedShare } from '../src/evaluate/grouped.ts'
import { normalQuantile, wilson } from '../src/evaluate/intervals.ts'

const draws = Number(process.argv[2] ?? 400)
const resamples = 400

interface Group {
  n: number
  right: number
}
type Interval = [low: number, high: number]

const methods: Record<string, (groups: readonly Group[], random: Random) => Interval> = {
  'Wilson, every picture alone': groups => wilson(sum(groups, 'right'), sum(groups, 'n')),
  'bootstrap over groups, percentile': (groups, random) => {
    const shares = resampled(groups, random)
    return [shares[Math.floor(0.025 * resamples)]!, shares[Math.ceil(0.975 * resamples) - 1]!]
  },
  'bootstrap over groups, BCa': biasCorrected,
  'Wilson for what groups are worth (used)': groups => {
    const right = groups.flatMap(({ n, right }) => Array.from({ length: n }, (_, i) => i < right))
    const names = groups.flatMap(({ n }, i) => Array<string>(n).fill(String(i)))
    const { low, high } = groupedShare(right, names)
    return [low, high]
  },
}

const shapes: Record<string, (random: Random) => number> = {
  'a few copies': random => (random() < 0.9 ? 1 : 2 + Math.floor(4 * random())),
  'five of each': () => 5,
  bursts: random => Math.max(1, Math.round(Math.exp(Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random()) + 0.8))),
}

const random = randomFrom(7)
const counts = [10, 15, 20, 30, 60, 200]
const coverage = new Map(Object.keys(methods).map(name => [name, [] as { count: number; share: number }[]]))
const width = new Map(Object.keys(methods).map(name => [name, 0]))
for (const size of Object.values(shapes))
  for (const count of counts)
    for (const accuracy of [0.6, 0.85, 0.95])
      for (const alike of [0, 0.3, 0.8, 1]) {
        const held = new Map<string, number>()
        for (let draw = 0; draw < draws; draw++) {
          const groups = Array.from({ length: count }, () => drawn(size(random), accuracy, alike))
          for (const [name, interval] of Object.entries(methods)) {
            const [low, high] = interval(groups, random)
            held.set(name, (held.get(name) ?? 0) + Number(low <= accuracy && accuracy <= high))
            width.set(name, width.get(name)! + high - low)
          }
        }
        for (const [name, times] of held) coverage.get(name)!.push({ count, share: times / draws })
      }

const cases = coverage.values().next().value!.length
console.log(`| interval | holds the truth, mean | worst of ${cases} cases | cases in 92–98 % | mean width |\n|---|---|---|---|---|`)
for (const [name, all] of coverage) {
  const cases = all.map(({ share }) => share)
  const mean = cases.reduce((a, b) => a + b) / cases.length
  const good = cases.filter(share => share >= 0.92 && share <= 0.98).length / cases.length
  console.log(
    `| ${name} | ${percent(mean)} | ${percent(Math.min(...cases))} | ${percent(good)} | ${(width.get(name)! / cases.length / draws).toFixed(3)} |`,
  )
}

console.log(`\n| groups | ${counts.join(' | ')} |\n|---|${'---|'.repeat(counts.length)}`)
const used = coverage.get('Wilson for what groups are worth (used)')!
const of = (count: number) => used.filter(each => each.count === count).map(({ share }) => share)
console.log(`| mean | ${counts.map(count => percent(of(count).reduce((a, b) => a + b) / of(count).length)).join(' | ')} |`)
console.log(`| worst | ${counts.map(count => percent(Math.min(...of(count)))).join(' | ')} |`)

function drawn(n: number, accuracy: number, alike: number): Group {
  const shared = random() < accuracy
  let right = 0
  for (let i = 0; i < n; i++) right += Number(random() < alike ? shared : random() < accuracy)
  return { n, right }
}

function sum(groups: readonly Group[], key: keyof Group): number {
  return groups.reduce((total, group) => total + group[key], 0)
}

/** Shares of groups drawn with replacement, in order. */
function resampled(groups: readonly Group[], random: Random): number[] {
  return Array.from({ length: resamples }, () => {
    let [n, right] = [0, 0]
    for (let i = 0; i < groups.length; i++) {
      const group = groups[Math.floor(random() * groups.length)]!
      n += group.n
      right += group.right
    }
    return right / n
  }).sort((a, b) => a - b)
}

/** Efron (1987), acceleration by the jackknife over groups. */
function biasCorrected(groups: readonly Group[], random: Random): Interval {
  const [n, right] = [sum(groups, 'n'), sum(groups, 'right')]
  const shares = resampled(groups, random)
  const below =
    shares.filter(share => share < right / n - 1e-12).length + shares.filter(share => Math.abs(share - right / n) <= 1e-12).length / 2
  const bias = normalQuantile(Math.min(0.999, Math.max(0.001, below / resamples)))
  const left = groups.map(group => (right - group.right) / (n - group.n))
  const mean = left.reduce((a, b) => a + b) / left.length
  const second = left.reduce((total, share) => total + (mean - share) ** 2, 0)
  const acceleration = second === 0 ? 0 : left.reduce((total, share) => total + (mean - share) ** 3, 0) / (6 * second ** 1.5)
  const at = (z: number) => {
    const p = normal(bias + (bias + z) / (1 - acceleration * (bias + z)))
    return shares[Math.max(0, Math.min(resamples - 1, Math.floor(p * resamples)))]!
  }
  return [at(normalQuantile(0.025)), at(normalQuantile(0.975))]
}

/** Φ by bisection of its inverse: slow and exact enough. */
function normal(x: number): number {
  let [low, high] = [1e-12, 1 - 1e-12]
  for (let i = 0; i < 40; i++) {
    const middle = (low + high) / 2
    if (normalQuantile(middle) < x) low = middle
    else high = middle
  }
  return low
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`
}
