/** What names and values may be, as MLflow's own server has it: what it cuts is cut here, what it refuses is refused. */
import { posix } from 'node:path'
import { type Message, wrongParameter } from './wire.ts'

/** How names of metrics, params and tags look: they may be files somewhere, and `\w` is Unicode's. */
const named = /^[/\p{L}\p{N}_.\- :]*$/u
const longestKey = 250

/** Names that were looked at and are sound: a run logs the same few a million times. */
const sound = new Set<string>()

/** throws mlflow_parameter */
export function keyIn(message: Message, field = 'key'): string {
  const key = message.required(field)
  if (sound.has(key)) return key
  if (!named.test(key))
    message.wrong(
      field,
      'Names may only contain alphanumerics, underscores (_), dashes (-), periods (.), spaces ( ), colon(:) and slashes (/).',
    )
  const normal = posix.normalize(key)
  if (normal !== key || normal === '.' || normal.startsWith('..') || normal.startsWith('/') || normal.endsWith('/'))
    message.wrong(
      field,
      `Names may be treated as files in certain cases, and must not resolve to other names when treated as such. This name would resolve to '${normal.replace(/(?<=.)\/$/, '')}'.`,
    )
  atMost(field, longestKey, key)
  if (sound.size > 10_000) sound.clear()
  sound.add(key)
  return key
}

/** throws mlflow_parameter */
export function atMost(what: string, most: number, text: string): string {
  if (text.length > most && length(text) > most) throw wrongParameter(`'${what}' exceeds the maximum length of ${most} characters.`)
  return text
}
export const cut = (text: string, most: number): string => (text.length <= most ? text : [...text].slice(0, most).join(''))
/** In characters as people and Python count them. */
const length = (text: string) => [...text].length

// ── pairs ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

const pair = (value: (text: string) => string) => (message: Message) => ({ key: keyIn(message), value: value(message.text('value') ?? '') })
export const paramIn = pair(text => cut(text, 6000))
export const tagIn = pair(text => cut(text, 8000))
export const experimentTagIn = pair(text => atMost('value', 20_000, text))
export const registryTagIn = pair(text => atMost('value', 100_000, text))

/** The last value of a key counts. */
export const tagsIn = (message: Message, each: (message: Message) => { key: string; value: string }): Record<string, string> =>
  Object.fromEntries(
    message
      .messages('tags')
      .map(each)
      .map(({ key, value }) => [key, value]),
  )
