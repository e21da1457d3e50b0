/** For blobs.test.ts: puts the numbers from … to … as texts, and says which names it was told. */
import { openBlobs } from '../../src/storage/blobs.ts'

const [, , folder, from, to] = process.argv as unknown as [string, string, string, string, string]
const blobs = openBlobs(folder)
const numbers = Array.from({ length: Number(to) - Number(from) }, (_, i) => Number(from) + i)
console.log(JSON.stringify(await Promise.all(numbers.map(number => blobs.put(Buffer.from(`number ${number}`))))))
