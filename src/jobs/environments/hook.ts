/** The Python files that go into a job (python/plinth-job): autologging, and what runs notebooks. Each attempt has its own copy. */
import { copyFile, readdir } from 'node:fs/promises'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { makeFolder } from '../../storage/disk.ts'

const source = fileURLToPath(new URL('../../../python/plinth-job', import.meta.url))

/** A copy: an upgrade of Plinth changes nothing in a job that runs, and Python leaves its compiled files there. Answers the folder. */
export async function copyHook(folder: string): Promise<string> {
  const to = await makeFolder(folder, 'python')
  for (const name of await readdir(source)) if (name.endsWith('.py')) await copyFile(join(source, name), join(to, name))
  return to
}

/** For Pythons that Plinth makes no environment for: a sitecustomize, found before the one that is there, which it runs too. */
export const hookVariables = (hook: string, { PYTHONPATH }: Readonly<Record<string, string | undefined>>): Record<string, string> => ({
  PYTHONPATH: [hook, PYTHONPATH].filter(Boolean).join(delimiter),
})
