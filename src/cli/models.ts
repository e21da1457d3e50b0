/** The verbs of `models`, one export a command. */
import {
  backbones,
  deleteModel,
  exportModel,
  listModels,
  openHome,
  pullWeights,
  renameModel,
  resolveModel,
  testSetScores,
} from '../server.ts'
import { defineCommand } from './command.ts'

const accuracyText = (a: { accuracy: number; low: number; high: number } | null) =>
  a ? `${(a.accuracy * 100).toFixed(1)} % (${(a.low * 100).toFixed(1)}–${(a.high * 100).toFixed(1)})` : ''
const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`

export const list = defineCommand({
  name: 'models list',
  summary: 'list models and their versions',
  async run(_, { out, table, result }) {
    const home = await openHome()
    try {
      const models = await listModels(home)
      if (models.length === 0) out('No models yet. Make one with plinth train ./photos')
      else
        table(
          ['model', 'accuracy (95 % interval)', { title: 'classes', align: 'right' }, { title: 'size', align: 'right' }, 'made'],
          models.map(m => [
            `${m.name}@${m.version}`,
            accuracyText(m.accuracy),
            String(m.labels.length),
            megabytes(m.bytes),
            m.created.slice(0, 16).replace('T', ' '),
          ]),
        )
      result({ models })
    } finally {
      await home.close()
    }
  },
})

export const show = defineCommand({
  name: 'models show',
  summary: 'show one model version and where it comes from',
  arguments: { model: { summary: 'name, name@version or file' } },
  async run({ model }, { out, result }) {
    const home = await openHome()
    try {
      const found = await resolveModel(home, model)
      out(`${found.name}@${found.version}`)
      out(`  labels    ${found.labels.join(', ')}`)
      if (found.accuracy) out(`  accuracy  ${accuracyText(found.accuracy)} on ${found.accuracy.n} test pictures`)
      if (found.dataset) out(`  dataset   ${found.dataset.name}@${found.dataset.version}  ${found.dataset.digest}`)
      if (found.run) out(`  run       ${found.run}`)
      out(`  file      ${found.path}  ${megabytes(found.bytes)}`)
      out(`  sha256    ${found.digest}`)
      const testSets = await testSetScores(home, { model: found.digest })
      for (const each of testSets) out(`  test set  ${each.set.name}@${each.set.version}  ${accuracyText(each)} on ${each.n} pictures`)
      result({ model: found, testSets })
    } finally {
      await home.close()
    }
  },
})

export const rename = defineCommand({
  name: 'models rename',
  summary: 'give a model, with all its versions, another name',
  arguments: { from: { summary: 'the name it has' }, to: { summary: 'the name it gets' } },
  async run({ from, to }, { out, result }) {
    const home = await openHome()
    try {
      await renameModel(home, from, to)
      out(`${from} is called ${to} now.`)
      result({ from, to })
    } finally {
      await home.close()
    }
  },
})

export const remove = defineCommand({
  name: 'models delete',
  summary: 'delete a model version, or all versions of a model',
  arguments: { model: { summary: 'name@version, or a name for all of its versions' } },
  options: { yes: { type: 'boolean', summary: 'really do it; without, it only says what would be freed' } },
  async run({ model, yes }, { out, result }) {
    const home = await openHome()
    try {
      const { versions, bytes } = await deleteModel(home, model, { preview: !yes })
      const names = versions.map(version => `${version.name}@${version.version}`)
      out(
        yes
          ? `Deleted ${names.join(', ')}: ${megabytes(bytes)} freed.`
          : `Would delete ${names.join(', ')} and free ${megabytes(bytes)}. Do it with --yes.`,
      )
      result({ deleted: Boolean(yes), versions: names, bytes })
    } finally {
      await home.close()
    }
  },
})

export const exportFile = defineCommand({
  name: 'models export',
  summary: 'copy a model out as one ONNX file that runs anywhere',
  arguments: { model: { summary: 'name or name@version' }, file: { summary: 'where to, for example clothes.onnx' } },
  async run({ model, file }, { out, result }) {
    const home = await openHome()
    try {
      const found = await exportModel(home, model, file)
      out(
        `${found.name}@${found.version} → ${file} (${megabytes(found.bytes)}). Input "image": uint8, height × width × 3, RGB; output "probabilities".`,
      )
      result({ model: { name: found.name, version: found.version }, path: file, bytes: found.bytes, digest: found.digest })
    } finally {
      await home.close()
    }
  },
})

export const pull = defineCommand({
  name: 'models pull',
  summary: 'fetch the published weights of a backbone into the cache, for use without a network',
  arguments: { backbone: { summary: 'its id, for example resnet18', optional: true } },
  async run({ backbone }, { out, table, progress, result, signal }) {
    if (!backbone) {
      const known = backbones()
      table(
        ['backbone', 'what', { title: 'parameters', align: 'right' }, 'licence'],
        known.map(each => [each.id, each.title, `${(each.parameters / 1e6).toFixed(1)} M`, each.licence]),
      )
      return result({ backbones: known.map(({ id, title, parameters, licence }) => ({ id, title, parameters, licence })) })
    }
    const bar = progress('downloading', null, { unit: 'MB' })
    const tensors = await pullWeights(backbone, { signal, onProgress: ({ received }) => bar.update(Math.round(received / 1e6)) })
    bar.end()
    out(`The weights of ${backbone} are here: ${tensors} tensors.`)
    result({ backbone, tensors })
  },
})
