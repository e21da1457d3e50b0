/**
 * Accelerators by one canonical name each, whatever a driver, a cloud or a job file calls them, with what their makers say they can do.
 * A table of our own: a pattern that takes "the word after NVIDIA" makes G of GeForce RTX 4090. A row that holds another's letters comes first
 * (A100 before A10). Peaks are dense (data sheets of NVIDIA since Ampere print them with sparsity: half of that), without clock limits.
 */
import type { Vendor } from './inventory/device.ts'

export interface Accelerator {
  name: string
  vendor: Vendor
  /** Of the name in capitals, without the vendor and marks. */
  match: RegExp
  /** GB as sold; the first is the usual one. */
  memory: readonly number[]
  /** 10¹² operations a second: float32 without tensor units, and bfloat16 (float16 where there is none) with them; null: not published. */
  float32: number | null
  half: number | null
  /** 10⁹ bytes a second; null: not published. */
  bandwidth: number | null
  source: string
}

const row = (
  vendor: Vendor,
  source: string,
  name: string,
  match: RegExp,
  memory: readonly number[],
  float32: number | null,
  half: number | null,
  bandwidth: number | null,
): Accelerator => ({ name, vendor, match, memory, float32, half, bandwidth, source })

const hopper = 'NVIDIA data sheets of H100, H200, H20, GH200; B200 and GB200'
const ampere = 'NVIDIA data sheets of A100, A40, A30, A10, A2'
const ada = 'NVIDIA data sheets of L4, L40, L40S'
const older = 'NVIDIA data sheets of V100, T4, P100, P40, P4, K80'
const geforce = 'NVIDIA architecture white papers (Turing, GA102, Ada, Blackwell): tensor operations with float32 sums'
const workstation = 'NVIDIA data sheets of RTX A-series, RTX 6000 Ada, Quadro RTX'
const instinct = 'AMD Instinct data sheets'
const google = 'Google Cloud documentation of TPU versions'

