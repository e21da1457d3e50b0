/**
 * The variables of the environment that show a program the devices it was given and no others. Every vendor has its own; all of them are set,
 * so that a job on one vendor's card does not see another's.
 */

interface Given {
  id: string
  vendor: string
  /** Canonical. */
  name?: string
}

/**
 * `devices`: what the job was given, by the ids of the inventory (GPU-…, MIG-…, else vendor and number). A vendor of which it was given none is
 * hidden from it.
 */
export function visibleDevices(devices: readonly Given[]): Record<string, string> {
  const of = (vendor: string) => devices.filter(device => device.vendor === vendor)
  const numbers = (vendor: string) =>
    of(vendor)
      .map(({ id }) => /(\d+)$/.exec(id)?.[1] ?? '')
      .join(',')
  // the driver takes the ids of cards and slices, which stay when their order changes; one known by its number only goes by that
  const nvidia = of('nvidia').map(({ id }) => (/^(GPU|MIG)-/.test(id) ? id : (/(\d+)$/.exec(id)?.[1] ?? '')))
  return {
    CUDA_DEVICE_ORDER: 'PCI_BUS_ID',
    // PyTorch for ROCm reads HIP's; CUDA's would be read as well, and must not hide what HIP shows (ROCR's makes Ray refuse to start)
    CUDA_VISIBLE_DEVICES: of('amd').length > 0 && nvidia.length === 0 ? numbers('amd') : nvidia.join(','),
    HIP_VISIBLE_DEVICES: numbers('amd'),
    ...(of('intel').length > 0 && { ZE_AFFINITY_MASK: numbers('intel') }),
    ...(of('habana').length > 0 && { HABANA_VISIBLE_MODULES: numbers('habana') }),
    ...(of('aws').length > 0 && { NEURON_RT_VISIBLE_CORES: neuronCores(of('aws')) }),
    ...(of('google').length > 0 && tpu(numbers('google'), of('google').length)),
  }
}

/** A part of a host's chips has to be told how the part lies; valid are 1, 2, 4 and 8 (Cloud TPU documentation, libtpu's variables). */
function tpu(chips: string, count: number): Record<string, string> {
  const bounds = { 1: '1,1,1', 2: '1,2,1' }[count]
  return { TPU_VISIBLE_CHIPS: chips, ...(bounds && { TPU_CHIPS_PER_HOST_BOUNDS: bounds, TPU_HOST_BOUNDS: '1,1,1' }) }
}

/** Neuron counts cores, not devices: device 3 of two cores each is cores 6 and 7. */
const neuronCores = (devices: readonly Given[]): string =>
  devices
    .flatMap(({ id, name = '' }) => {
      const cores = { Inferentia: 4, Trainium2: 4 }[name] ?? 2
      const device = Number(/(\d+)$/.exec(id)?.[1] ?? 0)
      return Array.from({ length: cores }, (_, i) => device * cores + i)
    })
    .join(',')
