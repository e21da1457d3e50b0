/** Objects in memory, for tests and for servers that keep nothing. */
import { Readable } from 'node:stream'
import { Failure } from '../failure.ts'
import { checkObjectName, type Objects } from './objects.ts'

export function memoryObjects(): Objects {
  const kept = new Map<string, { content: Buffer; modified: number }>()
  const below = (folder: string) => (folder === '' ? '' : `${checkObjectName(folder)}/`)
  return {
    async put(name, content) {
      checkObjectName(name)
      const chunks: Uint8Array[] = []
      for await (const chunk of content) chunks.push(chunk)
      const isFolder = [...kept.keys()].some(other => other.startsWith(`${name}/`))
      const inFile = name.split('/').some((_, i, parts) => i > 0 && kept.has(parts.slice(0, i).join('/')))
      if (isFolder || inFile) throw new Failure('object_in_the_way', { name })
      const stored = { content: Buffer.concat(chunks), modified: Date.now() }
      kept.set(name, stored)
      return { bytes: stored.content.length, modified: stored.modified }
    },
    async get(name, range) {
      const found = kept.get(checkObjectName(name))
      if (!found) return null
      const { content, modified } = found
      return {
        object: { bytes: content.length, modified },
        content: Readable.from(range ? parts(content.subarray(range.from, Math.max(range.from, range.to))) : parts(content)),
      }
    },
    async head(name) {
      const found = kept.get(checkObjectName(name))
      return found ? { bytes: found.content.length, modified: found.modified } : null
    },
    async list(folder) {
      const prefix = below(folder)
      const found = new Map<string, number | null>()
      for (const [name, { content }] of kept) {
        if (!name.startsWith(prefix)) continue
        const [first = '', ...rest] = name.slice(prefix.length).split('/')
        found.set(first, rest.length > 0 ? null : content.length)
      }
      return [...found].map(([name, bytes]) => ({ name, bytes })).sort((a, b) => (a.name < b.name ? -1 : 1))
    },
    async remove(name) {
      const prefix = `${checkObjectName(name)}/`
      const gone = [...kept.keys()].filter(other => other === name || other.startsWith(prefix))
      for (const other of gone) kept.delete(other)
      return gone.length > 0
    },
  }
}

const parts = (content: Uint8Array) => (content.length > 0 ? [content] : [])
