/** The contract as OpenAPI 3.1, from the same descriptions that validate requests; and a page to read it on. */
import { z } from 'zod'
import { failures } from '../failure.ts'
import { type Call, ErrorAnswer, inQuery } from '../sdk/contract.ts'

type Schema = Record<string, unknown> & { properties?: Record<string, unknown>; required?: string[] }
/** Schemas that others of the document refer to, by name. */
type Schemas = Record<string, unknown>

export function openApi(calls: Readonly<Record<string, Call>>, version: string): object {
  const paths: Record<string, Record<string, object>> = {}
  const schemas: Schemas = {}
  schemas['Error'] = schemaOf(ErrorAnswer, 'output', 'Error', schemas)
  for (const [name, call] of Object.entries(calls)) {
    const path = call.path.replace(/:(\w+)/g, '{$1}')
    paths[path] = { ...paths[path], [call.method.toLowerCase()]: operation(name, call, schemas) }
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Plinth',
      version,
      description:
        'Send the token as `Authorization: Bearer TOKEN`. Every refusal is `{error: {code, message, next}}`; codes never change their meaning. NaN and infinities are the strings "NaN", "Infinity", "-Infinity".',
    },
    security: [{ token: [] }],
    paths,
    components: {
      securitySchemes: { token: { type: 'http', scheme: 'bearer' } },
      schemas,
    },
  }
}

const rightWords: Record<Call['right'], string> = {
  public: 'Needs no token.',
  viewer: 'Needs the role viewer.',
  tracker: 'Needs the role editor; a token of the scope track will do.',
  editor: 'Needs the role editor.',
  admin: 'Needs the role admin.',
  owner: 'For the owner of the installation.',
}

function operation(name: string, { method, path, summary, right, input, output }: Call, schemas: Schemas): object {
  const fields = schemaOf(input, 'input', name, schemas)
  const inPath = [...path.matchAll(/:(\w+)/g)].map(([, field]) => field!)
  const inQuery = method === 'GET' || method === 'DELETE'
  const { properties = {}, required = [] } = fields
  const rest = Object.keys(properties).filter(field => !inPath.includes(field))
  const parameter = (field: string, where: 'path' | 'query') => ({
    name: field,
    in: where,
    required: where === 'path' || required.includes(field),
    schema: properties[field],
  })
  const body = {
    ...fields,
    properties: Object.fromEntries(rest.map(field => [field, properties[field]])),
    required: required.filter(field => rest.includes(field)),
  }
  return {
    operationId: name,
    summary,
    description: rightWords[right],
    tags: [path.split('/')[2]],
    ...(right === 'public' && { security: [] }),
    parameters: [...inPath.map(field => parameter(field, 'path')), ...(inQuery ? rest.map(field => parameter(field, 'query')) : [])],
    ...(!inQuery && { requestBody: { required: body.required.length > 0, content: { 'application/json': { schema: body } } } }),
    responses: {
      200: { description: 'Done.', content: { 'application/json': { schema: schemaOf(output, 'output', name, schemas) } } },
      default: { description: 'Refused, and why.', content: { 'application/json': { schema: { $ref: '#/components/schemas/Error' } } } },
    },
  }
}

/** What a type says of itself by a reference (JSON in JSON) goes into `schemas` under `name`: references begin at the root of the document. */
function schemaOf(type: z.ZodType, io: 'input' | 'output', name = '', schemas: Schemas = {}): Schema {
  const { $schema: _, ...schema } = z.toJSONSchema(type, {
    ...{ io, unrepresentable: 'any', target: 'draft-2020-12' },
    override({ zodSchema, jsonSchema }) {
      if ((zodSchema as unknown) !== inQuery.boolean) return
      delete jsonSchema.anyOf
      jsonSchema.type = 'boolean' // its words are those that every query has
    },
  }) as Schema
  const { $defs = {}, ...own } = JSON.parse(JSON.stringify(schema).replaceAll('"#/$defs/', `"#/components/schemas/${name}`)) as Schema
  for (const [part, described] of Object.entries($defs as object)) schemas[`${name}${part}`] = described
  return own
}

/** For people: one section a noun, no script. */
export function openApiPage(calls: Readonly<Record<string, Call>>, version: string): string {
  const nouns = Map.groupBy(Object.entries(calls), ([, { path }]) => path.split('/')[2]!)
  const row = ([name, { method, path, summary, right, input }]: [string, Call]) => {
    const { properties = {}, required = [] } = schemaOf(input, 'input')
    const fields = Object.keys(properties).map(field => `<code>${escaped(field)}</code>${required.includes(field) ? '' : '?'}`)
    return `<tr id="${escaped(name)}"><th scope="row"><code>${method} ${escaped(path)}</code></th><td>${escaped(summary)}</td><td>${escaped(right)}</td><td>${fields.join(' ')}</td></tr>`
  }
  const sections = [...nouns].map(
    ([noun, own]) =>
      `<section><h2>${escaped(noun)}</h2><table><thead><tr><th scope="col">Call</th><th scope="col">What it does</th><th scope="col">Role</th><th scope="col">Fields (? may be left out)</th></tr></thead><tbody>${own.map(row).join('')}</tbody></table></section>`,
  )
  return `<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Plinth ${escaped(version)}: calls</title><style>${pageStyle}</style></head><body><main><h1>Calls of Plinth ${escaped(version)}</h1><p>Send the token as <code>Authorization: Bearer TOKEN</code>. The same as a machine reads it: <a href="/api/openapi.json">OpenAPI 3.1</a>. What is refused comes with one of ${Object.keys(failures).length} codes, each with the next step.</p>${sections.join('')}</main></body></html>`
}

const escaped = (text: string) => text.replace(/[&<>"]/g, letter => `&#${letter.charCodeAt(0)};`)
export const pageStyle =
  ':root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}body{margin:0}main{max-width:70rem;margin:2rem auto;padding:0 1rem}table{border-collapse:collapse;width:100%;font-size:.9rem}th,td{text-align:left;vertical-align:top;padding:.4rem .6rem;border-bottom:1px solid color-mix(in srgb,currentColor 15%,transparent)}tbody th{font-weight:400;white-space:nowrap}h2{margin-top:2.5rem;text-transform:capitalize}section{overflow-x:auto}'
