/** Apple's graphics share the memory of the processor; `system_profiler -json` names them. */
import { canonicalName } from '../accelerators.ts'
import type { System } from '../system.ts'
import { type Device, device, type FoundDevices, numberOf, printed, wordOf } from './device.ts'

export async function readApple(system: System): Promise<FoundDevices> {
  if (system.platform !== 'darwin') return { devices: [], obstacles: [] }
  const answer = await system.run('system_profiler', 'SPHardwareDataType', 'SPDisplaysDataType', '-json')
  return { devices: answer && answer.code === 0 ? parseProfile(answer.output) : [], obstacles: [] }
}

/** Cards of other makers in older Macs are left out: nothing that trains uses them on macOS. */
export function parseProfile(output: string): Device[] {
  let whole: { SPDisplaysDataType?: unknown; SPHardwareDataType?: unknown } | null
  try {
    whole = JSON.parse(output)
  } catch {
    return []
  }
  const list = (value: unknown) => (Array.isArray(value) ? (value as Record<string, unknown>[]) : [])
  const word = (value: unknown) => (typeof value === 'string' ? wordOf(value) : null)
  const chip = word(list(whole?.SPHardwareDataType)[0]?.['chip_type'])
  return list(whole?.SPDisplaysDataType)
    .filter(each =>
      /apple/i.test(`${word(each?.['spdisplays_vendor']) ?? ''} ${word(each?.['sppci_model']) ?? ''} ${word(each?.['_name']) ?? ''}`),
    )
    .map((each, index) => {
      // early systems say kHW_AppleM1Item
      const model =
        [word(each['sppci_model']), word(each['_name']), chip].find(name => name !== null && /^Apple M/.test(name)) ??
        chip ??
        'Apple graphics'
      const cores = numberOf(printed(each['sppci_cores']))
      return device({
        id: `apple-${index}`,
        vendor: 'apple',
        index,
        name: canonicalName(model),
        model,
        integrated: true,
        details: cores === null ? {} : { cores },
      })
    })
}
