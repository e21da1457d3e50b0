/** The server itself. */
import { z } from 'zod'
import { call } from '../contract.ts'

export const calls = {
  getServer: call({
    method: 'GET',
    path: '/api/server',
    summary: 'What answers here, and who you are to it',
    right: 'viewer',
    input: z.strictObject({}),
    output: z.strictObject({ version: z.string(), user: z.string(), project: z.string(), role: z.string().nullable() }),
  }),
}
