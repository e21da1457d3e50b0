/** The composition root of `plinth doctor` and `plinth advise`: this machine, with what the engine measures on it. Starts no server, opens no home. */
import { createRequire } from 'node:module'
import { cpus } from 'node:os'
import { dirname } from 'node:path'
import { cache, hardwareFile, home } from './config.ts'
import { examine } from './hardware/doctor.ts'
import { defaultThreads } from './hardware/limits.ts'

export { listenForBandwidth, measureBandwidth } from './hardware/bandwidth.ts'
export { groups as doctorGroups } from './hardware/check.ts'

/** throws hardware_file */
export async function examineMachine() {
  const manifest = createRequire(import.meta.url).resolve('onnxruntime-node/package.json')
  const { version } = createRequire(import.meta.url)(manifest) as { version: string }
  const examined = await examine({
    home: home(),
    cache: cache(),
    runtime: { version, folder: dirname(manifest) },
    override: hardwareFile(),
  })
  const device = { kind: 'cpu', name: cpus()[0]?.model.trim() || process.arch, threads: defaultThreads() }
  return { ...examined, device }
}
