/** HTTPS from a certificate and a key in files, which are read again when they are renewed. */
import { readFileSync, statSync } from 'node:fs'
import { createSecureContext, type Server } from 'node:tls'
import { Failure } from '../failure.ts'

/** Paths of PEM files; the certificate with those between it and the root. */
export interface TlsFiles {
  certificate: string
  key: string
}

/** throws tls_unusable */
export function readTls({ certificate, key }: TlsFiles): { cert: string; key: string } {
  try {
    const pair = { cert: readFileSync(certificate, 'utf8'), key: readFileSync(key, 'utf8') }
    createSecureContext(pair) // they belong together, and can be read
    return pair
  } catch (error) {
    throw new Failure('tls_unusable', { certificate, key, problem: (error as Error).message }, { cause: error })
  }
}

/** Looked at once a minute: connections that are open stay, new ones get the new certificate. What it answers ends it. */
export function renewTls(server: Server, files: TlsFiles, onError: (error: unknown) => void, every = 60_000): () => void {
  const changed = () => [files.certificate, files.key].map(path => statSync(path).mtimeMs).join()
  let seen = changed()
  const timer = setInterval(() => {
    try {
      const now = changed()
      if (now === seen) return
      server.setSecureContext(readTls(files))
      seen = now
    } catch (error) {
      onError(error) // half renewed: the old pair serves on, and the next minute looks again
    }
  }, every).unref()
  return () => clearInterval(timer)
}
