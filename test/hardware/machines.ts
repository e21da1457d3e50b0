/** Machines that are not at hand: trees of /proc, /sys and /dev, and what tools print there. */
import type { Answer, System } from '../../src/hardware/system.ts'

export interface Machine {
  platform?: NodeJS.Platform
  /** Texts by path. */
  files?: Record<string, string>
  /** Targets by path. */
  links?: Record<string, string>
  /** Devices of the PCI bus by address. */
  pci?: Record<string, { vendor: string; class?: string; device?: string; driver?: string | null; numa?: string }>
  /** Files of /dev, and whether this user may open them. */
  nodes?: Record<string, 'granted' | 'refused'>
  /** Output by command and arguments: the longest beginning that fits answers. */
  tools?: Record<string, string | Partial<Answer>>
  variables?: Record<string, string>
  pages?: Record<string, string>
}

export function system({
  platform = 'linux',
  files = {},
  links = {},
  pci = {},
  nodes = {},
  tools = {},
  variables = {},
  pages = {},
}: Machine): System {
  const text = new Map(Object.entries(files))
  const target = new Map(Object.entries(links))
  for (const [address, card] of Object.entries(pci)) {
    const folder = `/sys/bus/pci/devices/${address}`
    text.set(`${folder}/vendor`, `${card.vendor}\n`)
    text.set(`${folder}/class`, `${card.class ?? '0x030200'}\n`)
    text.set(`${folder}/device`, `${card.device ?? '0x0000'}\n`)
    text.set(`${folder}/numa_node`, `${card.numa ?? '-1'}\n`)
    if (card.driver) target.set(`${folder}/driver`, `../../../bus/pci/drivers/${card.driver}`)
  }
  const paths = [...text.keys(), ...target.keys(), ...Object.keys(nodes)]
  return {
    platform,
    read: path => text.get(path) ?? null,
    list: async folder => [
      ...new Set(paths.filter(path => path.startsWith(`${folder}/`)).map(path => path.slice(folder.length + 1).split('/')[0]!)),
    ],
    link: async path => target.get(path) ?? null,
    access: async path => nodes[path] ?? (paths.some(each => each === path || each.startsWith(`${path}/`)) ? 'granted' : 'missing'),
    run: async (...words) => {
      const line = words.join(' ')
      const known = Object.keys(tools)
        .filter(begin => line === begin || line.startsWith(`${begin} `) || (begin.includes('=') && line.startsWith(begin)))
        .toSorted((a, b) => b.length - a.length)[0]
      if (known === undefined) return Object.keys(tools).some(tool => tool.split(' ')[0] === words[0]) ? refused : null
      const said = tools[known]!
      return { code: 0, output: '', errors: '', late: false, ...(typeof said === 'string' ? { output: said } : said) }
    },
    variable: name => variables[name],
    space: async () => null,
    get: async url => pages[url] ?? null,
  }
}

/** A tool that is there and does not know what it is asked. */
const refused: Answer = { code: 2, output: '', errors: 'Field is not a valid field to query.\n', late: false }
