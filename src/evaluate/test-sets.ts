/** Models on named test sets: the score of each, and what a set's number is still worth after many looks. */
import { type Home, openTestSet, recordScore, testSetScores } from '../data/test-sets.ts'
import type { Classifier } from '../models/artefact.ts'
import type { Evaluation, Manifest, Seen, TestSet, TestSetScore } from '../sdk/index.ts'
import { evaluateModel, type Pictures } from './evaluate-model.ts'
import type { Familiar } from './familiar.ts'
import { expectedMaximum, normalQuantile } from './intervals.ts'
import { percent } from './verdicts.ts'

export interface TestSetRun {
  home: Home
  /** sha256 of the model file. */
  model: string
  classifier: Classifier
  trainTruth: readonly string[] | null
  /** A set's pictures beside those that the model learned from. */
  look(manifest: Manifest): Promise<Familiar>
  signal: AbortSignal
  onProgress: Pictures['onProgress']
}

export type TestSetOutcome =
  | { set: string; outcome: 'scored' | 'known'; score: TestSetScore }
  /** The set has classes that the model does not know: it is a test of something else. */
  | { set: string; outcome: 'other classes'; strangers: string[] }

/**
 * Scores the model on these sets (newest versions). One that it has been scored on already is not looked at again. Each score is kept
 * as soon as it is there: stopped or killed, the next call goes on with the others.
 */
export async function scoreOnSets(sets: readonly TestSet[], run: TestSetRun): Promise<TestSetOutcome[]> {
  const known = await testSetScores(run.home, { model: run.model })
  const outcomes: TestSetOutcome[] = []
  for (const { name } of sets) {
    const { set, manifest } = await openTestSet(run.home, name)
    const score = known.find(each => each.set.name === name && each.set.digest === set.digest)
    const strangers = manifest.classes.filter(label => !run.classifier.metadata.labels.includes(label))
    if (score) outcomes.push({ set: name, outcome: 'known', score })
    else if (strangers.length > 0) outcomes.push({ set: name, outcome: 'other classes', strangers })
    else {
      const { manifest: grouped, learned } = await run.look(manifest)
      const { evaluation, seen } = await evaluateModel({
        ...run,
        manifest: grouped,
        learned: learned[0]!,
        blob: content => run.home.blobs.get(content),
      })
      outcomes.push({ set: name, outcome: 'scored', score: await keepScore(run.home, set, run.model, evaluation, seen) })
    }
  }
  return outcomes
}

/** Writes the score down and counts the look. */
export async function keepScore(
  home: Home,
  { name, version, digest }: Pick<TestSet, 'name' | 'version' | 'digest'>,
  model: string,
  { n, accuracy, low, high, balancedAccuracy }: Evaluation,
  seen: Seen | null,
): Promise<TestSetScore> {
  const set = { name, version, digest }
  const score = { set, model, n, accuracy, low, high, balancedAccuracy, seen, at: new Date().toISOString() }
  await recordScore(home, score)
  return score
}

// ── what the number is worth after many looks ───────────────────────────────────────────────────────────────────────────────

/**
 * By how much the best of k models flatters itself on one test set: the luckiest of k equally good models lies E[max of k normal draws]
 * standard errors above the truth, if their mistakes are independent. Models of the same pictures make many of the same mistakes, so
 * this is the most it can be expected to be.
 */
export function flattery(models: number, { low, high }: Pick<Evaluation, 'low' | 'high'>): number {
  if (models < 2) return 0
  const standardError = (high - low) / (2 * normalQuantile(0.975))
  return expectedMaximum(models) * standardError
}

/** From so many standard errors of luck on the set should not have the last word: that is from the fourth model on. */
const tooMuch = 1

/** How worn a set is, in a sentence; null while nobody has looked. `score`: a typical one on this set. */
export function wear({ name, looks, models }: TestSet, score: Pick<Evaluation, 'low' | 'high'> | null): string | null {
  if (looks === 0) return null
  const count = `The test set ${name} has been looked at ${looks === 1 ? 'once' : `${looks} times`}, for ${models === 1 ? 'one model' : `${models} models`}`
  if (models < 2) return `${count}${looks > 1 ? '; asking again about the same model adds no luck' : ''}.`
  const gain = score && flattery(models, score)
  if (gain === null) return `${count}.`
  const best = `choosing the best of ${models} by it flatters that one by up to ${(100 * gain).toFixed(1)} points`
  return expectedMaximum(models) < tooMuch
    ? `${count}: ${best}.`
    : `${count}: ${best}. Its number is too good to be the last word: keep fresh pictures for that.`
}

/** What has to be said when a model is asked about pictures it knows. */
export function seenSentence(seen: Seen | null, n: number, model: string): string[] {
  if (!seen || seen.trained + seen.chosenOn + seen.copies === 0) return []
  const { trained, chosenOn, copies, without } = seen
  const were = (count: number) => (count === 1 ? 'was' : 'were')
  const parts = [
    ...(trained > 0 ? [`${trained} ${were(trained)} learned from`] : []),
    ...(chosenOn > 0 ? [`${chosenOn} ${were(chosenOn)} used to choose it`] : []),
    ...(copies > 0 ? [`${copies} ${copies === 1 ? 'is an edited copy' : 'are edited copies'} of such`] : []),
  ]
  const rest = without
    ? `On the other ${without.n} it is right on ${percent(without.accuracy)} (95 % interval ${percent(without.low)} to ${percent(without.high)}): believe that number.`
    : 'Nothing is left to test it on: use pictures that it has never seen.'
  return [`${model} knows some of these ${n} pictures: ${parts.join(', ')}. So the score flatters. ${rest}`]
}
