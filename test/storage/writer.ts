/** For disk.test.ts: writes one letter or another, many times over, until it is killed. */
import { writeFileAtomic } from '../../src/storage/disk.ts'

const [, , path, size] = process.argv as unknown as [string, string, string, string]
for (let i = 0; ; i++) {
  await writeFileAtomic(path, 'ab'[i % 2]!.repeat(Number(size)))
  process.stdout.write('.')
}
