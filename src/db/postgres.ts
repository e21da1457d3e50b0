/** PostgreSQL for teams: the same schema, the same queries. */
import { Kysely, PostgresDialect } from 'kysely'
import pg from 'pg'
import type { Schema } from './schema.ts'

/** `url`: postgres://user@host/database. Numbers of eight bytes come as numbers: none of ours is beyond 2⁵³. */
export function connectPostgres(url: string): Kysely<Schema> {
  const types = {
    getTypeParser: ((oid: number, format?: 'text' | 'binary') =>
      oid === 20 ? Number : pg.types.getTypeParser(oid, format as 'text')) as typeof pg.types.getTypeParser,
  }
  const pool = new pg.Pool({ connectionString: url, types, max: 10, statement_timeout: 60_000 })
  pool.on('error', () => {}) // an idle connection that the server closed is replaced at the next query
  return new Kysely<Schema>({ dialect: new PostgresDialect({ pool }) })
}
