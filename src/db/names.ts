import { Failure } from '../failure.ts'
import { temporaryMark } from '../storage/disk.ts'

// names that Windows gives to devices, with any ending
const device = /^(con|prn|aux|nul|com\d|lpt\d)(\.|$)/i

/** A name for a dataset or model: also a folder's name on every operating system, and never an option, a path or a version. throws name_invalid */
export function checkName(kind: 'dataset' | 'model', name: string): string {
  const sound = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/.test(name) && !name.endsWith('.') && !device.test(name) && !name.includes(temporaryMark)
  if (!sound) throw new Failure('name_invalid', { kind, name: name.slice(0, 120) })
  return name
}

/** `birds`, `birds@2`, `birds@champion`: one of version and alias, or neither. throws name_invalid, version_invalid */
export function parseModelReference(reference: string): { name: string; version: number | null; alias: string | null } {
  const at = reference.lastIndexOf('@')
  const behind = at < 0 ? '' : reference.slice(at + 1)
  if (at < 0 || !/^[A-Za-z_][\w-]{0,254}$/.test(behind)) return { ...parseReference('model', reference), alias: null }
  return { name: checkName('model', reference.slice(0, at)), version: null, alias: behind }
}

/** `birds`, `birds@2` → name and version (null = the newest). throws name_invalid, version_invalid */
export function parseReference(kind: 'dataset' | 'model', reference: string): { name: string; version: number | null } {
  const at = reference.lastIndexOf('@')
  const name = checkName(kind, at < 0 ? reference : reference.slice(0, at))
  if (at < 0) return { name, version: null }
  const version = reference.slice(at + 1)
  if (!/^[1-9]\d{0,8}$/.test(version)) throw new Failure('version_invalid', { reference: reference.slice(0, 120) })
  return { name, version: Number(version) }
}
