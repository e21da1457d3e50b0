/** What an environment is prepared from. */

import type { Runtime } from '../spec.ts'
import type { Interpreter } from './interpreters.ts'
import type { Layer } from './overlay.ts'
import type { Requirements } from './requirements.ts'
import type { Variables } from './settings.ts'
import type { LeasedDevice } from './torch.ts'

export type PythonRuntime = Extract<Runtime, { kind: 'python' }>

export interface EnvironmentRequest {
  /** Of the attempt: its own layer goes in here, and it is the lease's name. */
  folder: string
  /** Where the job runs; paths of its files start here. */
  workdir: string
  /** Of this process. */
  machine: Variables
  /** Of the job. */
  envs: Readonly<Record<string, string>>
  secrets: Readonly<Record<string, string>>
  devices: readonly LeasedDevice[]
  /** Version of NVIDIA's driver; null: not known. */
  driver: string | null
  /** Where the builds of PyTorch are; default: its own server. */
  torchIndexes?: string
  /** The attempt that uses it; null: nobody does for longer. */
  lease: string | null
  /** Folder of the module that every Python of the job begins with; null: none does. */
  hook: string | null
  /** Programs of Plinth that the job's PATH has: name and Python file. */
  programs: Readonly<Record<string, string>>
  /** Packages that Plinth needs in there itself, behind those of the job. */
  moreLayers(interpreter: Interpreter, layer: Layer): Promise<readonly Layer[]>
  /** In Plinth's own words. */
  say(line: string): void
  /** What an installer prints. */
  print(line: string): void
  signal: AbortSignal
}

/** What an installer is asked for. */
export interface Wish {
  /** As the user calls it, for messages. */
  file: string
  interpreter: Interpreter
  requirements: Requirements
}
