import { diffVersions } from '../server.ts'
import { defineCommand } from './command.ts'
import { printable } from './text.ts'

const shown = 8

export default defineCommand({
  name: 'data diff',
  summary: 'what changed between two versions of a dataset',
  details: 'Pictures are known by their pixels: under a new name, or saved in another format, they are the same.',
  arguments: { before: { summary: 'a dataset version, such as birds@1' }, after: { summary: 'another, such as birds@2' } },
  examples: ['plinth data diff birds@1 birds@2'],
  async run({ before, after }, { out, result }) {
    const diff = await diffVersions(before, after)
    const list = (title: string, items: readonly string[]) => {
      if (items.length === 0) return
      out(`${title}: ${items.length.toLocaleString('en-US')}`)
      for (const item of items.slice(0, shown)) out(`    ${printable(item).replaceAll('\n', '\ufffd')}`)
      if (items.length > shown) out(`    … and ${(items.length - shown).toLocaleString('en-US')} more`)
    }
    list('classes added', diff.classes.added)
    list('classes removed', diff.classes.removed)
    list('added', diff.added)
    list('removed', diff.removed)
    list(
      'relabelled',
      diff.relabelled.map(({ path, from, to }) => `${path}  ${from.join(', ')} → ${to.join(', ')}`),
    )
    list(
      'renamed',
      diff.renamed.map(({ from, to }) => `${from} → ${to}`),
    )
    list('other pixels under the same name', diff.changed)
    list(
      'on another side of your own split',
      diff.moved.map(({ path, from, to }) => `${path}  ${from} → ${to}`),
    )
    out(`the same: ${diff.same.toLocaleString('en-US')}`)
    result(diff)
  },
})