/** In the order of matching. */
export const accelerators: readonly Accelerator[] = [
  row('nvidia', hopper, 'GB300', /\bGB300\b/, [288], null, 2500, 8000),
  row('nvidia', hopper, 'GB200', /\bGB200\b/, [186], null, 2500, 8000),
  row('nvidia', hopper, 'B300', /\bB300\b/, [288], null, 2250, 8000),
  row('nvidia', hopper, 'B200', /\bB200\b/, [180], null, 2250, 8000),
  row('nvidia', hopper, 'B100', /\bB100\b/, [192], null, 1750, 8000),
  row('nvidia', hopper, 'GB10', /\bGB10\b|\bDGX SPARK\b/, [128], null, null, 273),
  row('nvidia', hopper, 'GH200', /\bGH200\b/, [96, 144], 67, 989.5, 4000),
  row('nvidia', hopper, 'H200', /\bH200\b/, [141], 67, 989.5, 4800),
  row('nvidia', hopper, 'H100 PCIe', /\bH100[- ]?PCIE\b/, [80], 51, 756.5, 2000),
  row('nvidia', hopper, 'H100 NVL', /\bH100[- ]?NVL\b/, [94], 60, 835.5, 3900),
  row('nvidia', hopper, 'H100', /\bH100\b/, [80], 67, 989.5, 3350),
  row('nvidia', hopper, 'H800', /\bH800\b/, [80], 67, 989.5, 3350),
  row('nvidia', hopper, 'H20', /\bH20\b/, [96, 141], 44, 148, 4000),
  row('nvidia', workstation, 'RTX PRO 6000', /\bRTX PRO 6000\b/, [96], 125, null, 1792),
  row('nvidia', workstation, 'RTX 6000 Ada', /\bRTX ?6000[- ]?ADA\b/, [48], 91.1, 364.2, 960),
  row('nvidia', workstation, 'RTX 5000 Ada', /\bRTX ?5000[- ]?ADA\b/, [32], 65.3, 261, 576),
  row('nvidia', workstation, 'RTX 4000 Ada', /\bRTX ?4000[- ]?(SFF )?ADA\b/, [20], 26.7, 106.9, 360),
  row('nvidia', workstation, 'RTX A6000', /\b(RTX[- ]?)?A6000\b/, [48], 38.7, 154.8, 768),
  row('nvidia', workstation, 'RTX A5000', /\b(RTX[- ]?)?A5000\b/, [24], 27.8, 111.1, 768),
  row('nvidia', workstation, 'RTX A4000', /\b(RTX[- ]?)?A4000\b/, [16], 19.2, 76.7, 448),
  row('nvidia', workstation, 'RTX A2000', /\b(RTX[- ]?)?A2000\b/, [6, 12], 8, 32, 288),
  row('nvidia', workstation, 'Quadro RTX 8000', /\bQUADRO RTX 8000\b/, [48], 16.3, 130.5, 672),
  row('nvidia', workstation, 'Quadro RTX 6000', /\bQUADRO RTX 6000\b/, [24], 16.3, 130.5, 672),
  row('nvidia', workstation, 'Quadro RTX 5000', /\bQUADRO RTX 5000\b/, [16], 11.2, 89.2, 448),
  row('nvidia', ampere, 'A100', /\bA100[A-Z]?\b/, [40, 80], 19.5, 312, 1555),
  row('nvidia', ampere, 'A800', /\bA800\b/, [80, 40], 19.5, 312, 2039),
  row('nvidia', ampere, 'A40', /\bA40\b/, [48], 37.4, 149.7, 696),
  row('nvidia', ampere, 'A30', /\bA30\b/, [24], 10.3, 165, 933),
  row('nvidia', ampere, 'A16', /\bA16\b/, [16], 4.5, 17.9, 200),
  row('nvidia', ampere, 'A10G', /\bA10G\b/, [24], 31.2, 125, 600),
  row('nvidia', ampere, 'A10', /\bA10\b/, [24], 31.2, 125, 600),
  row('nvidia', ampere, 'A2', /\bA2\b/, [16], 4.5, 18, 200),
  row('nvidia', ada, 'L40S', /\bL40S\b/, [48], 91.6, 362, 864),
  row('nvidia', ada, 'L40', /\bL40G?\b/, [48], 90.5, 181, 864),
  row('nvidia', ada, 'L20', /\bL20\b/, [48], 59.8, 119.5, 864),
  row('nvidia', ada, 'L4', /\bL4\b/, [24], 30.3, 121, 300),
  row('nvidia', older, 'V100', /\bV100S?\b/, [16, 32], 15.7, 125, 900),
  row('nvidia', older, 'P100', /\bP100\b/, [16, 12], 9.3, 18.7, 732),
  row('nvidia', older, 'P40', /\bP40\b/, [24], 12, null, 346),
  row('nvidia', older, 'P4', /\bP4\b/, [8], 5.5, null, 192),
  row('nvidia', older, 'T4', /\bT4G?\b/, [16], 8.1, 65, 320),
  row('nvidia', older, 'K80', /\bK80\b/, [12], 4.4, null, 240),
  row('nvidia', older, 'M60', /\bM60\b/, [8], null, null, 160),
  row('nvidia', older, 'M40', /\bM40\b/, [12, 24], 7, null, 288),
  row('nvidia', geforce, 'RTX 5090', /\bRTX ?5090\b/, [32], 104.8, 209.5, 1792),
  row('nvidia', geforce, 'RTX 5080', /\bRTX ?5080\b/, [16], 56.3, 112.6, 960),
  row('nvidia', geforce, 'RTX 4090', /\bRTX ?4090\b/, [24], 82.6, 165.2, 1008),
  row('nvidia', geforce, 'RTX 4080', /\bRTX ?4080\b/, [16], 48.7, 97.5, 717),
  row('nvidia', geforce, 'RTX 3090', /\bRTX ?3090\b/, [24], 35.6, 71, 936),
  row('nvidia', geforce, 'RTX 3080', /\bRTX ?3080\b/, [10, 12], 29.8, 59.5, 760),
  row('nvidia', geforce, 'RTX 3060', /\bRTX ?3060\b/, [12], 12.7, 25.5, 360),
  row('nvidia', geforce, 'RTX 2080 Ti', /\bRTX ?2080 ?TI\b/, [11], 13.4, 53.8, 616),
  row('nvidia', geforce, 'GTX 1080 Ti', /\bGTX ?1080 ?TI\b/, [11], 11.3, null, 484),
  row('nvidia', geforce, 'TITAN RTX', /\bTITAN RTX\b/, [24], 16.3, 65.2, 672),
  row('nvidia', geforce, 'TITAN V', /\bTITAN V\b/, [12], 14.9, 110, 653),
  row('amd', instinct, 'MI355X', /\bMI355X?\b/, [288], 157, 2500, 8000),
  row('amd', instinct, 'MI350X', /\bMI350X?\b/, [288], 144, 2300, 8000),
  row('amd', instinct, 'MI325X', /\bMI325X?\b/, [256], 163.4, 1307.4, 6000),
  row('amd', instinct, 'MI300A', /\bMI300A\b/, [128], 122.6, 980.6, 5300),
  row('amd', instinct, 'MI300X', /\bMI300X?\b/, [192], 163.4, 1307.4, 5300),
  // one of these cards is two devices, and the peaks are of one device
  row('amd', instinct, 'MI250X', /\bMI250X\b/, [64], 23.9, 191.5, 1638),
  row('amd', instinct, 'MI250', /\bMI250\b/, [64], 22.6, 181, 1638),
  row('amd', instinct, 'MI210', /\bMI210\b/, [64], 22.6, 181, 1638),
  row('amd', instinct, 'MI100', /\bMI100\b/, [32], 23.1, 92.3, 1228),
  row('amd', 'AMD product pages', 'RX 9070 XT', /\bRX ?9070 ?XT\b/, [16], 48.7, 194.6, 640),
  row('amd', 'AMD product pages', 'RX 7900 XTX', /\bRX ?7900 ?XTX\b/, [24], 61.4, 122.8, 960),
  row('amd', 'AMD product pages', 'RX 7900 XT', /\bRX ?7900 ?XT\b/, [20], 51.5, 103, 800),
  row('amd', 'AMD product pages', 'PRO W7900', /\bW7900\b/, [48], 61.3, 122.6, 864),
  row('intel', 'Intel product pages', 'Max 1550', /\bMAX 1550\b/, [128], 52.4, 839, 3276),
  row('intel', 'Intel product pages', 'Max 1100', /\bMAX 1100\b/, [48], 22.2, 356, 1229),
  row('intel', 'Intel product pages', 'Flex 170', /\bFLEX 170\b/, [16], null, null, 576),
  row('intel', 'Intel product pages', 'Arc B580', /\bARC.*\bB580\b/, [12], 13.7, 117, 456),
  row('intel', 'Intel product pages', 'Arc Pro B60', /\bARC.*\bB60\b/, [24], 12.3, 98, 456),
  row('intel', 'Intel product pages', 'Arc A770', /\bARC.*\bA770\b/, [16, 8], 19.7, 137.6, 560),
  row('google', google, 'TPU v6e', /\bV6E\b|\bTPU.?V6\b|TRILLIUM/, [32], null, 918, 1640),
  row('google', google, 'TPU v5p', /\bV5P\b/, [95], null, 459, 2765),
  row('google', google, 'TPU v5e', /\bV5 ?LITE ?(POD)?\b|\bV5LITEPOD\b|\bV5E\b/, [16], null, 197, 819),
  row('google', google, 'TPU v4', /\bTPU.?V4\b|^V4(-|$)/, [32], null, 275, 1228),
  row('google', google, 'TPU v3', /\bTPU.?V3\b|^V3(-|$)/, [32], null, 123, 900),
  row('google', google, 'TPU v2', /\bTPU.?V2\b|^V2(-|$)/, [16], null, 45, 700),
  row('habana', 'Intel Gaudi white papers', 'Gaudi 3', /\bGAUDI ?3\b|\bHL-?3\d\d/, [128], null, 1835, 3700),
  row('habana', 'Intel Gaudi white papers', 'Gaudi 2', /\bGAUDI ?2\b|\bHL-?2(25|288|080)/, [96], null, 432, 2450),
  row('habana', 'Intel Gaudi white papers', 'Gaudi', /\bGAUDI\b|\bHL-?20\d/, [32], null, null, 1000),
  row('aws', 'AWS Neuron documentation', 'Trainium2', /\bTRAINIUM ?2\b|\bTRN2/, [96], null, 667, 2900),
  row('aws', 'AWS Neuron documentation', 'Trainium', /\bTRAINIUM\b|\bTRN1/, [32], null, 190, 820),
  row('aws', 'AWS Neuron documentation', 'Inferentia2', /\bINFERENTIA ?2\b|\bINF2/, [32], null, 190, 820),
  row('aws', 'AWS Neuron documentation', 'Inferentia', /\bINFERENTIA\b|\bINF1/, [8], null, null, null),
]

