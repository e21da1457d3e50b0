/** Runs an installer as a child without a shell; all that it prints goes into the job's log, with secrets masked, and the end of it is kept. */
import { spawn } from 'node:child_process'
import { Failure } from '../../failure.ts'
import { masking } from './masking.ts'

export interface ToolOptions {
  cwd: string
  env: Readonly<Record<string, string>>
  /** Each line that it prints. */
  print(line: string): void
  masked: readonly string[]
  signal: AbortSignal
}

/** Bytes of output that are kept for the message. */
const kept = 64_000

/** `output`: its end, masked. @throws environment_tool_missing, or the reason of `signal` once the child is gone */
export async function runTool(command: string, words: readonly string[], options: ToolOptions): Promise<{ code: number; output: string }> {
  const { cwd, env, print, signal } = options
  signal.throwIfAborted()
  const mask = masking(options.masked)
  const child = spawn(command, words, { cwd, env: { ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
  const stop = () => child.kill('SIGTERM')
  signal.addEventListener('abort', stop, { once: true })
  let output = ''
  const take = (stream: NodeJS.ReadableStream) => {
    let rest = ''
    stream.setEncoding('utf8')
    stream.on('data', (text: string) => {
      const lines = (rest + text).split(/\r\n|\n|\r/)
      rest = lines.pop()!
      if (rest.length > kept) lines.push(rest.slice(0, kept))
      if (rest.length > kept) rest = ''
      for (const line of lines) tell(line)
    })
    stream.on('end', () => rest && tell(rest))
  }
  const tell = (line: string) => {
    const shown = mask(line)
    output = (output + shown + '\n').slice(-kept)
    print(shown)
  }
  take(child.stdout)
  take(child.stderr)
  try {
    const code = await new Promise<number>((resolve, reject) => {
      child.on('error', (error: NodeJS.ErrnoException) =>
        reject(
          error.code === 'ENOENT'
            ? new Failure('environment_tool_missing', {
                file: 'The environment',
                tool: command,
                remedy: 'Install it, or see that it is on PATH.',
              })
            : error,
        ),
      )
      child.on('close', (status, killed) => resolve(status ?? (killed ? 128 : 1)))
    })
    signal.throwIfAborted()
    return { code, output }
  } finally {
    signal.removeEventListener('abort', stop)
  }
}

/** @throws environment_tool_failed with the end of what it said */
export async function runOrFail(command: string, words: readonly string[], options: ToolOptions & { tool: string }): Promise<string> {
  const { code, output } = await runTool(command, words, options)
  if (code !== 0) throw new Failure('environment_tool_failed', { tool: options.tool, says: lastLines(output, 3) })
  return output
}

export const lastLines = (output: string, count: number): string => oneLine(output.trim().split('\n').slice(-count).join('\n'))

/** For a message: no line breaks, no frames, no more than a few sentences. */
export const oneLine = (text: string): string => {
  const line = text.replace(/[\s│╰╭─▶×]+/g, ' ').trim()
  return line.length > 1500 ? `${line.slice(0, 1500)}…` : line
}
