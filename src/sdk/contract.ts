/**
 * What can be asked of a Plinth server, each call described once: the route, its validation, the typed client, the OpenAPI page and the
 * help of a command all come from this description. Runs in a browser too.
 */
import { z } from 'zod'

/**
 * Who may make a call, from everybody to the owner of the installation. A role holds in a project and includes those before it;
 * `public` asks for no token at all. `tracker` is no role: what editors may and a token of the scope `track` too, which a training script needs.
 */
export const rights = ['public', 'viewer', 'tracker', 'editor', 'admin', 'owner'] as const
export type Right = (typeof rights)[number]

export interface Call<Input extends z.ZodType = z.ZodType, Output extends z.ZodType = z.ZodType> {
  method: 'GET' | 'POST' | 'PATCH' | 'PUT' | 'DELETE'
  /** `/api/runs/:run`; what stands behind a colon is taken from the input by name. The rest is the query of GET and DELETE, else the JSON body. */
  path: `/api/${string}`
  summary: string
  right: Right
  input: Input
  output: Output
}

/** Only so that TypeScript keeps the exact types of input and output. */
export const call = <Input extends z.ZodType, Output extends z.ZodType>(description: Call<Input, Output>): Call<Input, Output> =>
  description

export type InputOf<C extends Call> = z.input<C['input']>
export type OutputOf<C extends Call> = z.output<C['output']>

/** Numbers and booleans of a query arrive as text. */
export const inQuery = {
  integer: z.coerce.number().int(),
  boolean: z.union([z.boolean(), z.stringbool()]),
}

/** Lists come in pages: `next` is the opaque beginning of the following one, null at the end. */
export const page = <Item extends z.ZodType>(items: Item) => z.strictObject({ items: z.array(items), next: z.string().nullable() })
export const pageInput = { limit: inQuery.integer.min(1).max(1000).default(100), after: z.string().max(1000).optional() }

/** NaN and infinities travel as text, since JSON has no way to write them. */
export const AnyNumber = z.union([z.number(), z.literal(['NaN', 'Infinity', '-Infinity'])])
export type AnyNumber = z.infer<typeof AnyNumber>

export const ErrorAnswer = z.strictObject({ error: z.strictObject({ code: z.string(), message: z.string(), next: z.string() }) })
