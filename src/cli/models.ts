/** The verbs of `models`, one export a command. */
import { join } from 'node:path'
import { connect } from '../control-plane.ts'
import { Failure } from '../failure.ts'
import { defineCommand } from './command.ts'

// read when they are called: lists and promotions start without what only computing needs
const here = () => import('../server.ts')

const accuracyText = (a: { accuracy: number; low: number; high: number } | null) =>
  a ? `${(a.accuracy * 100).toFixed(1)} % (${(a.low * 100).toFixed(1)}–${(a.high * 100).toFixed(1)})` : ''
const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`

/** `photos@3`, `photos@champion`, `photos` (the newest), as the contract takes them. Names made by MLflow may hold nearly anything. */
function split(reference: string): { name: string; version: string } {
  const at = reference.lastIndexOf('@')
  return at < 0 ? { name: reference, version: 'latest' } : { name: reference.slice(0, at), version: reference.slice(at + 1) }
}
const fileOf = (home: string | null, { kind, digest }: { kind: string; digest: string }) =>
  home !== null && kind === 'artefact' ? { path: join(home, 'models', `${digest}.onnx`) } : {}
const asIso = <V extends { created: number }>(version: V) => ({ ...version, created: new Date(version.created).toISOString() })

export const list = defineCommand({
  name: 'models list',
  summary: 'list models and their versions',
  where: 'server',
  options: {
    run: { type: 'string', summary: 'only those that came from this run' },
    dataset: { type: 'string', summary: 'only those that came from this dataset: name, name@version or digest' },
  },
  examples: ['plinth models list --dataset birds@2'],
  async run({ run, dataset }, { out, table, result }) {
    const { plinth, home, close } = await connect()
    try {
      type Listed = Awaited<ReturnType<typeof plinth.listVersions>>['items'][number]
      const models: (Omit<Listed, 'created'> & { created: string; path?: string })[] = []
      for (let after: string | undefined, more = true; more; ) {
        const page = await plinth.listVersions({
          ...{ limit: 1000 },
          ...(run !== undefined && { run }),
          ...(dataset !== undefined && { dataset }),
          ...(after !== undefined && { after }),
        })
        models.push(...page.items.map(each => ({ ...asIso(each), ...fileOf(home, each) })))
        more = page.next !== null
        after = page.next ?? undefined
      }
      if (models.length === 0) out('No models yet. Make one with plinth train ./photos')
      else
        table(
          ['model', 'accuracy (95 % interval)', { title: 'classes', align: 'right' }, { title: 'size', align: 'right' }, 'made', 'aliases'],
          models.map(m => [
            `${m.name}@${m.version}`,
            accuracyText(m.accuracy),
            m.labels.length > 0 ? String(m.labels.length) : '',
            m.bytes > 0 ? megabytes(m.bytes) : '',
            m.created.slice(0, 16).replace('T', ' '),
            m.aliases.join(', '),
          ]),
        )
      result({ models })
    } finally {
      await close()
    }
  },
})

export const show = defineCommand({
  name: 'models show',
  summary: 'show one model version and where it comes from',
  where: 'server',
  arguments: { model: { summary: 'name, name@version, name@alias or file' } },
  options: { lineage: { type: 'boolean', summary: 'run, data, code, environment and hardware that it came from' } },
  async run({ model, lineage: wanted }, { out, result }) {
    if (/[/\\]|\.onnx$/.test(model)) return await showFile(model, { out, result })
    const { plinth, home, close } = await connect()
    try {
      const { testSets, ...found } = await plinth.getVersion(split(model))
      out(`${found.name}@${found.version}${found.aliases.length > 0 ? `  ${found.aliases.join(', ')}` : ''}`)
      if (found.labels.length > 0) out(`  labels    ${found.labels.join(', ')}`)
      if (found.accuracy) out(`  accuracy  ${accuracyText(found.accuracy)} on ${found.accuracy.n} test pictures`)
      if (found.dataset) out(`  dataset   ${found.dataset.name}@${found.dataset.version}  ${found.dataset.digest}`)
      if (found.run) out(`  run       ${found.run}`)
      const { path } = fileOf(home, found)
      if (path) out(`  file      ${path}  ${megabytes(found.bytes)}`)
      else if (found.source) out(`  source    ${found.source}`)
      if (found.digest) out(`  sha256    ${found.digest}`)
      for (const each of testSets) out(`  test set  ${each.set.name}@${each.set.version}  ${accuracyText(each)} on ${each.n} pictures`)
      const lineage = wanted ? await plinth.getLineage({ name: found.name, version: String(found.version) }) : undefined
      if (lineage) for (const line of lineageText(lineage)) out(line)
      result({ model: { ...asIso(found), ...fileOf(home, found) }, testSets, ...(lineage && { lineage }) })
    } finally {
      await close()
    }
  },
})

type Lineage = Awaited<ReturnType<Awaited<ReturnType<typeof connect>>['plinth']['getLineage']>>
const lineageText = ({ run, datasets, code, environment, hardware, copiedFrom }: Lineage): string[] => [
  'Where it comes from:',
  ...(copiedFrom ? [`  copied from  ${copiedFrom}`] : []),
  `  run          ${run ? `${run.run}  ${run.name}, ${run.status}, by ${run.user}` : 'not recorded'}`,
  ...(datasets.length === 0 ? ['  data         not recorded'] : []),
  ...datasets.map(
    ({ name, version, digest, source }) =>
      `  data         ${name}${version === null ? '' : `@${version}`}  ${digest}${source ? `  ${source.slice(0, 100)}` : ''}`,
  ),
  `  code         ${[code.commit, code.repository, code.source].filter(each => each !== null).join('  ') || 'not recorded'}`,
  `  environment  ${
    Object.entries(environment)
      .map(([name, value]) => `${name} ${value}`)
      .join(', ') || 'not recorded'
  }`,
  `  hardware     ${hardware ?? 'not recorded'}`,
]

async function showFile(model: string, { out, result }: { out(text: string): void; result(object: object): void }): Promise<void> {
  const { openHome, resolveModel, testSetScores } = await here()
  const home = await openHome()
  try {
    const found = await resolveModel(home, model)
    out(`${found.name}@${found.version}`)
    out(`  labels    ${found.labels.join(', ')}`)
    if (found.run) out(`  run       ${found.run}`)
    out(`  file      ${found.path}  ${megabytes(found.bytes)}`)
    out(`  sha256    ${found.digest}`)
    result({ model: found, testSets: await testSetScores(home, { model: found.digest }) })
  } finally {
    await home.close()
  }
}

const percent = (share: number) => `${(share * 100).toFixed(1)} %`
export const promote = defineCommand({
  name: 'models promote',
  summary: 'let an alias lead to a model version, and say why',
  where: 'server',
  details: `Whoever serves or loads name@alias gets that version from then on. Where it and the version that had the alias have a score on one
