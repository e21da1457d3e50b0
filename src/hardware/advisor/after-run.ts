/** After a run: what it took, beside what `plinth advise` had said of its script. One call for the controller. */
import { open } from 'node:fs/promises'
import { resolve } from 'node:path'
import { type ForecastError, recordOutcome } from './outcomes.ts'
import { readScript } from './script.ts'

export interface Ran {
  /** Words of the command, or shell text. */
  run: { argv: readonly string[] } | { shell: string }
  /** Where it ran; null: an empty folder of the job's own. */
  workdir: string | null
  /** Canonical name of the accelerator that it computed on; null: the processor. */
  device: string | null
  /** Bytes at the peak, of the device where there was one; null: not known. */
  memory: number | null
  /** Of the command alone, without environment and setup. */
  seconds: number
}

/** Null where the command names no script: then there is nothing that a forecast could have been for. */
export async function afterRun(home: string, { run, workdir, device, memory, seconds }: Ran): Promise<ForecastError | null> {
  const subject = scriptOf(run, workdir)
  if (subject === null) return null
  const { framework } = readScript(await beginningOf(subject))
  return recordOutcome(home, { subject, framework, device: device ?? 'cpu', memory, seconds })
}

/** The first word that is a script: `python -u train.py --epochs 3` runs <workdir>/train.py. */
export function scriptOf(run: Ran['run'], workdir: string | null): string | null {
  const words = 'argv' in run ? run.argv : run.shell.split(/[\s;&|]+/).map(word => word.replace(/^(['"])(.*)\1$/, '$2'))
  const script = words.find(word => /\.(py|ipynb|[cm]?[jt]s)$/.test(word) && !word.startsWith('-'))
  return script === undefined ? null : resolve(workdir ?? '/', script)
}

async function beginningOf(path: string): Promise<string> {
  try {
    const file = await open(path)
    try {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(1 << 20), 0, 1 << 20, 0)
      return buffer.toString('utf8', 0, bytesRead)
    } finally {
      await file.close()
    }
  } catch {
    return '' // it is gone, or was never here: the forecast knows the framework
  }
}
