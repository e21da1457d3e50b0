/** What lies in picture folders without being part of them. Whatever is left out is named to the user with one of these reasons. */

const toolFolders = new Set([
  '__macosx', // what macOS packs beside the files
  '__pycache__',
  'node_modules',
  '@eadir', // Synology thumbnails
  '#recycle',
  '$recycle.bin',
  'system volume information',
  'lost+found',
])
const toolFiles = new Set(['thumbs.db', 'ehthumbs.db', 'desktop.ini', 'icon\r'])

/** Reason to leave a folder out without looking into it, or null. */
export function ignoredFolder(name: string): string | null {
  if (name.startsWith('.')) return 'hidden folder'
  return toolFolders.has(name.toLowerCase()) ? 'folder of a tool' : null
}

/** Reason to leave a file out without looking into it, or null. */
export function ignoredFile(name: string): string | null {
  if (name.startsWith('.')) return 'hidden file' // .DS_Store, ._x and the like
  return toolFiles.has(name.toLowerCase()) ? 'file of the system' : null
}

/** A file with such a name that is no picture is an error to report; any other file that is no picture is none of our business. */
export const pictureNames = /\.(jpe?g|jpe|jfif|png|webp|gif|tiff?|bmp|dib|avif|heic|heif|svg|jxl|jp2|psd|dng|cr2|cr3|nef|arw|raf)$/i
