/** From the words of a command line to typed values, refusing with a sentence what does not fit. */
import { Failure } from '../failure.ts'
import { nearest } from '../sdk/index.ts'

interface Described {
  summary: string
  /** What stands for the value in the help: `--port N`. */
  value?: string
  /** One letter: `f` for `-f`. */
  short?: string
  /** The environment variable that speaks when the flag does not. */
  env?: string
}
export type OptionSpec =
  | (Described & { type: 'string'; choices?: readonly string[]; default?: string; many?: false })
  /** May be given several times. */
  | (Described & { type: 'string'; many: true; choices?: readonly string[]; default?: undefined })
  | (Described & { type: 'integer' | 'number'; minimum?: number; maximum?: number; default?: number })
  /** Seconds; written `90`, `90s`, `2m`, `1h30m`, `1.5h`. */
  | (Described & { type: 'duration'; default?: number })
  /** With `default: true` the help shows, and the user types, `--no-<name>`. */
  | (Described & { type: 'boolean'; default?: boolean })
export interface ArgumentSpec {
  summary: string
  choices?: readonly string[]
  optional?: boolean
  /** Takes all that is left; only the last may. */
  many?: boolean
}
export type OptionSpecs = Readonly<Record<string, OptionSpec>>
export type ArgumentSpecs = Readonly<Record<string, ArgumentSpec>>

export type Camel<S extends string> = S extends `${infer Head}-${infer Tail}` ? `${Head}${Capitalize<Camel<Tail>>}` : S
type Plain<O extends OptionSpec> = O extends { type: 'boolean' }
  ? boolean
  : O extends { type: 'string'; choices: readonly (infer C)[] }
    ? C
    : O extends { type: 'string' }
      ? string
      : number
type OptionValue<O extends OptionSpec> = O extends { many: true }
  ? string[]
  : O extends { type: 'boolean' } | { default: string | number }
    ? Plain<O>
    : Plain<O> | undefined
type Word<A extends ArgumentSpec> = A extends { choices: readonly (infer C)[] } ? C : string
type ArgumentValue<A extends ArgumentSpec> = A extends { many: true }
  ? Word<A>[]
  : A extends { optional: true }
    ? Word<A> | undefined
    : Word<A>
/** What a command's `run` is given: arguments and options in one object, `--image-size` as `imageSize`. */
export type Values<A extends ArgumentSpecs, O extends OptionSpecs> = { readonly [K in keyof A]: ArgumentValue<A[K]> } & {
  readonly [K in keyof O & string as Camel<K>]: OptionValue<O[K]>
}
export type AnyValues = Record<string, string | number | boolean | string[] | undefined>

/** Flags that every command knows and that may also stand in front of the command. */
export const commonFlags = {
  json: 'print the result as one JSON object on the last line',
  quiet: 'print only what was asked for, no progress',
  help: 'show this help',
  version: 'show the version',
} as const
export type CommonFlag = keyof typeof commonFlags

/** Takes the common flags out of the words; everything behind `--` is left as it is. */
export function takeCommonFlags(words: readonly string[]): { flags: Record<CommonFlag, boolean>; rest: string[] } {
  const flags: Record<CommonFlag, boolean> = { json: false, quiet: false, help: false, version: false }
  const end = words.indexOf('--')
  const [open, closed] = end < 0 ? [words, []] : [words.slice(0, end), words.slice(end)]
  const rest = open.filter(word => {
    const name = word === '-h' ? 'help' : word.startsWith('--') ? word.slice(2) : ''
    if (!Object.hasOwn(flags, name)) return true
    flags[name as CommonFlag] = true
    return false
  })
  return { flags, rest: [...rest, ...closed] }
}

/** @throws usage, naming what is wrong and, for a misspelt flag, the one that was probably meant. */
export function parseArguments(
  command: string,
  argumentSpecs: ArgumentSpecs,
  optionSpecs: OptionSpecs,
  words: readonly string[],
  environment: Readonly<Record<string, string | undefined>> = process.env,
): AnyValues {
  const refuse = (problem: string) => new Failure('usage', { problem, command })
  const shortNames = new Map(Object.entries(optionSpecs).flatMap(([name, { short }]) => (short ? [[short, name] as const] : [])))
  const values: AnyValues = {}
  const positional: string[] = []

  for (let i = 0; i < words.length; i++) {
    const word = words[i]!
    if (word === '--') {
      positional.push(...words.slice(i + 1))
      break
    }
    if (!word.startsWith('-') || word === '-') {
      positional.push(word)
      continue
    }
    const equals = word.indexOf('=')
    const flag = equals < 0 ? word : word.slice(0, equals)
    const negated = flag.startsWith('--no-') && optionSpecs[flag.slice(5)]?.type === 'boolean'
    const name = flag.startsWith('--') ? flag.slice(negated ? 5 : 2) : (shortNames.get(flag.slice(1)) ?? '')
    const spec = Object.hasOwn(optionSpecs, name) ? optionSpecs[name] : undefined
    if (!spec)
      throw refuse(
        `${command} has no option ${flag}.${suggestion(flag, [...optionFlags(optionSpecs), ...Object.keys(optionSpecs).map(each => `--${each}`)])}`,
      )
    const key = camel(name)
    const many = spec.type === 'string' && spec.many === true
    if (key in values && !many) throw refuse(`${flag} is given twice.`)
    if (spec.type === 'boolean') {
      if (equals >= 0) throw refuse(`${flag} takes no value.`)
      values[key] = !negated
      continue
    }
    const text = equals >= 0 ? word.slice(equals + 1) : words[++i]
    const isFlag = text?.startsWith('--') || (text?.startsWith('-') && text !== '-' && Number.isNaN(Number(text)))
    if (text === undefined || (equals < 0 && isFlag)) throw refuse(`${flag} needs a value: ${flag} ${placeholder(name, spec)}.`)
    const value = readValue(flag, spec, text, refuse)
    values[key] = many ? [...((values[key] as string[] | undefined) ?? []), String(value)] : value
  }

  for (const [name, spec] of Object.entries(optionSpecs)) {
    const key = camel(name)
    if (key in values) continue
    const said = spec.env ? environment[spec.env] : undefined
    if (said) values[key] = readValue(spec.env!, spec, said, refuse)
    else if (spec.type === 'string' && spec.many) values[key] = []
    else values[key] = spec.default ?? (spec.type === 'boolean' ? false : undefined)
  }
  return Object.assign(values, placeArguments(command, argumentSpecs, positional, refuse))
}

