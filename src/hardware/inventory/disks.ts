/** Where files can be kept: mounted file systems with their room, whether they turn, and whether they lie on another machine. */
import { basename } from 'node:path'
import { type Provenance, recorded, type System } from '../system.ts'

export interface Disk {
  mount: string
  /** ext4, xfs, nfs4 … */
  type: string
  /** Device, or server and path. */
  source: string
  /** Lies on another machine. */
  network: boolean
  readOnly: boolean
  /** Bytes; null: it did not answer in time. */
  total: number | null
  free: number | null
  /** A disk that turns; null: not told. */
  rotational: boolean | null
}

/** On another machine, or of one below: databases do not bear two writers there. */
const overNetwork =
  /^(nfs\d?|cifs|smb\d?|smbfs|ceph|lustre|gpfs|beegfs\w*|glusterfs|afs|9p|virtiofs|ocfs2|gfs2|fuse\.(sshfs|glusterfs|ceph\S*|s3fs|gcsfuse|rclone|juicefs|goofys|mount-s3|lustre\S*|beegfs\S*))$/

/** File systems that hold no files of people. */
const hidden =
  /^(proc|sysfs|devtmpfs|devpts|cgroup2?|mqueue|hugetlbfs|securityfs|debugfs|tracefs|configfs|pstore|bpf|efivarfs|autofs|binfmt_misc|fusectl|rpc_pipefs|nsfs|ramfs|squashfs|selinuxfs|fuse\.(lxcfs|portal|gvfsd-fuse|snapfuse))$/

export interface MountPoint {
  mount: string
  type: string
  source: string
  /** 259:2 */
  device: string
  readOnly: boolean
}

/** proc_pid_mountinfo(5). Octal escapes stand for blanks; a place mounted over keeps its last line. */
export function parseMounts(text: string): MountPoint[] {
  const found = new Map<string, MountPoint>()
  for (const line of text.split('\n')) {
    const [before = '', after = ''] = line.split(' - ')
    const [, , device, , mount, options] = before.split(' ')
    const [type, source] = after.split(' ')
    if (!device || !mount || !options || !type || source === undefined) continue
    found.delete(unescaped(mount))
    found.set(unescaped(mount), {
      mount: unescaped(mount),
      type,
      source: unescaped(source),
      device,
      readOnly: options.split(',').includes('ro'),
    })
  }
  return [...found.values()]
}

const unescaped = (text: string) => text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))

/** `also`: folders whose disks are listed whatever they are, such as a home on a memory disk. */
export async function readDisks(system: System, also: readonly string[] = []): Promise<{ disks: Disk[]; provenance: Provenance }> {
  const { system: noting, provenance } = recorded(system, { verified: system.platform === 'linux' })
  const mounts = parseMounts(noting.read('/proc/self/mountinfo') ?? '')
  const needed = new Set(also.map(folder => mountOf(mounts, folder)?.mount))
  const shown = mounts.filter(
    ({ mount, type, source }) =>
      needed.has(mount) ||
      !(
        hidden.test(type) ||
        type === 'tmpfs' ||
        type === 'overlay' ||
        /^\/(proc|sys|dev|run)(\/|$)/.test(mount) ||
        isFileMount(source, mount)
      ),
  )
  const disks = await Promise.all(shown.slice(0, 200).map(point => described(point, noting)))
  return { disks: disks.filter(({ total }) => total !== 0), provenance }
}

/** Containers mount single files (resolv.conf) from the disk below. */
const isFileMount = (source: string, mount: string) => source.startsWith('/dev/') && /^\/etc\/(resolv\.conf|hosts|hostname)$/.test(mount)

/** The mount that a path lies on: the longest that it begins with. */
export function mountOf(mounts: readonly MountPoint[], path: string): MountPoint | undefined {
  const holds = ({ mount }: MountPoint) => mount === '/' || path === mount || path.startsWith(`${mount}/`)
  return mounts.filter(holds).toSorted((a, b) => b.mount.length - a.mount.length)[0]
}

async function described(point: MountPoint, system: System): Promise<Disk> {
  const network = overNetwork.test(point.type)
  const space = network ? await askStat(point.mount, system) : await system.space(point.mount)
  return {
    mount: point.mount,
    type: point.type,
    source: point.source,
    network,
    readOnly: point.readOnly,
    total: space?.total ?? null,
    free: space?.free ?? null,
    // disks of virtual machines say that they turn, whatever they lie on
    rotational: /^\/dev\/(vd|xvd|nbd)/.test(point.source) ? null : await turns(point.device, system),
  }
}

/** By a child: a server that is gone would hold a thread of this process for ever. */
async function askStat(mount: string, system: System): Promise<{ total: number; free: number } | null> {
  const answer = await system.run('stat', '-f', '-c', '%S %b %a', mount)
  const [size, total, free] = (answer && answer.code === 0 ? answer.output : '').trim().split(' ').map(Number)
  return size && total !== undefined && free !== undefined ? { total: size * total, free: size * free } : null
}

/** Of the whole disk, for a partition as well; 0:… are file systems without a block device. */
async function turns(device: string, system: System): Promise<boolean | null> {
  if (device.startsWith('0:')) return null
  const link = await system.link(`/sys/dev/block/${device}`)
  const folders = [
    `/sys/dev/block/${device}`,
    ...(link ? [`/sys/class/block/${basename(link)}`, `/sys/block/${link.split('/').at(-2)}`] : []),
  ]
  for (const folder of folders) {
    const text = system.read(`${folder}/queue/rotational`)?.trim()
    if (text === '0' || text === '1') return text === '1'
  }
  return null
}
