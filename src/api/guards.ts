/** Who may ask, and what every answer carries: names and origins, the token, the headers. */
import { createHash, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { Failure } from '../failure.ts'

export const isLoopback = (host: string): boolean => host === 'localhost' || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host)

/**
 * On loopback there is no token, so a page of another site must not get through: a name that an attacker points at 127.0.0.1
 * arrives with its own Host, and a page elsewhere with its own Origin. Behind a token any name will do (there may be a proxy),
 * the origin still has to be ours.
 * throws host_refused, origin_refused
 */
export function checkOrigin(request: IncomingMessage, { loopback }: { loopback: boolean }): void {
  const { host, origin } = request.headers
  if (loopback && !isLoopback(nameOf(host ?? ''))) throw new Failure('host_refused')
  // a browser leaves Origin out for reading; it says with Sec-Fetch-Site who asks. Following a link to the page is fine
  const site = request.headers['sec-fetch-site']
  if (origin !== undefined && hostOf(origin) !== host) throw new Failure('origin_refused')
  if (site !== undefined && site !== 'same-origin' && site !== 'none' && !isVisit(request)) throw new Failure('origin_refused')
}

const isVisit = ({ method, url, headers }: IncomingMessage) =>
  method === 'GET' && url?.split('?', 1)[0] === '/' && headers['sec-fetch-mode'] === 'navigate' && headers['sec-fetch-dest'] === 'document'

/** `localhost:8080`, `127.0.0.1`, `[::1]:80` without the port; '' where it is none of that form. */
const nameOf = (host: string): string =>
  /^(?:\[([0-9a-f:]+)\]|([^:[\]/@\s]+))(?::\d{1,5})?$/i.exec(host)?.slice(1).find(Boolean)?.toLowerCase() ?? ''

function hostOf(origin: string): string | null {
  const url = URL.canParse(origin) ? new URL(origin) : null
  return url && (url.protocol === 'http:' || url.protocol === 'https:') ? url.host : null
}

/** What RFC 6750 lets stand behind `Bearer`, and enough of it. */
export const isToken = (text: string): boolean => /^[\w.~+/-]{16,}=*$/.test(text)

/** throws token_required */
export function checkToken(request: IncomingMessage, token: string): void {
  const [, given = ''] = /^Bearer +(\S+)$/i.exec(request.headers.authorization ?? '') ?? []
  // hashed first: equal lengths, and the time says nothing about how much of it was right
  if (!timingSafeEqual(sha256(given), sha256(token))) throw new Failure('token_required')
}
const sha256 = (text: string) => createHash('sha256').update(text).digest()

/** For every answer. The page brings its own content policy, with the digests of its one script and one style. */
export const securityHeaders = {
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'cache-control': 'no-store',
} as const

/**
 * Who came by HTTPS once, here or at a proxy that is believed, does not come without it for a year. Never said without TLS (RFC 6797, 7.2), and
 * not of names below this one, which may be somebody else's.
 */
export const headersFor = (protocol: string): Readonly<Record<string, string>> => (protocol === 'https' ? overTls : securityHeaders)
const overTls = { ...securityHeaders, 'strict-transport-security': 'max-age=31536000' }
