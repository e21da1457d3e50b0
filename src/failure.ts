/**
 * Every way Plinth can refuse, in one table: a stable code, the HTTP status it becomes, what happened, and what to do next.
 * Any folder may import this file and nothing else above it does; `{name}` is filled from the details given where it is thrown.
 * docs/errors.md lists the same codes (a test compares them).
 */
export const failures = {
  // ── command line ──
  usage: [400, '{problem}', 'Run plinth {command} --help.'],
  unknown_command: [400, 'There is no command called {command}.', 'Run plinth --help for the list.'],
  interrupted: [499, 'Stopped by Ctrl-C.', '{next}'],
  internal: [500, 'Something in Plinth broke: {problem}', 'This is a bug. Please report it with the command and the text above.'],

  // ── engine ──
  shape_mismatch: [400, 'Shapes do not fit in {operation}: {a} and {b}.', 'Check the shapes of what you pass in.'],
} as const satisfies Record<string, readonly [status: number, message: string, next: string]>

export type FailureCode = keyof typeof failures
export type FailureDetails = Readonly<Record<string, string | number>>

export class Failure extends Error {
  readonly code: FailureCode
  readonly status: number
  /** What the reader can do now: a command, a setting, a change in the data. */
  readonly next: string
  readonly details: FailureDetails

  constructor(code: FailureCode, details: FailureDetails = {}, options?: ErrorOptions) {
    const [status, message, next] = failures[code]
    super(fill(message, details), options)
    this.name = 'Failure'
    this.code = code
    this.status = status
    this.next = fill(next, details)
    this.details = details
  }

  toJSON() {
    return { code: this.code, message: this.message, next: this.next }
  }
}

const fill = (text: string, details: FailureDetails) => text.replace(/\{(\w+)\}/g, (whole, key: string) => String(details[key] ?? whole))
