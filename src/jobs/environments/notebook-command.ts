/** The command of a job that is a notebook. */

/** On the PATH of a job whose spec names a notebook; a program of its environment. */
export const notebookProgram = 'plinth-notebook'

/** The words that run it; the copy with its outputs goes into PLINTH_OUTPUT_DIR. */
export const notebookCommand = (notebook: string, words: readonly string[] = []): string[] => [notebookProgram, notebook, ...words]
