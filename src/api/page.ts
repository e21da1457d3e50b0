/** A page of ours: one file that loads nothing, allowed by the digests of its own script and style and nothing else. */
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'

export interface Page {
  html: string
  headers: Record<string, string>
}

/** `permissions`: what of the browser the page may use, as Permissions-Policy has it. */
export const loadPage = async (file: URL, { permissions = noPermissions } = {}): Promise<Page> =>
  pageOf(await readFile(file, 'utf8'), { permissions })

const noPermissions = 'camera=(), microphone=()'

export function pageOf(html: string, { permissions = noPermissions } = {}): Page {
  const digests = (tag: string) =>
    [...html.matchAll(new RegExp(`<${tag}>(.*?)</${tag}>`, 'gs'))]
      .map(([, text]) => `'sha256-${createHash('sha256').update(text!).digest('base64')}'`)
      .join(' ')
  const policy = [
    "default-src 'none'",
    `script-src ${digests('script')}`,
    `style-src ${digests('style')}`,
    "img-src 'self' blob: data:",
    "connect-src 'self'",
    "media-src 'self' blob:",
    "object-src 'none'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ]
  return { html, headers: { 'content-security-policy': policy.join('; '), 'permissions-policy': permissions } }
}