named test set, a version that is worse beyond the interval is refused; --force takes it all the same. Who, when, why and both scores are
kept in the audit log, which nobody can change.`,
  arguments: { model: { summary: 'name@version' }, alias: { summary: 'for example champion' } },
  options: {
    reason: { type: 'string', summary: 'why; it is kept' },
    force: { type: 'boolean', summary: 'although it is worse' },
  },
  examples: ['plinth models promote photos@3 champion --reason better-on-new-cameras'],
  async run({ model, alias, reason, force }, { out, result }) {
    const { name, version } = split(model)
    if (!model.includes('@')) throw new Failure('usage', { problem: 'Say which version: NAME@VERSION.', command: 'models promote' })
    if (!reason) throw new Failure('usage', { problem: 'Say why, with --reason "…"; it is kept.', command: 'models promote' })
    const { plinth, close } = await connect()
    try {
      const number = /^\d+$/.test(version) ? Number(version) : (await plinth.getVersion({ name, version })).version
      const done = await plinth.promoteModel({ name, alias, version: number, reason, force })
      out(
        `${name}@${alias} is version ${done.version} now${done.before === null || done.before === done.version ? '' : `, instead of ${done.before}`}.`,
      )
      for (const { set, before, after } of done.comparisons)
        out(`  ${set}  ${percent(after.accuracy)} instead of ${percent(before.accuracy)}`)
      if (done.before !== null && done.before !== done.version && done.comparisons.length === 0)
        out('  The two have no score on a test set in common, so nothing says which is better: plinth testset score makes one.')
      result(done)
    } finally {
      await close()
    }
  },
})

export const aliases = defineCommand({
  name: 'models aliases',
  summary: 'list the aliases of a model, or of all',
  where: 'server',
  arguments: { name: { summary: 'the name of the model', optional: true } },
  async run({ name }, { out, table, result }) {
    const { plinth, close } = await connect()
    try {
      const models = name === undefined ? (await plinth.listModels({ limit: 1000 })).items : [await plinth.getModel({ name })]
      const found = models.flatMap(model => Object.entries(model.aliases).map(([alias, version]) => ({ name: model.name, alias, version })))
      if (found.length === 0) out('No aliases. Set one with plinth models promote NAME@VERSION ALIAS --reason "…"')
      else
        table(
          ['alias', 'version'],
          found.map(each => [`${each.name}@${each.alias}`, `${each.name}@${each.version}`]),
        )
      result({ aliases: found })
    } finally {
      await close()
    }
  },
})

export const unalias = defineCommand({
  name: 'models unalias',
  summary: 'take an alias of a model away',
  where: 'server',
  arguments: { name: { summary: 'the name of the model' }, alias: { summary: 'the alias' } },
  options: { reason: { type: 'string', summary: 'why; it is kept' } },
  async run({ name, alias, reason }, { out, result }) {
    const { plinth, close } = await connect()
    try {
      await plinth.removeAlias({ name, alias, ...(reason !== undefined && { reason }) })
      out(`${name}@${alias} leads nowhere any more.`)
      result({ name, alias })
    } finally {
      await close()
    }
  },
})

export const rename = defineCommand({
  name: 'models rename',
  summary: 'give a model, with all its versions, another name',
  where: 'server',
  arguments: { from: { summary: 'the name it has' }, to: { summary: 'the name it gets' } },
  async run({ from, to }, { out, result }) {
    const { plinth, close } = await connect()
    try {
      await plinth.renameModel({ name: from, to })
      out(`${from} is called ${to} now.`)
      result({ from, to })
    } finally {
      await close()
    }
  },
})

export const remove = defineCommand({
  name: 'models delete',
  summary: 'delete a model version, or all versions of a model',
  where: 'server',
  arguments: { model: { summary: 'name@version, or a name for all of its versions' } },
  options: { yes: { type: 'boolean', summary: 'really do it; without, it only says what would be freed' } },
  async run({ model, yes }, { out, result }) {
    const { plinth, close } = await connect()
    try {
      const { name, version } = split(model)
      const number = !model.includes('@')
        ? null
        : /^\d+$/.test(version)
          ? Number(version)
          : (await plinth.getVersion({ name, version })).version
      const { versions, bytes, users } = await (number === null
        ? plinth.deleteModel({ name, preview: !yes })
        : plinth.deleteVersion({ name, version: number, preview: !yes }))
      const names = versions.map(version => `${version.name}@${version.version}`)
      const what = names.join(', ') || `the name ${name}`
      out(yes ? `Deleted ${what}: ${megabytes(bytes)} freed.` : `Would delete ${what} and free ${megabytes(bytes)}.`)
      if (users.length > 0) out(`In the way: ${users.join(', ')}.`)
      else if (!yes) out('Do it with --yes.')
      result({ deleted: Boolean(yes), versions: names, bytes, users })
    } finally {
      await close()
    }
  },
})

export const exportFile = defineCommand({
  name: 'models export',
  summary: 'copy a model out as one ONNX file that runs anywhere',
  arguments: { model: { summary: 'name or name@version' }, file: { summary: 'where to, for example clothes.onnx' } },
  async run({ model, file }, { out, result }) {
    const { exportModel, openHome } = await here()
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
  where: 'anywhere',
  summary: 'fetch the published weights of a backbone into the cache, for use without a network',
  arguments: { backbone: { summary: 'its id, for example resnet18', optional: true } },
  async run({ backbone }, { out, table, progress, result, signal }) {
    const { backbones, pullWeights } = await here()
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
