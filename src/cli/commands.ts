/** Every command, in the order of the help. A command's file is read when it is called, so that start-up stays fast. */
import type { Command } from './command.ts'

type Load = () => Promise<{ default: Command }>
export interface Group {
  title: string
  commands: Readonly<Record<string, Load>>
}

const models = (verb: 'list' | 'show' | 'promote' | 'aliases' | 'unalias' | 'rename' | 'remove' | 'exportFile' | 'pull') => async () => ({
  default: (await import('./models.ts'))[verb],
})
const testset = (verb: 'add' | 'list' | 'show' | 'score' | 'remove') => async () => ({ default: (await import('./testset.ts'))[verb] })
const spool = (verb: 'list' | 'send') => async () => ({ default: (await import('./spool.ts'))[verb] })
const tokens = (verb: 'create' | 'list' | 'revoke' | 'reset') => async () => ({ default: (await import('./tokens.ts'))[verb] })
const users = (verb: 'add' | 'list' | 'remove' | 'disable' | 'enable' | 'createProject' | 'listProjects' | 'audit') => async () => ({
  default: (await import('./users.ts'))[verb],
})
const jobs = (verb: 'list' | 'show' | 'logs' | 'stop' | 'retry' | 'remove') => async () => ({ default: (await import('./jobs.ts'))[verb] })
const runs = (verb: 'list' | 'show' | 'remove') => async () => ({ default: (await import('./runs.ts'))[verb] })

export const groups: readonly Group[] = [
  {
    title: 'Every day',
    commands: {
      quickstart: () => import('./quickstart.ts'),
      train: () => import('./train.ts'),
      evaluate: () => import('./evaluate.ts'),
      compare: () => import('./compare.ts'),
      predict: () => import('./predict.ts'),
      serve: () => import('./serve.ts'),
      run: () => import('./run.ts'),
      sample: () => import('./sample.ts'),
      up: () => import('./up.ts'),
      doctor: () => import('./doctor.ts'),
      advise: () => import('./advise.ts'),
    },
  },
  {
    title: 'What is kept',
    commands: {
      'data check': () => import('./data-check.ts'),
      'data import': () => import('./data-import.ts'),
      'data list': () => import('./data-list.ts'),
      'data diff': () => import('./data-diff.ts'),
      'data export': () => import('./data-export.ts'),
      'data review': () => import('./data-review.ts'),
      'testset add': testset('add'),
      'testset list': testset('list'),
      'testset show': testset('show'),
      'testset score': testset('score'),
      'testset remove': testset('remove'),
      'models list': models('list'),
      'models show': models('show'),
      'models promote': models('promote'),
      'models aliases': models('aliases'),
      'models unalias': models('unalias'),
      'models rename': models('rename'),
      'models delete': models('remove'),
      'models export': models('exportFile'),
      'models pull': models('pull'),
      'experiments list': () => import('./experiments.ts'),
      'runs list': runs('list'),
      'runs show': runs('show'),
      'runs delete': runs('remove'),
      'spool list': spool('list'),
      'spool send': spool('send'),
      gc: () => import('./gc.ts'),
      'import mlflow': () => import('./import-mlflow.ts'),
      backup: () => import('./backup.ts'),
      restore: () => import('./restore.ts'),
    },
  },
  {
    title: 'Jobs',
    commands: {
      sweep: () => import('./sweep.ts'),
      'jobs list': jobs('list'),
      'jobs show': jobs('show'),
      'jobs logs': jobs('logs'),
      'jobs stop': jobs('stop'),
      'jobs retry': jobs('retry'),
      'jobs delete': jobs('remove'),
    },
  },
  {
    title: 'Who may do what',
    commands: {
      login: async () => ({ default: (await import('./login.ts')).login }),
      logout: async () => ({ default: (await import('./login.ts')).logout }),
      'tokens create': tokens('create'),
      'tokens list': tokens('list'),
      'tokens revoke': tokens('revoke'),
      'tokens reset': tokens('reset'),
      'users add': users('add'),
      'users list': users('list'),
      'users remove': users('remove'),
      'users disable': users('disable'),
      'users enable': users('enable'),
      'projects create': users('createProject'),
      'projects list': users('listProjects'),
      audit: users('audit'),
    },
  },
  {
    title: 'Plinth itself',
    commands: {
      completion: () => import('./completion.ts'),
      version: () => import('./version.ts'),
    },
  },
]
