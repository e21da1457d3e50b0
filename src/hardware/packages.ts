/** The exact command that installs something on this distribution, from /etc/os-release (freedesktop.org's specification of that file). */
import type { System } from './system.ts'

export interface Distribution {
  /** debian, ubuntu, fedora …; macos and windows where it is one of them. */
  id: string
  /** Those it descends from, nearest first. */
  like: string[]
  title: string
}

export function distribution(system: System): Distribution {
  if (system.platform === 'darwin') return { id: 'macos', like: [], title: 'macOS' }
  if (system.platform === 'win32') return { id: 'windows', like: [], title: 'Windows' }
  const text = system.read('/etc/os-release') ?? system.read('/usr/lib/os-release') ?? ''
  const value = (key: string) =>
    new RegExp(`^${key}=(.*)$`, 'm')
      .exec(text)?.[1]
      ?.trim()
      .replace(/^(["'])(.*)\1$/, '$2') ?? ''
  return {
    id: value('ID') || 'linux',
    like: value('ID_LIKE').split(/\s+/).filter(Boolean),
    title: value('PRETTY_NAME') || value('NAME') || 'Linux',
  }
}

const families = ['ubuntu', 'debian', 'fedora', 'rhel', 'arch', 'suse', 'alpine', 'macos'] as const
type Family = (typeof families)[number]

/** Ubuntu's children say `ID_LIKE="ubuntu debian"`, Rocky's `rhel centos fedora`, openSUSE's `suse opensuse`. */
function familyOf({ id, like }: Distribution): Family | null {
  for (const word of [id, ...like]) {
    const known = families.find(
      family => family === word || (family === 'suse' && word.includes('suse')) || (family === 'rhel' && word === 'centos'),
    )
    if (known) return known
  }
  return null
}

type Commands = Readonly<Record<Family, string> & { otherwise: string }>

const table = {
  'nvidia-driver': {
    ubuntu: 'sudo ubuntu-drivers install && sudo reboot',
    debian:
      'sudo apt install nvidia-driver firmware-misc-nonfree && sudo reboot (needs "contrib non-free non-free-firmware" in /etc/apt/sources.list)',
    fedora: 'sudo dnf install akmod-nvidia xorg-x11-drv-nvidia-cuda && sudo reboot (from RPM Fusion)',
    rhel: "sudo dnf module install nvidia-driver:latest-dkms && sudo reboot (from NVIDIA's CUDA repository)",
    arch: 'sudo pacman -S nvidia-open nvidia-utils && sudo reboot',
    suse: "sudo zypper install nvidia-open-driver-G06-signed-kmp-default nvidia-compute-utils-G06 && sudo reboot (from NVIDIA's repository)",
    alpine: 'There is no NVIDIA driver for Alpine (musl): use another distribution.',
    macos: 'There is no NVIDIA driver for this macOS.',
    otherwise: 'Install the driver from nvidia.com/drivers and restart.',
  },
  'nvidia-smi': {
    ubuntu: 'sudo apt install nvidia-utils-$(cut -d. -f1 /sys/module/nvidia/version)',
    debian: 'sudo apt install nvidia-smi',
    fedora: 'sudo dnf install xorg-x11-drv-nvidia-cuda',
    rhel: 'sudo dnf install nvidia-driver-cuda',
    arch: 'sudo pacman -S nvidia-utils',
    suse: 'sudo zypper install nvidia-compute-utils-G06',
    alpine: 'There is no nvidia-smi for Alpine (musl): use another distribution.',
    macos: 'There is no NVIDIA driver for this macOS.',
    otherwise: 'Install the nvidia-smi of the driver that is loaded.',
  },
  'amd-driver': {
    ubuntu: 'sudo apt install linux-firmware linux-modules-extra-$(uname -r) && sudo modprobe amdgpu',
    debian: 'sudo apt install firmware-amd-graphics && sudo modprobe amdgpu',
    fedora: 'sudo dnf install amd-gpu-firmware && sudo modprobe amdgpu',
    rhel: 'sudo dnf install linux-firmware && sudo modprobe amdgpu',
    arch: 'sudo pacman -S linux-firmware-amdgpu && sudo modprobe amdgpu',
    suse: 'sudo zypper install kernel-firmware-amdgpu && sudo modprobe amdgpu',
    alpine: 'sudo apk add linux-firmware-amdgpu && sudo modprobe amdgpu',
    macos: 'Nothing to install: macOS brings it.',
    otherwise: 'Install the firmware of amdgpu, then: sudo modprobe amdgpu',
  },
  'intel-driver': {
    ubuntu: 'sudo apt install linux-firmware intel-opencl-icd && sudo modprobe xe',
    debian: 'sudo apt install firmware-misc-nonfree intel-opencl-icd && sudo modprobe i915',
    fedora: 'sudo dnf install intel-compute-runtime && sudo modprobe xe',
    rhel: 'sudo dnf install linux-firmware && sudo modprobe i915',
    arch: 'sudo pacman -S intel-compute-runtime && sudo modprobe xe',
    suse: 'sudo zypper install kernel-firmware-i915 intel-opencl && sudo modprobe i915',
    alpine: 'sudo apk add linux-firmware-i915 && sudo modprobe i915',
    macos: 'Nothing to install: macOS brings it.',
    otherwise: 'Install the firmware of i915 or xe, then: sudo modprobe xe',
  },
  vulkan: {
    ubuntu: 'sudo apt install libvulkan1 mesa-vulkan-drivers',
    debian: 'sudo apt install libvulkan1 mesa-vulkan-drivers',
    fedora: 'sudo dnf install vulkan-loader mesa-vulkan-drivers',
    rhel: 'sudo dnf install vulkan-loader mesa-vulkan-drivers',
    arch: 'sudo pacman -S vulkan-icd-loader vulkan-swrast',
    suse: 'sudo zypper install libvulkan1 libvulkan_lvp',
    alpine: 'sudo apk add vulkan-loader mesa-vulkan-swrast',
    macos: 'Nothing to install: WebGPU uses Metal here.',
    otherwise: 'Install the Vulkan loader and the Vulkan driver of your graphics.',
  },
  python: {
    ubuntu: 'sudo apt install python3 python3-venv',
    debian: 'sudo apt install python3 python3-venv',
    fedora: 'sudo dnf install python3',
    rhel: 'sudo dnf install python3',
    arch: 'sudo pacman -S python',
    suse: 'sudo zypper install python3',
    alpine: 'sudo apk add python3',
    macos: 'brew install python',
    otherwise: 'Install Python from python.org.',
  },
  'python-venv': {
    ubuntu: 'sudo apt install python3-venv',
    debian: 'sudo apt install python3-venv',
    fedora: 'sudo dnf install python3-libs',
    rhel: 'sudo dnf install python3-libs',
    arch: 'sudo pacman -S python',
    suse: 'sudo zypper install python3-base',
    alpine: 'sudo apk add python3',
    macos: 'brew install python',
    otherwise: 'Install the venv module of your Python.',
  },
  git: {
    ubuntu: 'sudo apt install git',
    debian: 'sudo apt install git',
    fedora: 'sudo dnf install git',
    rhel: 'sudo dnf install git',
    arch: 'sudo pacman -S git',
    suse: 'sudo zypper install git',
    alpine: 'sudo apk add git',
    macos: 'xcode-select --install',
    otherwise: 'Install git from git-scm.com.',
  },
} as const satisfies Record<string, Commands>

/** The command, or words where there is none. */
export function install(what: keyof typeof table, system: System): string {
  const family = familyOf(distribution(system))
  return family ? table[what][family] : table[what].otherwise
}

/** Whether this runs in a container, where devices have to be handed in from outside. */
export function inContainer(system: System): boolean {
  return (
    system.read('/run/.containerenv') !== null ||
    system.read('/.dockerenv') !== null ||
    /\b(docker|kubepods|containerd|lxc|libpod)\b/.test(system.read('/proc/1/cgroup') ?? '') ||
    ['docker', 'podman', 'oci', 'kube'].includes(system.variable('container') ?? '')
  )
}

/** Where distributions keep shared libraries, and where the container toolkits put those of the machine below. */
const libraryFolders = [
  '/usr/lib',
  '/usr/lib64',
  '/lib',
  '/usr/local/lib',
  '/usr/lib/x86_64-linux-gnu',
  '/usr/lib/aarch64-linux-gnu',
  '/usr/lib/wsl/lib',
  '/usr/local/nvidia/lib64',
]

export async function hasLibrary(name: string, system: System): Promise<boolean> {
  for (const folder of libraryFolders) if ((await system.list(folder)).includes(name)) return true
  return false
}
