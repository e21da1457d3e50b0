/** `login` and `logout`: which token this user of this machine shows to which server. The token never stands in a command line. */
import { readFileSync } from 'node:fs'
import type { ReadStream } from 'node:tty'
import { configFolder } from '../config.ts'
import { forgetToken, remoteClient, serverAddress, storeToken } from '../control-plane.ts'
import { Failure } from '../failure.ts'
import { defineCommand } from './command.ts'

export const login = defineCommand({
  name: 'login',
  summary: 'keep a token for a server, so that commands can ask it',
  where: 'anywhere',
  details: `Asks for the token without showing it, or takes the first line of standard input or of a file. It is tried, and kept where only you
can read it. Commands go to the server when PLINTH_URL names it.`,
  arguments: { url: { summary: 'where the server is, for example https://plinth.example.org' } },
  options: {
    'token-file': { type: 'string', value: 'FILE', summary: 'take the token from the first line of this file' },
    'plain-http': { type: 'boolean', summary: 'send the token through the network although others could read it there' },
  },
  examples: ['plinth login https://plinth.example.org', 'plinth login http://127.0.0.1:6420 --token-file ~/.plinth/token'],
  async run({ url: given, tokenFile, plainHttp }, { out, say, result }) {
    const url = serverAddress(given)
    if (url.startsWith('http:') && !plainHttp && !/^http:\/\/(localhost|127(\.\d+){3}|\[::1\])(:|$)/.test(url))
      throw new Failure('server_not_safe', { url })
    const token = tokenFile === undefined ? await typedToken(url) : firstLine(readToken(tokenFile), tokenFile)
    const { user, project, role, version } = await remoteClient({ url, token }).getServer({})
    await storeToken(configFolder(), url, { token, user, project })
    out(`You are ${user}, ${role ?? 'without a role'} in the project ${project} of ${url} (Plinth ${version}).`)
    say(`Commands ask it with: export PLINTH_URL=${url}`)
    result({ url, user, project, role, version })
  },
})

export const logout = defineCommand({
  name: 'logout',
  summary: 'forget the token for a server on this machine',
  where: 'anywhere',
  arguments: { url: { summary: 'where the server is' } },
  async run({ url: given }, { out, say, result }) {
    const url = serverAddress(given)
    const known = await forgetToken(configFolder(), url)
    out(known ? `The token for ${url} is forgotten here.` : `There was no token for ${url} here.`)
    if (known) say('It is still good elsewhere: plinth tokens revoke makes it worthless.')
    result({ url, forgotten: known })
  },
})

function readToken(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (error) {
    throw new Failure('login_empty', { source: file }, { cause: error })
  }
}

function firstLine(text: string, source: string): string {
  const [line = ''] = text.trim().split('\n', 1)
  if (!/^[\x21-\x7e]{10,400}$/.test(line.trim())) throw new Failure('login_empty', { source })
  return line.trim()
}

async function typedToken(url: string): Promise<string> {
  const { stdin, stderr } = process
  if (!stdin.isTTY) {
    let text = ''
    for await (const part of stdin) text += part
    return firstLine(text, 'standard input')
  }
  stderr.write(`Token for ${url} (it is not shown): `)
  try {
    return firstLine(await unseen(stdin), 'what was typed')
  } finally {
    stderr.write('\n')
  }
}

/** What is typed or pasted up to the end of the line, with nothing of it on the screen. */
function unseen(stdin: ReadStream): Promise<string> {
  return new Promise((resolve, reject) => {
    let typed = ''
    const end = () => {
      stdin.off('data', read)
      stdin.setRawMode(false)
      stdin.pause()
    }
    const read = (text: string) => {
      for (const letter of text) {
        if (letter === '\u0003') {
          end()
          return reject(new Failure('interrupted', { next: 'Nothing was kept.' }))
        }
        if (letter === '\r' || letter === '\n' || letter === '\u0004') {
          end()
          return resolve(typed)
        }
        typed = letter === '\u007f' || letter === '\b' ? typed.slice(0, -1) : typed + letter
      }
    }
    stdin.setRawMode(true)
    stdin.setEncoding('utf8').on('data', read)
    stdin.resume()
  })
}
