/**
 * What runs really took, beside what was said before: one line a run in `hardware/outcomes.jsonl` of the home, and the latest forecast for each
 * script in `hardware/forecasts/`. From them a correction for each framework and device.
 */
import { createHash } from 'node:crypto'
import { appendFile, mkdir, readFile, rename, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { z } from 'zod'
import { type Estimate, estimate, type Range } from './estimate.ts'

const positive = z.number().positive()
const RangeOf = z.strictObject({ low: z.number().nonnegative(), likely: positive, high: positive })

const Forecast = z.strictObject({
  version: z.literal(1),
  /** Milliseconds since 1970. */
  time: z.number(),
  /** What the forecast is for: a script's absolute path, or the name of a job. */
  subject: z.string(),
  framework: z.string(),
  /** Canonical name of the device, or `cpu`. */
  device: z.string(),
  /** Bytes, without what earlier runs corrected. */
  memory: RangeOf.nullable(),
  /** Of the whole run. */
  seconds: RangeOf.nullable(),
})
export type Forecast = z.infer<typeof Forecast>

const Outcome = z.strictObject({
  version: z.literal(1),
  time: z.number(),
  subject: z.string(),
  framework: z.string(),
  device: z.string(),
  /** Measured; null: not known. */
  memory: positive.nullable(),
  seconds: positive.nullable(),
  /** What the forecast for it had said; null: there was none. */
  forecast: z.strictObject({ memory: RangeOf.nullable(), seconds: RangeOf.nullable() }).nullable(),
})
export type Outcome = z.infer<typeof Outcome>

const folderOf = (home: string) => join(home, 'hardware')
const forecastFile = (home: string, subject: string, device: string) =>
  join(folderOf(home), 'forecasts', `${createHash('sha256').update(`${subject}\n${device}`).digest('hex').slice(0, 32)}.json`)

export async function storeForecast(home: string, forecast: Omit<Forecast, 'version' | 'time'>): Promise<void> {
  const file = forecastFile(home, forecast.subject, forecast.device)
  await mkdir(dirname(file), { recursive: true, mode: 0o700 })
  await writeAside(file, JSON.stringify({ version: 1, time: Date.now(), ...forecast } satisfies Forecast))
}

/** The latest one for a subject on a device; null where there is none. */
export async function forecastFor(home: string, subject: string, device: string): Promise<Forecast | null> {
  try {
    return Forecast.parse(JSON.parse(await readFile(forecastFile(home, subject, device), 'utf8')))
  } catch {
    return null // none, or of another version
  }
}

export interface ForecastError {
  /** Measured over forecast: 1.2 is a fifth more than was said; null: not forecast, or not measured. */
  memory: number | null
  seconds: number | null
  /** For the run's page; null where nothing was forecast. */
  says: string | null
}

/**
 * Writes down what a run took, finds the forecast for it and says how far it was off. For the controller, after a run that succeeded.
 * `memory`: bytes at the peak, of the device where it computed on one. `seconds`: of the command alone.
 */
export async function recordOutcome(
  home: string,
  run: Pick<Outcome, 'subject' | 'framework' | 'device' | 'memory' | 'seconds'>,
): Promise<ForecastError> {
  const forecast = await forecastFor(home, run.subject, run.device)
  const { subject, framework, device, memory, seconds } = run
  const outcome: Outcome = {
    version: 1,
    time: Date.now(),
    subject,
    framework: forecast?.framework ?? framework,
    device,
    memory: memory && memory > 0 ? memory : null,
    seconds: seconds && seconds > 0 ? seconds : null,
    forecast: forecast && { memory: forecast.memory, seconds: forecast.seconds },
  }
  await mkdir(folderOf(home), { recursive: true, mode: 0o700 })
  await appendFile(outcomesFile(home), `${JSON.stringify(outcome)}\n`, { mode: 0o600 })
  await shorten(home)
  return errorOf(outcome)
}

/** Of one outcome. */
export function errorOf({ memory, seconds, forecast }: Pick<Outcome, 'memory' | 'seconds' | 'forecast'>): ForecastError {
  const ratio = (measured: number | null, said: Range | null | undefined) => (measured !== null && said ? measured / said.likely : null)
  const [m, s] = [ratio(memory, forecast?.memory), ratio(seconds, forecast?.seconds)]
  const parts = [m !== null && `memory ${percent(m)}`, s !== null && `time ${percent(s)}`].filter(Boolean)
  return { memory: m, seconds: s, says: parts.length > 0 ? `Against the forecast: ${parts.join(', ')}.` : null }
}

const percent = (ratio: number) => `${ratio >= 1 ? '+' : '−'}${Math.round(Math.abs(ratio - 1) * 100)} %`

const outcomesFile = (home: string) => join(folderOf(home), 'outcomes.jsonl')
const largest = 2 << 20

/** Oldest first; a line that was cut by a power failure is left out. */
export async function readOutcomes(home: string): Promise<Outcome[]> {
  const text = await readFile(outcomesFile(home), 'utf8').catch(() => '')
  return text.split('\n').flatMap(line => {
    if (line === '') return []
    try {
      const read = Outcome.safeParse(JSON.parse(line))
      return read.success ? [read.data] : []
    } catch {
      return []
    }
  })
}

/** The newer half is kept where the file has grown large. Only the controller of a home writes it. */
async function shorten(home: string): Promise<void> {
  const file = outcomesFile(home)
  if ((await stat(file)).size < largest) return
  const lines = (await readFile(file, 'utf8')).split('\n')
  await writeAside(file, lines.slice(lines.length >> 1).join('\n'))
}

async function writeAside(file: string, text: string): Promise<void> {
  await writeFile(`${file}.${process.pid}`, text, { mode: 0o600 })
  await rename(`${file}.${process.pid}`, file) // a reader sees the old file or the new one
}

// ── what was learnt ─────────────────────────────────────────────────────────────────────────────────────────────────────────

export interface Correction {
  /** Forecasts are multiplied by it. */
  factor: number
  /** Standard deviation of the logarithm of what is left. */
  spread: number
  runs: number
}

/** How far forecasts are off before anything was learnt, and how much runs of one script differ: standard deviations of logarithms. */
const prior = { memory: 0.35, seconds: 0.8 } as const
const noise = 0.2

/**
 * Normal with a normal prior around no correction, on the logarithms of measured over forecast: one run moves it part of the way, ten runs
 * nearly all. Null where no run of this framework on this device had a forecast.
 */
export function correctionOf(
  outcomes: readonly Outcome[],
  { framework, device, quantity }: { framework: string; device: string; quantity: 'memory' | 'seconds' },
): Correction | null {
  const logs = outcomes
    .filter(each => each.framework === framework && each.device === device)
    .map(each => errorOf(each)[quantity])
    .filter(ratio => ratio !== null && ratio > 0)
    .slice(-50)
    .map(ratio => Math.log(ratio!))
  const n = logs.length
  if (n === 0) return null
  const mean = logs.reduce((sum, each) => sum + each, 0) / n
  // two runs' worth of the usual noise, so that few runs that happen to agree are not trusted too far
  const variance = (2 * noise ** 2 + logs.reduce((sum, each) => sum + (each - mean) ** 2, 0)) / (2 + n - 1)
  const certainty = n / variance + 1 / prior[quantity] ** 2
  const shift = (n * mean) / variance / certainty
  return { factor: Math.exp(shift), spread: Math.sqrt(variance + 1 / certainty), runs: n }
}

/** The estimate as earlier runs correct it: likely values times the factor, ends 1.64 deviations away (nine of ten). */
export function corrected(before: Estimate, correction: Correction | null): Estimate {
  if (!correction) return before
  const { factor, spread, runs } = correction
  const [down, up] = [Math.exp(-1.64 * spread), Math.exp(1.64 * spread)]
  return estimate(
    before.unit,
    before.terms.map(each => {
      const likely = each.likely * factor
      return {
        ...each,
        low: likely * down,
        likely,
        high: likely * up,
        how: `${each.how}; × ${factor.toFixed(2)} by ${runs} ${runs === 1 ? 'run' : 'runs'} here`,
      }
    }),
  )
}

/** What a script took here the last times, which is better than any forecast. Newest first. */
export function earlierRuns(outcomes: readonly Outcome[], subject: string): Outcome[] {
  return outcomes.filter(each => each.subject === subject).toReversed()
}