function placeArguments(command: string, specs: ArgumentSpecs, words: readonly string[], refuse: (problem: string) => Failure): AnyValues {
  const values: AnyValues = {}
  let next = 0
  for (const [name, spec] of Object.entries(specs)) {
    const word = name.toUpperCase()
    const given = words.slice(next, spec.many ? undefined : next + 1)
    next += given.length
    if (given.length === 0 && !spec.optional) throw refuse(`${command} needs ${word}: ${spec.summary}.`)
    if (given.includes('')) throw refuse(`${word} is empty.`)
    for (const each of given) chosen(word, spec.choices, each, refuse)
    values[camel(name)] = spec.many ? given : given[0]
  }
  if (next < words.length) throw refuse(`${command} does not know what to do with "${words[next]}".`)
  return values
}

function readValue(from: string, spec: OptionSpec, text: string, refuse: (problem: string) => Failure): string | number | boolean {
  if (spec.type === 'boolean') {
    if (/^(1|true|yes|on)$/i.test(text)) return true
    if (/^(0|false|no|off)$/i.test(text)) return false
    throw refuse(`${from} must be 1 or 0, not "${text}".`)
  }
  if (spec.type === 'string') {
    if (text === '') throw refuse(`${from} is empty.`)
    return chosen(from, spec.choices, text, refuse)
  }
  if (spec.type === 'duration') {
    const seconds = parseDuration(text)
    if (seconds === null || seconds <= 0) throw refuse(`${from} must be a time such as 90s, 2m or 1h30m, not "${text}".`)
    return seconds
  }
  const number = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : Number.NaN
  const kind = spec.type === 'integer' ? 'a whole number' : 'a number'
  const { minimum = Number.NEGATIVE_INFINITY, maximum = Number.POSITIVE_INFINITY } = spec
  const fits = Number.isFinite(number) && (spec.type === 'number' || Number.isSafeInteger(number)) && number >= minimum && number <= maximum
  if (!fits) throw refuse(`${from} must be ${kind}${range(spec.minimum, spec.maximum)}, not "${text}".`)
  return number
}

function chosen(from: string, choices: readonly string[] | undefined, text: string, refuse: (problem: string) => Failure): string {
  if (!choices || choices.includes(text)) return text
  throw refuse(`${from} must be one of ${choices.join(', ')}, not "${text}".${suggestion(text, choices)}`)
}

const range = (minimum?: number, maximum?: number) =>
  minimum !== undefined && maximum !== undefined
    ? ` from ${minimum} to ${maximum}`
    : minimum !== undefined
      ? ` from ${minimum} up`
      : maximum !== undefined
        ? ` up to ${maximum}`
        : ''

/** Seconds, or null where the text is no duration. */
export function parseDuration(text: string): number | null {
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text)
  const parts = /^(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?$/.exec(text)
  if (!parts || text === '') return null
  return Number(parts[1] ?? 0) * 3600 + Number(parts[2] ?? 0) * 60 + Number(parts[3] ?? 0)
}

export const camel = (name: string): string => name.replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase())

/** How an option is typed: `--port N`, `--deploy`, `--no-serve`. */
export const optionFlag = (name: string, spec: OptionSpec): string =>
  spec.type !== 'boolean' ? `--${name} ${placeholder(name, spec)}` : spec.default ? `--no-${name}` : `--${name}`

export const placeholder = (name: string, spec: OptionSpec): string =>
  spec.value ??
  (spec.type === 'string' && spec.choices
    ? spec.choices.join('|')
    : { string: name.toUpperCase(), integer: 'N', number: 'X', duration: 'TIME', boolean: '' }[spec.type])

export const optionFlags = (specs: OptionSpecs): string[] => [
  ...Object.entries(specs).map(([name, spec]) => optionFlag(name, spec).split(' ')[0]!),
  ...Object.keys(commonFlags).map(name => `--${name}`),
]

/** ` Did you mean x?` for the known word nearest to a misspelt one, or nothing. */
export function suggestion(word: string, known: readonly string[]): string {
  const near = nearest(word, known)
  return near === null ? '' : ` Did you mean ${near}?`
}
