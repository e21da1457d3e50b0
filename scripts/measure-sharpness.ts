/**
 * Where the threshold of “blurred” comes from: the sharpness of pictures as they are, and blurred over a share of their longer side.
 *     node scripts/measure-sharpness.ts photos/*.jpg
 */
import { readFileSync } from 'node:fs'
import sharp from 'sharp'
import { appearance } from '../src/images/appearance.ts'
import { decodePicture } from '../src/images/decode.ts'

const shares = [0, 0.004, 0.008, 0.016, 0.032]
const columns: number[][] = shares.map(() => [])
let [milliseconds, looks] = [0, 0]
for (const path of process.argv.slice(2)) {
  const { width, height, data } = await decodePicture(readFileSync(path), { formats: 'local' })
  const seen = await Promise.all(
    shares.map(async share => {
      const image = sharp(data, { raw: { width, height, channels: 3 } })
      if (share > 0) image.blur(Math.max(0.3, share * Math.max(width, height)))
      const pixels = await image.raw().toBuffer()
      const began = performance.now()
      const look = appearance({ width, height, data: pixels })
      milliseconds += performance.now() - began
      looks++
      return look
    }),
  )
  if (seen[0]!.edges < 0.08) continue // nothing to be sharp
  for (const [index, { sharpness }] of seen.entries()) columns[index]!.push(sharpness)
  console.log(`${path.split('/').at(-1)!.padEnd(28)} ${seen.map(({ sharpness }) => sharpness.toFixed(2)).join('  ')}`)
}
const at = (values: number[], share: number) => values.toSorted((a, b) => a - b)[Math.round(share * (values.length - 1))]!
console.log(`\n${columns[0]!.length} pictures: least, median and largest sharpness`)
for (const [index, values] of columns.entries())
  console.log(`blurred by ${(100 * shares[index]!).toFixed(1)} %: ${[0, 0.5, 1].map(share => at(values, share).toFixed(2)).join('  ')}`)
console.log(`${(milliseconds / looks).toFixed(2)} ms a look`)
