import { samples, writeSample } from '../server.ts'
import { defineCommand } from './command.ts'

export default defineCommand({
  name: 'sample',
  where: 'anywhere',
  summary: 'write a folder of labelled sample pictures',
  details: `fashion: 2,000 product photos, 28 × 28, in 10 classes (Fashion-MNIST, MIT).
emoji: artwork of three vendors for the same things, in 8 classes (Apache-2.0, CC-BY-4.0, MIT).
Neither is a holiday photo: they are small enough to come with Plinth and real enough to be wrong on.`,
  arguments: { name: { summary: Object.keys(samples).join(' or ') }, folder: { summary: 'a new folder' } },
  examples: ['plinth sample fashion ./clothes && plinth train ./clothes'],
  async run({ name, folder }, { out, result }) {
    const { files } = await writeSample(name, folder)
    out(`${files} pictures in ${folder}. Next: plinth train ${folder}`)
    result({ sample: name, folder, files })
  },
})
