/** For facts.test.ts: puts made-up facts into a cache until it is killed or has put `COUNT`; prints the content digest of each that was put. */
import { openFacts } from '../../src/data/facts.ts'
import { madeUp } from './made-up-facts.ts'

const [folder, seed, count] = process.argv.slice(2) as [string, string, string]
const facts = await openFacts(folder)
let remembered = 0
for (let number = 0; number < Number(count); number++) {
  const seen = madeUp(`${seed} ${number}`)
  facts.put(seen)
  if (Buffer.from(facts.grey(seen.content)).equals(seen.grey)) remembered++
  if (number < 2000) process.stdout.write(`${seed} ${number}\n`)
}
process.stdout.write(`${JSON.stringify({ remembered })}\n`)
