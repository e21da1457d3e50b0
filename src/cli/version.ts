import { version } from '../config.ts'
import { defineCommand } from './command.ts'

export default defineCommand({
  name: 'version',
  where: 'anywhere',
  summary: 'show the version of Plinth and of Node',
  examples: ['plinth version --json'],
  async run(_, { out, result }) {
    out(`plinth ${version}, Node ${process.version} on ${process.platform}-${process.arch}`)
    result({ plinth: version, node: process.versions.node, platform: process.platform, architecture: process.arch })
  },
})
