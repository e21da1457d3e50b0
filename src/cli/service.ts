/** A systemd unit for `plinth up`: for root one of the system, for everybody else one of their own. */
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { homedir, userInfo } from 'node:os'
import { extname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { cache } from '../config.ts'
import { Failure } from '../failure.ts'

export interface ServiceRequest {
  /** What stands behind `plinth up`. */
  words: readonly string[]
  home: string
  force: boolean
}

/** Never writes over a unit that is another one, unless asked to. throws service_in_the_way, not_permitted, service_words */
export function installService(request: ServiceRequest): { path: string; user: string; changed: boolean; next: string[] } {
  const system = process.getuid?.() === 0
  const folder = system ? '/etc/systemd/system' : join(process.env['XDG_CONFIG_HOME'] || join(homedir(), '.config'), 'systemd/user')
  const path = join(folder, 'plinth.service')
  // whoever the home belongs to: root that installs the service need not be who runs it
  const user = existsSync(request.home) ? String(statSync(request.home).uid) : userInfo().username
  const text = serviceUnit({ ...request, system, user, node: process.execPath, program: mainFile(), cache: cache() })
  const found = existsSync(path) ? readFileSync(path, 'utf8') : null
  if (found !== null && found !== text && !request.force) throw new Failure('service_in_the_way', { path })
  if (found !== text) {
    try {
      mkdirSync(folder, { recursive: true })
      writeFileSync(path, text, { mode: 0o644 })
    } catch (error) {
      throw new Failure('not_permitted', { path }, { cause: error })
    }
  }
  const systemctl = system ? 'systemctl' : 'systemctl --user'
  return {
    path,
    user,
    changed: found !== text,
    next: [
      `${systemctl} daemon-reload`,
      `${systemctl} enable --now plinth`,
      ...(system ? [] : ['loginctl enable-linger   # so that it runs while you are not logged in']),
      `journalctl ${system ? '-u' : '--user-unit'} plinth -f`,
    ],
  }
}

/** dist/src/main.js in the package, src/main.ts in the repository. */
const mainFile = () => fileURLToPath(new URL(`../main${extname(import.meta.url)}`, import.meta.url))

export interface Unit extends Omit<ServiceRequest, 'force'> {
  system: boolean
  user: string
  node: string
  program: string
  cache: string
}

/**
 * The text of the unit. Jobs run inside of it: they outlive it (`KillMode=process`), get control groups below it (`Delegate=yes`), write
 * where their user may, see accelerators and /tmp. So the walls are around the system and the kernel, not around the user's own files. A
 * unit of a user runs without the rights to set most of them up, so it has those that need none.
 */
export function serviceUnit({ words, home, system, user, node, program, cache: cacheFolder }: Unit): string {
  const lines = [
    '# Written by plinth up --install-service.',
    '[Unit]',
    'Description=Plinth: tracks runs and keeps models',
    ...(system ? ['Wants=network-online.target', 'After=network-online.target'] : []),
    '',
    '[Service]',
    'Type=exec',
    ...(system ? [`User=${user}`] : []),
    `Environment=${quoted(`PLINTH_HOME=${home}`)} ${quoted(`PLINTH_CACHE=${cacheFolder}`)}`,
    `ExecStart=${[node, program, 'up', ...words].map(quoted).join(' ')}`,
    'Restart=on-failure',
    'RestartSec=2',
    'KillMode=process',
    'Delegate=yes',
    'TimeoutStopSec=40',
    'UMask=0077',
    'NoNewPrivileges=yes',
    ...(system
      ? [
          'ProtectSystem=full',
          'ProtectKernelTunables=yes',
          'ProtectKernelModules=yes',
          'ProtectClock=yes',
          'RestrictSUIDSGID=yes',
          'RestrictRealtime=yes',
          'LockPersonality=yes',
          'CapabilityBoundingSet=',
        ]
      : []),
    '',
    '[Install]',
    `WantedBy=${system ? 'multi-user.target' : 'default.target'}`,
    '',
  ]
  return lines.join('\n')
}

/** As systemd.syntax(7) quotes words; % and $ would be replaced otherwise. throws service_words */
function quoted(word: string): string {
  if (/[\0-\x1f\x7f]/.test(word)) throw new Failure('service_words', { word: JSON.stringify(word) })
  const escaped = word.replace(/[\\"]/g, '\\$&').replaceAll('%', '%%').replaceAll('$', '$$$$')
  return /^[\w@%+=:,./-]+$/.test(escaped) ? escaped : `"${escaped}"`
}