/** What a name is made of, without vendor, marks and brackets: `NVIDIA GeForce RTX™ 4090` → `GEFORCE RTX 4090`. */
const plain = (text: string): string =>
  text
    .toUpperCase()
    .replace(/\((R|TM|C)\)|[®™©]/g, ' ')
    .replace(/\b(NVIDIA|CORPORATION|ADVANCED MICRO DEVICES,? INC\.?|INTEL)\b|\[AMD\/ATI\]/g, ' ')
    .replace(/[_,;]/g, ' ')
    .replace(/\s+/g, ' ')
    .trim()

/** The row of a name in anybody's words; undefined where we know none: a laptop's RTX 4090 is not the card of that name. */
export function knownAccelerator(text: string): Accelerator | undefined {
  const found = rowOf(text)
  return found && canonicalName(text) === oneH100(found.name) ? found : undefined
}

const rowOf = (text: string) => accelerators.find(({ match }) => match.test(plain(text)))
const oneH100 = (name: string) => name.replace(/^H100 .*/, 'H100')

/**
 * The canonical name: of the table, else of a family that numbers its members (GeForce, Radeon, Arc), else the words without the vendor.
 * `H100 PCIe` and `H100 NVL` are H100 here: which board it is shows in its memory and its model.
 */
export function canonicalName(text: string): string {
  const words = plain(text)
  const known = rowOf(text)
  // a laptop's chip of the same number is another one; so are Ti, SUPER and D
  const numbered = /\b(RTX|GTX|GT|MX|RX|ARC)[ -]?(PRO )?([ABW]?\d{3,4}[A-Z]{0,3})\b((?: (?:TI|SUPER|XTX?|GRE|LAPTOP|MAX-Q|D)\b)*)/.exec(
    words,
  )
  if (known && !numbered) return oneH100(known.name)
  if (known && numbered && plain(known.name).endsWith(`${numbered[3]}${numbered[4]}`)) return known.name
  if (known && (known.vendor !== 'nvidia' || !/^(RTX|GTX) \d{4}( Ti)?$/.test(known.name))) return known.name
  if (numbered)
    return `${titled(numbered[1]!)} ${numbered[2] ? 'Pro ' : ''}${numbered[3]}${numbered[4]!.replace(/ (TI|LAPTOP)\b/g, (_, word: string) => ` ${titled(word)}`)}`
  const apple = /\b(M\d+)( PRO| MAX| ULTRA)?\b/.exec(words)
  if (/\bAPPLE\b/.test(words) && apple) return `${apple[1]}${apple[2] ? ` ${titled(apple[2].trim())}` : ''}`
  return (
    text
      .replace(/\((R|TM|C)\)|[®™©]/gi, '')
      .replace(/\b(NVIDIA|AMD|Intel|Advanced Micro Devices,? Inc\.?)\b|\[AMD\/ATI\]/gi, '')
      .replace(/\s+/g, ' ')
      .trim() || text.trim()
  )
}

const titled = (word: string) => (/^(RTX|GTX|GT|MX|RX|XTX?)$/.test(word) ? word : word[0] + word.slice(1).toLowerCase())

/** `A100-80GB`, `A100:80GB` and `NVIDIA A100-SXM4-80GB` say how much memory as well, in GB. */
export function memoryInName(text: string): number | null {
  const size = /\b(\d{1,3}) ?GB\b/i.exec(text)?.[1]
  return size === undefined ? null : Number(size)
}
