import { spawnSync } from 'node:child_process';
import { accessSync, constants, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';

/** A toolchain that some tests need and a machine may lack. */
export type Toolchain = 'go' | 'rust' | 'java' | 'python';

const PROGRAMS = {
  go: ['go'],
  rust: ['cargo'],
  java: ['java', 'javac', 'mvn'],
  python: ['python3'],
} as const satisfies Record<Toolchain, readonly string[]>;

/** Why the toolchain cannot be used here, for the title of a skipped test; undefined when it can. */
export function toolchainMissing(toolchain: Toolchain): string | undefined {
  const absent = PROGRAMS[toolchain].filter((program) => !isOnPath(program));
  if (absent.length > 0) return `${absent.join(', ')} not on PATH`;
  if (toolchain === 'python' && !hasVenv() && !hasPip()) return 'python3 has neither venv nor pip';
  return undefined;
}

/** True when `python3 -m venv` makes an environment with pip in it (Debian ships ensurepip apart). */
export function hasVenv(): boolean {
  return spawnSync('python3', ['-c', 'import ensurepip, venv']).status === 0;
}

function hasPip(): boolean {
  return spawnSync('python3', ['-m', 'pip', '--version']).status === 0;
}

function isOnPath(program: string): boolean {
  return (process.env['PATH'] ?? '').split(delimiter).some((directory) => isExecutable(join(directory, program)));
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}
