/** The verbs of `testset`, one export a command: pictures that models are only tested on. */
import type { TestSetScore } from '../sdk/index.ts'
import {
  listModels,
  listTestSets,
  makeTestSet,
  openHome,
  openTestSet,
  removeTestSet,
  resolveModel,
  scoreOnTestSets,
  seenSentence,
  testSetScores,
  wear,
} from '../server.ts'
import { common, defineCommand } from './command.ts'

const accuracyText = ({ accuracy, low, high }: Pick<TestSetScore, 'accuracy' | 'low' | 'high'>) =>
  `${(accuracy * 100).toFixed(1)} % (${(low * 100).toFixed(1)}–${(high * 100).toFixed(1)})`

export const add = defineCommand({
  name: 'testset add',
  summary: 'keep labelled pictures under a name, to test every model on',
  details: `Pictures of another site, season or camera say what a model is worth there. They are copied; nobody trains on them by mistake. Every
training scores its model on all test sets; models made before are scored with plinth testset score. Other pictures under the same name are
its next version.`,
  arguments: {
    name: { summary: 'what to call it' },
    source: { summary: 'a folder with one subfolder per class, a zip of one, or a list' },
  },
  examples: ['plinth testset add site-b ./b'],
  async run({ name, source }, { out, progress, result, signal }) {
    const home = await openHome()
    try {
      const bar = progress('reading', null, { unit: 'pictures' })
      const { reference, manifest } = await makeTestSet(home, name, source, {
        onProgress: ({ done, total }) => bar.update(done, `of ${total}`),
        signal,
      })
      bar.end()
      const { length: unreadable } = manifest.unreadable
      out(
        `Test set ${reference.name}@${reference.version}: ${manifest.rows.length} pictures in ${manifest.classes.length} classes${unreadable > 0 ? `; ${unreadable} files could not be read and are left out` : ''}.`,
      )
      out('Score the models that are here already with: plinth testset score')
      result({
        testSet: { ...reference, images: manifest.rows.length, classes: manifest.classes.length },
        unreadable: manifest.unreadable,
        ignored: manifest.ignored,
      })
    } finally {
      await home.close()
    }
  },
})

export const list = defineCommand({
  name: 'testset list',
  summary: 'list test sets, and how often each has been looked at',
  async run(_, { out, table, result }) {
    const home = await openHome()
    try {
      const testSets = await listTestSets(home)
      if (testSets.length === 0) out('No test sets yet. Make one with plinth testset add NAME ./photos')
      else
        table(
          [
            'test set',
            { title: 'pictures', align: 'right' },
            { title: 'classes', align: 'right' },
            { title: 'looks', align: 'right' },
            { title: 'models', align: 'right' },
            'made',
          ],
          testSets.map(set => [
            `${set.name}@${set.version}`,
            String(set.images),
            String(set.classes),
            String(set.looks),
            String(set.models),
            set.created.slice(0, 16).replace('T', ' '),
          ]),
        )
      result({ testSets })
    } finally {
      await home.close()
    }
  },
})

export const show = defineCommand({
  name: 'testset show',
  summary: 'show the score of every model on a test set',
  arguments: { name: { summary: 'a test set' } },
  async run({ name }, { out, table, result }) {
    const home = await openHome()
    try {
      const { set } = await openTestSet(home, name)
      const scores = (await testSetScores(home, { set: set.name })).filter(score => score.set.version === set.version)
      const models = new Map((await listModels(home)).map(model => [model.digest, `${model.name}@${model.version}`]))
      out(`${set.name}@${set.version}: ${set.images} pictures in ${set.classes} classes`)
      if (scores.length === 0) out('No model has been scored on it yet: plinth testset score')
      else
        table(
          ['model', 'accuracy (95 % interval)', { title: 'balanced', align: 'right' }, 'without pictures it knows', 'when'],
          scores.map(score => [
            models.get(score.model) ?? `not here any more (${score.model.slice(0, 8)})`,
            accuracyText(score),
            `${(score.balancedAccuracy * 100).toFixed(1)} %`,
            withoutKnown(score),
            score.at.slice(0, 16).replace('T', ' '),
          ]),
        )
      const worn = wear(set, scores[0] ?? null)
      if (worn) out(`\n${worn}`)
      result({ testSet: set, scores, wear: worn })
    } finally {
      await home.close()
    }
  },
})

function withoutKnown({ seen }: TestSetScore): string {
  if (seen === null) return 'not known'
  const known = seen.trained + seen.chosenOn + seen.copies
  if (known === 0) return ''
  return seen.without ? `${accuracyText(seen.without)} on ${seen.without.n}` : 'none left'
}

export const score = defineCommand({
  name: 'testset score',
  summary: 'score models on the test sets that they have no score on yet',
  arguments: { model: { summary: 'a model: name, name@version or file (otherwise all)', optional: true } },
  options: { threads: common.threads },
  examples: ['plinth testset score', 'plinth testset score clothes@2'],
  async run({ model, threads }, { out, progress, result, signal }) {
    const home = await openHome()
    try {
      const models = model ? [await resolveModel(home, model)] : await listModels(home)
      if (models.length === 0) out('No models yet. Make one with plinth train ./photos')
      const scores: object[] = []
      for (const each of models) {
        const name = `${each.name}@${each.version}`
        let bar: ReturnType<typeof progress> | undefined
        const outcomes = await scoreOnTestSets(home, each.path, {
          ...(threads && { threads }),
          signal,
          onProgress: (done, total) => {
            bar ??= progress(name, total, { unit: 'pictures' })
            bar.update(done)
          },
        })
        bar?.end()
        for (const outcome of outcomes) {
          const on = `${name} on ${outcome.set}`
          if (outcome.outcome === 'other classes') out(`${on}: not asked, it does not know ${outcome.strangers.slice(0, 5).join(', ')}`)
          else {
            out(`${on}: ${accuracyText(outcome.score)}${outcome.outcome === 'known' ? ', as before' : ''}`)
            for (const sentence of seenSentence(outcome.score.seen, outcome.score.n, name)) out(`  ${sentence}`)
          }
          scores.push({ model: { name: each.name, version: each.version }, ...outcome })
        }
      }
      result({ scores })
    } finally {
      await home.close()
    }
  },
})

export const remove = defineCommand({
  name: 'testset remove',
  summary: 'remove a test set and the scores on it',
  details: 'How often its pictures were looked at stays known: the same pictures under another name are not fresh again.',
  arguments: { name: { summary: 'a test set' } },
  options: { yes: { type: 'boolean', summary: 'really do it; without, it only says what would go' } },
  async run({ name, yes }, { out, result }) {
    const home = await openHome()
    try {
      const versions = await removeTestSet(home, name, { preview: !yes })
      const what = `the test set ${name} (${versions.length === 1 ? 'one version' : `${versions.length} versions`}) with its scores`
      out(yes ? `Removed ${what}.` : `Would remove ${what}. Do it with --yes.`)
      result({ removed: Boolean(yes), name, versions })
    } finally {
      await home.close()
    }
  },
})
