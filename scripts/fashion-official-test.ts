/**
 * Writes the 10,000 official test pictures of Fashion-MNIST as a folder per class, named like the classes of the sample:
 * the measurement "on the official test set" evaluates on them; nothing is ever trained on them.
 *
 *   node scripts/fashion-official-test.ts OUTPUT [FOLDER OF THE .gz FILES]      (Debian: apt install dataset-fashion-mnist)
 */
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { classNames, debianFolder, greyPng, readFashion } from './fashion-files.ts'

const [output, folder = debianFolder] = process.argv.slice(2)
if (!output) throw new Error('Usage: node scripts/fashion-official-test.ts OUTPUT [FOLDER]')

const fashion = readFashion(folder, 't10k')
for (const name of classNames) await mkdir(join(output, name), { recursive: true })
for (let from = 0; from < fashion.count; from += 64) {
  const indices = Array.from({ length: Math.min(64, fashion.count - from) }, (_, offset) => from + offset)
  await Promise.all(
    indices.map(async index => {
      const path = join(output, fashion.label(index), `${String(index).padStart(5, '0')}.png`)
      await writeFile(path, await greyPng(fashion.pixels(index)))
    }),
  )
}
console.log(`${fashion.count} pictures in ${classNames.length} classes: ${output}`)
