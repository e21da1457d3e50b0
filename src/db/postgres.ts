/** PostgreSQL for teams: the same schema, the same queries, and failures that say what to do. */
import { Kysely, PostgresDialect } from 'kysely'
import pg from 'pg'
import { Failure } from '../failure.ts'
import { storageFailure } from '../storage/disk.ts'
import { showTarget } from './dialect.ts'
import type { Schema } from './schema.ts'

/** How long one statement may take, and how long a connection is waited for, in milliseconds. */
const patience = { statement: 60_000, connection: 10_000 }

/** `url`: postgres://user@host/database. Numbers of eight bytes come as numbers: none of ours is beyond 2⁵³. */
export function connectPostgres(url: string): Kysely<Schema> {
  const types = {
    getTypeParser: ((oid: number, format?: 'text' | 'binary') =>
      oid === 20 ? Number : pg.types.getTypeParser(oid, format as 'text')) as typeof pg.types.getTypeParser,
  }
  const pool = new pg.Pool({
    connectionString: url,
    types,
    max: 10,
    application_name: 'plinth',
    keepAlive: true,
    connectionTimeoutMillis: patience.connection,
    statement_timeout: patience.statement,
    idle_in_transaction_session_timeout: patience.statement,
  })
  // a connection that the server closed is replaced at the next query; one that is at work says so by its query
  pool.on('error', () => {})
  pool.on('connect', client => client.on('error', () => {}))
  const coded = async <T>(work: Promise<T>): Promise<T> => {
    try {
      return await work
    } catch (error) {
      throw postgresFailure(error, url)
    }
  }
  return new Kysely<Schema>({
    dialect: new PostgresDialect({
      pool: {
        options: pool.options,
        connect: async () => {
          const client = await coded(pool.connect())
          return {
            query: ((text: string, values: unknown[]) => coded(client.query(text, values))) as never,
            release: () => client.release(),
          }
        },
        end: () => pool.end(),
      },
    }),
  })
}

// postgresql.org/docs/current/errcodes-appendix.html
const gone = /^(08|57P0[1-5])/
const conflicts = ['40001', '40P01', '53300', '55P03']

/** What PostgreSQL's refusal means to the user. A constraint or a mistake in the SQL is not the user's and stays as it is. */
function postgresFailure(error: unknown, url: string): unknown {
  const database = showTarget(url)
  const { code = '', message, errors } = error as { code?: string; message: string; errors?: { code?: string }[] }
  const as = (system: string) => storageFailure(Object.assign(new Error(message, { cause: error }), { code: system }), database)
  if (code === '53100') return as('ENOSPC')
  if (code === '25006') return as('EROFS')
  if (code === '42501') return as('EACCES')
  if (code === '57014') return new Failure('database_slow', { seconds: patience.statement / 1000 }, { cause: error })
  if (conflicts.includes(code)) return new Failure('database_busy', { database }, { cause: error })
  const refused = /^(28|3D)/.test(code) // no such user, wrong password, no such database
  const network = /^E[A-Z]+$/.test(code) || errors?.some(each => /^E[A-Z]+$/.test(each.code ?? ''))
  // what pg itself says when a connection ends under a query, or does not come about in time, carries no code
  const ended =
    code === '' &&
    /^(Connection terminated|timeout e|Client was closed|Client has encountered|The server does not support SSL)/.test(message)
  if (refused || network || ended || gone.test(code))
    return new Failure('database_unreachable', { database, problem: message || (errors?.[0]?.code ?? code) }, { cause: error })
  return error
}
