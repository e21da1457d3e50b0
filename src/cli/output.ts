/** What a command may say, and where it goes: text for people, one JSON object for programs, progress beside both. */
import { styleText } from 'node:util'
import type { Failure } from '../failure.ts'
import type { Command } from './command.ts'
import { LiveLine, type Progress, startProgress } from './progress.ts'
import { type Column, renderTable } from './table.ts'
import { printable, toJson } from './text.ts'

export interface Context {
  /** What was asked for, as text: to stdout, with --json to stderr. */
  out(text?: string): void
  /** What accompanies it (what is happening, where things went): like `out`, but silent with --quiet. */
  say(text?: string): void
  /** With --json: prints this object as one line on stdout, now. Without: nothing. NaN and infinities become strings. */
  result(object: object): void
  /** A live line with rate and time left on a terminal, sparse plain lines elsewhere, both on stderr. `total` null: not known. */
  progress(label: string, total: number | null, options?: { unit?: string }): Progress
  /** Rows under headings; cut to the terminal's width, never cut in a pipe. */
  table(columns: readonly Column[], rows: readonly (readonly string[])[]): void
  /** Colour where the text goes to a terminal that wants it. */
  style(format: Format, text: string): string
  /** Aborted by the first Ctrl-C or SIGTERM; its reason is Failure('interrupted'), so `signal.throwIfAborted()` says the right thing. */
  readonly signal: AbortSignal
  /** Every command there is, read from its file. */
  commands(): Promise<readonly Command[]>
  readonly json: boolean
  readonly quiet: boolean
  /** Whether a person is watching: text goes to a terminal. */
  readonly interactive: boolean
}
export type Format = Parameters<typeof styleText>[0]
export type { Column, Progress }

export interface Terminal {
  stdout: NodeJS.WriteStream
  stderr: NodeJS.WriteStream
}

/** The context of one command, and the two things that only the dispatcher says. */
export function createOutput(
  { stdout, stderr }: Terminal,
  flags: { json: boolean; quiet: boolean },
  signal: AbortSignal,
  commands: Context['commands'],
) {
  const people = flags.json ? stderr : stdout
  const live = new LiveLine(stderr)
  let results = 0
  const print = (stream: NodeJS.WriteStream, text: string) => live.around(() => void stream.write(`${text}\n`))

  const context: Context = {
    out: (text = '') => {
      if (!(flags.json && flags.quiet)) print(people, text)
    },
    say: (text = '') => {
      if (!flags.quiet) print(people, text)
    },
    result: object => {
      results++
      if (flags.json) print(stdout, toJson(object))
    },
    progress: (label, total, { unit = '' } = {}) => startProgress(label, total, unit, flags.quiet ? null : live),
    table: (columns, rows) =>
      context.out(
        renderTable(columns, rows, { width: people.isTTY ? people.columns : undefined, bold: text => context.style('bold', text) }),
      ),
    style: (format, text) => styleText(format, text, { stream: people }),
    signal,
    commands,
    json: flags.json,
    quiet: flags.quiet,
    interactive: people.isTTY === true,
  }
  return {
    context,
    note: (text: string) => print(stderr, text),
    fail: (failure: Pick<Failure, 'code' | 'message' | 'next'>) => {
      live.clear()
      if (flags.json) return print(stdout, toJson({ error: { code: failure.code, message: failure.message, next: failure.next } }))
      print(stderr, `${styleText('red', 'Error:', { stream: stderr })} ${printable(failure.message)}\n${printable(failure.next)}`)
    },
    /** With --json there is always one object, also from a command that has nothing to tell. */
    finish: () => {
      live.clear()
      if (flags.json && results === 0) print(stdout, '{}')
    },
  }
}
