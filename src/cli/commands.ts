/** Every command, in the order of the help. A command's file is read when it is called, so that start-up stays fast. */
import type { Command } from './command.ts'

type Load = () => Promise<{ default: Command }>
export interface Group {
  title: string
  commands: Readonly<Record<string, Load>>
}

export const groups: readonly Group[] = [
  {
    title: 'Plinth itself',
    commands: {
      completion: () => import('./completion.ts'),
      version: () => import('./version.ts'),
    },
  },
]
